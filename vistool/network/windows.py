"""Windows of a shifted-window network or of MaxViT, put back into their places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def from_windows(
    tensor: Tensor,
    root: nn.Module,
    name: str,
    batch: int,
    grids: Sequence[tuple[int, int]],
    size: tuple[int, int] | None = None,
) -> Tensor | None:
    """``(B·n, wh·ww, C)`` or ``(B·n, wh, ww, C)`` as ``(B, C, H, W)``; None where these are no windows.

    The window and the shift are those of the nearest module around the layer that states both. Padding on the right and
    below is cut off, the cyclic shift undone. MaxViT's grid attention (Tu et al., ECCV 2022) gathers positions that lie
    a stride apart; they too go back to where they were taken.

    Args:
        tensor: The layer's output.
        root: The network.
        name: The layer's dotted name.
        batch: Images in the batch.
        grids: Spatial sizes seen before, most recent last.
        size: ``(H, W)`` of the network input: a size of another shape is no grid over it.
    """
    if tensor.ndim not in (3, 4) or tensor.shape[0] % batch:
        return None
    owner = _owner(root, name)
    if owner is None:
        return None
    if _is_partition(owner):
        window, scattered = _pair(owner.partition_size), not owner.partition_block
        if tensor.ndim == 4 and type(owner).__name__.endswith('2d') and tuple(tensor.shape[2:]) == window:
            tensor = tensor.permute(0, 2, 3, 1)  # timm's partitions of (B, C, H, W)
    else:
        window, scattered = _pair(owner.window_size), False
    if tuple(tensor.shape[1:-1]) not in ((window[0] * window[1],), window):
        return None
    for height, width in reversed(grids):
        rows, columns = math.ceil(height / window[0]), math.ceil(width / window[1])
        if batch * rows * columns != tensor.shape[0] or not 0.5 <= rows * width / (columns * height) <= 2:
            continue
        if size is not None and not 0.5 < size[0] * width / (size[1] * height) < 2:
            continue  # (tokens, channels) of windows pass for a size too
        if _is_partition(owner) and (height % window[0] or width % window[1]):
            continue
        whole = tensor.reshape(batch, rows, columns, *window, tensor.shape[-1])
        order = (0, 5, 3, 1, 4, 2) if scattered else (0, 5, 1, 3, 2, 4)
        whole = whole.permute(order).reshape(batch, -1, rows * window[0], columns * window[1])
        return torch.roll(whole, _shift(owner, window, (height, width)), (2, 3))[:, :, :height, :width]
    return None


def _owner(root: nn.Module, name: str) -> Any:
    """The nearest module around (or at) ``name`` that states a window and a shift, or how it parts a map."""
    parts = name.split('.')
    for count in range(len(parts), 0, -1):
        module = root.get_submodule('.'.join(parts[:count]))
        if (hasattr(module, 'window_size') and hasattr(module, 'shift_size')) or _is_partition(module):
            return module
    return None


def _is_partition(module: Any) -> bool:
    return hasattr(module, 'partition_size') and hasattr(module, 'partition_block')


def _shift(owner: Any, window: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    if _is_partition(owner):
        return 0, 0
    # mmpretrain states the shift it would make and makes none where one window fills the map
    if not getattr(owner, 'pad_small_map', True) and min(grid) == window[0]:
        return 0, 0
    return _pair(owner.shift_size)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if not isinstance(value, (tuple, list)) else (int(value[0]), int(value[1]))


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
        size = _stated_pair(getattr(module, 'window_size', None))
        shift = _stated_pair(getattr(module, 'shift_size', None))
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


def _stated_pair(value: Any) -> Size | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Sequence) and len(value) == 2:
        return int(value[0]), int(value[1])
    return None
