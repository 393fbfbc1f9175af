"""The border of a set of tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

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
