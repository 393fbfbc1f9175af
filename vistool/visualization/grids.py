"""Image grids (samples, pipeline steps, patches) to a scene; pictures that are cut into patches as mosaics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from vistool.data.patches import split
from vistool.results import Cut, GridImage, ImageGrid
from vistool.visualization.annotations import AnnotationDrawing
from vistool.visualization.facets import grid_footer, grid_remark, grid_title
from vistool.visualization.raster import resize_image, to_uint8
from vistool.visualization.scene import BLACK, RED, WHITE, Color, Pixels, Scene
from vistool.visualization.style import Page, Style
from vistool.visualization.table import Cell, Labels, Line, Mark, Outline, arrange, label_room, single

BLANK = -1
"""Stands in a sheet where there is nothing; ``-2 - k`` stands for the k-th token before the patches."""

_MASKED: Color = (150, 150, 150)
_SPECIAL: Color = (205, 222, 240)
_FADE = 0.7
# Borders become thinner than this only where patches are a few pixels themselves.
_THINNEST = 1
_SMALLEST_PITCH = 3.0
# Of more patches than this each is a few pixels, and a seam is not seen.
_MOST_ONE_BY_ONE = 10_000


@dataclass(frozen=True)
class Sheet:
    """Tokens in rows and columns.

    Attributes:
        ids: ``(rows, columns)`` numbers of patches, or what :data:`BLANK` says.
        cut: What is known of the patches.
        border: Around each patch above and below, and at its sides, in pixels of the picture.
    """

    ids: NDArray[np.intp]
    cut: Cut
    border: tuple[float, float]

    @property
    def pitch(self) -> tuple[float, float]:
        """From one patch to the next, down and across, in pixels of the picture."""
        h, w = self.cut.grid.patch
        return h + 2 * self.border[0], w + 2 * self.border[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at which each pixel of a patch is one pixel."""
        return round(self.ids.shape[0] * self.pitch[0]), round(self.ids.shape[1] * self.pitch[1])


def plain_sheet(cut: Cut) -> Sheet:
    """The patches at their places."""
    return Sheet(np.arange(cut.grid.count).reshape(cut.grid.shape), cut, (cut.border, cut.border))


def sequence_sheet(cut: Cut, columns: int, most: int = 40) -> Sheet:
    """The tokens as one row, broken after ``columns``; of more than ``most`` lines the middle is left out."""
    special = -2 - np.arange(len(cut.sequence or ()))
    ids = np.concatenate([special, np.arange(cut.grid.count)])
    lines = math.ceil(len(ids) / columns)
    ids = np.concatenate([ids, np.full(lines * columns - len(ids), BLANK)]).reshape(lines, columns)
    if lines > most:
        ids = np.concatenate([ids[: most - 4], np.full((1, columns), BLANK), ids[-3:]])
    return Sheet(ids, cut, (max(cut.border, 0.12 * cut.grid.patch[0]), cut.border))


def draw_sheet(sheet: Sheet, pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A sheet at ``(height, width)`` pixels; borders are whole pixels, and patches equally large.

    Args:
        sheet: What to draw.
        pixels: The picture that is cut, uint8 ``(H, W, 3)``.
        size: At :attr:`Sheet.size` with whole borders each patch is copied pixel by pixel.
    """
    flat = _side_by_side(sheet, pixels)
    rows, columns = sheet.ids.shape
    if min(size[0] / rows, size[1] / columns) < _SMALLEST_PITCH:
        return resize_image(_marked(flat, sheet), size)
    places, extent = zip(*(_places(size[axis], sheet, axis) for axis in range(2)), strict=True)
    small = _resized(flat, sheet, extent)
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = sheet.cut.color
    canvas[np.ix_(places[0], places[1])] = _marked(small, sheet)
    return canvas


def _resized(flat: Pixels, sheet: Sheet, extent: tuple[int, int]) -> Pixels:
    """Each patch at ``extent`` pixels; one by one where neighbors in the sheet are not neighbors in the picture."""
    (rows, columns), (h, w) = sheet.ids.shape, sheet.cut.grid.patch
    size = rows * extent[0], columns * extent[1]
    apart = sheet.cut.sequence is not None or sheet.cut.grid.overlaps
    if not apart or extent == (h, w) or sheet.ids.size > _MOST_ONE_BY_ONE:
        return resize_image(flat, size)
    tiles = rearrange(flat, '(r h) (c w) k -> (r c) h w k', r=rows, c=columns)
    resized = np.stack([resize_image(np.ascontiguousarray(tile), extent) for tile in tiles])
    return np.asarray(rearrange(resized, '(r c) h w k -> (r h) (c w) k', r=rows))


def _side_by_side(sheet: Sheet, pixels: Pixels) -> Pixels:
    """``(rows * h, columns * w, 3)``: the patches without borders."""
    grid, ids = sheet.cut.grid, sheet.ids
    if sheet.cut.sequence is None and not grid.overlaps and grid.start == (0, 0) and grid.stop <= grid.image:
        return pixels[: grid.stop[0], : grid.stop[1]]  # side by side they lie already
    patches = split(pixels.transpose(2, 0, 1), grid, sheet.cut.padding)
    if sheet.cut.sequence is not None:
        chosen = np.where(ids < 0, len(patches), ids).ravel()
        patches = np.concatenate([patches, np.full_like(patches[:1], 255)])[chosen]
    return np.asarray(rearrange(patches, '(r c) k h w -> (r h) (c w) k', r=ids.shape[0]))


def _marked(flat: Pixels, sheet: Sheet) -> Pixels:
    """The patches with masked ones gray, those that are not highlighted faded, and special tokens colored."""
    cut, ids = sheet.cut, sheet.ids
    if cut.hidden is None and not cut.highlight and (ids >= 0).all():
        return flat
    marked = flat.copy()
    tiles = rearrange(marked, '(r h) (c w) k -> r c h w k', r=ids.shape[0], c=ids.shape[1])
    number = np.maximum(ids, 0)
    if cut.hidden is not None:
        tiles[(ids >= 0) & cut.hidden[number]] = _MASKED
    if cut.highlight:
        others = (ids >= 0) & ~np.isin(ids, cut.highlight)
        tiles[others] = np.rint(tiles[others] * (1 - _FADE) + 255 * _FADE).astype(np.uint8)
    tiles[ids == BLANK] = cut.color
    tiles[ids < BLANK] = _SPECIAL
    return marked


def _places(length: int, sheet: Sheet, axis: int) -> tuple[NDArray[np.intp], int]:
    """Where the pixels of patches go along an axis of ``length`` pixels, and how many each patch gets."""
    count, border = sheet.ids.shape[axis], sheet.border[axis]
    pitch = length / count
    extent = round(pitch * (1 - 2 * border / sheet.pitch[axis]))
    extent = min(max(extent, 1), math.floor(pitch) - (_THINNEST if border else 0))
    starts = np.floor(np.arange(count) * pitch + (pitch - extent) / 2 + 1e-9).astype(int)
    return (starts[:, None] + np.arange(extent)).ravel(), extent


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


def grid_scene(result: ImageGrid, page: Page) -> Scene:
    """Pictures in rows, all of one height, headings above and labels under them.

    Args:
        result: The pictures; rows may differ in length, none may be empty.
        page: Where to draw.

    Raises:
        InputError: A picture is not an RGB image.
    """
    if not any(result.rows):
        raise ValueError('a grid without pictures cannot be drawn')
    once = _steps_once(result)
    lines = [
        Line(tuple(_cell(image, result, page, once and number > 0) for image in row))
        for number, row in enumerate(row for row in result.rows if row)
    ]
    noted = grid_remark(result)
    if page.paper:
        lines[-1] = replace(lines[-1], remark=noted)
        return arrange(lines, page)
    return arrange(lines, page, ' · '.join(filter(None, (result.caption, noted))))


def _steps_once(result: ImageGrid) -> bool:
    """Whether the names of a pipeline's steps stand above the first tile of a column only: all rows have them alike."""
    named = [
        tuple(str(image.coordinates.get('within', image.coordinates.get('step'))) for image in row)
        for row in result.rows
        if row
    ]
    return result.mode == 'pipeline' and len(set(named)) == 1 and not any(i.title for row in result.rows for i in row)


# Colors that are told apart by people who see few of them (Okabe and Ito, 2008).
_BOX_COLORS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


def _cell(image: GridImage, result: ImageGrid, page: Page, below: bool) -> Cell:
    pixels = to_uint8(image.pixels, 'picture')
    if image.cut is not None:
        return mosaic_cell(image, image.cut, pixels, page)
    height, width = pixels.shape[:2]
    color = RED if image.wrong else BLACK
    tile = partial(resize_image, pixels)
    marks: list[Mark] = [_outline(box, index, (width, height)) for index, box in enumerate(image.boxes)]
    if image.annotations is not None:
        drawing = AnnotationDrawing(image.annotations, result.classes, result.palette, result.skeleton)
        tile = partial(drawing.paint, pixels)
        marks.append(drawing)
    title, footer = grid_title(image, below), grid_footer(image, result.mode)
    return Cell(tile, width / height, title, footer, footer_color=color, note=image.remark, marks=tuple(marks))


def _outline(box: tuple[int, int, int, int], index: int, size: tuple[int, int]) -> Outline:
    left, top, right, bottom = (edge / size[axis % 2] for axis, edge in enumerate(box))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Outline(corners, _BOX_COLORS[index % len(_BOX_COLORS)], 2.0, 0.8)


def bare_tiles(result: ImageGrid) -> list[Pixels]:
    """Each picture by itself with nothing written on it: each pixel of it, or of its patches, is one pixel."""
    return [_bare(image) for row in result.rows for image in row]


def sized_tiles(result: ImageGrid, style: Style) -> list[Scene]:
    """The same as scenes of the size that the style wants for panels, one unit a pixel."""
    page = Page(paper=False, width=None, density=1.0)
    tiles = bare_tiles(result)
    sizes = [style.panel((tile.shape[0], tile.shape[1])) for tile in tiles]
    cells = [Cell(partial(resize_image, tile), tile.shape[1] / tile.shape[0]) for tile in tiles]
    return [single(cell, inside, page, canvas) for cell, (inside, canvas) in zip(cells, sizes, strict=True)]


def _bare(image: GridImage) -> Pixels:
    pixels = to_uint8(image.pixels, 'picture')
    return pixels if image.cut is None else bare_mosaic(image.cut, pixels)


def rescaled(result: ImageGrid, factor: float, style: Style) -> Style:
    """The style whose width makes the pixels of the last picture ``factor`` times as large on the screen.

    The last one of a row is what the network gets; the others of the grid have its height.
    """
    page = replace(style, width='screen').page(vector=False)
    last = max((row[-1].pixels.shape[0] for row in result.rows if row), default=1)
    height = max(1.0, factor * last)
    count = max(len(row) for row in result.rows)
    shapes = [[image.pixels.shape for image in row] for row in result.rows]
    aspects = [max(row[j][1] / row[j][0] for row in shapes if j < len(row)) for j in range(count)]
    width = round(height * sum(aspects) + page.gap * (count - 1) + 2 * page.margin)
    return replace(style, width=min(max(width, 64), 16384))
