"""Capturing every attention operation of a forward, whatever module runs it and however it is written.

A :class:`torch.overrides.TorchFunctionMode` sees each PyTorch function that the model calls. Three matter:
``scaled_dot_product_attention``, whose arguments already include rotary embeddings and query or key norms; a softmax,
however it is written, whose result is multiplied with values; and ``multi_head_attention_forward``, which ends in one
of the two. Nothing in the model is edited or copied.
"""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vistool.network.sampling import (
    OFFSETS,
    REFERENCE,
    SampledAttention,
    SampledProduct,
    SamplingFollower,
    reference_of,
)
from vistool.network.softmax import Product, SoftmaxFollower
from vistool.network.tensors import Grids, Size

CHUNK_BYTES = 48 << 20
"""Size of one chunk of attention weights; whole maps are never held in memory."""

TILE_BYTES = 2 << 20
"""Size of one tile of weights on a CPU, whose cache then holds it from the product to the sum."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far reconstructed outputs may be from the module's own, relative to the largest value, by dtype."""


@dataclass
class Frame:
    """A module around an attention operation, with the arguments of its call.

    Attributes:
        name: Dotted name in the network.
        module: The module.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        attended: Attention operations that have already run inside this call.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attended: int = 0

    def now(self) -> Frame:
        """The same as it is now: its own count goes on."""
        return Frame(self.name, self.module, self.args, self.kwargs, self.attended)

    @property
    def tensor(self) -> Tensor | None:
        """Its first tensor argument."""
        values = (*self.args, *self.kwargs.values())
        return next((value for value in values if isinstance(value, Tensor)), None)

    def argument(self, *names: str) -> Tensor | None:
        """The first tensor that was given for one of these arguments; None where there is none."""
        try:
            given = inspect.signature(self.module.forward).bind_partial(*self.args, **self.kwargs).arguments
        except (TypeError, ValueError):
            return None
        given = {**given.get('kwargs', {}), **given}
        return next((given[name] for name in names if isinstance(given.get(name), Tensor)), None)


_LEARNED_QUERIES = re.compile(
    r'\w*(Detr|DETR|Dino|DDQ|Mask2Former(Masked|Transformer)|OneFormerTransformer|TableTransformer)\w*Decoder|\w*QFormer'
)
"""Classes of mmdet and transformers around attention whose queries are learned."""


def of_objects(frames: Sequence[Frame], queries: int) -> bool:
    """Whether queries are learned, such as a detector's object queries; those are not places, however many there are.

    They are learned inside a class that :data:`_LEARNED_QUERIES` names, and inside any decoder that has as many queries
    as its network says (``num_queries``).

    Args:
        frames: Modules around the operation.
        queries: How many queries it has.
    """
    names = [type(frame.module).__name__ for frame in frames]
    if any(_LEARNED_QUERIES.match(name) for name in names):
        return True
    if not any('Decoder' in name and 'PixelDecoder' not in name for name in names):
        return False
    holders = [holder for frame in frames for holder in (frame.module, getattr(frame.module, 'config', None))]
    return any(getattr(holder, 'num_queries', None) == queries for holder in holders)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class AttentionOp:
    """One attention operation. Groups are images, or windows of images; tokens attend within their group.

    Attributes:
        index: Position among the attention operations of the forward.
        name: Dotted name of the module that ran it.
        shape: ``(groups, heads, queries, keys)``.
        query: ``(G, H, Nq, d)``, or None where the model computed the weights itself.
        key: ``(G, H, Nk, d)``, or None.
        bias: Added to the scaled products, broadcastable to ``shape``; None: nothing.
        scale: Factor of ``query · key``.
        weights: ``(G, H, Nq, Nk)`` as the model computed them, or None.
        value: ``(G, H, Nk, dv)``; None once compacted.
        output: ``(G, H, Nq, dv)``, the result of the operation; None once compacted.
        source: The operation's output as the model received it, for gradients with respect to it.
        lead: Sizes of the axes before queries and keys, as the model has them; ``groups · heads`` in all.
        arrange: Turns a tensor with the axes of ``source`` into ``(*lead, Nq, dv)``.
        mixed: Whether the heads were mixed after the softmax (talking heads), so that rows need not sum to 1.
        frames: Modules around it, outermost first; ``()`` once compacted.
        grids: Spatial sizes that were seen before it, most recent last.
        sampled: How many of the operations before it are of deformable attention.
        residual: Largest deviation of reconstructed outputs so far, relative to the largest output; a list of one.
    """

    index: int
    name: str
    shape: tuple[int, int, int, int]
    query: Tensor | None = None
    key: Tensor | None = None
    bias: Tensor | None = None
    scale: float = 1.0
    weights: Tensor | None = None
    value: Tensor | None = None
    output: Tensor | None = None
    source: Tensor | None = None
    lead: tuple[int, ...] = ()
    arrange: Callable[[Tensor], Tensor] = _as_it_is
    mixed: bool = False
    frames: tuple[Frame, ...] = ()
    grids: Sequence[Size] = ()
    sampled: int = 0
    residual: list[float] = field(default_factory=lambda: [0.0])

    @property
    def ordinal(self) -> int:
        """Position among the operations that are not deformable."""
        return self.index - self.sampled

    def rows(self, groups: Tensor | None, positions: Tensor | int) -> Tensor:
        """Attention of chosen queries over all keys, in O(heads · keys) each.

        Args:
            groups: int64 ``(n,)``; None means every group.
            positions: int64 ``(n, Q)``, queries within each group; a number means this one query of each.

        Returns:
            ``(n, heads, Q, keys)`` in at least float32.
        """
        if self.weights is not None:
            return _wide(_picked(self.weights, groups, positions))
        assert self.query is not None and self.key is not None
        keys = self.key if groups is None else self.key[groups]
        bias = self.bias
        if bias is not None:
            of = groups if bias.shape[0] > 1 else None
            bias = _picked(bias.expand(len(keys) if of is None else -1, -1, -1, -1), of, positions)
        return _softmax(_picked(self.query, groups, positions), keys, bias, self.scale)

    @property
    def step(self) -> int:
        """Queries of one chunk."""
        groups, heads, _, keys = self.shape
        return max(1, CHUNK_BYTES // (4 * groups * heads * keys))

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """All weights, a chunk of queries at a time: the queries as a slice, and ``(G, heads, chunk, keys)``."""
        for start in range(0, self.shape[2], self.step):
            part = slice(start, min(start + self.step, self.shape[2]))
            yield part, self.part(part)

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """All weights, cut into tiles of heads and queries that are small enough to stay in the cache."""
        groups, heads, queries, keys = self.shape
        tensor = self.weights if self.weights is not None else self.query
        budget = TILE_BYTES if tensor is not None and tensor.device.type == 'cpu' else CHUNK_BYTES
        rows = max(1, budget // (4 * groups * keys))
        down, across = min(rows, queries), max(1, rows // queries)
        for head in range(0, heads, across):
            for query in range(0, queries, down):
                yield slice(head, min(head + across, heads)), slice(query, min(query + down, queries))

    def room(self) -> Tensor | None:
        """Memory for one tile, reused for all: allocating new pages costs as much as the product that fills them."""
        if self.weights is not None or self.query is None:
            return None
        heads, queries = next(self.tiles())
        shape = self.shape[0], heads.stop, queries.stop, self.shape[3]
        return torch.empty(math.prod(shape), dtype=_wide(self.query[:0]).dtype, device=self.query.device)

    def part(self, queries: slice, heads: slice = slice(None), room: Tensor | None = None) -> Tensor:
        """The weights of a slice of the queries, and of the heads, ``(G, h, n, keys)``; in ``room`` if given."""
        if self.weights is not None:
            return _wide(self.weights[:, heads, queries])
        assert self.query is not None and self.key is not None
        bias = self.bias
        if bias is not None:
            bias = bias[:, heads if bias.shape[1] > 1 else slice(None), queries if bias.shape[2] > 1 else slice(None)]
        return _softmax(self.query[:, heads, queries], self.key[:, heads], bias, self.scale, room)

    @property
    def own(self) -> Tensor:
        """:attr:`source`, which must not be None."""
        assert self.source is not None
        return self.source

    def grouped(self, gradient: Tensor) -> Tensor:
        """A gradient with respect to :attr:`source`, ``(G, H, Nq, dv)``."""
        gradient = self.arrange(gradient)
        return gradient.reshape(*self.shape[:3], gradient.shape[-1])

    def regrouped(self, sizes: Sequence[int], order: Sequence[int], heads: int) -> AttentionOp:
        """The same operation with its leading axes in another order.

        Args:
            sizes: Sizes of the leading axes, or of factors of them, as the model has them.
            order: Their new order; heads come last.
            heads: Heads in all.
        """
        shape = (math.prod(sizes) // heads, heads, *self.shape[2:])
        if tuple(order) == tuple(range(len(sizes))) and shape == self.shape:
            return self

        def regroup(tensor: Tensor) -> Tensor:
            axes = (*order, *range(len(sizes), len(sizes) + 2))
            return tensor.reshape(*sizes, *tensor.shape[-2:]).permute(axes).reshape(*shape[:2], *tensor.shape[-2:])

        def arrange(tensor: Tensor) -> Tensor:
            return regroup(self.arrange(tensor))

        bias = self.bias
        if bias is not None and bias.shape[:2] != (1, 1):
            bias = regroup(bias.expand(*self.shape[:2], -1, -1))
        changed: dict[str, Any] = {name: regroup(tensor) for name, tensor in self._tensors.items()}
        return replace(self, shape=shape, bias=bias, arrange=arrange, **changed)

    def reordered(self, queries: Tensor | None, keys: Tensor | None) -> AttentionOp:
        """The same operation with its tokens in another order.

        Args:
            queries: int64 ``(Nq,)``: the query at each new place; None leaves them.
            keys: int64 ``(Nk,)``, likewise.
        """
        if queries is None and keys is None:
            return self

        def along(tensor: Tensor, axis: int, index: Tensor | None) -> Tensor:
            alone = index is None or tensor.shape[axis] == 1
            return tensor if index is None or alone else tensor.index_select(axis, index.to(tensor.device))

        moves: dict[str, tuple[Tensor | None, Tensor | None]] = {
            'query': (queries, None),
            'key': (keys, None),
            'value': (keys, None),
            'output': (queries, None),
            'weights': (queries, keys),
            'bias': (queries, keys),
        }
        changed: dict[str, Any] = {
            name: along(along(tensor, 2, moves[name][0]), 3, moves[name][1])
            for name, tensor in {**self._tensors, 'bias': self.bias}.items()
            if tensor is not None
        }

        def arrange(tensor: Tensor) -> Tensor:
            return along(self.grouped(tensor), 2, queries)

        return replace(self, arrange=arrange, **changed)

    @property
    def _tensors(self) -> dict[str, Tensor]:
        """Its tensors ``(G, H, …)`` by name, without the bias."""
        names = ('query', 'key', 'value', 'output', 'weights')
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def check(self, groups: Tensor | None, positions: Tensor | int, rows: Tensor) -> bool:
        """Whether ``rows`` times the values give what the operation returned; the residual is kept.

        Args:
            groups: int64 ``(n,)``; None means every group.
            positions: int64 ``(n, Q)``, or a number, as for :meth:`rows`.
            rows: ``(n, heads, Q, keys)``, from :meth:`rows`.
        """
        if self.value is None or self.output is None:
            return True
        with _exact(rows.device):
            values = self.value if groups is None else self.value[groups]
            rebuilt = rows @ values.detach().to(rows.dtype)
            own = _picked(self.output, groups, positions).detach().to(rows.dtype)
            off, most = (rebuilt - own).abs_().max(), own.abs().max()
        residual = float(off / most.clamp_min(1e-6))
        self.residual[0] = max(self.residual[0], residual if math.isfinite(residual) else math.inf)
        return self.residual[0] <= TOLERANCE.get(self.output.dtype, 1e-4)

    def compact(self, *, values: bool = False) -> AttentionOp:
        """A copy that holds only what the weights are computed from, in storage of its own."""
        value = self.value.detach().contiguous() if values and self.value is not None else None
        query, key = self.query, self.key
        if query is not None and key is not None:
            query = query.detach().clone(memory_format=torch.contiguous_format)
            key = key.detach().clone(memory_format=torch.contiguous_format)
        weights = None if self.weights is None else self.weights.detach()
        source = self.source if values else None
        return replace(self, query=query, key=key, weights=weights, value=value, output=None, source=source, frames=())


def _picked(tensor: Tensor, groups: Tensor | None, positions: Tensor | int) -> Tensor:
    """Rows of chosen queries of ``(G, H, Nq, last)``: ``(n, H, Q, last)``; an axis of 1 is the same for all queries."""
    tensor = tensor if groups is None else tensor[groups]
    if tensor.shape[2] == 1:
        return tensor
    if isinstance(positions, int):
        return tensor[:, :, positions : positions + 1]
    index = positions[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)


def _softmax(query: Tensor, key: Tensor, bias: Tensor | None, scale: float, room: Tensor | None = None) -> Tensor:
    shape = (*query.shape[:-1], key.shape[-2])
    out = None if room is None else room[: math.prod(shape)].view(shape)
    with _exact(query.device):
        scores = torch.matmul(_wide(query) * scale, _wide(key).transpose(-1, -2), out=out)
        if bias is not None:
            scores = scores.masked_fill_(~bias, -math.inf) if bias.dtype == torch.bool else scores.add_(bias)
        return torch.softmax(scores, -1, out=scores)


def _exact(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast to fewer bits on a device; entering ``torch.autocast`` takes as long as an operation of one row."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _wide(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def as_bias(bias: Tensor, lead: tuple[int, ...], grouped: tuple[int, int]) -> Tensor:
    """A mask with the axes ``(groups, heads, queries, keys)``, of which any may be 1."""
    bias = bias.reshape((1,) * (len(lead) + 2 - bias.ndim) + tuple(bias.shape)).detach()
    if len(lead) == 2:
        return bias
    if all(n == 1 for n in bias.shape[:-2]):
        return bias.reshape(1, 1, *bias.shape[-2:])
    return bias.expand(*lead, -1, -1).reshape(*grouped, *bias.shape[-2:])


Leaves = Literal['none', 'first', 'all']

_CONVOLUTION = {F.conv2d, torch.conv2d}
_POOLING = {F.avg_pool2d, F.max_pool2d, torch.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d}
_FUSED = F.scaled_dot_product_attention
HEADS = ('num_heads', 'n_heads', 'num_attention_heads', 'n_head', 'nhead', 'heads')
"""What modules call the number of their heads."""
# The function's own body, entered past the check that would hand it to the mode again.
_BODY = types.FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, 'has_torch_function': lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


@contextmanager
def watch_attention(
    root: nn.Module,
    batch: int,
    sink: Callable[[AttentionOp], None],
    *,
    leaves: Leaves = 'none',
    skip: Collection[int] = (),
    instead: Callable[[AttentionOp], Tensor] | None = None,
    sampled: Callable[[SampledAttention], None] | None = None,
) -> Iterator[AttentionWatch]:
    """Passes every attention operation that ``root`` runs to ``sink``; nothing stays behind when the context ends.

    Args:
        root: The network.
        batch: Images in the batch.
        sink: Called during the forward, once for each operation.
        leaves: Which operations' outputs become leaves of the autograd graph: none, the first (so that gradients with
            respect to all can be asked for), or all (so that no gradient passes through one).
        skip: Operations that are not attention over tokens (gates of experts), by their place in the order of all.
        instead: Operation (without its output) → what it gives the network instead, ``(G, H, Nq, dv)``.
        sampled: Called likewise for each operation of deformable attention; None: those are not looked for.
    """
    watch = AttentionWatch(batch, sink, leaves, frozenset(skip), instead, sampled)
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
        refused: Names of modules that multiplied values with a softmax whose rows no longer summed to 1.
        paused: Whether calls are ignored.
    """

    def __init__(
        self,
        batch: int,
        sink: Callable[[AttentionOp], None],
        leaves: Leaves,
        skip: frozenset[int],
        instead: Callable[[AttentionOp], Tensor] | None,
        sampled: Callable[[SampledAttention], None] | None = None,
    ) -> None:
        super().__init__()
        self.names: list[str] = []
        self.refused: list[str] = []
        self.paused = False
        self._skip, self._instead, self._count = skip, instead, 0
        self._batch, self._sink, self._leaves = batch, sink, leaves
        self._stack: list[Frame] = []
        self._grids = Grids()
        self._softmaxes = SoftmaxFollower()
        self._sampled, self._samplings, self._deformable = sampled, SamplingFollower(), 0

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
            frame = self._stack.pop()
            if self._sampled is not None and hasattr(module, OFFSETS) and not frame.attended:
                self._found(SampledAttention(len(self.names), frame.name, self._batch))  # by an operator that hides it
        self._grids.watch(output, module=module)

    def clear(self) -> None:
        """Drops references to tensors of the forward."""
        self._stack.clear()
        self._softmaxes.clear()
        self._samplings.clear()

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
        product = self._softmaxes.follow(func, args, kwargs, output)
        if product is not None:
            return self._multiplied(product, output)
        if self._softmaxes.refused:
            self.refused.append(self._stack[-1].name if self._stack else '')
        if self._sampled is not None and (samples := self._samplings.follow(func, args, kwargs, output)) is not None:
            self._summed(samples, output)
        convolves = func in _CONVOLUTION and max((args[1] if len(args) > 1 else kwargs['weight']).shape[2:]) > 1
        if convolves or (func in _POOLING and isinstance(output, Tensor) and output.ndim == 4):
            self._grids.measure(output)
        return output

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **more: Any
    ) -> Tensor:
        self._count += 1
        output = _FUSED(query, key, value, attn_mask, *rest, **more)
        if self._count - 1 in self._skip:
            return output
        names = ('dropout_p', 'is_causal')
        options = {**dict(zip(names, rest, strict=False)), **more}
        scale = options.get('scale')
        lead, queries, keys = tuple(query.shape[:-2]), query.shape[-2], key.shape[-2]
        bias = attn_mask
        if options.get('is_causal'):
            bias = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
        repeats = query.shape[-3] // key.shape[-3] if options.get('enable_gqa') else 1
        groups, heads = self._grouped(lead)

        def grouped(tensor: Tensor) -> Tensor:
            if tensor.shape[:-2] == (groups, heads):
                return tensor
            tensor = tensor.repeat_interleave(repeats, -3) if repeats > 1 and tensor.shape[-3] != lead[-1] else tensor
            return tensor.expand(*lead, *tensor.shape[-2:]).reshape(groups, heads, *tensor.shape[-2:])

        op = self._op(
            (groups, heads, queries, keys),
            query=grouped(query),
            key=grouped(key),
            value=grouped(value),
            bias=None if bias is None else as_bias(bias, lead, (groups, heads)),
            scale=1 / math.sqrt(query.shape[-1]) if scale is None else float(scale),
            lead=lead,
        )
        if self._instead is not None:
            output = self._replaced(op).to(output).reshape(output.shape)
        output = self._leaf(output)
        self._found(replace(op, output=grouped(output), source=output))
        return self._onward(output)

    def _multiplied(self, product: Product, output: Tensor) -> Tensor:
        """Takes weights that have met their values; returns what the model continues with."""
        self._count += 1
        if self._count - 1 in self._skip:
            return output
        lead = tuple(product.weights.shape[:-2])
        groups, heads = self._grouped(lead)

        def grouped(tensor: Tensor) -> Tensor:
            return tensor.reshape(groups, heads, *tensor.shape[-2:])

        op = self._op(
            (groups, heads, *product.weights.shape[-2:]),
            weights=grouped(product.weights),
            value=grouped(product.value),
            lead=lead,
            mixed=product.mixed,
            arrange=product.arrange,
        )
        if self._instead is not None:
            output = product.restore(self._replaced(op), output)
        output = self._leaf(output)
        self._found(replace(op, output=grouped(product.arrange(output)), source=output))
        return self._onward(output)

    def _summed(self, product: SampledProduct, output: Tensor) -> None:
        """Takes samples that were weighted and summed."""
        queries = int(product.weights.shape[1])
        given = (frame.argument(REFERENCE) for frame in reversed(self._stack))
        reference = reference_of((points for points in given if points is not None), queries)
        objects = of_objects(self._stack, queries)
        owner = next((frame for frame in reversed(self._stack) if hasattr(frame.module, OFFSETS)), None)
        name = (owner or self._stack[-1]).name if self._stack else ''
        self._found(SampledAttention(len(self.names), name, self._batch, product, output, reference, objects))

    def _op(self, shape: tuple[int, int, int, int], **known: Any) -> AttentionOp:
        name = self._stack[-1].name if self._stack else ''
        frames = tuple(frame.now() for frame in self._stack)
        known = {**known, 'frames': frames, 'grids': self._grids.copy(), 'sampled': self._deformable}
        return AttentionOp(len(self.names), name, shape, **known)

    def _replaced(self, op: AttentionOp) -> Tensor:
        assert self._instead is not None
        with self._pause():
            return self._instead(op)

    def _found(self, op: AttentionOp | SampledAttention) -> None:
        self.names.append(op.name)
        with self._pause():
            if isinstance(op, AttentionOp):
                self._sink(op)
            elif self._sampled is not None:
                self._deformable += 1
                self._sampled(op)
        for frame in self._stack:
            frame.attended += 1

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """What the caller's functions run is not part of the model."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

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
        values = (getattr(f.module, name, None) for f in reversed(self._stack) for name in HEADS)
        heads = next((n for n in values if isinstance(n, int) and n > 0 and lead[0] % n == 0), lead[0] // self._batch)
        return lead[0] // max(heads, 1), max(heads, 1)
