"""Image grids (samples, pipeline steps, patches) to a scene."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from vistool.results import GridImage, ImageGrid
from vistool.visualization.cells import Cell, Line, Outline
from vistool.visualization.draw import resize_image, to_uint8
from vistool.visualization.mosaic import bare_mosaic, mosaic_cell
from vistool.visualization.scene import BLACK, RED, Pixels, Scene
from vistool.visualization.style import Page, Style
from vistool.visualization.table import arrange


def grid_scene(result: ImageGrid, page: Page) -> Scene:
    """Pictures in rows, all of one height, headings above and labels under them.

    Args:
        result: The pictures; rows may differ in length, none may be empty.
        page: Where to draw.

    Raises:
        InputError: A picture is no RGB image.
    """
    if not any(result.rows):
        raise ValueError('a grid without pictures cannot be drawn')
    lines = [Line(tuple(_cell(image, page) for image in row)) for row in result.rows if row]
    return arrange(lines, page, result.caption)


# Colors that are told apart by people who see few of them (Okabe and Ito, 2008).
_BOX_COLORS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


def _cell(image: GridImage, page: Page) -> Cell:
    pixels = to_uint8(image.pixels, 'picture')
    if image.cut is not None:
        return mosaic_cell(image, image.cut, pixels, page)
    height, width = pixels.shape[:2]
    color = RED if image.wrong else BLACK
    marks = tuple(_outline(box, index, (width, height)) for index, box in enumerate(image.boxes))
    return Cell(partial(_resized, pixels), width / height, image.title, image.footer, footer_color=color, marks=marks)


def _outline(box: tuple[int, int, int, int], index: int, size: tuple[int, int]) -> Outline:
    left, top, right, bottom = (edge / size[axis % 2] for axis, edge in enumerate(box))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Outline(corners, _BOX_COLORS[index % len(_BOX_COLORS)], 2.0, 0.8)


def bare_tiles(result: ImageGrid) -> list[Pixels]:
    """Each picture by itself with nothing written on it: each pixel of it, or of its patches, is one pixel."""
    return [_bare(image) for row in result.rows for image in row]


def _bare(image: GridImage) -> Pixels:
    pixels = to_uint8(image.pixels, 'picture')
    return pixels if image.cut is None else bare_mosaic(image.cut, pixels)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return resize_image(pixels, size)


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
