"""A picture that is cut into patches as a tile: how large it wants to be, and what is written and drawn on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from vistool.results import Cut, GridImage
from vistool.visualization.cells import Cell, Labels, Mark, Outline, label_room
from vistool.visualization.draw import Pixels
from vistool.visualization.mosaic import BLANK, Sheet, draw_sheet, plain_sheet, sequence_sheet
from vistool.visualization.scene import BLACK, WHITE, Color
from vistool.visualization.style import Page

# A mosaic on the screen is enlarged to about this height, and made no larger than the other.
_SMALLEST, _LARGEST = 512.0, 1900.0
# A token in a sequence is at least this wide, in units.
_LEAST_CELL = {True: 13.0, False: 34.0}
_SEQUENCE_WIDTH = 1600.0
# Seen on skin, wood and grass, and with its white edge on the sky.
_ACCENT: Color = (0, 80, 255)
_DARK = 140


def mosaic_cell(image: GridImage, cut: Cut, pixels: Pixels, page: Page) -> Cell:
    """The tile of a picture that is cut into patches."""
    sheet = _sequence(cut, page) if cut.sequence is not None else plain_sheet(cut)
    (rows, columns), (down, across) = sheet.ids.shape, sheet.pitch
    pitch = _pitch(sheet, page)
    labels = tuple(_texts(sheet, pixels))
    marks: list[Mark] = []
    if cut.windows is not None:
        marks += _window_lines(cut)
    marks += _highlights(sheet)
    if labels:
        marks.append(Labels(labels, (_filled(sheet, 1) / columns, _filled(sheet, 0) / rows)))
    return Cell(
        partial(_drawn, sheet, pixels),
        columns * across / (rows * down),
        image.title,
        image.footer,
        marks=tuple(marks),
        height=pitch * rows,
        unit=rows if rows < pitch * rows / 8 else 0,
    )


def bare_mosaic(cut: Cut, pixels: Pixels) -> Pixels:
    """The patches with their borders, each pixel of a patch one pixel; borders are whole pixels."""
    cut = replace(cut, border=math.ceil(cut.border))
    count = len(cut.sequence or ()) + cut.grid.count
    sheet = plain_sheet(cut) if cut.sequence is None else sequence_sheet(cut, math.ceil(math.sqrt(count * 3)))
    sheet = replace(sheet, border=(float(math.ceil(sheet.border[0])), sheet.border[1]))
    return draw_sheet(sheet, pixels, sheet.size)


def _drawn(sheet: Sheet, pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return draw_sheet(sheet, pixels, size)


def _sequence(cut: Cut, page: Page) -> Sheet:
    width = (page.width or _SEQUENCE_WIDTH) - 2 * page.margin
    labels = [*(cut.sequence or ()), *([str(cut.grid.count - 1)] if cut.order else [])]
    least = max(_LEAST_CELL[page.paper], 1.15 * label_room(labels)[0] * page.least_font if labels else 0.0)
    count = len(cut.sequence or ()) + cut.grid.count
    return sequence_sheet(cut, min(count, max(1, int(width / least))))


def _pitch(sheet: Sheet, page: Page) -> int:
    """From one row to the next on the screen, in whole pixels, so that all patches are equally large."""
    rows, columns = sheet.ids.shape
    down, across = sheet.pitch
    pitch = down if rows * down >= _SMALLEST else math.ceil(_SMALLEST / rows)
    if sheet.cut.sequence is not None:
        pitch = _SEQUENCE_WIDTH / max(columns, 12) * down / across
    elif sheet.cut.order:
        room = label_room([str(sheet.cut.grid.count - 1)])[0] * (page.least_font + 1)
        pitch = max(pitch, math.ceil(room / _filled(sheet, 1) * down / across) + 1)
    most = min(_LARGEST / rows, _LARGEST / columns * down / across)
    return max(1, int(min(pitch, most)))


def _filled(sheet: Sheet, axis: int) -> float:
    """Share of the pitch that the patch itself takes."""
    return 1 - 2 * sheet.border[axis] / sheet.pitch[axis]


def _texts(sheet: Sheet, pixels: Pixels) -> Iterator[tuple[float, float, str, Color]]:
    """The names of special tokens, and the numbers of patches where they are asked for."""
    cut, (rows, columns) = sheet.cut, sheet.ids.shape
    wanted = set(cut.highlight)
    for (row, column), number in np.ndenumerate(sheet.ids):
        place = (column + 0.5) / columns, (row + 0.5) / rows
        if number < BLANK:
            yield (*place, (cut.sequence or ())[-2 - number], BLACK)
        elif number != BLANK and (cut.order or int(number) in wanted):
            yield (*place, str(number), _ink(cut, int(number), pixels, wanted))


def _ink(cut: Cut, number: int, pixels: Pixels, wanted: set[int]) -> Color:
    """Black or white, whichever is seen better on the patch."""
    if cut.hidden is not None and cut.hidden[number]:
        return WHITE
    if wanted and number not in wanted:
        return BLACK
    left, top, right, bottom = cut.grid.box(number)
    patch = pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    return WHITE if patch.size and float((patch @ np.array([0.3, 0.59, 0.11])).mean()) < _DARK else BLACK


def _window_lines(cut: Cut) -> Iterator[Outline]:
    rows, columns = cut.grid.shape
    for y in (cut.windows or ((), ()))[0]:
        yield Outline(((0.0, y / rows), (1.0, y / rows)), _ACCENT, 1.8, 1.0)
    for x in (cut.windows or ((), ()))[1]:
        yield Outline(((x / columns, 0.0), (x / columns, 1.0)), _ACCENT, 1.8, 1.0)


def _highlights(sheet: Sheet) -> Iterator[Outline]:
    rows, columns = sheet.ids.shape
    inset = sheet.border[1] / sheet.pitch[1], sheet.border[0] / sheet.pitch[0]
    for row, column in np.argwhere(np.isin(sheet.ids, sheet.cut.highlight)):
        left, right = (column + inset[0]) / columns, (column + 1 - inset[0]) / columns
        top, bottom = (row + inset[1]) / rows, (row + 1 - inset[1]) / rows
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        yield Outline(tuple((float(x), float(y)) for x, y in corners), _ACCENT, 2.0, 0.6)
