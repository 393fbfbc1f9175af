"""Windows of tokens: what modules state about them, what attention does with them, and how to undo it.

Swin's modules call them ``window_size`` and ``shift_size`` in every library; timm's MaxViT states a ``partition_size``.
Where nothing is stated, random tokens are traced into the windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vistool.network.attention import Frame
from vistool.network.tensors import Grids, Layout, PooledMap, Size, WindowOrder, replace_tensor, seen_grids

_STATEMENTS = ('window_size', 'shift_size', 'window_shape', 'partition_size', 'ws')
_STATED = ('window_size', 'partition_size')
_ATTENTION = {F.scaled_dot_product_attention, F.softmax, torch.softmax, Tensor.softmax, F.multi_head_attention_forward}


def mentions_windows(module: nn.Module) -> bool:
    """Whether a module states anything about windows."""
    return any(getattr(module, name, None) for name in _STATEMENTS)


@dataclass(frozen=True)
class Windows:
    """Windows over a grid of tokens.

    Attributes:
        size: Height and width in tokens.
        shift: How far they are moved up and to the left; what leaves the grid is cut off, not joined.
        scattered: Whether a window gathers positions that are a stride apart (MaxViT's grid attention, Tu et al., ECCV
            2022) instead of neighbors.
    """

    size: Size
    shift: Size = (0, 0)
    scattered: bool = False

    def edges(self, axis: int, count: int) -> tuple[int, ...]:
        """Where windows begin and end along an axis of ``count`` tokens, its ends included."""
        size, shift = self.size[axis], self.shift[axis]
        inner = range(shift if shift else size, count, size)
        return (0, *inner, count)


def stated_windows(module: nn.Module) -> Windows | None:
    """The windows that a module states, or None."""
    kind: Any = type(module)  # mypy does not take classes for hashable
    if not _may_state(kind) and vars(module).keys().isdisjoint(_STATED):
        return None  # each look for an attribute that a module does not have raises and catches an error
    if hasattr(module, 'partition_size') and hasattr(module, 'partition_block'):
        size = _pair(module.partition_size)
        return None if size is None else Windows(size, scattered=not module.partition_block)
    size, shift = _pair(getattr(module, 'window_size', None)), _pair(getattr(module, 'shift_size', None))
    return None if size is None or shift is None else Windows(size, shift)


@lru_cache(1024)
def _may_state(kind: Any) -> bool:
    """Whether modules of a class may have windows without attributes of their own that say so."""
    return any(hasattr(kind, name) for name in _STATED) or kind.__getattr__ is not nn.Module.__getattr__


def find_windows(model: nn.Module, grid: Size) -> tuple[Windows, ...]:
    """The windows of a network's first stage: the plain ones, and the shifted ones where they differ.

    A grid that is not larger than a window is one window, and is not shifted.
    """
    found: list[Windows] = []
    for module in model.modules():
        stated = stated_windows(module)
        if stated is None or hasattr(module, 'partition_block'):
            continue
        size, shift = stated.size, stated.shift
        inside = (min(size[0], grid[0]), min(size[1], grid[1]))
        moved = (shift[0] if size[0] < grid[0] else 0, shift[1] if size[1] < grid[1] else 0)
        windows = Windows(inside, moved)
        if windows not in found:
            found.append(windows)
        if len(found) == 2:
            break
    return tuple(sorted(found, key=lambda each: each.shift))


def window_layout(
    shape: Sequence[int], root: nn.Module, name: str, batch: int, grids: Sequence[Size], size: Size | None = None
) -> Layout | None:
    """How ``(B·n, wh·ww, C)`` or ``(B·n, wh, ww, C)`` is laid out; None where these are not windows.

    The windows are those of the nearest module around the layer that states them.

    Args:
        shape: Of the layer's output.
        root: The network.
        name: The layer's dotted name.
        batch: Images in the batch.
        grids: Spatial sizes seen before, most recent last. Those that convolutions made come first.
        size: ``(H, W)`` of the network input: a size of another shape is not a grid over it.

    Raises:
        PooledMap: If the grid has a single position.
    """
    if len(shape) not in (3, 4) or shape[0] % batch:
        return None
    owner, windows = _nearest(root, name)
    if windows is None:
        return None
    window, inner, axes = windows.size, tuple(shape[1:-1]), 'BLC'
    partition = hasattr(owner, 'partition_block')
    if partition and len(shape) == 4 and type(owner).__name__.endswith('2d') and tuple(shape[2:]) == window:
        inner, axes = window, 'BCL'  # timm's partitions of (B, C, H, W)
    if inner not in ((window[0] * window[1],), window):
        return None
    seen = seen_grids(grids) if isinstance(grids, Grids) else []
    latest_first = list(dict.fromkeys([*reversed(grids), *seen]))
    for height, width in sorted(latest_first, key=lambda grid: grid not in seen):
        rows, columns = math.ceil(height / window[0]), math.ceil(width / window[1])
        if batch * rows * columns != shape[0] or not 0.5 <= rows * width / (columns * height) <= 2:
            continue
        if size is not None and not 0.5 < size[0] * width / (size[1] * height) < 2:
            continue  # (tokens, channels) of windows could be taken for a size too
        if partition and (height % window[0] or width % window[1]):
            continue
        if (height, width) == (1, 1):
            raise PooledMap(f'its output {tuple(shape)} has a single position')
        order = WindowOrder((height, width), window, _shift(owner, windows, (height, width)), windows.scattered)
        return Layout(axes, (height, width), order=order)
    return None


def _nearest(root: nn.Module, name: str) -> tuple[nn.Module, Windows | None]:
    """The nearest module around (or at) ``name`` that states windows, and those windows."""
    parts = name.split('.')
    for count in range(len(parts), 0, -1):
        module = root.get_submodule('.'.join(parts[:count]))
        if (windows := stated_windows(module)) is not None:
            return module, windows
    return root, None


def _shift(owner: Any, windows: Windows, grid: Size) -> Size:
    # mmpretrain states the shift it would make, and makes none where one window fills the map
    if not getattr(owner, 'pad_small_map', True) and min(grid) == windows.size[0]:
        return 0, 0
    return windows.shift


def _pair(value: Any) -> Size | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Sequence) and len(value) == 2:
        return int(value[0]), int(value[1])
    return None


def trace_windows(frame: Frame, tensor: Tensor, layout: Layout, inside: int, tokens: int) -> Tensor | None:
    """Runs a module on random tokens up to its attention, and recognizes them inside the windows.

    Args:
        frame: The module, with what it was called with.
        tensor: The tensor of all tokens among its arguments.
        layout: How that is laid out.
        inside: Tokens in all windows together, padding counted.
        tokens: Tokens in all images together.

    Returns:
        int64 ``(inside,)``: which of the tokens each one in a window is, -1 for padding; None if they are not
        recognized.
    """
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(tensor.shape, generator=generator).to(tensor)
    recorder = _TokenRecorder(random, layout)
    args, kwargs = replace_tensor(frame.args, tensor, random), replace_tensor(frame.kwargs, tensor, random)
    try:
        with torch.no_grad(), recorder:
            frame.module(*args, **kwargs)
    except _AttentionReached:
        pass
    for windowed in recorder.inside:
        if windowed.numel() // windowed.shape[-1] == inside:
            for source in recorder.sources:
                table = _recognize(windowed.reshape(inside, -1), source.reshape(tokens, -1))
                if table is not None:
                    return table
    return None


class _AttentionReached(Exception):
    """Ends a run where the attention begins."""


class _TokenRecorder(TorchFunctionMode):
    """Keeps the inputs of Linear and LayerNorm, and whatever has the shape of the module's input, latest first.

    Attributes:
        inside: Inputs of such layers, channels last.
        sources: Tensors of all the module's tokens, in order, channels last.
    """

    def __init__(self, tensor: Tensor, layout: Layout) -> None:
        super().__init__()
        batch, (h, w) = tensor.shape[0], layout.grid
        channels = tensor.numel() // math.prod((batch, h, w))
        self._last = {(batch, h, w, channels), (batch, h * w, channels)}
        self._first = (batch, channels, h, w)
        self._sums: set[int] = set()
        self.inside: list[Tensor] = []
        self.sources: list[Tensor] = []
        self._keep(tensor)

    def _keep(self, tensor: Tensor) -> None:
        """Takes a tensor as a source if it has the shape of one and is not a mere reordering of an earlier one."""
        if tuple(tensor.shape) == self._first:
            tensor = tensor.permute(0, 2, 3, 1)
        elif tuple(tensor.shape) not in self._last:
            return
        checksum = int(_fingerprints(tensor.reshape(-1, tensor.shape[-1])).sum())
        if checksum not in self._sums:
            self._sums.add(checksum)
            self.sources.insert(0, tensor)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _ATTENTION:
            raise _AttentionReached
        output = func(*args, **(kwargs or {}))
        if func in (F.linear, F.layer_norm):  # a norm may come after the windows are cut
            self.inside.insert(0, args[0] if args else kwargs['input'])
        if isinstance(output, Tensor):
            self._keep(output)
        return output


def _recognize(inside: Tensor, source: Tensor) -> Tensor | None:
    """For each row of ``inside`` the row of ``source`` that it is a copy of, or -1; None unless each occurs once."""
    if inside.shape[1] != source.shape[1]:
        return None
    marks, own = _fingerprints(inside), _fingerprints(source)
    ordered, order = own.sort()
    at = torch.searchsorted(ordered, marks).clamp_max(len(ordered) - 1)
    found = torch.where(ordered[at] == marks, order[at], -1)
    hits = found[found >= 0]
    return found.cpu() if len(hits) == len(own) == len(hits.unique()) else None


def _fingerprints(rows: Tensor) -> Tensor:
    """A number per row, from its bits: integer sums do not depend on the order of summation."""
    bits = rows.float().contiguous().view(torch.int32).to(torch.int64)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(1 << 30, (bits.shape[1],), generator=generator).to(bits.device)
    return (bits * weights).sum(1)
