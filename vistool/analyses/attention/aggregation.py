"""Aggregation of attention through all layers: rollout, gradient rollout and LeGrad."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.attention.capture import Observation, RecordedAttention, has_class_token, observe
from vistool.analyses.attention.reading import positions_of, resolve_query, verify
from vistool.analyses.attention.selection import LayerChoice, Query
from vistool.errors import InputError, message_of
from vistool.models.classes import Chosen
from vistool.models.model import Model, Targets, explained, names_value
from vistool.network.attention import AttentionOp, Leaves, watch_attention
from vistool.network.attention_answers import AttentionAnswers
from vistool.network.capture import borrowed, hooked, remembered
from vistool.network.embedding import patch_stride
from vistool.network.outputs import CHOOSE, Readout, absence
from vistool.network.tensors import NetworkInput, Size, call_module, first_tensor, input_size, replace_tensor, tensors
from vistool.network.tensors import rows as rows_of
from vistool.network.token_layout import TokenLayout, covered_size, place_tokens

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
        rows = (rows + mean_rows(op, rows)) / 2
    return rows


def mean_rows(op: AttentionOp, rows: Tensor) -> Tensor:
    """``rows (B, Q, Nq)`` times the mean over heads of A, ``(B, Q, Nk)``."""
    return _apply(op, rows.double(), lambda heads, part, weights: weights)


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
        rows = rows + weighted_rows(op, gradient, rows)
    return rows


def weighted_rows(op: AttentionOp, gradient: Tensor, rows: Tensor) -> Tensor:
    """``rows (B, Q, Nq)`` times the mean over heads of (A ⊙ ∂y/∂A)⁺, ``(B, Q, Nk)``."""
    value = op.value
    assert value is not None

    def weighted(heads: slice, part: slice, weights: Tensor) -> Tensor:
        return (gradient[:, heads, part].to(weights) @ value[:, heads].mT.to(weights)).mul_(weights).clamp_min_(0)

    return _apply(op, rows, weighted)


def _apply(op: AttentionOp, rows: Tensor, change: Callable[[slice, slice, Tensor], Tensor]) -> Tensor:
    """``rows`` times the mean over heads of the changed weights; tiles in which all rows are zero are skipped."""
    result, room = rows.new_zeros(*rows.shape[:2], op.shape[3]), op.room()
    busy = rows.any((0, 1)).cpu()  # once: a GPU would be waited for at every tile
    for heads, part in op.tiles():
        own = rows[:, None, :, part]
        if busy[part].any():
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


Rearrange = Callable[[AttentionOp], AttentionOp]
"""Images first and tokens row by row."""


def legrad(
    module: nn.Module,
    inputs: NetworkInput,
    batch: int,
    blocks: Blocks,
    wanted: Mapping[int, int],
    score: Callable[[Any, int], Tensor],
    rearrange: Rearrange,
    pools: bool = False,
) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """LeGrad (Bousselham et al., "LeGrad: an explainability method for vision transformers", ICCV 2025).

    s_l = head(norm(average token of block l)) for the class; E_l = mean over heads and queries of (∂s_l/∂A_l)⁺; the map
    is their mean over the layers ``wanted``. ``score`` turns the network's output into class scores ``(L · B, C)``.

    Args:
        module: The network.
        inputs: Its input.
        batch: Images in it.
        blocks: All blocks with attention, in order.
        wanted: Numbers of the attention layers that are wanted → the place of their block among ``blocks``.
        score: See above.
        rearrange: Applied to the wanted operations.
        pools: Whether attention pools the tokens after the last block.

    Returns:
        A function of a class column and its signs, each ``(B,)``: E_l ``(B, N)`` of every wanted layer.
    """
    leaves: Leaves = 'first' if pools else 'all'  # the score reaches the blocks through the pooling
    with averaged_tokens(blocks), _leaf_outputs(module, batch, wanted, rearrange, leaves) as ops:
        try:
            scores = score(call_module(module, inputs), len(blocks.names) * batch).unflatten(
                0, (len(blocks.names), batch)
            )
        except RuntimeError as error:
            raise InputError(
                f'the head of this network cannot score average tokens ({message_of(error)})',
                accepted='raw, rollout, grad-rollout',
                parameter='method',
            ) from error

    def explain(classes: Tensor, signs: Tensor) -> list[Tensor]:
        objective = (scores.gather(2, classes.expand(len(scores), -1)[..., None])[..., 0] * signs).sum()
        return _positive(objective, [ops[index] for index in wanted])

    return explain


def pooling_legrad(
    module: nn.Module,
    inputs: NetworkInput,
    batch: int,
    index: int,
    score: Callable[[Any, int], Tensor],
    rearrange: Rearrange,
) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """LeGrad's E of a layer that pools the tokens for the head (SigLIP): (∂y/∂A)⁺ of the score itself."""
    with _leaf_outputs(module, batch, [index], rearrange) as ops:
        scores = score(call_module(module, inputs), batch)

    def explain(classes: Tensor, signs: Tensor) -> list[Tensor]:
        return _positive((scores.gather(1, classes[:, None])[:, 0] * signs).sum(), [ops[index]])

    return explain


@contextmanager
def _leaf_outputs(
    module: nn.Module, batch: int, wanted: Collection[int], rearrange: Rearrange, leaves: Leaves = 'all'
) -> Iterator[dict[int, AttentionOp]]:
    """The wanted operations of a forward in which outputs of attention are leaves of the graph."""
    ops: dict[int, AttentionOp] = {}

    def keep(op: AttentionOp) -> None:
        if op.index in wanted:
            ops[op.index] = rearrange(op).compact(values=True)

    with watch_attention(module, batch, keep, leaves=leaves):
        yield ops


def _positive(objective: Tensor, ops: Sequence[AttentionOp]) -> list[Tensor]:
    gradients = torch.autograd.grad(objective, [op.own for op in ops], retain_graph=True)
    with torch.no_grad():
        return [positive_gradients(op, op.grouped(g)) for op, g in zip(ops, gradients, strict=True)]


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
        unchecked: Whether the order of the tokens is assumed.
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
    unchecked: bool = False


@dataclass
class _Layers:
    """The layers of one forward that have the last one's tokens.

    Attributes:
        ops: Their attention operations; every token attends to every other.
        layout: The layout of the tokens.
        blocks: The residual block around each.
        pooling: A last operation that pools those tokens (SigLIP), if there is one.
    """

    ops: list[AttentionOp]
    layout: TokenLayout
    blocks: list[tuple[str, nn.Module] | None]
    pooling: tuple[AttentionOp, TokenLayout] | None = None

    @classmethod
    def of(cls, read: Sequence[_Read], method: str, count: int) -> _Layers:
        """Selects among the layers that were read, of ``count`` that were asked for.

        Raises:
            InputError: If their attention cannot be multiplied.
        """
        pooling = _pooling(read)
        squares = read[:-1] if pooling else read
        last, layout, _ = squares[-1]
        windowed = next((op for op, its_layout, _ in read if its_layout.windows is not None), None)
        odd = windowed or last
        if windowed or last.shape[2] != last.shape[3] or last.mixed:
            why = 'within windows' if windowed else 'with mixed softmaxes' if last.mixed else 'from other tokens'
            raise InputError(
                f'{method} multiplies layers in which every token attends to all, and {odd.name} attends {why}',
                accepted='raw',
                parameter='method',
            )
        same = [(o, b) for o, its, b in squares if o.shape[2:] == last.shape[2:] and its == layout and not o.mixed]
        used = len(same) + bool(pooling)
        if used < count:
            message = '%s: of %d attention layers, the %d over the same tokens as the last are used'
            log.warning(message, method, count, used)
        return cls([op for op, _ in same], layout, [block for _, block in same], pooling)

    @property
    def all(self) -> list[AttentionOp]:
        """The operations, that of the pooling last."""
        return self.ops + ([self.pooling[0]] if self.pooling else [])

    @property
    def asking(self) -> tuple[AttentionOp, TokenLayout]:
        """The operation whose queries are asked for, the last."""
        return self.pooling or (self.ops[-1], self.layout)


_Read = tuple[AttentionOp, TokenLayout, tuple[str, nn.Module] | None]
"""A layer, where its tokens are, and the residual block around it."""


def _pooling(read: Sequence[_Read]) -> tuple[AttentionOp, TokenLayout] | None:
    """A single last layer with other queries than keys, whose keys are the tokens of the layer before it."""
    if len(read) < 2 or any(op.shape[2] != op.shape[3] for op, _, _ in read[:-1]):
        return None
    (before, its, _), (op, layout, _) = read[-2:]
    same = before.shape[3] == op.shape[3] and (its.grid, its.prefix) == (layout.grid, layout.prefix)
    return (op, layout) if same and op.shape[2] != op.shape[3] and not op.mixed and layout.windows is None else None


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
    like: Aggregation | None = None,
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
        like: An aggregation whose classes are explained again, whatever ``targets`` says.

    Raises:
        InputError: If the network does not fit the method, or a class, layer or query does not exist.
    """
    module, graded = model.module, method == 'grad-rollout'
    stride = patch_stride(module)
    with borrowed(module), torch.set_grad_enabled(graded):
        if method == 'legrad':
            return _legrad(model, inputs, layers, targets, labels, sign, stride, like)
        found, seen = _layers(module, inputs, method, layers)
        resolved, start = _asking(found, queries, points, input_size(inputs)[0], stride, has_class_token(module))
        if method == 'rollout':
            return _rolled_out(found, resolved, start, stride)
        asked = _asked(model, seen.output, inputs, method, targets, labels, sign, like)
        rows = _graded(found, asked, start)
    return _aggregation(found, rows, resolved, stride, **asked.told)


def rolled_out(
    recorded: RecordedAttention, layers: LayerChoice, queries: Sequence[Query], points: Tensor, size: Size
) -> Aggregation:
    """``rollout`` from what was kept of a photo; see :func:`aggregate`.

    Args:
        recorded: What was kept.
        layers: Layers to aggregate.
        queries: The queries.
        points: ``(1, Q, 2)``, point queries in network pixels.
        size: ``(H, W)`` of the network's input.
    """
    wanted = [number for number in layers.resolve(recorded.names) if number in recorded.layers]
    read: list[_Read] = [(recorded.layers[n].op, recorded.layers[n].layout, None) for n in wanted]
    with torch.no_grad():
        found = _Layers.of(read, 'rollout', len(wanted))
        asked = _asking(found, queries, points, size, recorded.patch, recorded.has_class_token)
        return _rolled_out(found, *asked, recorded.patch)


def require_multiplied(recorded: RecordedAttention, method: str) -> None:
    """Refuses layers whose attention cannot be multiplied.

    Raises:
        InputError: Tokens attend within windows or from other tokens, or heads are mixed.
    """
    _Layers.of([(layer.op, layer.layout, None) for layer in recorded.layers.values()], method, 0)


def _asking(
    found: _Layers, queries: Sequence[Query], points: Tensor, size: Size, stride: Size | None, classes: bool
) -> tuple[tuple[Query, ...], Tensor]:
    """The queries that the last layer has, and where each starts; see :func:`_start`."""
    op, layout = found.asking
    extent = covered_size(size, layout.query_grid or layout.grid, stride)
    resolved = tuple(resolve_query(query, op, layout, classes) for query in queries)
    return resolved, _start(resolved, op, layout, points, extent)


def _rolled_out(found: _Layers, queries: tuple[Query, ...], start: Tensor, stride: Size | None) -> Aggregation:
    op, _ = found.asking
    rows = rollout(found.ops, mean_rows(op, start) if found.pooling else start)
    return _aggregation(found, rows, queries, stride, lost=rows[..., : found.layout.prefix].sum(-1))


@dataclass(frozen=True)
class _Asked:
    """What is explained.

    Attributes:
        scores: ``(B, C)``.
        chosen: The classes ``(B, M)``.
        readout: Where the scores are and what they mean.
    """

    scores: Tensor
    chosen: Chosen
    readout: Readout

    @property
    def columns(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Classes and signs, each ``(B,)``."""
        return zip(self.chosen.ids.unbind(1), self.chosen.signs.unbind(1), strict=True)

    @property
    def told(self) -> dict[str, Any]:
        """What an :class:`Aggregation` says about it."""
        numbers = self.readout.numbers(self.scores.detach())
        return {'chosen': self.chosen, 'readout': self.readout, 'numbers': numbers}


def _asked(
    model: Model,
    output: Any,
    inputs: NetworkInput,
    method: str,
    targets: Targets,
    labels: Sequence[int | None],
    sign: int,
    like: Aggregation | None,
) -> _Asked:
    if like is not None and like.readout is not None and like.chosen is not None:
        return _Asked(like.readout.scores(output, input_size(inputs)[1]), like.chosen, like.readout)
    readout = _readout(model, output, inputs, method, names_value(targets))
    scores = readout.scores(output, input_size(inputs)[1])
    chosen = explained(model, readout, targets, scores.detach(), labels)
    return _Asked(scores, replace(chosen, signs=chosen.signs * sign), readout)


def _layers(module: nn.Module, inputs: NetworkInput, method: str, layers: LayerChoice) -> tuple[_Layers, Observation]:
    """One forward: the layers to aggregate, and the network's output."""
    graded = method == 'grad-rollout'

    def look(op: AttentionOp, layout: TokenLayout) -> tuple[AttentionOp, TokenLayout, Any]:
        verify(op)
        return op.compact(values=graded), layout, block_of(op)

    found = observe(module, inputs, layers, look, leaves='first' if graded else 'none')
    if found.answers is not None and (pair := _side_by_side(module, inputs, found.answers)):
        names = ' and '.join(pair) if pair[0] != pair[1] else f'those of {pair[0]}'
        raise InputError(
            f'{method} takes layers that run one after the other, and {names} run side by side on the same tokens '
            '(heads that are computed one by one count as layers)',
            accepted='raw',
            parameter='method',
        )
    return _Layers.of(found.read, method, len(found.wanted)), found


def _depends(op: AttentionOp, earlier: AttentionOp) -> bool:
    """Whether what an operation is given depends on what an earlier one, whose output is a leaf, returned."""
    parts = (part for part in (op.value, op.query, op.key, op.weights) if part is not None and part.requires_grad)
    total = sum(part.float().sum() for part in parts)
    if not isinstance(total, Tensor):
        return False
    return torch.autograd.grad(total, earlier.own, retain_graph=True, allow_unused=True)[0] is not None


def _side_by_side(module: nn.Module, inputs: NetworkInput, answers: AttentionAnswers) -> tuple[str, str] | None:
    """Names of two attention operations in a row of which the second does not depend on the first; None for none.

    By one forward of one image that records a graph, once for a network, its weights and an input size.
    """

    def search() -> tuple[str, str] | None:
        ops: list[AttentionOp] = []
        with torch.enable_grad(), watch_attention(module, 1, ops.append, leaves='all', skip=answers.gates()):
            call_module(module, rows_of(inputs, 0, 1))
            return next(((one.name, two.name) for one, two in pairwise(ops) if not _depends(two, one)), None)

    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(module, 'attention side by side', shapes, search)


def _aggregation(
    found: _Layers, rows: Tensor, queries: tuple[Query, ...], patch: Size | None, **more: Any
) -> Aggregation:
    return Aggregation(
        rows[..., found.layout.prefix :].unflatten(-1, found.layout.grid),
        tuple(op.index for op in found.all),
        tuple(op.name for op in found.all),
        max(op.residual[0] for op in found.all),
        queries,
        patch,
        unchecked=bool(found.layout.assumed),
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


def _start(queries: Sequence[Query], op: AttentionOp, layout: TokenLayout, points: Tensor, extent: Size) -> Tensor:
    """``(B, Q, Nq)``: all mass on the query's token, or spread evenly over the tokens of the image."""
    count = op.shape[2]
    first = layout.query_prefix if layout.query_grid is not None else 0
    start = torch.zeros(len(points), len(queries), count, dtype=torch.float64, device=points.device)
    for number, query in enumerate(queries):
        if query.kind == 'mean':
            start[:, number, first:] = 1 / (count - first)
        else:
            images = torch.arange(len(points), device=points.device)
            start[images, number, positions_of(query, layout, points[:, number], extent)] = 1.0
    return start


def _graded(found: _Layers, asked: _Asked, start: Tensor) -> Tensor:
    rows = []
    for column, signs in asked.columns:
        objective = (asked.scores.gather(1, column[:, None])[:, 0] * signs).sum()
        sources = [op.own for op in found.all]
        gradients = torch.autograd.grad(objective, sources, retain_graph=True, allow_unused=True)
        with torch.no_grad():
            filled = [torch.zeros_like(s) if g is None else g for g, s in zip(gradients, sources, strict=True)]
            pairs = [c.grouped(g) for c, g in zip(found.all, filled, strict=True)]
            first = start[:, :1].double()
            if found.pooling:
                first = weighted_rows(found.pooling[0], pairs.pop(), first)
            rows.append(gradient_rollout(found.ops, pairs, first)[:, 0])
    return torch.stack(rows, 1)


def _legrad(
    model: Model,
    inputs: NetworkInput,
    layers: LayerChoice,
    targets: Targets,
    labels: Sequence[int | None],
    sign: int,
    stride: Size | None,
    like: Aggregation | None,
) -> Aggregation:
    """LeGrad of the wanted layers: one forward finds the blocks of all, another scores their average tokens."""
    module, (size, batch) = model.module, input_size(inputs)
    every, seen = _layers(module, inputs, 'legrad', LayerChoice.parse(['all'], module))
    wanted = layers.resolve(seen.names)
    places = {op.index: place for place, op in enumerate(every.ops)}
    pooling = every.pooling[0].index if every.pooling else None
    if any(block is None for block in every.blocks) or len(every.all) < len(seen.names):
        raise InputError(
            'LeGrad needs one residual block around every attention layer, all over the same tokens',
            accepted='raw, rollout',
            parameter='method',
        )
    asked = _asked(model, seen.output, inputs, 'legrad', targets, labels, sign, like)
    stacked = Blocks(*zip(*(block for block in every.blocks if block is not None), strict=True))
    chosen = {index: places[index] for index in wanted if index in places}
    pooled = pooling is not None and wanted.get(pooling, False)  # asked for by itself
    if pooling in wanted and not pooled and pooling is not None:
        log.info(
            'legrad: layer %d (%s) pools the tokens and has no block; it is left out', pooling, seen.names[pooling]
        )

    score = asked.readout.scores

    def rearrange(op: AttentionOp) -> AttentionOp:
        return place_tokens(op, batch, size, seen.answers)[0]

    explainers = []
    with torch.enable_grad():
        if chosen:
            explainers.append(legrad(module, inputs, batch, stacked, chosen, score, rearrange, pooling is not None))
        if pooled and pooling is not None:
            explainers.append(pooling_legrad(module, inputs, batch, pooling, score, rearrange))
        rows = [
            torch.stack([found for explain in explainers for found in explain(*column)]).mean(0)
            for column in asked.columns
        ]
    used = [op for op in every.all if op.index in chosen or (pooled and op.index == pooling)]
    shown = _Layers(used, every.layout, [])
    return _aggregation(shown, torch.stack(rows, 1), (), stride, **asked.told)
