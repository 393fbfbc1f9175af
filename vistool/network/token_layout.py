"""Where the tokens of an attention operation are in the image: grids, prefix tokens, and windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistool.errors import InputError
from vistool.network.attention import AttentionOp, Frame
from vistool.network.tensors import NoSpatialMap, Size, TokenHints, find_layout
from vistool.network.windows import mentions_windows, trace_windows

_CHANNEL_ATTENTION = ('XCA', 'ChannelAttention', 'CrossCovariance', 'ChannelBlock')


@dataclass(frozen=True)
class TokenLayout:
    """Where queries and keys are.

    Attributes:
        grid: ``(h, w)`` of the keys.
        prefix: Keys before the grid (class, distillation, registers).
        query_grid: ``(h, w)`` of the queries; None where they do not form a grid (a class query, latents).
        query_prefix: Queries before the grid.
        windows: int64 ``(G, n)``: for each window's positions the token ``image · h · w + row · w + column``, or -1 for
            padding; None where every query attends to the whole image.
    """

    grid: Size
    prefix: int
    query_grid: Size | None
    query_prefix: int
    windows: Tensor | None = None


def find_token_layout(op: AttentionOp, batch: int, size: Size) -> TokenLayout:
    """Finds out where the tokens of an operation are.

    Args:
        op: The operation, not compacted.
        batch: Images in the batch.
        size: ``(H, W)`` of the network input.

    Raises:
        InputError: If it attends over channels, or its tokens cannot be laid out over the image.
    """
    _refuse_channels(op, batch)
    groups, _, queries, keys = op.shape
    if groups != batch or any(mentions_windows(frame.module) for frame in op.frames):
        windowed = _windowed(op, batch, size)
        if windowed is not None:
            return windowed
    try:
        grid, prefix = _grid(keys, size, op.grids)
    except NoSpatialMap as error:
        raise InputError(
            f'{op.name}: {queries} queries × {keys} keys, and the keys form no grid over the image',
            hint='choose another layer',
            parameter='layers',
        ) from error
    if queries == keys:
        return TokenLayout(grid, prefix, grid, prefix)
    try:
        query_grid, query_prefix = _grid(queries, size, op.grids, prefix)  # latents form a grid only by accident
    except NoSpatialMap:
        return TokenLayout(grid, prefix, None, queries)
    return TokenLayout(grid, prefix, query_grid, query_prefix)


def covered_size(size: Size, grid: Size, stride: Size | None) -> Size:
    """Which part of the network input a grid of tokens covers, ``(H, W)`` pixels from the top left.

    A patch embedding drops what is left over at the right and below, or pads it. Where its stride is not known, the
    grid is assumed to cover the input.

    Args:
        size: ``(H, W)`` of the network input.
        grid: ``(h, w)``.
        stride: Stride of the first convolution.
    """
    if stride is None:
        return size
    for halvings in range(7):
        strides = stride[0] << halvings, stride[1] << halvings
        if all(n in (length // s, -(-length // s)) for n, length, s in zip(grid, size, strides, strict=True)):
            return grid[0] * strides[0], grid[1] * strides[1]
    return size


def _grid(length: int, size: Size, grids: Sequence[Size], prefix: int | None = None) -> tuple[Size, int]:
    layout = find_layout(torch.empty(1, length, 1, device='meta'), size, grids, hints=TokenHints(prefix, flat=True))
    return layout.grid, layout.prefix


def _refuse_channels(op: AttentionOp, batch: int) -> None:
    """Cross-covariance attention has channels as keys: its weights say nothing about places."""
    _, heads, queries, keys = op.shape
    values = op.value.shape[3] if op.value is not None else 0
    frame = next((f for f in reversed(op.frames) if f.tensor is not None and f.tensor.ndim >= 3), None)
    named = frame is not None and any(name in type(frame.module).__name__ for name in _CHANNEL_ATTENTION)
    shaped = False
    if frame is not None and frame.tensor is not None and queries == keys != values:
        shape = frame.tensor.shape
        laid_out = [(shape[1:-1].numel(), shape[-1])] + [(shape[2:].numel(), shape[1])] * (len(shape) == 4)
        shaped = any(values == tokens != keys and heads * keys == channels for tokens, channels in laid_out)
    if named or shaped:
        raise InputError(
            f'{op.name} attends over channels: its {queries}×{keys} weights relate channels, not places in the image',
            hint='choose a layer with spatial attention, or see vis_featmap',
            parameter='layers',
        )


def _windowed(op: AttentionOp, batch: int, size: Size) -> TokenLayout | None:
    """The layout of attention within windows, found by tracing random tokens through the block.

    Returns:
        None where the one window of each image is the whole image.

    Raises:
        InputError: If the tokens are not recognized.
    """
    groups, _, queries, keys = op.shape
    for frame in _candidates(op.frames, batch):
        tensor = frame.tensor
        assert tensor is not None
        try:
            shape = torch.empty(tensor.shape, device='meta')
            layout = find_layout(shape, size, op.grids, batch=batch, hints=TokenHints(flat=tensor.ndim == 3))
        except NoSpatialMap:
            continue
        tokens = layout.grid[0] * layout.grid[1]
        if groups == batch and (layout.prefix or queries != keys):
            return None
        table = trace_windows(frame, tensor, layout, groups * queries, batch * tokens)
        if table is not None:
            whole = torch.arange(batch * tokens)
            if groups == batch and torch.equal(table, whole):
                return None
            return TokenLayout(layout.grid, 0, layout.grid, 0, table.view(groups, queries).to(tensor.device))
    raise InputError(
        f'{op.name}: attention within {op.shape[0]} groups of {op.shape[3]} tokens, which cannot be placed in the '
        'image',
        hint='choose another layer',
        parameter='layers',
    )


def _candidates(frames: Sequence[Frame], batch: int) -> Iterator[Frame]:
    """Modules around an operation to trace from: the enclosing block, then the modules in it, then those around it."""
    numbered = [number for number, frame in enumerate(frames) if frame.name.rpartition('.')[2].isdigit()]
    start = numbered[-1] if numbered else 0
    for frame in (*frames[start:], *reversed(frames[:start])):
        tensor = frame.tensor
        if tensor is not None and tensor.ndim in (3, 4) and tensor.shape[0] == batch and not frame.attended:
            yield frame
