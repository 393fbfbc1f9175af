"""A picture as a list of things at places, before anything is drawn.

Layouts make scenes; ``raster`` and ``vector`` paint them. The unit is a pixel on the screen and a point on paper, x
runs to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError, param

Pixels = NDArray[np.uint8]
Tile = Callable[[tuple[int, int]], Pixels]
"""Draws something at ``(height, width)`` pixels, uint8 ``(height, width, 3)`` RGB."""
Color = tuple[int, int, int]

BLACK: Color = (0, 0, 0)
GRAY: Color = (110, 110, 110)
WHITE: Color = (255, 255, 255)
RED: Color = (200, 0, 0)

_LONGEST_SIDE = 65_500  # what a JPEG can hold
_MOST_PIXELS = 178_956_970  # what Pillow opens, and no more than photos may have


@dataclass(frozen=True)
class Box:
    """A rectangle: its left and upper edge, width and height, in units."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height


@dataclass(frozen=True)
class ImageItem:
    """A picture in a box. ``tile`` is asked for exactly the pixels that the painter needs."""

    box: Box
    tile: Tile


@dataclass(frozen=True)
class TextItem:
    """One line of text.

    Attributes:
        x: Where the anchor lies.
        y: The baseline (with ``vertical``: x is the baseline, y the anchor).
        text: The line.
        size: Font size in units.
        color: RGB.
        anchor: ``left``, ``center`` or ``right``; along the reading direction.
        vertical: Whether the text runs upwards.
        ground: Color of a box behind the text, or None.
        halo: Color of a soft outline around the letters, or None.
    """

    x: float
    y: float
    text: str
    size: float
    color: Color = BLACK
    anchor: str = 'left'
    vertical: bool = False
    ground: Color | None = None
    halo: Color | None = None


@dataclass(frozen=True)
class PathItem:
    """A closed line.

    Attributes:
        points: Its corners, in units.
        color: RGB.
        width: Width of the line in units.
        clip: Nothing is drawn outside.
        filled: Whether the area within is painted, and not the line.
    """

    points: tuple[tuple[float, float], ...]
    color: Color
    width: float
    clip: Box
    filled: bool = False


@dataclass(frozen=True)
class Scene:
    """A picture of ``width`` by ``height`` units; ``items`` are drawn in their order on white."""

    width: float
    height: float
    items: tuple[ImageItem | TextItem | PathItem, ...]

    def pixels(self, density: float) -> tuple[int, int]:
        """Width and height in pixels.

        Args:
            density: Pixels per unit.

        Raises:
            InputError: No image file, or no ordinary memory, holds so many.
        """
        width, height = max(1, round(self.width * density)), max(1, round(self.height * density))
        if max(width, height) > _LONGEST_SIDE or width * height > _MOST_PIXELS:
            raise InputError(
                f'the picture would be {width} x {height} pixels',
                accepted=f'at most {_LONGEST_SIDE:,} a side and {_MOST_PIXELS // 10**6} million in all',
                hint=f'draw fewer maps, or choose a smaller {param("width")} or {param("dpi")}',
            )
        return width, height

    @property
    def images(self) -> tuple[ImageItem, ...]:
        """The picture's images."""
        return tuple(item for item in self.items if isinstance(item, ImageItem))

    @property
    def texts(self) -> tuple[TextItem, ...]:
        """The picture's lines of text."""
        return tuple(item for item in self.items if isinstance(item, TextItem))

    @property
    def paths(self) -> tuple[PathItem, ...]:
        """The picture's lines."""
        return tuple(item for item in self.items if isinstance(item, PathItem))
