"""Rows of heat maps to lines that fit the page, without blank places wherever the number of maps allows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vistool.errors import InputError
from vistool.results.heatmaps import Kind
from vistool.visualization.style import Page
from vistool.visualization.table import NARROWEST, WIDEST, Cell, Line, Measures, natural_height

_HEADS_PER_LINE = 6
_MOSAIC = 36  # more maps than this are laid out as a square
_LEAST_OF_MOSAIC = 8.0  # its tiles are at least this wide, in units


@dataclass(frozen=True)
class Row:
    """One row of the figure: its label, the tiles that stand once at its left, and the others, which wrap.

    Rows of a table have a place for every column, empty where the row has no such tile. Where each of several models
    has several maps, the same tiles are also there as a ``matrix``: models across, the rest down. The lead lacks a
    ``photo`` that stands above already.
    """

    label: str
    lead: tuple[Cell | None, ...]
    cells: tuple[Cell | None, ...]
    matrix: tuple[Row, ...] = ()
    photo: Cell | None = None


def lines_of(
    kind: Kind, rows: Sequence[Row], page: Page, compared: bool = False, arrangement: tuple[int, int] | None = None
) -> list[Line]:
    """Rows cut into lines that fit the page.

    The lead stands beside its lines, or in the middle of a line above where there is no room. Where rows have to be
    broken, a way without blank places is taken if there is one: rows that become columns, or lines that are all full.

    Args:
        kind: What the maps are.
        rows: The rows.
        page: Measures of the page.
        compared: Whether several models are compared.
        arrangement: Rows and columns that the user wishes.

    Raises:
        InputError: The maps do not fit the arrangement.
    """
    if arrangement is not None:
        rows = _in_one_flow(kind, rows)
        per_line = _columns_of(arrangement, max(len(row.cells) for row in rows))
        return _finished(cut(rows, per_line, beside=True, even=False, label_at=label_column(rows)), rows)
    for shown, lines in _unbroken(kind, rows, page, compared):
        if _narrowest(lines, page) >= _least_width(kind, page, shown):
            return lines
    rows = [each for row in rows for each in row.matrix or (row,)]
    if compared and kind != 'cam' and len(rows) > 1:
        return _blocks(kind, rows, page)
    full = _full(kind, rows[0], page) if len(rows) == 1 and (compared or kind != 'attention') else None
    return full or _broken(kind, _in_one_flow(kind, rows), page)


def _unbroken(
    kind: Kind, rows: Sequence[Row], page: Page, compared: bool
) -> Iterator[tuple[Sequence[Row], list[Line]]]:
    """Rows and lines that hold them whole: as they are, as a matrix of models, and on paper with rows as columns."""
    count = max(len(row.cells) for row in rows)
    if count <= _most_per_line(kind, count, compared):
        yield rows, _whole(kind, rows)
    if all(row.matrix for row in rows):
        matrix = [each for row in rows for each in row.matrix]
        yield matrix, _whole(kind, matrix)
        if page.paper:
            yield matrix, [line for row in rows for line in _turned(kind, row.matrix)]
    elif page.paper and 1 < len(rows) < count and (kind == 'cam' or (kind == 'feature' and compared)):
        yield rows, _turned(kind, rows)


def _whole(kind: Kind, rows: Sequence[Row]) -> list[Line]:
    """Each row on one line."""
    rows = _in_one_flow(kind, rows)
    lines = cut(rows, max(len(row.cells) for row in rows), beside=True, label_at=label_column(rows))
    return _finished(lines, rows)


def _in_one_flow(kind: Kind, rows: Sequence[Row]) -> Sequence[Row]:
    """The only row of a CAM as one flow of tiles, the input among them; other rows as they are."""
    return [_flow(rows[0])] if kind == 'cam' and len(rows) == 1 else rows


def _flow(row: Row) -> Row:
    return replace(row, lead=(), cells=(*filter(None, row.lead), *row.cells))


def _full(kind: Kind, row: Row, page: Page) -> list[Line] | None:
    """A row on several lines without a blank place: its tiles in one flow, or cut beside the input.

    Returns:
        The widest lines that fit the page; None where they would be less than half as long as those that fit.
    """
    lead, cells = [cell for cell in row.lead if cell], row.cells
    if len(cells) > _MOSAIC or not all(cells):
        return None
    lead = [replace(cell, footer=(row.label,)) if row.label else cell for cell in lead[:1]] + lead[1:]
    flow, rest = _flow(replace(row, label='', lead=tuple(lead))), replace(row, label='', lead=tuple(lead))
    widest = 0
    for across in range(len(flow.cells) - 1, 0, -1):
        lines = cut([flow], across, beside=True, even=False)
        if _narrowest(lines, page) < _least_width(kind, page, [row]):
            continue
        widest = widest or across
        if 2 * across <= widest:
            break
        if len(flow.cells) % across == 0:
            return lines
        if across > len(lead) and len(cells) % (across - len(lead)) == 0:
            return cut([rest], across - len(lead), beside=True)
    return None


def _broken(kind: Kind, rows: Sequence[Row], page: Page) -> list[Line]:
    """Rows on as many lines as needed."""
    count = max(len(row.cells) for row in rows)
    label_at = label_column(rows)
    widest = _most_per_line(kind, count, compared=False)
    # A mosaic of all channels is one picture, however small its tiles.
    least = _LEAST_OF_MOSAIC if count > _MOSAIC else _least_width(kind, page, rows)
    # Heads stand in full lines of six or below their mean, but not in fewer beside it.
    for per_line in range(widest, 0, -1) if kind != 'attention' else (widest,):
        lines = cut(rows, per_line, beside=True, label_at=label_at)
        if _narrowest(lines, page) >= least or (per_line == 1 and not page.paper):
            if len(rows) == 1 and len(lines) > 1 and kind != 'attention' and count <= _MOSAIC:
                lines[-1] = replace(lines[-1], centered=True)  # each tile of one flow has a title of its own
            return _finished(lines, rows)
    for per_line in range(widest, 0, -1):
        lines = cut(rows, per_line, beside=False)
        if _narrowest(lines, page) >= least:
            return _finished(lines, rows)
    return _finished(lines, rows)


def _most_per_line(kind: Kind, count: int, compared: bool) -> int:
    """How many of so many maps stand on one line at most."""
    if kind == 'attention':
        return min(count, _HEADS_PER_LINE)
    return math.ceil(math.sqrt(count)) if count > _MOSAIC and not compared else count


def _narrowest(lines: Sequence[Line], page: Page) -> float:
    """Width of the narrowest column."""
    return min(Measures(lines, page).column_widths())


def _blocks(kind: Kind, rows: Sequence[Row], page: Page) -> list[Line]:
    """Rows of several models: what is compared stays below each other, so all rows are broken at the same columns.

    Blocks are equally long if that makes them no shorter than by half.
    """
    count = max(len(row.cells) for row in rows)
    least = _least_width(kind, page, rows)
    lengths = range(_most_per_line(kind, count, compared=True), 0, -1)
    fitting = next((each for each in lengths if _narrowest(_in_blocks(rows, each), page) >= least), 1)
    equal = next((each for each in range(fitting, fitting // 2, -1) if count % each == 0), fitting)
    return _in_blocks(rows, equal)


def _in_blocks(rows: Sequence[Row], per_line: int) -> list[Line]:
    """Rows broken at the same columns; the inputs stand beside all blocks."""
    count = max(len(row.cells) for row in rows)
    each = math.ceil(count / math.ceil(count / per_line))
    lines: list[Line] = []
    for start in range(0, count, each):
        empty = [row if not start else replace(row, lead=(None,) * len(row.lead)) for row in rows]
        part = [replace(row, cells=row.cells[start : start + each]) for row in empty if row.cells[start:]]
        lines += _titled_once(cut(part, each, beside=True, label_at=label_column(rows)))
    return lines


def _turned(kind: Kind, rows: Sequence[Row]) -> list[Line]:
    """Rows as columns: a line for each column, labeled with its title.

    The input stands beside the lines of a CAM. That of feature maps stands above them, in the middle, or above its
    own model where models see different inputs.
    """
    photos = [row.photo for row in rows]
    above = [photo for row in rows if any(row.lead) for photo in [row.photo]]
    lines: list[Line] = []
    lead: tuple[Cell | None, ...] = ()
    if kind == 'cam':
        lead = rows[0].lead
    elif len(above) > 1:
        lines = [Line(tuple(photos))]
    else:
        lines = [Line(tuple(above), centered=True)]
    starts = [next((place for place, cell in enumerate(row.cells) if cell), 0) for row in rows]
    for column in range(max(len(row.cells) for row in rows)):
        cells = [row.cells[column] if column < len(row.cells) else None for row in rows]
        label = ' '.join(next(cell.title for cell in cells if cell))
        heads = [(row.label,) if column == first else () for row, first in zip(rows, starts, strict=True)]
        titled = [cell and replace(cell, title=head) for cell, head in zip(cells, heads, strict=True)]
        beside = lead if not column else (None,) * len(lead)
        lines.append(Line((*beside, *titled), label, len(lead), lead=len(lead)))
    return lines


def label_column(rows: Sequence[Row]) -> int:
    """The column before which labels stand: that of the maps, where the input is drawn once for several rows."""
    return 1 if any(row.lead and row.lead[0] is None for row in rows) else 0


def _columns_of(arrangement: tuple[int, int], count: int) -> int:
    rows, columns = arrangement
    if rows * columns < count:
        raise InputError(
            f'{count} maps do not fit {rows} rows of {columns}',
            accepted=f'at least {math.ceil(count / columns)} {columns}, or leave it out',
            parameter='arrangement',
        )
    return columns


def cut(rows: Sequence[Row], per_line: int, beside: bool, even: bool = True, label_at: int = 0) -> list[Line]:
    """Each row on lines of at most ``per_line`` tiles; the lead ``beside`` all of them, or on a line above."""
    lines: list[Line] = []
    for row in rows:
        # As many lines as needed, and those equally long: 4 + 3 rather than 6 + 1.
        each = math.ceil(len(row.cells) / math.ceil(len(row.cells) / per_line)) if even else per_line
        chunks = [row.cells[start : start + each] for start in range(0, len(row.cells), each)]
        chunks = [chunk for number, chunk in enumerate(chunks) if not number or any(chunk)]
        lead, at = (row.lead, label_at) if beside else ((), 0)
        own = [Line(row.lead, centered=True)] if not beside and any(row.lead) else []
        own += [Line((*lead, *chunks[0]), label_at=at, lead=len(lead))]
        own += [Line((*(None,) * len(lead), *chunk), label_at=at, lead=len(lead)) for chunk in chunks[1:]]
        lines.append(replace(own[0], label=row.label))
        lines += [replace(line, continues=True) for line in own[1:]]
    return lines


def _finished(lines: list[Line], rows: Sequence[Row]) -> list[Line]:
    # Without wrapping, columns mean the same in every row, and their titles stand once.
    return _titled_once(lines) if len(lines) == len(rows) else lines


def _titled_once(lines: Sequence[Line]) -> list[Line]:
    """Lines with titles above the first tile of each column only, where all of a column have the same."""
    columns = range(1, max(len(line.cells) for line in lines))
    cells = [[line.cells[j] if j < len(line.cells) else None for line in lines] for j in columns]
    if any(len({cell.title for cell in column if cell}) > 1 for column in cells):
        return list(lines)
    titled = {next((i for i, cell in enumerate(column) if cell), 0) for column in cells}
    if titled != {0}:
        return list(lines)
    bare = [replace(line, cells=tuple(cell and replace(cell, title=()) for cell in line.cells)) for line in lines[1:]]
    return [lines[0], *bare]


def _least_width(kind: Kind, page: Page, rows: Sequence[Row]) -> float:
    """How narrow a tile may get before a line is broken."""
    if page.paper:
        return 34.0 if kind != 'cam' else 52.0 if len(rows) == 1 else 40.0
    if page.width is not None:
        return 90.0
    aspect = min(max(next(cell.aspect for cell in rows[0].cells if cell), NARROWEST), WIDEST)
    natural = math.floor(natural_height(aspect) * aspect) - 1.0
    return min(180.0, natural) if kind != 'cam' or len(rows) > 1 else natural
