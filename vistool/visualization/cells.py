"""Tiles, color bars and marks, before they have a place."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vistool.errors import param
from vistool.visualization import text as fonts
from vistool.visualization.draw import Map, colorize
from vistool.visualization.scene import BLACK, WHITE, Box, Color, ImageItem, PathItem, Pixels, TextItem, Tile
from vistool.visualization.style import Page


@dataclass(frozen=True)
class Bar:
    """The scale of a map: the values at the ends of a 256-color table. Equal scales have equal keys."""

    key: str
    low: float
    high: float
    table: Pixels = field(compare=False)


def bar_width(bar: Bar, page: Page) -> float:
    """Room that a bar takes beside a tile: a gap, the strip and its numbers."""
    widest = max(fonts.text_width(text, page.small_font) for _, text in _ticks(bar))
    return page.gap + _slimness(page) + 0.5 * page.gap + widest


def _slimness(page: Page) -> float:
    return 4.0 if page.paper else 7.0


def _ticks(bar: Bar) -> list[tuple[float, str]]:
    """Places on a bar, 0 at its lower end, and the numbers there."""
    ticks = [(0.0, number(bar.low)), (1.0, number(bar.high))]
    if bar.low < 0 < bar.high:
        ticks.insert(1, (-bar.low / (bar.high - bar.low), '0'))
    return ticks


def number(value: float) -> str:
    """A value with three digits: ``0.125``, ``1230``, ``2.1e−5``."""
    if value == 0 or not math.isfinite(value):
        return '0' if value == 0 else str(value)
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f'{value:.{digits}f}'
        text = text.rstrip('0').rstrip('.') if '.' in text else text
    else:
        mantissa, exponent = f'{value:.1e}'.split('e')
        text = f'{mantissa}e{int(exponent)}'
    return text.replace('-', '−')


def bar_items(bar: Bar, left: float, top: float, bottom: float, page: Page) -> Iterator[ImageItem | TextItem]:
    """The strip and its numbers, with the strip's left edge at ``left``."""
    slim, size = _slimness(page), page.small_font
    yield ImageItem(Box(left, top, slim, bottom - top), partial(_gradient, bar.table))
    free = bottom - top - 2 * size
    for place, text in _ticks(bar):
        if 0 < place < 1 and not size < place * free + size / 2 < free:
            continue  # no room for the zero between the ends
        # The end labels lie within the bar's length; 0.76 of the size is the height of a digit.
        baseline = bottom - place * (bottom - top - 0.76 * size)
        yield TextItem(left + slim + 0.5 * page.gap, baseline, text, size)


def _gradient(table: Pixels, size: tuple[int, int]) -> Pixels:
    height, width = size
    values: Map = np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    return colorize(values, table)


Point = tuple[int, int]


def contours(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around the cells of a mask, holes included, along the cells' edges.

    Args:
        mask: ``(h, w)``.

    Returns:
        One ``(n, 2)`` array of corners ``(x, y)`` per line, in fractions of the mask's width and height.
    """
    height, width = mask.shape
    edges: dict[Point, list[Point]] = {}
    for start, end in _edges(mask):
        edges.setdefault(start, []).append(end)
    lines = []
    while edges:
        first = next(iter(edges))
        line, here = [first], _next(edges, first, None)
        while here != first:
            line.append(here)
            here = _next(edges, here, line[-2])
        lines.append(np.array(_corners(line), np.float64) / (width, height))
    return lines


def _edges(mask: NDArray[np.bool_]) -> Iterator[tuple[Point, Point]]:
    """Edges between inside and outside, directed so that the inside is at their right."""
    padded = np.pad(mask, 1)
    for y, x in zip(*np.nonzero(mask), strict=True):
        row, column = int(y), int(x)
        if not padded[row, column + 1]:
            yield (column, row), (column + 1, row)
        if not padded[row + 2, column + 1]:
            yield (column + 1, row + 1), (column, row + 1)
        if not padded[row + 1, column]:
            yield (column, row + 1), (column, row)
        if not padded[row + 1, column + 2]:
            yield (column + 1, row), (column + 1, row + 1)


def _next(edges: dict[Point, list[Point]], here: Point, before: Point | None) -> Point:
    """Takes an edge that starts ``here``; where two cells touch at a corner, the one that stays with its own cell."""
    ends = edges[here]
    choice = 0
    if len(ends) > 1 and before is not None:
        step = here[0] - before[0], here[1] - before[1]
        right = here[0] - step[1], here[1] + step[0]
        choice = ends.index(right) if right in ends else 0
    end = ends.pop(choice)
    if not ends:
        del edges[here]
    return end


def _corners(line: list[Point]) -> list[Point]:
    """The points at which a closed line turns."""
    turns = []
    for before, here, after in zip([line[-1], *line[:-1]], line, [*line[1:], line[0]], strict=True):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            turns.append(here)
    return turns


log = logging.getLogger('vistool')

# A label takes at most this part of its field's width.
_FILLED = 0.95


@dataclass(frozen=True)
class Outline:
    """A closed line on a tile; points in fractions of its width and height, width in thin lines, ``halo`` around it."""

    points: tuple[tuple[float, float], ...]
    color: Color = WHITE
    width: float = 1.0
    halo: float = 0.0


@dataclass(frozen=True)
class Ring:
    """A small circle around a point of a tile, given in fractions of its width and height."""

    x: float
    y: float


@dataclass(frozen=True)
class Labels:
    """Short texts, each in the middle of one of equal fields of a tile; all of them are drawn, or none.

    Attributes:
        texts: Where, in fractions of the tile's width and height; what; its color.
        field: Width and height of a field, likewise.
    """

    texts: tuple[tuple[float, float, str, Color], ...]
    field: tuple[float, float]


Mark = Outline | Ring | Labels


@dataclass(frozen=True)
class Cell:
    """A tile and what is said about it.

    Attributes:
        tile: Draws the picture.
        aspect: Width divided by height.
        title: Lines above.
        footer: Lines below.
        title_color: Color of the title.
        footer_color: Color of the footer.
        note: A remark on the tile.
        marks: Lines drawn over the tile.
        bar: Its color scale, where a bar is to be drawn.
        height: How high it would like to be on the screen, in pixels; 0: as other tiles are.
        unit: Its parts are equally large where its height is a multiple of this many pixels; 0: it has no parts.
    """

    tile: Tile
    aspect: float
    title: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    title_color: Color = BLACK
    footer_color: Color = BLACK
    note: str = ''
    marks: tuple[Mark, ...] = ()
    bar: Bar | None = None
    height: float = 0.0
    unit: int = 0


@dataclass(frozen=True)
class Line:
    """A line of tiles, some places of which may be empty, and a label.

    Attributes:
        cells: The tiles.
        label: The label, written upwards.
        label_at: The column before which labels stand; all lines of a picture agree.
    """

    cells: tuple[Cell | None, ...]
    label: str = ''
    label_at: int = 0


def mark_items(mark: Mark, box: Box, page: Page) -> Iterator[PathItem | TextItem]:
    """The lines and texts of a mark on the tile in ``box``."""
    if isinstance(mark, Labels):
        yield from _label_items(mark, box, page)
        return
    thin = 0.5 if page.paper else 1.0
    if isinstance(mark, Ring):
        radius = min(max(0.03 * box.height, 2.5 * thin), 0.2 * min(box.width, box.height))
        angles = np.linspace(0, 2 * np.pi, 33)[:-1]
        center_x, center_y = box.x + mark.x * box.width, box.y + mark.y * box.height
        points = tuple((center_x + radius * float(np.cos(a)), center_y + radius * float(np.sin(a))) for a in angles)
        yield PathItem(points, BLACK, 3.5 * thin, box)
        yield PathItem(points, WHITE, 1.8 * thin, box)
        return
    points = tuple((box.x + x * box.width, box.y + y * box.height) for x, y in mark.points)
    if mark.halo:
        yield PathItem(points, WHITE, (mark.width + 2 * mark.halo) * thin, box)
    yield PathItem(points, mark.color, mark.width * thin, box)


def label_room(texts: Sequence[str]) -> tuple[float, float]:
    """Width and height of the smallest field in which these texts can be drawn, for a font of size 1."""
    return max(map(_unit_width, texts), default=0.0) / _FILLED, 1.1


def _label_items(mark: Labels, box: Box, page: Page) -> Iterator[TextItem]:
    width, height = label_room([text for _, _, text, _ in mark.texts])
    size = min(page.font, mark.field[0] * box.width / width, mark.field[1] * box.height / height) if width else 0.0
    if size < page.least_font:
        log.warning(
            'the labels on the patches are left out: at this size they could not be read; try a larger '
            f'{param("width")}'
        )
        return
    for x, y, text, color in mark.texts:
        left, base = box.x + x * box.width, box.y + y * box.height + 0.36 * size
        halo = WHITE if color == BLACK else BLACK
        yield TextItem(left, base, text, size, color, 'center', halo=halo)


def _unit_width(text: str) -> float:
    return fonts.text_width(text, 100.0) / 100.0
