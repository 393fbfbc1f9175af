"""Rows of heat maps cut into lines that fit a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vistool.errors import InputError
from vistool.results import Heatmaps
from vistool.visualization.cells import Cell, Line
from vistool.visualization.style import Page
from vistool.visualization.table import NARROWEST, Measures, natural_height

_HEADS_PER_LINE = 6
_MOSAIC = 36  # more maps than this are laid out as a square


@dataclass(frozen=True)
class Row:
    """One row of the figure: its label, the tiles that stand once at its left, and the others, which wrap.

    Rows of a table have a place for every column, empty where the row has no such tile.
    """

    label: str
    lead: tuple[Cell | None, ...]
    cells: tuple[Cell | None, ...]


def lines_of(
    result: Heatmaps, rows: Sequence[Row], page: Page, arrangement: tuple[int, int] | None = None
) -> list[Line]:
    """Rows cut into lines that fit the page; the lead stands beside the first line, or above where there is no room."""
    if len(rows) == 1 and result.kind == 'cam':
        rows = [replace(rows[0], lead=(), cells=(*filter(None, rows[0].lead), *rows[0].cells))]  # one flow of tiles
    count = max(len(row.cells) for row in rows)
    if 'compare' in result.recipe and result.kind != 'cam' and len(rows) > 1 and arrangement is None:
        return _blocks(result, rows, page)
    if arrangement is not None:
        return _finished(cut(rows, _columns_of(arrangement, count), beside=True, even=False), rows)
    most = _HEADS_PER_LINE if result.kind == 'attention' else math.ceil(math.sqrt(count)) if count > _MOSAIC else count
    widest = min(count, most)
    # A mosaic of all channels is one picture, however small its tiles.
    least = 0.0 if count > _MOSAIC else _least_width(result, page, rows)
    # Heads stand in full lines of six or below their mean, but not in fewer beside it.
    for per_line in range(widest, 0, -1) if result.kind != 'attention' else (widest,):
        lines = cut(rows, per_line, beside=True)
        if min(Measures(lines, page).column_widths()) >= least or (per_line == 1 and not page.paper):
            return _finished(lines, rows)
    for per_line in range(widest, 0, -1):
        lines = cut(rows, per_line, beside=False)
        if min(Measures(lines, page).column_widths()) >= least:
            return _finished(lines, rows)
    return _finished(lines, rows)


def _blocks(result: Heatmaps, rows: Sequence[Row], page: Page) -> list[Line]:
    """Rows of several models: what is compared stays below each other, so all rows are broken at the same columns."""
    count = max(len(row.cells) for row in rows)
    widest, least = (
        min(count, _HEADS_PER_LINE) if result.kind == 'attention' else count,
        _least_width(result, page, rows),
    )
    lines: list[Line] = []
    for per_line in range(widest, 0, -1):
        each = math.ceil(count / math.ceil(count / per_line))
        lines = []
        for start in range(0, count, each):
            empty = [row if not start else replace(row, lead=(None,) * len(row.lead)) for row in rows]
            part = [replace(row, cells=row.cells[start : start + each]) for row in empty if row.cells[start:]]
            lines += _titled_once(cut(part, each, beside=True))
        if min(Measures(lines, page).column_widths()) >= least:
            break
    return lines


def _columns_of(arrangement: tuple[int, int], count: int) -> int:
    rows, columns = arrangement
    if rows * columns < count:
        raise InputError(
            f'{count} maps do not fit {rows} rows of {columns}',
            accepted=f'at least {math.ceil(count / columns)} {columns}, or leave it out',
            argument='--arrangement',
        )
    return columns


def cut(rows: Sequence[Row], per_line: int, beside: bool, even: bool = True) -> list[Line]:
    """Each row on lines of at most ``per_line`` tiles; the lead ``beside`` the first of them, or on a line above."""
    lines: list[Line] = []
    for row in rows:
        # As many lines as needed, and those equally long: 4 + 3 rather than 6 + 1.
        each = math.ceil(len(row.cells) / math.ceil(len(row.cells) / per_line)) if even else per_line
        chunks = [row.cells[start : start + each] for start in range(0, len(row.cells), each)]
        chunks = [chunk for number, chunk in enumerate(chunks) if not number or any(chunk)]
        empty = (None,) * len(row.lead)
        blocks: list[tuple[Cell | None, ...]] = [*([row.lead] if any(row.lead) else []), *chunks]
        if beside:
            blocks = [(*(empty if number else row.lead), *chunk) for number, chunk in enumerate(chunks)]
        lines.extend(Line(block, '' if number else row.label) for number, block in enumerate(blocks))
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


def _least_width(result: Heatmaps, page: Page, rows: Sequence[Row]) -> float:
    """How narrow a tile may get before a line is broken."""
    if page.paper:
        return 34.0 if result.kind != 'cam' else 52.0 if len(rows) == 1 else 40.0
    if page.width is not None:
        return 90.0
    aspect = max(next(cell.aspect for cell in rows[0].cells if cell), NARROWEST)
    natural = math.floor(natural_height(aspect) * aspect) - 1.0
    return min(180.0, natural) if result.kind != 'cam' or len(rows) > 1 else natural
