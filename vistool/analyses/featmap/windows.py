"""Windows of a shifted-window network or of MaxViT, put back into their places."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
