"""Every channel of a layer as a picture of its own, and their sum: thousands of files, so nothing is laid out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vistool.results import ChannelStack, Heatmap, Heatmaps
from vistool.visualization.color_mapping import Look, choose_looks
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
    for name, look in _looks(maps, style, digits):
        yield name, _paint(look, size, style)


def as_heatmaps(result: ChannelStack) -> Heatmaps:
    """A stack as one figure of all channels."""
    maps = [
        Heatmap(values, f'{each.layer}/channel {channel}', each.layer, '', f'channel {channel}')
        for each in result.layers
        for channel, values in enumerate(each.values)
    ]
    return Heatmaps('feature', np.full((*result.size, 3), 255, np.uint8), tuple(maps), provenance=result.provenance)


def _looks(maps: NDArray[np.float32], style: Style, digits: int) -> Iterator[tuple[str, Look]]:
    items = [Heatmap(values, f'channel_{number:0{digits}}', 'channels') for number, values in enumerate(maps)]
    items.append(Heatmap(maps.sum(0, dtype=np.float64).astype(np.float32), 'sum', 'sum'))
    nothing = np.zeros((1, 1, 3), np.uint8)
    looks = choose_looks(Heatmaps('feature', nothing, tuple(items)), style)
    return zip([item.name for item in items], looks, strict=True)


def _paint(look: Look, size: tuple[int, int], style: Style) -> Pixels:
    if look.interpolation == 'nearest':
        # Colors before sizes: a nearest neighbor has the same color, and there are fewer values to look up.
        colors = colorize(look.values, look.table)
        return np.ascontiguousarray(resize_map(colors, size, 'nearest', style.align))  # type: ignore[arg-type]
    return colorize(resize_map(look.values, size, look.interpolation, style.align), look.table)
