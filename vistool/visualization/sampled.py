"""The points that a query of deformable attention looks at, and the legend of their levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vistool.results import SampledPoints
from vistool.visualization import text as fonts
from vistool.visualization.raster import blend
from vistool.visualization.scene import BLACK, WHITE, Box, Color, PathItem, Pixels, TextItem
from vistool.visualization.style import Page
from vistool.visualization.table import Drawn
from vistool.visualization.views import View

LEVEL_COLORS: tuple[Color, ...] = (
    (255, 221, 51), (51, 187, 238), (238, 68, 153), (102, 221, 102), (187, 136, 255), (255, 153, 51),
)  # fmt: skip
"""Of the levels, the finest first; seen on photos, and told apart by the color-blind."""
_LARGEST = 0.028
"""Radius of the strongest point, as a part of the square root of the tile's area."""
_FAINT = 0.004
"""Points below this share of the strongest weight are not drawn."""
_PALE = 0.55


def level_color(level: int) -> Color:
    """The color of a level."""
    return LEVEL_COLORS[level % len(LEVEL_COLORS)]


def pale(photo: Pixels) -> Pixels:
    """A photo without colors and darker, so that points are seen on it."""
    gray = np.repeat(photo.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    return blend(gray, np.zeros_like(gray), 1 - _PALE)


@dataclass(frozen=True)
class PointMarks(Drawn):
    """Sampling points as discs: their area is the weight, their color the level; a cross where the query looks from.

    Attributes:
        sampled: The points.
        view: What they are drawn on.
        network: Height and width of the network's input.
    """

    sampled: SampledPoints
    view: View
    network: tuple[int, int]

    def items(self, box: Box, page: Page) -> Iterator[PathItem | TextItem]:
        """The discs, the strongest first, so that none is hidden, and the cross."""
        thin = 0.5 if page.paper else 1.0
        size = np.array(self.network[::-1], np.float64)
        places = self.view.place(self.sampled.points / size)
        strongest = float(self.sampled.weights.max(initial=0.0)) or 1.0
        largest = max(_LARGEST * (box.width * box.height) ** 0.5, 2.0 * thin)
        for index in np.argsort(-self.sampled.weights, kind='stable').tolist():
            share, (x, y) = float(self.sampled.weights[index]) / strongest, places[index]
            if share < _FAINT or not (0 <= x <= 1 and 0 <= y <= 1):
                continue
            radius = max(largest * share**0.5, 0.7 * thin)
            center = box.x + x * box.width, box.y + y * box.height
            yield PathItem(_circle(center, radius + 0.6 * thin), BLACK, 0.0, box, filled=True)
            yield PathItem(_circle(center, radius), level_color(int(self.sampled.levels[index])), 0.0, box, filled=True)
        if self.sampled.reference is not None:
            ((x, y),) = self.view.place(np.array([self.sampled.reference]) / size)
            yield from _cross((box.x + x * box.width, box.y + y * box.height), 1.2 * largest, thin, box)


@dataclass(frozen=True)
class LevelLegend(Drawn):
    """The sizes of the levels on their colors, the finest first, along the lower edge.

    Attributes:
        sizes: Height and width of each level.
    """

    sizes: tuple[tuple[int, int], ...]

    def items(self, box: Box, page: Page) -> Iterator[PathItem | TextItem]:
        """As many in a line as fit, the last line at the bottom."""
        size = page.small_font
        lines: list[list[tuple[float, str, Color]]] = [[]]
        x = box.x + 0.4 * size
        for level, (height, width) in enumerate(self.sizes):
            text = f'{height}×{width}'
            wide = fonts.text_width(text, size)
            if lines[-1] and x + wide + 0.4 * size > box.right:
                lines.append([])
                x = box.x + 0.4 * size
            lines[-1].append((x, text, level_color(level)))
            x += wide + 0.5 * size
        for number, line in enumerate(reversed(lines)):
            base = box.bottom - 0.4 * size - 1.3 * size * number
            for left, text, color in line:
                yield TextItem(left, base, text, size, BLACK, ground=color)


def _circle(center: tuple[float, float], radius: float) -> tuple[tuple[float, float], ...]:
    angles = np.linspace(0, 2 * np.pi, 25)[:-1]
    return tuple((center[0] + radius * float(np.cos(a)), center[1] + radius * float(np.sin(a))) for a in angles)


def _cross(center: tuple[float, float], reach: float, thin: float, box: Box) -> Iterator[PathItem]:
    x, y = center
    for color, width in ((BLACK, 3.6 * thin), (WHITE, 1.6 * thin)):
        yield PathItem(((x - reach, y), (x + reach, y)), color, width, box)
        yield PathItem(((x, y - reach), (x, y + reach)), color, width, box)
