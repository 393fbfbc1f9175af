"""Tiles with what is said about them, before they have a place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vistool.visualization.bars import Bar
from vistool.visualization.scene import BLACK, WHITE, Box, Color, PathItem, Tile
from vistool.visualization.style import Page


@dataclass(frozen=True)
class Outline:
    """A closed line on a tile; points in fractions of its width and height."""

    points: tuple[tuple[float, float], ...]
    color: Color = WHITE


@dataclass(frozen=True)
class Ring:
    """A small circle around a point of a tile, given in fractions of its width and height."""

    x: float
    y: float


@dataclass(frozen=True)
class Cell:
    """A tile and what is said about it.

    Attributes:
        tile: Draws the picture.
        aspect: Width divided by height.
        title: Lines above.
        footer: Lines below.
        title_color: Colour of the title.
        footer_color: Colour of the footer.
        note: A remark on the tile.
        marks: Lines drawn over the tile.
        bar: Its colour scale, where a bar is to be drawn.
    """

    tile: Tile
    aspect: float
    title: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    title_color: Color = BLACK
    footer_color: Color = BLACK
    note: str = ''
    marks: tuple[Outline | Ring, ...] = ()
    bar: Bar | None = None


@dataclass(frozen=True)
class Line:
    """A line of tiles, some places of which may be empty, and a label at its left."""

    cells: tuple[Cell | None, ...]
    label: str = ''


def mark_items(mark: Outline | Ring, box: Box, page: Page) -> Iterator[PathItem]:
    """The lines of a mark on the tile in ``box``."""
    thin = 0.5 if page.paper else 1.0
    if isinstance(mark, Ring):
        radius = min(max(0.03 * box.height, 2.5 * thin), 0.2 * min(box.width, box.height))
        angles = np.linspace(0, 2 * np.pi, 33)[:-1]
        centre_x, centre_y = box.x + mark.x * box.width, box.y + mark.y * box.height
        points = tuple((centre_x + radius * float(np.cos(a)), centre_y + radius * float(np.sin(a))) for a in angles)
        yield PathItem(points, BLACK, 3.5 * thin, box)
        yield PathItem(points, WHITE, 1.8 * thin, box)
        return
    points = tuple((box.x + x * box.width, box.y + y * box.height) for x, y in mark.points)
    yield PathItem(points, mark.color, thin, box)
