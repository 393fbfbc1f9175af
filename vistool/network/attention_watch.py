"""Capturing every attention operation of a forward, whatever module runs it and however it is written.

A :class:`torch.overrides.TorchFunctionMode` sees each PyTorch function that the model calls. Three matter:
``scaled_dot_product_attention``, whose arguments already include rotary embeddings and query or key norms; a softmax
over the last axis whose result enters a matrix product; and ``multi_head_attention_forward``, which ends in one of the
two. Nothing in the model is edited or copied.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vistool.network.attention_ops import AttentionOp, Frame, as_bias
from vistool.network.tensors import tensors
from vistool.network.tokens import Grids

Leaves = Literal['none', 'first', 'all']

_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}
_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum}
_CONVOLUTION = {F.conv2d, torch.conv2d}
_MIXING = {F.linear, F.conv2d, torch.conv2d}
_FUSED = F.scaled_dot_product_attention
_HEADS = ('num_heads', 'n_heads', 'num_attention_heads', 'n_head', 'nhead', 'heads')
# The function's own body, entered past the check that would hand it to the mode again.
_BODY = types.FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, 'has_torch_function': lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


@contextmanager
def watch_attention(
    root: nn.Module, batch: int, sink: Callable[[AttentionOp], None], *, leaves: Leaves = 'none'
) -> Iterator[AttentionWatch]:
    """Passes every attention operation that ``root`` runs to ``sink``; nothing stays behind when the context ends.

    Args:
        root: The network.
        batch: Images in the batch.
        sink: Called during the forward, once for each operation.
        leaves: Which operations' outputs become leaves of the autograd graph: none, the first (so that gradients with
            respect to all can be asked for), or all (so that no gradient passes through one).
    """
    watch = AttentionWatch(batch, sink, leaves)
    handles = []
    try:
        for name, module in root.named_modules():
            if type(module).__module__.startswith('torch.nn.') and not isinstance(module, nn.MultiheadAttention):
                continue  # Linear, LayerNorm, Sequential …: they run no attention of their own
            handles.append(module.register_forward_pre_hook(watch.enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(watch.leave, always_call=True))
        with watch:
            yield watch
    finally:
        for handle in handles:
            handle.remove()
        watch.clear()


class AttentionWatch(TorchFunctionMode):
    """The function mode.

    Attributes:
        names: Dotted names of the modules that ran the operations, in order, one per operation.
        paused: Whether calls are ignored.
    """

    def __init__(self, batch: int, sink: Callable[[AttentionOp], None], leaves: Leaves) -> None:
        super().__init__()
        self.names: list[str] = []
        self.paused = False
        self._batch, self._sink, self._leaves = batch, sink, leaves
        self._stack: list[Frame] = []
        self._grids = Grids()
        # weights that have not met their values yet, and whether their heads were mixed
        self._softmaxes: dict[int, tuple[Tensor, bool]] = {}

    def enter(self, name: str) -> Callable[..., None]:
        """The pre-hook of the module called ``name``."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.paused:
                self._stack.append(Frame(name, module, args, kwargs))

        return hook

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook of every module."""
        if self.paused:
            return
        if self._stack and self._stack[-1].module is module:
            self._stack.pop()
            self._softmaxes.clear()
        self._grids.watch(output)

    def clear(self) -> None:
        """Drops references to tensors of the forward."""
        self._stack.clear()
        self._softmaxes.clear()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if func is _FUSED:
            return self._fused(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _BODY(*args, **kwargs)
        output = func(*args, **kwargs)
        if func in _SOFTMAX:
            if _last_axis(output, args, kwargs):
                self._softmaxes[id(output)] = (output, False)
        elif self._softmaxes:
            output = self._follow(func, args, kwargs, output)
        if func in _CONVOLUTION:
            self._grids.watch(output)
        return output

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **more: Any
    ) -> Tensor:
        output = _FUSED(query, key, value, attn_mask, *rest, **more)
        names = ('dropout_p', 'is_causal')
        options = {**dict(zip(names, rest, strict=False)), **more}
        scale = options.get('scale')
        lead, queries, keys = tuple(query.shape[:-2]), query.shape[-2], key.shape[-2]
        bias = attn_mask
        if options.get('is_causal'):
            bias = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
        repeats = query.shape[-3] // key.shape[-3] if options.get('enable_gqa') else 1
        output = self._leaf(output)
        groups, heads = self._grouped(lead)

        def grouped(tensor: Tensor) -> Tensor:
            tensor = tensor.repeat_interleave(repeats, -3) if repeats > 1 and tensor.shape[-3] != lead[-1] else tensor
            return tensor.expand(*lead, *tensor.shape[-2:]).reshape(groups, heads, *tensor.shape[-2:])

        self._found(
            (groups, heads, queries, keys),
            query=grouped(query),
            key=grouped(key),
            value=grouped(value),
            output=grouped(output),
            bias=None if bias is None else as_bias(bias, lead, (groups, heads)),
            scale=1 / math.sqrt(query.shape[-1]) if scale is None else float(scale),
            source=output,
        )
        return self._onward(output)

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Follows softmax weights through what a model does to them until they meet the values."""
        operands = list(tensors((args, kwargs)))
        held = next((t for t in operands if id(t) in self._softmaxes), None)
        if held is None or not isinstance(output, Tensor):
            return output
        if func in _MATMUL and len(operands) == 2:
            _, mixed = self._softmaxes[id(held)]
            output = self._product(operands, held, mixed, output)
        elif output.numel() == held.numel() and output.is_floating_point():
            _, mixed = self._softmaxes.pop(id(held))
            self._softmaxes[id(output)] = (output, mixed or func in _MIXING)
        return output

    def _product(self, operands: list[Tensor], held: Tensor, mixed: bool, output: Tensor) -> Tensor:
        """Weights times values, or values times transposed weights."""
        if held is operands[0]:
            weights, value, result = held, operands[1], output
        else:
            weights, value, result = held.mT, operands[0].mT, output.mT
        fits = weights.shape[-1] == value.shape[-2] and result.shape[-2:] == (weights.shape[-2], value.shape[-1])
        if not fits or weights.ndim < 3 or not (mixed or _rows_sum_to_one(weights)):
            return output
        self._softmaxes.pop(id(held))
        output = self._leaf(output)
        result = output if held is operands[0] else output.mT
        lead = tuple(weights.shape[:-2])
        groups, heads = self._grouped(lead)
        pairs = {'weights': weights, 'value': value, 'output': result}
        grouped = {k: t.expand(*lead, *t.shape[-2:]).reshape(groups, heads, *t.shape[-2:]) for k, t in pairs.items()}
        shape = (groups, heads, weights.shape[-2], weights.shape[-1])
        self._found(shape, mixed=mixed, source=output, flipped=held is not operands[0], **grouped)
        return self._onward(output)

    def _found(self, shape: tuple[int, int, int, int], **tensors: Any) -> None:
        name = self._stack[-1].name if self._stack else ''
        frames = tuple(replace(frame) for frame in self._stack)  # as they are now: their counts go on
        op = AttentionOp(len(self.names), name, shape, frames=frames, grids=tuple(self._grids.sizes), **tensors)
        self.names.append(name)
        self.paused = True  # what the sink runs is not part of the model
        try:
            self._sink(op)
        finally:
            self.paused = False
        for frame in self._stack:
            frame.attended += 1

    def _leaf(self, output: Tensor) -> Tensor:
        if self._leaves == 'none' or (self._leaves == 'first' and output.requires_grad):
            return output
        return output.detach().requires_grad_()

    def _onward(self, output: Tensor) -> Tensor:
        """What the model continues with: a copy of a leaf, since the model may change it in place."""
        return output.clone() if self._leaves != 'none' and output.is_leaf else output

    def _grouped(self, lead: tuple[int, ...]) -> tuple[int, int]:
        """Groups and heads of leading axes; the heads come last, or are merged into the only axis."""
        if len(lead) > 1:
            return math.prod(lead[:-1]), lead[-1]
        if not lead:
            return 1, 1
        if lead[0] == self._batch:
            return lead[0], 1
        values = (getattr(f.module, name, None) for f in reversed(self._stack) for name in _HEADS)
        heads = next((n for n in values if isinstance(n, int) and n > 0 and lead[0] % n == 0), lead[0] // self._batch)
        return lead[0] // max(heads, 1), max(heads, 1)


def _last_axis(output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    axis = kwargs.get('dim', args[1] if len(args) > 1 else None)
    return isinstance(output, Tensor) and output.ndim >= 3 and axis in (-1, output.ndim - 1)


def _rows_sum_to_one(weights: Tensor) -> bool:
    return bool((weights[..., 0, :].detach().float().sum(-1) - 1).abs().max() < 0.02)
