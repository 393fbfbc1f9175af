"""Windows of a shifted-window network, put back into their places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def from_windows(
    tensor: Tensor, root: nn.Module, name: str, batch: int, grids: Sequence[tuple[int, int]]
) -> Tensor | None:
    """``(B·n, wh·ww, C)`` or ``(B·n, wh, ww, C)`` as ``(B, C, H, W)``; None where these are no shifted windows.

    The window and the shift are those of the nearest module around the layer that states both. Padding on the right and
    below is cut off, the cyclic shift undone.

    Args:
        tensor: The layer's output.
        root: The network.
        name: The layer's dotted name.
        batch: Images in the batch.
        grids: Spatial sizes seen before, most recent last.
    """
    if tensor.ndim not in (3, 4) or tensor.shape[0] % batch:
        return None
    owner = _owner(root, name)
    if owner is None:
        return None
    window = _pair(owner.window_size)
    if tuple(tensor.shape[1:-1]) not in ((window[0] * window[1],), window):
        return None
    for height, width in reversed(grids):
        rows, columns = math.ceil(height / window[0]), math.ceil(width / window[1])
        if batch * rows * columns != tensor.shape[0] or not 0.5 <= rows * width / (columns * height) <= 2:
            continue
        whole = tensor.reshape(batch, rows, columns, *window, tensor.shape[-1])
        whole = whole.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * window[0], columns * window[1])
        return torch.roll(whole, _shift(owner, window, (height, width)), (2, 3))[:, :, :height, :width]
    return None


def _owner(root: nn.Module, name: str) -> Any:
    """The nearest module around (or at) ``name`` that states a window and a shift."""
    parts = name.split('.')
    for count in range(len(parts), 0, -1):
        module = root.get_submodule('.'.join(parts[:count]))
        if hasattr(module, 'window_size') and hasattr(module, 'shift_size'):
            return module
    return None


def _shift(owner: Any, window: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    # mmpretrain states the shift it would make and makes none where one window fills the map
    if not getattr(owner, 'pad_small_map', True) and min(grid) == window[0]:
        return 0, 0
    return _pair(owner.shift_size)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if not isinstance(value, (tuple, list)) else (int(value[0]), int(value[1]))
