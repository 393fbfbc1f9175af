"""Tiles in lines, with titles, labels and bars, arranged on a page: what all layouts have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vistool.visualization import text as fitting
from vistool.visualization import text as fonts
from vistool.visualization.cells import Bar, Cell, Line, bar_items, bar_width, mark_items
from vistool.visualization.scene import GRAY, WHITE, Box, ImageItem, PathItem, Scene, TextItem
from vistool.visualization.style import Page

# A tile on the screen has the area of a square of this side: tall and wide photos are equally easy to see.
_TILE = 320.0
#: Pictures for the screen get no wider; their tiles become smaller instead.
SCREEN_WIDTH = 1950.0
# Paper pictures get no taller than this by the height of one tile (4 in).
_TALLEST_PAPER_TILE = 288.0
# Nor by a tile that asks for a height of its own than the width of a page.
_TALLEST_PAPER_PICTURE = 495.0
#: The place of a tile is never narrower than this, for its height: titles need room above very tall photos;
NARROWEST = 0.25
# nor, where labels beside it would be cut, lower than so many times the font's size.
_LABEL_ROOM = 5.0
_CAPTION_LINES = 3
_LABEL_LINES = 3


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
        self.aspects = [max((max(cell.aspect, NARROWEST) for cell in column), default=0.0) for column in columns]
        self.bars = [
            max((bar_width(bar, page) for row in padded if (bar := _ends_run(row, j))), default=0.0)
            for j in range(self.count)
        ]
        cells = [cell for line in lines for cell in line.cells if cell]
        self.wanted = max((cell.height for cell in cells), default=0.0)
        self.unit = max((cell.unit for cell in cells), default=0)
        self.gap = page.gap
        self.label_at = max(line.label_at for line in lines)
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
        self.widths = [self._snap(self.picture * aspect) for aspect in self.aspects]
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

    def _snap(self, value: float) -> float:
        return float(round(value)) if self.page.width is None else value

    def _tile_height(self) -> float:
        page, total = self.page, sum(self.aspects)
        # A mosaic of many small tiles is looked at as one picture, and its gaps must not outweigh them.
        limit = page.width or (SCREEN_WIDTH if self.count <= 12 else SCREEN_WIDTH / 2)
        space = limit - 2 * page.margin - self.label - sum(self.bars)
        self.gap = min(self.gap, 0.1 * space / self.count)
        fitting = max((space - self.gap * (self.count - 1)) / total, 0.05)
        if page.width is not None:
            tallest = _TALLEST_PAPER_TILE if not self.wanted else _TALLEST_PAPER_PICTURE
            return min(fitting, tallest if page.paper else 4 * page.width)
        natural = self.wanted or natural_height(float(np.median([a for a in self.aspects if a])))
        height = math.floor(min(fitting, natural))
        return float(height - height % self.unit if height >= self.unit > 0 else height)

    def box(self, cell: Cell, left: float, top: float, width: float) -> Box:
        """Where the picture of ``cell`` lies in the place that starts at ``left``, ``top``."""
        own, free = min(width, max(1.0, self._snap(self.picture * cell.aspect))), self.height - self.picture
        return Box(left + self._snap((width - own) / 2), top + self._snap(free / 2), own, self.picture)

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


def single(cell: Cell, size: tuple[int, int], page: Page) -> Scene:
    """A tile alone with the lines drawn over it, ``(height, width)`` units large."""
    box = Box(0.0, 0.0, float(size[1]), float(size[0]))
    marks = (item for mark in cell.marks for item in mark_items(mark, box, page))
    return Scene(box.width, box.height, (ImageItem(box, cell.tile), *marks))


def arrange(lines: Sequence[Line], page: Page, caption: str = '') -> Scene:
    """Lines of tiles as a picture.

    All tiles have one height. Columns are as wide as their widest tile, in which the others are centerd. A bar stands
    after the last of neighboring tiles that share a scale, and spans lines that share it.

    Args:
        lines: What to draw, from the top.
        page: Measures, and the total width where it is fixed.
        caption: What is constant; drawn for the screen only.
    """
    measures = Measures(lines, page)
    lines = [_with_wrapped_texts(line, measures) for line in lines]
    items: list[ImageItem | TextItem | PathItem] = []
    y = page.margin
    if caption and not page.paper:
        for text in fitting.wrap(caption, page.small_font, measures.width - 2 * page.margin, _CAPTION_LINES):
            items.append(TextItem(page.margin, y + fonts.ASCENT * page.small_font, text, page.small_font, GRAY))
            y += fonts.LINE_HEIGHT * page.small_font
        y += page.gap
    tops: list[float] = []
    for number, line in enumerate(lines):
        y += measures.gap if number else 0.0
        titles, footers = _text_lines(line, measures, 'title'), _text_lines(line, measures, 'footer')
        y += titles * fonts.LINE_HEIGHT * page.font
        y = y if page.paper else float(math.ceil(y))
        tops.append(y)
        items.extend(_line_items(line, measures, y))
        y += measures.height + footers * fonts.LINE_HEIGHT * page.font
    items.extend(_bar_items(lines, measures, tops))
    height = y + page.margin
    return Scene(_whole(measures.width, page), _whole(height, page), tuple(items))


def _whole(value: float, page: Page) -> float:
    return float(math.ceil(value)) if not page.paper else value


def _with_wrapped_texts(line: Line, measures: Measures) -> Line:
    """Titles and footers of one line that are wider than their tile, on two."""

    def on_two(texts: tuple[str, ...], width: float) -> tuple[str, ...]:
        return tuple(fitting.wrap(texts[0], measures.page.font, width, 2)) if len(texts) == 1 else texts

    def wrapped(cell: Cell, width: float) -> Cell:
        return replace(cell, title=on_two(cell.title, width), footer=on_two(cell.footer, width))

    cells = (cell and wrapped(cell, width) for cell, width in zip(line.cells, measures.widths, strict=False))
    return replace(line, cells=tuple(cells))


def _text_lines(line: Line, measures: Measures, which: str) -> int:
    cells = [cell for cell in line.cells if cell is not None]
    if not _readable(measures):
        return 0
    return max((len(getattr(cell, which)) for cell in cells), default=0)


def _readable(measures: Measures) -> bool:
    """Whether tiles are large enough for text at all."""
    return max(measures.widths) >= 1.5 * measures.page.font


def _line_items(line: Line, measures: Measures, top: float) -> Iterator[ImageItem | TextItem | PathItem]:
    page = measures.page
    label = fitting.wrap(line.label, page.font, measures.height, max(1, measures.label_lines))
    start = measures.lefts()[measures.label_at] - measures.label
    for place, text in enumerate(label):
        free = measures.label_lines - len(label)  # shorter labels stand next to their tile
        x = start + ((free + place) * fonts.LINE_HEIGHT + fonts.ASCENT) * page.font
        yield TextItem(x, top + measures.height / 2, text, page.font, anchor='center', vertical=True)
    for cell, left, width in zip(line.cells, measures.lefts(), measures.widths, strict=False):
        if cell is None:
            continue
        box = measures.box(cell, left, top, width)
        yield ImageItem(box, cell.tile)
        for mark in cell.marks:
            yield from mark_items(mark, box, page)
        if _readable(measures):
            yield from _cell_texts(cell, Box(left, box.y, width, box.height), page)


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


def _bar_items(lines: Sequence[Line], measures: Measures, tops: Sequence[float]) -> Iterator[ImageItem | TextItem]:
    for j, left in enumerate(measures.lefts()):
        spans: list[tuple[Bar, float, float]] = []
        for index, line in enumerate(lines):
            bar, top = _ends_run(line.cells, j), tops[index]
            if bar is None:
                continue
            if index and spans and spans[-1][0] == bar and _ends_run(lines[index - 1].cells, j) == bar:
                spans[-1] = (bar, spans[-1][1], top + measures.height)
            else:
                spans.append((bar, top, top + measures.height))
        for bar, top, bottom in spans:
            yield from bar_items(bar, left + measures.widths[j] + measures.page.gap, top, bottom, measures.page)


def _ends_run(cells: Sequence[Cell | None], j: int) -> Bar | None:
    """The bar that stands after cell ``j``: its own, unless the next cell has the same."""
    cell = cells[j] if j < len(cells) else None
    after = cells[j + 1] if j + 1 < len(cells) else None
    if cell is None or cell.bar is None or (after is not None and after.bar == cell.bar):
        return None
    return cell.bar
