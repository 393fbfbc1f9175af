"""Every channel of a layer as a picture of its own, and their sum: thousands of files, so nothing is laid out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vistool.results import ChannelStack, Coordinates, Heatmap, Heatmaps
from vistool.visualization.color_mapping import ColorMapping, map_colors
from vistool.visualization.draw import colorize, resize_map
from vistool.visualization.files import safe_name
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Style


def channel_files(result: ChannelStack, style: Style) -> Iterator[tuple[str, Pixels]]:
    """All pictures of a stack by path without suffix: ``[MODEL/]IMAGE/LAYER/channel_0000`` …, then ``sum``."""
    for each in result.layers:
        parts = [*([each.model] if each.model else []), result.name, each.layer]
        folder = '/'.join(safe_name(part) for part in parts)
        for name, pixels in channel_pictures(each.values, result.size, style):
            yield f'{folder}/{name}', pixels


def channel_pictures(maps: NDArray[np.float32], size: tuple[int, int], style: Style) -> Iterator[tuple[str, Pixels]]:
    """Each channel and the sum of all, by file stem, as uint8 ``(*size, 3)`` RGB; made one by one.

    Args:
        maps: ``(C, h, w)``.
        size: Height and width of the pictures.
        style: Its ``scale`` (one for all channels unless ``each``; the sum has its own), ``colormap``,
            ``interpolation`` and ``align``.
    """
    digits = len(str(len(maps) - 1))
    for name, colors in _colored(maps, style, digits):
        yield name, _paint(colors, size, style)


def as_heatmaps(result: ChannelStack) -> Heatmaps:
    """A stack as one figure of all channels."""
    maps = [
        Heatmap(values, Coordinates({'layer': each.layer, 'channel': channel}))
        for each in result.layers
        for channel, values in enumerate(each.values)
    ]
    return Heatmaps('feature', np.full((*result.size, 3), 255, np.uint8), tuple(maps), provenance=result.provenance)


def _colored(maps: NDArray[np.float32], style: Style, digits: int) -> Iterator[tuple[str, ColorMapping]]:
    """The channels on one scale, and their sum on its own."""
    total = maps.sum(0, dtype=np.float64).astype(np.float32)
    items = [Heatmap(values, Coordinates(layer='channels', channel=number)) for number, values in enumerate(maps)]
    items.append(Heatmap(total, Coordinates(layer='sum', reduction='sum')))
    nothing = np.zeros((1, 1, 3), np.uint8)
    names = [*(f'channel_{number:0{digits}}' for number in range(len(maps))), 'sum']
    return zip(names, map_colors(Heatmaps('feature', nothing, tuple(items)), style), strict=True)


def _paint(mapping: ColorMapping, size: tuple[int, int], style: Style) -> Pixels:
    if mapping.interpolation == 'nearest':
        # Colors before sizes: a nearest neighbor has the same color, and there are fewer values to look up.
        colors = colorize(mapping.values, mapping.table)
        return np.ascontiguousarray(resize_map(colors, size, 'nearest', style.align))  # type: ignore[arg-type]
    return colorize(resize_map(mapping.values, size, mapping.interpolation, style.align), mapping.table)
