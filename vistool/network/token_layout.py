"""Where the tokens of an attention operation are in the image: grids, prefix tokens, and windows found by probing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vistool.errors import InputError
from vistool.network.attention_ops import Call, Frame
from vistool.network.tokens import Layout, NoSpatialMap, find_layout

_ATTENTION = {F.scaled_dot_product_attention, F.softmax, torch.softmax, Tensor.softmax, F.multi_head_attention_forward}


def table_of(probe: Probe, inside: int, tokens: int) -> Tensor | None:
    """Which of the block's tokens each token in a window is, ``(inside,)``."""
    for windowed in probe.inside:
        if windowed.numel() // windowed.shape[-1] == inside:
            for source in probe.sources:
                table = _recognise(windowed.reshape(inside, -1), source.reshape(tokens, -1))
                if table is not None:
                    return table
    return None


class _Stop(Exception):
    """Ends a probe where the attention begins."""


class Probe(TorchFunctionMode):
    """Keeps what goes into Linear and LayerNorm, and whatever is laid out like the block's input, latest first.

    Attributes:
        inside: Inputs of such layers, channels last.
        sources: Tensors of all the block's tokens, in order, channels last.
    """

    def __init__(self, tensor: Tensor, layout: Layout) -> None:
        super().__init__()
        batch, (h, w), channels = (
            tensor.shape[0],
            layout.grid,
            tensor.numel() // math.prod((tensor.shape[0], *layout.grid)),
        )
        self._last = {(batch, h, w, channels), (batch, h * w, channels)}
        self._first = (batch, channels, h, w)
        self._totals: set[int] = set()
        self.inside: list[Tensor] = []
        self.sources: list[Tensor] = []
        self.keep(tensor)

    def keep(self, tensor: Tensor) -> None:
        """Takes a tensor for a source if it has the shape of one, and is not an earlier one's tokens moved about."""
        if tuple(tensor.shape) == self._first:
            tensor = tensor.permute(0, 2, 3, 1)
        elif tuple(tensor.shape) not in self._last:
            return
        total = int(_fingerprints(tensor.reshape(-1, tensor.shape[-1])).sum())
        if total not in self._totals:
            self._totals.add(total)
            self.sources.insert(0, tensor)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _ATTENTION:
            raise _Stop
        output = func(*args, **(kwargs or {}))
        if func in (F.linear, F.layer_norm):  # a norm may come after the windows are cut
            self.inside.insert(0, args[0] if args else kwargs['input'])
        if isinstance(output, Tensor):
            self.keep(output)
        return output


def run_probe(frame: Frame, tensor: Tensor, layout: Layout) -> Probe:
    """Runs a module on random tokens in place of ``tensor``, up to its attention."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(tensor.shape, generator=generator).to(tensor)
    probe = Probe(tokens, layout)
    args = tuple(tokens if value is tensor else value for value in frame.args)
    kwargs = {name: tokens if value is tensor else value for name, value in frame.kwargs.items()}
    try:
        with torch.no_grad(), probe:
            frame.module(*args, **kwargs)
    except _Stop:
        pass
    return probe


def _recognise(inside: Tensor, source: Tensor) -> Tensor | None:
    """For each row of ``inside`` which row of ``source`` it is a copy of, -1 for none; None unless each occurs once."""
    if inside.shape[1] != source.shape[1]:
        return None
    marks, own = _fingerprints(inside), _fingerprints(source)
    ordered, order = own.sort()
    at = torch.searchsorted(ordered, marks).clamp_max(len(ordered) - 1)
    found = torch.where(ordered[at] == marks, order[at], -1)
    hits = found[found >= 0]
    return found.cpu() if len(hits) == len(own) == len(hits.unique()) else None


def _fingerprints(rows: Tensor) -> Tensor:
    """A number per row that depends on its bits alone: sums of integers do not depend on their order."""
    bits = rows.float().contiguous().view(torch.int32).to(torch.int64)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(1 << 30, (bits.shape[1],), generator=generator).to(bits.device)
    return (bits * weights).sum(1)


_WINDOWS = ('window_size', 'shift_size', 'window_shape', 'partition_size', 'ws')
_CHANNELS = ('XCA', 'ChannelAttention', 'CrossCovariance', 'ChannelBlock')


@dataclass(frozen=True)
class Place:
    """Where queries and keys are.

    Attributes:
        grid: ``(h, w)`` of the keys.
        prefix: Keys before the grid (class, distillation, registers).
        query_grid: ``(h, w)`` of the queries; None where they are no grid (a class query, latents).
        query_prefix: Queries before the grid.
        windows: int64 ``(G, n)``: for each window's positions the token ``image · h · w + row · w + column``, or -1 for
            padding; None where every query sees the whole image.
    """

    grid: tuple[int, int]
    prefix: int
    query_grid: tuple[int, int] | None
    query_prefix: int
    windows: Tensor | None = None


def place(call: Call, batch: int, size: tuple[int, int]) -> Place:
    """Finds out where the tokens of an operation are.

    Args:
        call: The operation, not compacted.
        batch: Images in the batch.
        size: ``(H, W)`` of the network input.

    Raises:
        InputError: If it attends over channels, or its tokens cannot be laid out over the image.
    """
    _refuse_channels(call, batch)
    groups, _, queries, keys = call.shape
    if groups != batch or any(getattr(f.module, name, None) for f in call.frames for name in _WINDOWS):
        windows = _windows(call, batch, size)
        if windows is not None:
            return windows
    try:
        grid, prefix = _grid(keys, size, call.grids)
    except NoSpatialMap as error:
        raise InputError(
            f'{call.name}: {queries} queries × {keys} keys, and the keys form no grid over the image',
            hint='choose another layer',
            parameter='layers',
        ) from error
    if queries == keys:
        return Place(grid, prefix, grid, prefix)
    try:
        query_grid, query_prefix = _grid(queries, size, call.grids, prefix)  # latents are a grid only by accident
    except NoSpatialMap:
        return Place(grid, prefix, None, queries)
    return Place(grid, prefix, query_grid, query_prefix)


def cover(size: tuple[int, int], grid: tuple[int, int], patch: tuple[int, int] | None) -> tuple[int, int]:
    """Which part of the network input a grid of tokens covers, ``(H, W)`` pixels from the top left.

    A patch embedding drops what is left over at the right and below, or pads it. Where the stride is not known, the
    grid is taken to cover the input.

    Args:
        size: ``(H, W)`` of the network input.
        grid: ``(h, w)``.
        patch: Stride of the first convolution.
    """
    for halvings in range(7) if patch is not None else ():
        assert patch is not None
        strides = patch[0] << halvings, patch[1] << halvings
        if all(n in (length // s, -(-length // s)) for n, length, s in zip(grid, size, strides, strict=True)):
            return grid[0] * strides[0], grid[1] * strides[1]
    return size


def _grid(
    length: int, size: tuple[int, int], grids: Sequence[tuple[int, int]], prefix: int | None = None
) -> tuple[tuple[int, int], int]:
    layout = find_layout(torch.empty(1, length, 1, device='meta'), size, grids, prefix=prefix, tokens=True)
    return layout.grid, layout.prefix


def _refuse_channels(call: Call, batch: int) -> None:
    """Cross-covariance attention has channels for keys: its weights say nothing about places."""
    _, heads, queries, keys = call.shape
    values = call.value.shape[3] if call.value is not None else 0
    frame = next((f for f in reversed(call.frames) if f.tensor is not None and f.tensor.ndim >= 3), None)
    named = frame is not None and any(name in type(frame.module).__name__ for name in _CHANNELS)
    shaped = False
    if frame is not None and frame.tensor is not None and queries == keys != values:
        shape = frame.tensor.shape
        laid = [(shape[1:-1].numel(), shape[-1])] + [(shape[2:].numel(), shape[1])] * (len(shape) == 4)
        shaped = any(values == tokens != keys and heads * keys == channels for tokens, channels in laid)
    if named or shaped:
        raise InputError(
            f'{call.name} attends over channels: its {queries}×{keys} weights relate channels, not places in the image',
            hint='choose a layer with spatial attention, or see vis_featmap',
            parameter='layers',
        )


def _windows(call: Call, batch: int, size: tuple[int, int]) -> Place | None:
    """Follows tokens into windows by running the block on random tokens, each of which is then recognised.

    Returns:
        None where the one window of each image is the whole image.

    Raises:
        InputError: If the tokens are not recognised.
    """
    groups, _, queries, keys = call.shape
    for frame in _candidates(call.frames, batch):
        tensor = frame.tensor
        assert tensor is not None
        try:
            shape = torch.empty(tensor.shape, device='meta')
            layout = find_layout(shape, size, call.grids, batch=batch, tokens=tensor.ndim == 3)
        except NoSpatialMap:
            continue
        tokens = layout.grid[0] * layout.grid[1]
        if groups == batch and (layout.prefix or queries != keys):
            return None
        probe = run_probe(frame, tensor, layout)
        table = table_of(probe, groups * queries, batch * tokens)
        if table is not None:
            whole = torch.arange(batch * tokens)
            if groups == batch and torch.equal(table, whole):
                return None
            return Place(layout.grid, 0, layout.grid, 0, table.view(groups, queries).to(tensor.device))
    raise _unplaced(call)


def _unplaced(call: Call) -> InputError:
    return InputError(
        f'{call.name}: attention within {call.shape[0]} groups of {call.shape[3]} tokens, which cannot be placed in '
        'the image',
        hint='choose another layer',
        parameter='layers',
    )


def _candidates(frames: Sequence[Frame], batch: int) -> Iterator[Frame]:
    """Modules around an operation to start a probe from: the enclosing block, the modules in it, those around it."""
    numbered = [number for number, frame in enumerate(frames) if frame.name.rpartition('.')[2].isdigit()]
    start = numbered[-1] if numbered else 0
    for frame in (*frames[start:], *reversed(frames[:start])):
        tensor = frame.tensor
        if tensor is not None and tensor.ndim in (3, 4) and tensor.shape[0] == batch and not frame.attended:
            yield frame
