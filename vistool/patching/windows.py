"""The windows that attention is confined to, as their modules describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

Size = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Windows over a grid of tokens.

    Attributes:
        size: Height and width in tokens.
        shift: By how much they are moved up and to the left; what leaves the grid is cut off, not joined.
    """

    size: Size
    shift: Size = (0, 0)

    def edges(self, axis: int, count: int) -> tuple[int, ...]:
        """Where windows begin and end along an axis of ``count`` tokens, its ends included."""
        size, shift = self.size[axis], self.shift[axis]
        inner = range(shift if shift else size, count, size)
        return (0, *inner, count)


def find_windows(model: nn.Module, grid: Size) -> tuple[Windows, ...]:
    """The windows of a network's first stage: the plain ones, and the shifted ones where they differ.

    Swin's modules name them ``window_size`` and ``shift_size`` in every library. A grid no larger than a window is one
    window, and is not shifted.
    """
    found: list[Windows] = []
    for module in model.modules():
        size, shift = _pair(getattr(module, 'window_size', None)), _pair(getattr(module, 'shift_size', None))
        if size is None or shift is None:
            continue
        inside = (min(size[0], grid[0]), min(size[1], grid[1]))
        moved = (shift[0] if size[0] < grid[0] else 0, shift[1] if size[1] < grid[1] else 0)
        windows = Windows(inside, moved)
        if windows not in found:
            found.append(windows)
        if len(found) == 2:
            break
    return tuple(sorted(found, key=lambda each: each.shift))


def _pair(value: Any) -> Size | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Sequence) and len(value) == 2:
        return int(value[0]), int(value[1])
    return None
