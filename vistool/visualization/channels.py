"""Every channel of a layer as a picture of its own, and their sum: thousands of files, so nothing is laid out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vistool.results import Heatmap, Heatmaps
from vistool.visualization.color_mapping import Look, choose_looks
from vistool.visualization.draw import colorize, resize_map
from vistool.visualization.files import encode_pixels, write_file
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Style

ARGUMENT = 'all_channels'


def channel_pictures(maps: NDArray[np.float32], size: tuple[int, int], style: Style) -> Iterator[tuple[str, Pixels]]:
    """Each channel and the sum of all, by file stem, as uint8 ``(*size, 3)`` RGB; made when asked for.

    Args:
        maps: ``(C, h, w)``.
        size: Height and width of the pictures.
        style: Its ``scale`` (one for all channels unless ``each``; the sum has its own), ``colormap``,
            ``interpolation`` and ``align``.
    """
    digits = len(str(len(maps) - 1))
    for name, look in _looks(maps, style, digits):
        yield name, _paint(look, size, style)


def write_channels(
    maps: NDArray[np.float32], size: tuple[int, int], style: Style, folder: Path, workers: int = 2
) -> list[Path]:
    """Writes :func:`channel_pictures` as PNG files into ``folder``.

    Returns:
        The files: ``channel_0000.png`` …, then ``sum.png``.

    Raises:
        InputError: If the folder cannot be written in.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(named: tuple[str, Look]) -> Path:
        path = folder / f'{named[0]}.png'
        write_file(path, encode_pixels(_paint(named[1], size, style), '.png'), ARGUMENT)
        return path

    digits = len(str(len(maps) - 1))
    with ThreadPoolExecutor(workers, 'channels') as pool:
        return list(pool.map(write, _looks(maps, style, digits)))


def _looks(maps: NDArray[np.float32], style: Style, digits: int) -> Iterator[tuple[str, Look]]:
    items = [Heatmap(values, f'channel_{number:0{digits}}', 'channels') for number, values in enumerate(maps)]
    items.append(Heatmap(maps.sum(0, dtype=np.float64).astype(np.float32), 'sum', 'sum'))
    nothing = np.zeros((1, 1, 3), np.uint8)
    looks = choose_looks(Heatmaps('feature', nothing, tuple(items)), style)
    return zip([item.name for item in items], looks, strict=True)


def _paint(look: Look, size: tuple[int, int], style: Style) -> Pixels:
    if look.interpolation == 'nearest':
        # Colours before sizes: a nearest neighbour has the same colour, and there are fewer to look up
        colours = colorize(look.values, look.table)
        return np.ascontiguousarray(resize_map(colours, size, 'nearest', style.align))  # type: ignore[arg-type]
    return colorize(resize_map(look.values, size, look.interpolation, style.align), look.table)
