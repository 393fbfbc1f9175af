"""Tiles in lines, with titles, labels and bars, arranged on a page: what all layouts have in common."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vistool.errors import param
from vistool.visualization import text as fitting
from vistool.visualization import text as fonts
from vistool.visualization.raster import Map, colorize
from vistool.visualization.scene import (
    BLACK,
    GRAY,
    WHITE,
    Box,
    Color,
    ImageItem,
    PathItem,
    Pixels,
    Scene,
    TextItem,
    Tile,
)
from vistool.visualization.style import Page


@dataclass(frozen=True)
class Bar:
    """The scale of a map: values at the ends of a 256-color table, and what they are. Equal scales have equal keys."""

    key: str
    low: float
    high: float
    table: Pixels = field(compare=False)
    title: str = field(default='', compare=False)


def bar_width(bar: Bar, page: Page, titled: bool = False) -> float:
    """Room that a bar takes beside a tile: a gap, the strip, its numbers, and its title where it has one."""
    title = fonts.LINE_HEIGHT * page.small_font if titled and bar.title else 0.0
    return page.gap + _numbers_end(bar, page) + title


def _numbers_end(bar: Bar, page: Page) -> float:
    """From the left edge of a bar's strip to the right edge of its numbers."""
    widest = max(fonts.text_width(text, page.small_font) for _, text in _ticks(bar))
    return _slimness(page) + 0.5 * page.gap + widest


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


def bar_items(
    bar: Bar, left: float, top: float, bottom: float, page: Page, titled: bool = False
) -> Iterator[ImageItem | TextItem]:
    """The strip, its numbers, and its title if it fits beside them, with the strip's left edge at ``left``."""
    slim, size = _slimness(page), page.small_font
    yield ImageItem(Box(left, top, slim, bottom - top), partial(_gradient, bar.table))
    free = bottom - top - 2 * size
    for place, text in _ticks(bar):
        if 0 < place < 1 and not size < place * free + size / 2 < free:
            continue  # no room for the zero between the ends
        # The end labels lie within the bar's length; 0.76 of the size is the height of a digit.
        baseline = bottom - place * (bottom - top - 0.76 * size)
        yield TextItem(left + slim + 0.5 * page.gap, baseline, text, size)
    if titled and bar.title:
        fitted = size * min(1.0, (bottom - top) / fonts.text_width(bar.title, size))
        if fitted >= page.least_font:
            baseline = left + _numbers_end(bar, page) + fonts.ASCENT * size
            yield TextItem(baseline, (top + bottom) / 2, bar.title, fitted, anchor='center', vertical=True)


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
    """A small circle around a point of a tile, given in fractions of its width and height; whole at an edge too."""

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


@dataclass(frozen=True)
class Frame:
    """A rectangle around something on a tile, with a short text at its upper left corner.

    Attributes:
        left: Its edges, in fractions of the tile's width and height.
        top: Likewise.
        right: Likewise.
        bottom: Likewise.
        color: Of the line, and of the ground of the text.
        text: The text, or ``''``.
        strong: Whether it is what the tile is about; others are thin.
    """

    left: float
    top: float
    right: float
    bottom: float
    color: Color = WHITE
    text: str = ''
    strong: bool = False


class Drawn:
    """A mark that says itself which lines and texts it consists of."""

    def items(self, box: Box, page: Page) -> Iterator[PathItem | TextItem]:
        """Its lines and texts on the tile in ``box``."""
        raise NotImplementedError


Mark = Outline | Ring | Labels | Frame | Drawn


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
        numbers: Short texts below the footer, as many in a line as fit.
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
    numbers: tuple[str, ...] = ()
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
        remark: A small gray text below, from the left edge of the first tile to the right edge of the picture.
        lead: So many of the first places belong to several lines: a tile stands in the middle of its line and the lines
            below that have nothing there.
        continues: Whether the line goes on with what the line above began, so that both have one label.
        centered: Whether the tiles behind the lead have no columns of their own, and stand in the middle.
    """

    cells: tuple[Cell | None, ...]
    label: str = ''
    label_at: int = 0
    remark: str = ''
    lead: int = 0
    continues: bool = False
    centered: bool = False


def mark_items(marks: Sequence[Mark], box: Box, page: Page) -> Iterator[PathItem | TextItem]:
    """The lines and texts of marks on the tile in ``box``; names of frames lie above all lines."""
    for mark in marks:
        yield from _items_of_mark(mark, box, page)
    yield from _names_of_frames([mark for mark in marks if isinstance(mark, Frame) and mark.text], box, page)


def _items_of_mark(mark: Mark, box: Box, page: Page) -> Iterator[PathItem | TextItem]:
    if isinstance(mark, Labels):
        yield from _label_items(mark, box, page)
        return
    if isinstance(mark, Drawn):
        yield from mark.items(box, page)
        return
    thin = 0.5 if page.paper else 1.0
    if isinstance(mark, Frame):
        yield from _frame_items(mark, box, thin)
        return
    if isinstance(mark, Ring):
        radius = min(max(0.03 * box.height, 2.5 * thin), 0.2 * min(box.width, box.height))
        angles = np.linspace(0, 2 * np.pi, 33)[:-1]
        room = radius + 1.75 * thin  # at an edge the ring moves inside, so that it is whole
        center_x = min(max(box.x + mark.x * box.width, box.x + room), box.right - room)
        center_y = min(max(box.y + mark.y * box.height, box.y + room), box.bottom - room)
        points = tuple((center_x + radius * float(np.cos(a)), center_y + radius * float(np.sin(a))) for a in angles)
        yield PathItem(points, BLACK, 3.5 * thin, box)
        yield PathItem(points, WHITE, 1.8 * thin, box)
        return
    points = tuple((box.x + x * box.width, box.y + y * box.height) for x, y in mark.points)
    if mark.halo:
        yield PathItem(points, WHITE, (mark.width + 2 * mark.halo) * thin, box)
    yield PathItem(points, mark.color, mark.width * thin, box)


def _frame_items(mark: Frame, box: Box, thin: float) -> Iterator[PathItem]:
    """The rectangle within the tile."""
    inset = (1.0 if mark.strong else 0.5) * thin
    left, right = (box.x + min(max(x, 0.0), 1.0) * box.width for x in (mark.left, mark.right))
    top, bottom = (box.y + min(max(y, 0.0), 1.0) * box.height for y in (mark.top, mark.bottom))
    left, right = max(left, box.x + inset), min(right, box.right - inset)
    top, bottom = max(top, box.y + inset), min(bottom, box.bottom - inset)
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    yield PathItem(corners, BLACK, (3.6 if mark.strong else 1.7) * thin, box)
    yield PathItem(corners, mark.color, (1.9 if mark.strong else 0.8) * thin, box)


def _names_of_frames(frames: Sequence[Frame], box: Box, page: Page) -> Iterator[TextItem]:
    """The texts of frames, each beside its own, placed so that none covers another.

    What the tile is about is placed first, then the frames that are drawn on top. A text stands above its frame's upper
    left corner if that is free, else at another corner, else at the free place in the tile that is nearest.
    """
    thin, size = 0.5 if page.paper else 1.0, page.small_font
    height = size * fonts.LINE_HEIGHT
    taken: list[Box] = []
    left_out = 0
    on_top_first = [*reversed(frames)]
    for mark in sorted(on_top_first, key=lambda each: not each.strong):
        text = fitting.elide(mark.text, size, box.width - 2 * thin)
        width = fonts.text_width(text, size) + 2 * thin
        place = next((each for each in _beside(mark, box, width, height) if not _touches(each, taken)), None)
        if place is None:
            left_out += 1
            continue
        taken.append(place)
        dark = sum(mark.color) < 2 * 255
        base = place.y + fonts.ASCENT * size
        yield TextItem(place.x + thin, base, text, size, WHITE if dark else BLACK, ground=mark.color)
    if left_out:
        log.info('%d of %d names on a tile are left out: there is no room for them', left_out, len(frames))


def _beside(mark: Frame, box: Box, width: float, height: float) -> Iterator[Box]:
    """Places for a text of this size within the tile: at the frame's corners, then everywhere, the nearest first."""
    left, right = (box.x + min(max(x, 0.0), 1.0) * box.width for x in (mark.left, mark.right))
    top, bottom = (box.y + min(max(y, 0.0), 1.0) * box.height for y in (mark.top, mark.bottom))
    most_x, most_y = max(box.right - width, box.x), max(box.bottom - height, box.y)

    def at(x: float, y: float) -> Box:
        return Box(min(max(x, box.x), most_x), min(max(y, box.y), most_y), width, height)

    for y in (top - height, top, bottom, bottom - height):
        for x in (left, right - width):
            if box.y <= y <= most_y:
                yield at(x, y)
    rows = np.arange(box.y, most_y + 0.1, height / 2)
    columns = np.linspace(box.x, most_x, 9)
    everywhere = [(abs(x - left) + abs(y - top), x, y) for y in rows.tolist() for x in (left, *columns.tolist())]
    yield from (at(x, y) for _, x, y in sorted(everywhere))


def _touches(place: Box, others: Sequence[Box]) -> bool:
    return any(
        place.x < other.right and other.x < place.right and place.y < other.bottom and other.y < place.bottom
        for other in others
    )


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


_TILE = 320.0
"""A tile on the screen has the area of a square of this side: tall and wide photos are equally easy to see."""
SCREEN_WIDTH = 1950.0
"""Pictures for the screen are at most this wide; their tiles become smaller instead."""
_TALLEST_PAPER_TILE = 288.0
"""The height of one tile makes a picture on paper at most this tall (4 in)."""
_TALLEST_PAPER_PICTURE = 495.0
"""A tile that asks for a height of its own makes it at most this tall: the width of a page."""
NARROWEST, WIDEST = 0.25, 8.0
"""The place of a tile is at least and at most so wide, for its height: titles need room above very tall photos, and a
scan of 3000×2 is drawn across the place, with white above and below."""
_WIDER_THAN_MOST = 2.0
"""Among others the place of a tile is at most so many times as wide as most, which keep their size."""
_THINNEST = {True: 2.0, False: 4.0}
"""A thin picture is drawn at least this thick, in units on paper (True) and on the screen, so that it can be seen."""
_LABEL_ROOM = 5.0
"""Where labels beside a tile would be cut, it is at least so many times the font's size high."""
_CAPTION_LINES = 3
_LABEL_LINES = 3
# Photos that are narrower than their columns get up to so many times as high as those that fill them.
_HIGHER = 4 / 3


def natural_height(aspect: float) -> float:
    """Height of a tile on the screen, in pixels, for its width divided by its height."""
    width = _TILE * math.sqrt(aspect)
    return round(min(max(width, 150.0), 2 * _TILE) / aspect) if 0.1 < aspect < 10 else round(_TILE)


class Measures:
    """Widths and heights that the positions follow from."""

    def __init__(self, lines: Sequence[Line], page: Page) -> None:
        self.page = page
        self.count = max(len(line.cells) for line in lines)
        padded = [[*line.cells, *[None] * (self.count - len(line.cells))] for line in lines]
        columns = [[cell for row in padded if (cell := row[j])] for j in range(self.count)]
        every = sorted(_place_aspect(cell) for column in columns for cell in column)
        most = _WIDER_THAN_MOST * every[(len(every) - 1) // 2]
        self.aspects = [max((_place_aspect(cell, most) for cell in column), default=0.0) for column in columns]
        self.titled = {_last_bar(row) for row in padded}
        self.bars = [
            max((bar_width(bar, page, j in self.titled) for row in padded if (bar := _ends_run(row, j))), default=0.0)
            for j in range(self.count)
        ]
        cells = [cell for line in lines for cell in line.cells if cell]
        self.wanted = max((cell.height for cell in cells), default=0.0)
        self.unit = max((cell.unit for cell in cells), default=0)
        self.gap = page.gap
        self.label_at = min(max(line.label_at for line in lines), self.count - 1)
        self.label_lines, self.room = 0, 0.0
        labels = [line.label for line in lines if line.label]
        self.picture = self._tile_height()
        # The more lines labels take, the smaller the tiles; what does not fit on the last is elided.
        while labels and self.label_lines < _LABEL_LINES and not self._labels_fit(labels):
            self.label_lines += 1
            self.picture = self._tile_height()
        if labels:
            self.room = 0.0 if self._labels_fit(labels) else _LABEL_ROOM * page.font
            used = [fitting.wrap(label, page.font, self.height, self.label_lines) for label in labels]
            self.label_lines = max(len(each) for each in used)
            self.picture = self._tile_height()
        self.widths = [self.snap(self.picture * aspect) for aspect in self.aspects]
        self.content = self.label + sum(self.widths) + sum(self.bars) + self.gap * (self.count - 1)
        self.width = page.width or self.content + 2 * page.margin
        self.left = max(page.margin, (self.width - self.content) / 2)

    @property
    def height(self) -> float:
        """Height of a tile's place; the picture may be lower."""
        return max(self.picture, self.room)

    @property
    def label(self) -> float:
        """Width of the column of labels."""
        return self.label_lines * self.page.font * fonts.LINE_HEIGHT + (self.page.gap if self.label_lines else 0.0)

    def _labels_fit(self, labels: Sequence[str]) -> bool:
        if not self.label_lines:
            return False
        wrapped = [fitting.wrap(label, self.page.font, self.height, self.label_lines) for label in labels]
        return all(all(each) and '…' not in ''.join(each) for each in wrapped)  # '': not even the ellipsis

    def snap(self, value: float) -> float:
        """A length in whole pixels on the screen."""
        return float(round(value)) if self.page.width is None else value

    def _tile_height(self) -> float:
        page, total = self.page, sum(self.aspects)
        # A mosaic of many small tiles is looked at as one picture, and its gaps must not outweigh them.
        limit = page.width or (SCREEN_WIDTH if self.count <= 12 else SCREEN_WIDTH / 2)
        space = max(limit - 2 * page.margin - self.label - sum(self.bars), 1.0)
        self.gap = min(self.gap, 0.1 * space / self.count)
        fitting = max((space - self.gap * (self.count - 1)) / total, 0.05)
        if page.width is not None:
            tallest = _TALLEST_PAPER_TILE if not self.wanted else _TALLEST_PAPER_PICTURE
            return min(fitting, tallest if page.paper else 4 * page.width)
        natural = self.wanted or natural_height(float(np.median([a for a in self.aspects if a])))
        height = math.floor(min(fitting, natural))
        return float(height - height % self.unit if height >= self.unit > 0 else height)

    def line_heights(self, line: Line, fill: bool) -> tuple[float, float]:
        """Height of a line's pictures, and of its place: that of all lines, but as low as pictures that are all lower.

        Args:
            line: The line.
            fill: Whether pictures that are narrower than all their columns become higher, up to a third.
        """
        cells = [(cell, width) for cell, width in zip(line.cells, self.widths, strict=False) if cell]
        if not cells or self.wanted or self.unit:
            return self.picture, self.height
        grown = min(width / (self.picture * cell.aspect) for cell, width in cells)
        picture = self.picture * min(grown, _HIGHER) if fill and grown > 1.05 else self.picture
        highest = max(self._size(cell, width, picture)[1] for cell, width in cells)
        label = fitting.wrap(line.label, self.page.font, self.height, max(1, self.label_lines))
        longest = max((fitting.text_width(text, self.page.font) for text in label), default=0.0)
        return picture, max(highest, min(self.height, longest))

    def box(self, cell: Cell, left: float, top: float, width: float, heights: tuple[float, float]) -> Box:
        """Where the picture of ``cell`` lies in the place that starts at ``left``, ``top``.

        Args:
            cell: The tile.
            left: Of its place.
            top: Likewise.
            width: Likewise.
            heights: Of the line's pictures and of its place.
        """
        own, height = self._size(cell, width, heights[0])
        free = heights[1] - height
        return Box(left + self.snap((width - own) / 2), top + self.snap(free / 2), own, height)

    def _size(self, cell: Cell, width: float, picture: float) -> tuple[float, float]:
        """Width and height of a picture in a column of this width."""
        thin = min(_THINNEST[self.page.paper], picture, width)
        own = min(width, max(1.0, thin, self.snap(picture * cell.aspect)))
        if picture * cell.aspect > 1.05 * width:  # more than rounding
            return own, max(1.0, thin, self.snap(width / cell.aspect))
        return own, self.snap(picture)

    def column_widths(self) -> list[float]:
        """Widths of the columns in which there is a tile."""
        return [width for width, aspect in zip(self.widths, self.aspects, strict=True) if aspect]

    def lefts(self) -> list[float]:
        """Left edges of the columns."""
        x, edges = self.left, []
        for column, (width, bar) in enumerate(zip(self.widths, self.bars, strict=True)):
            x += self.label if column == self.label_at else 0.0
            edges.append(x)
            x += width + bar + self.gap
        return edges

    def shift(self, line: Line) -> float:
        """How far the tiles of a line lie to the right of their columns: those of a centered line, else 0."""
        if not line.centered or line.lead >= len(line.cells):
            return 0.0
        last = len(line.cells) - 1
        bar = self.bars[last] if _ends_run(line.cells, last) else 0.0
        end = self.lefts()[last] + self.widths[last] + bar
        return self.snap((self.left + self.content - end) / 2)


def _place_aspect(cell: Cell, most: float = WIDEST) -> float:
    """Width divided by height of a tile's place; ``most`` limits that of a very wide one."""
    thin = cell.aspect > WIDEST and not cell.height
    return max(min(WIDEST, most) if thin else cell.aspect, NARROWEST)


def single(cell: Cell, size: tuple[int, int], page: Page, canvas: tuple[int, int] | None = None) -> Scene:
    """A tile alone with the lines drawn over it, ``(height, width)`` units large.

    Args:
        cell: The tile.
        size: Its height and width.
        page: Measures.
        canvas: Height and width of the picture, in whose middle the tile lies; None: those of the tile.
    """
    height, width = canvas or size
    box = Box(float((width - size[1]) // 2), float((height - size[0]) // 2), float(size[1]), float(size[0]))
    marks = mark_items(cell.marks, box, page)
    return Scene(float(width), float(height), (ImageItem(box, cell.tile), *marks))


def arrange(lines: Sequence[Line], page: Page, caption: str = '', fill: bool = False) -> Scene:
    """Lines of tiles as a picture.

    Tiles of one shape have one height. Columns are as wide as their widest tile, in which the others are centered; see
    :meth:`Measures.line_heights` for lines with other photos. A bar stands
    after the last of neighboring tiles that share a scale, and spans lines that share it, up to a remark.

    Args:
        lines: What to draw, from the top.
        page: Measures, and the total width where it is fixed.
        caption: What is constant; drawn for the screen only.
        fill: Whether photos of other shapes may be higher, so that less white is around them.
    """
    measures = Measures(lines, page)
    lines = [_with_wrapped_texts(line, measures) for line in lines]
    heights = [measures.line_heights(line, fill) for line in lines]
    reach = _Reach(lines, measures, heights)
    items: list[ImageItem | TextItem | PathItem] = []
    y = page.margin
    if caption and not page.paper:
        for text in fitting.wrap(caption, page.small_font, measures.width - 2 * page.margin, _CAPTION_LINES):
            items.append(TextItem(page.margin, y + fonts.ASCENT * page.small_font, text, page.small_font, GRAY))
            y += fonts.LINE_HEIGHT * page.small_font
        y += page.gap
    spans: list[tuple[float, float]] = []
    for number, line in enumerate(lines):
        above = lines[number - 1] if number else None
        y += measures.gap * (1 + bool(above.remark)) if above else 0.0  # a remark belongs to what is above it
        titles, footers = (_text_lines(reach.own(number), measures, which) for which in ('title', 'footer'))
        y += titles * fonts.LINE_HEIGHT * page.font
        y = y if page.paper else float(math.ceil(y))
        spans.append((y, y + heights[number][1]))
        y += heights[number][1] + footers * fonts.LINE_HEIGHT * page.font
        for text in _remark_lines(line, measures):
            items.append(TextItem(measures.left, y + fonts.ASCENT * page.small_font, text, page.small_font, GRAY))
            y += fonts.LINE_HEIGHT * page.small_font
    for number in range(len(lines)):
        items.extend(_line_items(number, measures, spans, reach))
    items.extend(_bar_items(lines, measures, spans))
    height = y + page.margin
    return Scene(_whole(measures.width, page), _whole(height, page), tuple(items))


class _Reach:
    """Which lines the labels and the tiles at the left of a picture stand beside.

    Args:
        lines: The lines.
        measures: Their measures.
        heights: Of each line's pictures and of its place.
    """

    def __init__(self, lines: Sequence[Line], measures: Measures, heights: Sequence[tuple[float, float]]) -> None:
        self.lines, self.measures, self.heights = lines, measures, heights

    def label(self, number: int) -> int:
        """The last line beside which the label of a line stands."""
        last = number
        while last + 1 < len(self.lines) and self.lines[last + 1].continues:
            last += 1
        return last

    def tile(self, number: int, column: int) -> int:
        """The last line beside which a tile stands; its own where its titles have no room beside more."""
        cell, last = self.lines[number].cells[column], number
        if cell is None or column >= self.lines[number].lead:
            return number
        while last + 1 < len(self.lines) and self._is_free(last + 1, column):
            last += 1
        room = sum(place for _, place in self.heights[number : last + 1]) + self.measures.gap * (last - number)
        texts = max(len(cell.title), len(cell.footer)) * fonts.LINE_HEIGHT * self.measures.page.font
        return last if self.heights[number][1] + 2 * texts <= room else number

    def _is_free(self, number: int, column: int) -> bool:
        line = self.lines[number]
        return column < line.lead and line.cells[column] is None and not self.lines[number - 1].remark

    def own(self, number: int) -> Line:
        """A line without the tiles that stand beside other lines too."""
        line = self.lines[number]
        cells = (None if self.tile(number, column) > number else cell for column, cell in enumerate(line.cells))
        return replace(line, cells=tuple(cells))


def _whole(value: float, page: Page) -> float:
    return float(math.ceil(value)) if not page.paper else value


def _with_wrapped_texts(line: Line, measures: Measures) -> Line:
    """Titles and footers of one line that are wider than their tile, on two; numbers in lines below the footer.

    A size such as ``112×112×16`` that does not fit the second line goes on to a third.
    """

    def on_two(texts: tuple[str, ...], width: float) -> tuple[str, ...]:
        if len(texts) != 1:
            return texts
        lines = fitting.wrap(texts[0], measures.page.font, width, 2)
        return tuple(lines if all(lines) else fitting.wrap(texts[0], measures.page.font, width, 3))

    def wrapped(cell: Cell, width: float) -> Cell:
        footer = (*on_two(cell.footer, width), *_packed(cell.numbers, measures.page.font, width))
        return replace(cell, title=on_two(cell.title, width), footer=footer, numbers=())

    cells = (cell and wrapped(cell, width) for cell, width in zip(line.cells, measures.widths, strict=False))
    return replace(line, cells=tuple(cells))


def _packed(texts: Sequence[str], size: float, width: float) -> list[str]:
    """Short texts in lines, as many in each as fit; none is broken."""
    lines: list[str] = []
    for text in texts:
        longer = f'{lines[-1]} {text}' if lines else text
        if lines and fitting.text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(text)
    return lines


def _text_lines(line: Line, measures: Measures, which: str) -> int:
    cells = [cell for cell in line.cells if cell is not None]
    if not _readable(measures):
        return 0
    return max((len(getattr(cell, which)) for cell in cells), default=0)


def _remark_lines(line: Line, measures: Measures) -> list[str]:
    page = measures.page
    room = measures.width - measures.left - page.margin
    return fitting.wrap(line.remark, page.small_font, room, _CAPTION_LINES) if line.remark else []


def _readable(measures: Measures) -> bool:
    """Whether tiles are large enough for text at all."""
    return max(measures.widths) >= 1.5 * measures.page.font


def _line_items(
    number: int, measures: Measures, spans: Sequence[tuple[float, float]], reach: _Reach
) -> Iterator[ImageItem | TextItem | PathItem]:
    """The label, tiles and texts of a line.

    Args:
        number: Which line.
        measures: Widths and heights.
        spans: Upper and lower edge of the tiles of each line.
        reach: Which lines stand beside labels and tiles.
    """
    page, line = measures.page, reach.lines[number]
    label = fitting.wrap(line.label, page.font, measures.height, max(1, measures.label_lines))
    start = measures.lefts()[measures.label_at] - measures.label
    middle = (spans[number][0] + spans[reach.label(number)][1]) / 2
    for place, text in enumerate(label, measures.label_lines - len(label)):  # shorter ones stand next to their tile
        x = start + (place * fonts.LINE_HEIGHT + fonts.ASCENT) * page.font
        yield TextItem(x, middle, text, page.font, anchor='center', vertical=True)
    shift = measures.shift(line)
    for column, (cell, left, width) in enumerate(zip(line.cells, measures.lefts(), measures.widths, strict=False)):
        if cell is None:
            continue
        top, heights = spans[number][0], reach.heights[number]
        if (last := reach.tile(number, column)) > number:
            top += measures.snap((spans[last][1] - top - heights[1]) / 2)
        x = left + (shift if column >= line.lead else 0.0)
        box = measures.box(cell, x, top, width, heights)
        yield ImageItem(box, cell.tile)
        yield from mark_items(cell.marks, box, page)
        if _readable(measures):
            yield from _cell_texts(cell, Box(x, box.y, width, box.height), page)


def _cell_texts(cell: Cell, box: Box, page: Page) -> Iterator[TextItem]:
    size, step = page.font, page.font * fonts.LINE_HEIGHT
    middle = box.x + box.width / 2
    for number, text in enumerate(cell.title):
        # Counted from the tile upwards, so that shorter titles stand next to their tile.
        baseline = box.y - (len(cell.title) - number) * step + fonts.ASCENT * size
        yield TextItem(middle, baseline, fitting.elide(text, size, box.width), size, cell.title_color, 'center')
    for number, text in enumerate(cell.footer):
        baseline = box.bottom + number * step + fonts.ASCENT * size
        yield TextItem(middle, baseline, fitting.elide(text, size, box.width), size, cell.footer_color, 'center')
    size = page.small_font
    note = fitting.wrap(cell.note, size, box.width - size, 3)
    for number, text in enumerate(note):
        baseline = box.bottom - (len(note) - number) * size * fonts.LINE_HEIGHT + (fonts.ASCENT - 0.3) * size
        yield TextItem(middle, baseline, text, size, WHITE, 'center', ground=(40, 40, 40))


def _bar_items(
    lines: Sequence[Line], measures: Measures, places: Sequence[tuple[float, float]]
) -> Iterator[ImageItem | TextItem]:
    for j, left in enumerate(measures.lefts()):
        spans: list[tuple[Bar, float, float, bool, float]] = []
        for index, line in enumerate(lines):
            bar, (top, bottom) = _ends_run(line.cells, j), places[index]
            if bar is None:
                continue
            moved = measures.shift(line)
            before = lines[index - 1] if index else None  # a remark below it would cross a bar that goes on
            goes_on = before is not None and not before.remark and _ends_run(before.cells, j) == bar
            if goes_on and spans[-1][4] == moved:
                spans[-1] = (bar, spans[-1][1], bottom, *spans[-1][3:])
            else:
                spans.append((bar, top, bottom, _last_bar(line.cells) == j, moved))
        for bar, top, bottom, titled, shift in spans:
            strip = left + shift + measures.widths[j] + measures.page.gap
            yield from bar_items(bar, strip, top, bottom, measures.page, titled)


def _last_bar(cells: Sequence[Cell | None]) -> int:
    """The column of a line's last bar with a title, which says it for all of them; -1 without one."""
    return max((j for j in range(len(cells)) if (bar := _ends_run(cells, j)) and bar.title), default=-1)


def _ends_run(cells: Sequence[Cell | None], j: int) -> Bar | None:
    """The bar that stands after cell ``j``: its own, unless the next cell has the same."""
    cell = cells[j] if j < len(cells) else None
    after = cells[j + 1] if j + 1 < len(cells) else None
    if cell is None or cell.bar is None or (after is not None and after.bar == cell.bar):
        return None
    return cell.bar
