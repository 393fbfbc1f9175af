"""Aggregation of attention through all layers: rollout, gradient rollout and LeGrad."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.attention.capture import Collector, forward, has_class_token, positions_of, resolve_query, verify
from vistool.analyses.attention.selection import LayerChoice, Query
from vistool.errors import InputError, message_of
from vistool.models.classes import Chosen
from vistool.models.model import Model, Targets, explained, names_value
from vistool.network.attention import AttentionOp, AttentionWatch, watch_attention
from vistool.network.capture import borrowed, hooked
from vistool.network.embedding import patch_stride
from vistool.network.outputs import CHOOSE, Readout, absence
from vistool.network.tensors import NetworkInput, Size, call_module, first_tensor, input_size, replace_tensor
from vistool.network.token_layout import TokenLayout, covered_size, find_token_layout

log = logging.getLogger('vistool')


def rollout(ops: Sequence[AttentionOp], start: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020).

    The rows of Â_L … Â_1 with Â = (mean over heads of A + I) / 2, from the last layer to the first, without any
    N × N matrix.

    Args:
        ops: The layers in order, ``(B, H, N, N)`` each.
        start: ``(B, Q, N)``, the distribution over tokens that each row starts from.

    Returns:
        ``(B, Q, N)``; rows sum to 1 as those of ``start`` do.
    """
    rows = start.double()
    for op in reversed(ops):
        rows = (rows + _apply(op, rows, lambda heads, part, weights: weights)) / 2
    return rows


def gradient_rollout(ops: Sequence[AttentionOp], gradients: Sequence[Tensor], start: Tensor) -> Tensor:
    """Gradient-weighted rollout (Chefer, Gur and Wolf, "Generic attention-model explainability", ICCV 2021).

    The rows of R, where R = I and then R += mean over heads of (A ⊙ ∂y/∂A)⁺ · R for every layer.

    Args:
        ops: The layers in order, with their values.
        gradients: ∂y/∂output of each, ``(B, H, N, dv)``; ∂y/∂A = ∂y/∂output · Vᵀ.
        start: ``(B, Q, N)``.

    Returns:
        ``(B, Q, N)``.
    """
    rows = start.double()
    for op, gradient in zip(reversed(ops), reversed(gradients), strict=True):
        assert op.value is not None
        value, own = op.value, gradient

        def weighted(heads: slice, part: slice, weights: Tensor, value: Tensor = value, own: Tensor = own) -> Tensor:
            return (own[:, heads, part].to(weights) @ value[:, heads].mT.to(weights)).mul_(weights).clamp_min_(0)

        rows = rows + _apply(op, rows, weighted)
    return rows


def _apply(op: AttentionOp, rows: Tensor, change: Callable[[slice, slice, Tensor], Tensor]) -> Tensor:
    """``rows`` times the mean over heads of the changed weights; tiles in which all rows are zero are skipped."""
    result, room = torch.zeros_like(rows), op.room()
    for heads, part in op.tiles():
        own = rows[:, None, :, part]
        if own.any():
            weights = change(heads, part, op.part(part, heads, room))
            result += (own.to(weights.dtype) @ weights).sum(1)
    return result / op.shape[1]


def positive_gradients(op: AttentionOp, gradient: Tensor) -> Tensor:
    """The mean over heads and queries of (∂s/∂A)⁺, ``(B, N)``; streamed."""
    assert op.value is not None
    total = torch.zeros(op.shape[0], op.shape[3], dtype=torch.float64, device=gradient.device)
    for first in range(0, op.shape[2], op.step):
        part = gradient[:, :, first : first + op.step]
        total += (part @ op.value.mT.to(part)).clamp_min_(0).sum((1, 2)).double()
    return total / (op.shape[1] * op.shape[2])


@dataclass(frozen=True)
class Blocks:
    """The residual blocks around attention operations.

    Attributes:
        names: One dotted name per operation.
        modules: The modules of that name.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]


def block_of(op: AttentionOp) -> tuple[str, nn.Module] | None:
    """The outermost numbered module around an operation that runs no other before it."""
    for frame in op.frames[1:]:
        if re.search(r'\d$', frame.name) and not frame.attended:
            return frame.name, frame.module
    return None


@contextmanager
def averaged_tokens(blocks: Blocks) -> Iterator[None]:
    """Makes the end of the network score every block's average token, all blocks in one batch.

    Each block's tokens are detached before the next block. In place of the last block's tokens come the average tokens
    of all blocks, each at every position, stacked along the batch: norm, pooling and head see only those.
    """
    kept: list[Tensor] = []
    last = blocks.names[-1]

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        tokens = first_tensor(output)
        if tokens is None or tokens.ndim != 3 or (kept and tokens.shape[1:] != kept[0].shape[1:]):
            raise InputError(
                f'LeGrad scores the average token of every block, and {name} gives no tokens like the others',
                accepted='raw, rollout',
                parameter='method',
            )
        kept.append(tokens.mean(1, keepdim=True).expand_as(tokens))
        return replace_tensor(output, tokens, torch.cat(kept) if name == last else tokens.detach())

    with hooked(dict(zip(blocks.names, blocks.modules, strict=True)), keep):
        yield
    kept.clear()


def legrad(
    module: nn.Module,
    inputs: NetworkInput,
    batch: int,
    blocks: Blocks,
    wanted: Sequence[int],
    score: Callable[[Any], Tensor],
) -> Callable[[Tensor, Tensor], Tensor]:
    """LeGrad (Bousselham et al., "LeGrad: an explainability method for vision transformers", ICCV 2025).

    s_l = head(norm(average token of block l)) for the class; E_l = mean over heads and queries of (∂s_l/∂A_l)⁺; the map
    is their mean over the layers ``wanted``. ``score`` turns the network's output into class scores ``(L · B, C)``.

    Returns:
        A function of a class column and its signs, each ``(B,)``, that returns ``(B, N)``.
    """
    ops: list[AttentionOp] = []
    with (
        averaged_tokens(blocks),
        watch_attention(module, batch, lambda op: ops.append(op.compact(values=True)), leaves='all'),
    ):
        try:
            scores = score(call_module(module, inputs)).unflatten(0, (len(blocks.names), batch))
        except RuntimeError as error:
            raise InputError(
                f'the head of this network cannot score average tokens ({message_of(error)})',
                accepted='raw, rollout, grad-rollout',
                parameter='method',
            ) from error
    chosen = [ops[index] for index in wanted]

    def explain(classes: Tensor, signs: Tensor) -> Tensor:
        objective = (scores.gather(2, classes.expand(len(scores), -1)[..., None])[..., 0] * signs).sum()
        gradients = torch.autograd.grad(objective, [op.own for op in chosen], retain_graph=True)
        with torch.no_grad():
            maps = [positive_gradients(c, c.grouped(g)) for c, g in zip(chosen, gradients, strict=True)]
            return torch.stack(maps).mean(0)

    return explain


@dataclass(frozen=True)
class Aggregation:
    """Attention aggregated through all layers.

    Attributes:
        maps: ``(B, M, h, w)``: one map per query, or per class.
        indices: Numbers of the layers that were aggregated.
        names: Dotted names of those layers.
        residual: The largest of theirs.
        queries: The queries, ``auto`` resolved.
        patch: Stride of the patch embedding.
        chosen: The classes ``(B, M)``, or None.
        readout: What the scores mean, or None.
        numbers: ``(B, C)``, what is printed for each class, or None.
        lost: ``(B, M)``, the mass on prefix tokens, which is not drawn.
    """

    maps: Tensor
    indices: tuple[int, ...]
    names: tuple[str, ...]
    residual: float
    queries: tuple[Query, ...]
    patch: Size | None
    chosen: Chosen | None = None
    readout: Readout | None = None
    numbers: Tensor | None = None
    lost: Tensor | None = None


@dataclass
class _Layers:
    """The layers of one forward that have the last one's tokens.

    Attributes:
        ops: Their attention operations.
        layout: The layout of the tokens.
        others: Number of layers with other tokens.
        blocks: The residual block around each.
    """

    ops: list[AttentionOp]
    layout: TokenLayout
    others: int
    blocks: list[tuple[str, nn.Module] | None] = field(default_factory=list)

    @classmethod
    def of(cls, read: Sequence[tuple[AttentionOp, TokenLayout, Any]], method: str) -> _Layers:
        last, layout, _ = read[-1]
        windowed = next((op for op, its_layout, _ in read if its_layout.windows is not None), None)
        odd = windowed or last
        if windowed or last.shape[2] != last.shape[3] or last.mixed:
            why = 'within windows' if windowed else 'with mixed heads' if last.mixed else 'from other tokens'
            raise InputError(
                f'{method} multiplies layers in which every token attends to all, and {odd.name} attends {why}',
                accepted='raw',
                parameter='method',
            )
        same = [(o, b) for o, its, b in read if o.shape[2:] == last.shape[2:] and its == layout and not o.mixed]
        if len(same) < len(read):
            message = '%s: of %d attention layers, the %d over the same tokens as the last are used'
            log.warning(message, method, len(read), len(same))
        return cls([op for op, _ in same], layout, len(read) - len(same), [block for _, block in same])


def aggregate(
    model: Model,
    inputs: NetworkInput,
    method: str,
    layers: LayerChoice,
    queries: Sequence[Query],
    points: Tensor,
    targets: Targets,
    labels: Sequence[int | None],
    sign: int = 1,
) -> Aggregation:
    """Runs ``rollout``, ``grad-rollout`` or ``legrad``.

    Args:
        model: The model.
        inputs: Its input.
        method: Which.
        layers: Layers to aggregate.
        queries: The queries; ``legrad`` has none.
        points: ``(B, Q, 2)``, point queries in network pixels.
        targets: Classes, for the last two methods.
        labels: Ground truth per image.
        sign: −1 for the evidence against the classes.

    Raises:
        InputError: If the network does not fit the method, or a class, layer or query does not exist.
    """
    module, graded = model.module, method == 'grad-rollout'
    stride = patch_stride(module)
    with borrowed(module), torch.set_grad_enabled(graded):
        found, output, watch = _layers(module, inputs, method, layers)
        extent = covered_size(input_size(inputs)[0], found.layout.grid, stride)
        resolved = tuple(resolve_query(q, found.ops[-1], found.layout, has_class_token(module)) for q in queries)
        start = _start(resolved, found, points, extent)
        if method == 'rollout':
            rows = rollout(found.ops, start)
            return _aggregation(found, rows, resolved, stride, lost=rows[..., : found.layout.prefix].sum(-1))
        readout = _readout(model, output, inputs, method, names_value(targets))
        scores = readout.scores(output, input_size(inputs)[1])
        chosen = explained(model, readout, targets, scores.detach(), labels)
        chosen = replace(chosen, signs=chosen.signs * sign)
        if graded:
            rows = _graded(found, scores, chosen, start)
        else:
            rows = _legrad(module, inputs, found, list(layers.resolve(watch.names)), chosen, readout)
    numbers = readout.numbers(scores.detach())
    return _aggregation(found, rows, resolved, stride, chosen=chosen, readout=readout, numbers=numbers)


def _layers(
    module: nn.Module, inputs: NetworkInput, method: str, layers: LayerChoice
) -> tuple[_Layers, Any, AttentionWatch]:
    """One forward: the layers to aggregate, and the network's output."""
    size, batch = input_size(inputs)
    graded = method == 'grad-rollout'

    def look(op: AttentionOp) -> tuple[AttentionOp, TokenLayout, Any]:
        layout = find_token_layout(op, batch, size)
        verify(op)
        return op.compact(values=graded), layout, block_of(op)

    collector = Collector(LayerChoice.parse(['all'], module) if method == 'legrad' else layers, look)
    with watch_attention(module, batch, collector, leaves='first' if graded else 'none') as watch:
        output = forward(module, inputs)
    return _Layers.of(collector.finish(watch.names, type(module).__name__), method), output, watch


def _aggregation(
    found: _Layers, rows: Tensor, queries: tuple[Query, ...], patch: Size | None, **more: Any
) -> Aggregation:
    return Aggregation(
        rows[..., found.layout.prefix :].unflatten(-1, found.layout.grid),
        tuple(op.index for op in found.ops),
        tuple(op.name for op in found.ops),
        max(op.residual[0] for op in found.ops),
        queries,
        patch,
        **more,
    )


def _readout(model: Model, output: Any, inputs: NetworkInput, method: str, value: bool) -> Readout:
    readout = model.readout(output, input_size(inputs)[1], inputs, value=value)
    if readout is None:
        raise InputError(
            f'{method} explains a class, and {model.name} gives no class scores ({absence(model.module, output)})',
            accepted='raw, rollout',
            hint=CHOOSE,
            parameter='method',
        )
    return readout


def _start(queries: Sequence[Query], found: _Layers, points: Tensor, extent: Size) -> Tensor:
    """``(B, Q, N)``: all mass on the query's token, or spread evenly over the tokens of the image."""
    tokens = found.ops[-1].shape[3]
    start = torch.zeros(len(points), len(queries), tokens, dtype=torch.float64, device=points.device)
    for number, query in enumerate(queries):
        if query.kind == 'mean':
            start[:, number, found.layout.prefix :] = 1 / (tokens - found.layout.prefix)
        else:
            start[:, number].scatter_(1, positions_of(query, found.layout, points[:, number], extent)[:, None], 1.0)
    return start


def _graded(found: _Layers, scores: Tensor, chosen: Chosen, start: Tensor) -> Tensor:
    rows = []
    for column, signs in zip(chosen.ids.unbind(1), chosen.signs.unbind(1), strict=True):
        objective = (scores.gather(1, column[:, None])[:, 0] * signs).sum()
        sources = [op.own for op in found.ops]
        gradients = torch.autograd.grad(objective, sources, retain_graph=True, allow_unused=True)
        with torch.no_grad():
            filled = [torch.zeros_like(s) if g is None else g for g, s in zip(gradients, sources, strict=True)]
            pairs = [c.grouped(g) for c, g in zip(found.ops, filled, strict=True)]
            rows.append(gradient_rollout(found.ops, pairs, start[:, :1])[:, 0])
    return torch.stack(rows, 1)


def _legrad(
    module: nn.Module, inputs: NetworkInput, found: _Layers, wanted: Sequence[int], chosen: Chosen, readout: Readout
) -> Tensor:
    if found.others or any(block is None for block in found.blocks):
        raise InputError(
            'LeGrad needs one residual block around every attention layer, all over the same tokens',
            accepted='raw, rollout',
            parameter='method',
        )
    blocks = [block for block in found.blocks if block is not None]
    stacked = Blocks(tuple(name for name, _ in blocks), tuple(block for _, block in blocks))

    batch = len(chosen.ids)

    def score(output: Any) -> Tensor:
        return readout.scores(output, batch * len(blocks))

    with torch.enable_grad():
        explain = legrad(module, inputs, batch, stacked, wanted, score)
        columns = zip(chosen.ids.unbind(1), chosen.signs.unbind(1), strict=True)
        return torch.stack([explain(*column) for column in columns], 1)
