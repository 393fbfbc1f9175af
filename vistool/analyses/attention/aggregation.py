"""What the methods that go through all layers draw: which layers, from where, for which class."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.attention.capture import Collector, forward, has_class_token
from vistool.analyses.attention.reading import positions_of, resolve_query, verify
from vistool.analyses.attention.selection import Layers, Query
from vistool.errors import InputError, message_of
from vistool.models.model import Model
from vistool.models.subjects import Targets, resolve_targets
from vistool.network.attention_ops import AttentionOp
from vistool.network.attention_watch import AttentionWatch, watch_attention
from vistool.network.capture import borrowed, hooked
from vistool.network.embedding import patch_stride
from vistool.network.outputs import class_scores, has_classes
from vistool.network.tensors import NetworkInput, Size, call_module, first_tensor, input_size, replace_tensor
from vistool.network.token_layout import TokenLayout, covered_size, find_token_layout


def rollout(calls: Sequence[AttentionOp], start: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, «Quantifying attention flow in transformers», ACL 2020).

    The rows of Â_L … Â_1 with Â = (mean over heads of A + I) / 2, from the last layer to the first, without any
    N × N matrix.

    Args:
        calls: The layers in order, ``(B, H, N, N)`` each.
        start: ``(B, Q, N)``, the distribution over tokens that each row starts from.

    Returns:
        ``(B, Q, N)``; rows sum to 1 as those of ``start`` do.
    """
    rows = start.double()
    for call in reversed(calls):
        rows = (rows + _through(call, rows, lambda heads, part, weights: weights)) / 2
    return rows


def gradient_rollout(calls: Sequence[AttentionOp], gradients: Sequence[Tensor], start: Tensor) -> Tensor:
    """Gradient-weighted rollout (Chefer, Gur and Wolf, «Generic attention-model explainability», ICCV 2021).

    The rows of R, where R = I and then R += mean over heads of (A ⊙ ∂y/∂A)⁺ · R for every layer.

    Args:
        calls: The layers in order, with their values.
        gradients: ∂y/∂output of each, ``(B, H, N, dv)``; ∂y/∂A = ∂y/∂output · Vᵀ.
        start: ``(B, Q, N)``.

    Returns:
        ``(B, Q, N)``.
    """
    rows = start.double()
    for call, gradient in zip(reversed(calls), reversed(gradients), strict=True):
        assert call.value is not None
        value, own = call.value, gradient

        def weighted(heads: slice, part: slice, weights: Tensor, value: Tensor = value, own: Tensor = own) -> Tensor:
            return (own[:, heads, part].to(weights) @ value[:, heads].mT.to(weights)).mul_(weights).clamp_min_(0)

        rows = rows + _through(call, rows, weighted)
    return rows


def _through(call: AttentionOp, rows: Tensor, change: Callable[[slice, slice, Tensor], Tensor]) -> Tensor:
    """``rows`` times the mean over heads of the changed weights; tiles that no row starts from are left out."""
    result, room = torch.zeros_like(rows), call.room()
    for heads, part in call.tiles():
        own = rows[:, None, :, part]
        if own.any():
            weights = change(heads, part, call.part(part, heads, room))
            result += (own.to(weights.dtype) @ weights).sum(1)
    return result / call.shape[1]


def positive_gradients(call: AttentionOp, gradient: Tensor) -> Tensor:
    """The mean over heads and queries of (∂s/∂A)⁺, ``(B, N)``; streamed."""
    assert call.value is not None
    total = torch.zeros(call.shape[0], call.shape[3], dtype=torch.float64, device=gradient.device)
    for first in range(0, call.shape[2], call.step):
        part = gradient[:, :, first : first + call.step]
        total += (part @ call.value.mT.to(part)).clamp_min_(0).sum((1, 2)).double()
    return total / (call.shape[1] * call.shape[2])


@dataclass(frozen=True)
class Blocks:
    """The residual blocks around attention operations.

    Attributes:
        names: One dotted name per operation.
        modules: The modules of that name.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]


def block_of(call: AttentionOp) -> tuple[str, nn.Module] | None:
    """The outermost numbered module around an operation that runs no other before it."""
    for frame in call.frames[1:]:
        if re.search(r'\d$', frame.name) and not frame.attended:
            return frame.name, frame.module
    return None


@contextmanager
def averaged_tokens(blocks: Blocks) -> Iterator[None]:
    """Makes the tail of the network score every block's average token, all blocks in one batch.

    Each block's tokens are cut off from the next block. In place of the last one's come, for every block, its average
    token at every place, blocks stacked along the batch: whatever norm, pooling and head follow, they see only that.
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
) -> Callable[[Tensor], Tensor]:
    """LeGrad (Bousselham et al., «LeGrad: an explainability method for vision transformers», ICCV 2025).

    s_l = head(norm(average token of block l)) for the class; E_l = mean over heads and queries of (∂s_l/∂A_l)⁺; the map
    is their mean over the layers ``wanted``. ``score`` makes class scores ``(L · B, C)`` of the network's output.

    Returns:
        A function of a class column: ``(classes (B,)) → (B, N)``.
    """
    calls: list[AttentionOp] = []
    with (
        averaged_tokens(blocks),
        watch_attention(module, batch, lambda call: calls.append(call.compact(values=True)), leaves='all'),
    ):
        try:
            scores = score(call_module(module, inputs)).unflatten(0, (len(blocks.names), batch))
        except RuntimeError as error:
            raise InputError(
                f'the head of this network cannot score average tokens ({message_of(error)})',
                accepted='raw, rollout, grad-rollout',
                parameter='method',
            ) from error
    chosen = [calls[index] for index in wanted]

    def explain(classes: Tensor) -> Tensor:
        objective = scores.gather(2, classes.expand(len(scores), -1)[..., None]).sum()
        gradients = torch.autograd.grad(objective, [call.own for call in chosen], retain_graph=True)
        with torch.no_grad():
            maps = [positive_gradients(c, c.grouped(g)) for c, g in zip(chosen, gradients, strict=True)]
            return torch.stack(maps).mean(0)

    return explain


log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Flow:
    """Attention through all layers.

    Attributes:
        maps: ``(B, M, h, w)``: one map per query, or per class.
        indices: Numbers of the layers that went in.
        names: Dotted names of those layers.
        residual: The largest of theirs.
        queries: The queries, ``auto`` resolved.
        classes: Class ids ``(B, M)``, or None.
        scores: ``(B, C)``, or None.
        patch: Stride of the first convolution.
        lost: ``(B, M)``, the mass that is on prefix tokens and so not drawn.
    """

    maps: Tensor
    indices: tuple[int, ...]
    names: tuple[str, ...]
    residual: float
    queries: tuple[Query, ...]
    patch: Size | None
    classes: Tensor | None = None
    scores: Tensor | None = None
    lost: Tensor | None = None


@dataclass
class _Layers:
    """The layers of one forward that share the last one's tokens."""

    calls: list[AttentionOp]
    place: TokenLayout
    others: int
    blocks: list[tuple[str, nn.Module] | None] = field(default_factory=list)

    @classmethod
    def of(cls, read: Sequence[tuple[AttentionOp, TokenLayout, Any]], method: str) -> _Layers:
        last, where, _ = read[-1]
        windowed = next((call for call, place, _ in read if place.windows is not None), None)
        odd = windowed or last
        if windowed or last.shape[2] != last.shape[3] or last.mixed:
            why = 'within windows' if windowed else 'with mixed heads' if last.mixed else 'from other tokens'
            raise InputError(
                f'{method} multiplies layers in which every token attends to all, and {odd.name} attends {why}',
                accepted='raw',
                parameter='method',
            )
        same = [(c, b) for c, p, b in read if c.shape[2:] == last.shape[2:] and p == where and not c.mixed]
        if len(same) < len(read):
            message = '%s: of %d attention layers, the %d over the same tokens as the last are taken'
            log.warning(message, method, len(read), len(same))
        return cls([c for c, _ in same], where, len(read) - len(same), [b for _, b in same])


def follow_attention(
    model: Model,
    inputs: NetworkInput,
    method: str,
    layers: Layers,
    queries: Sequence[Query],
    points: Tensor,
    targets: Targets,
    labels: Sequence[int | None],
) -> Flow:
    """Runs ``rollout``, ``grad-rollout`` or ``legrad``.

    Args:
        model: The model.
        inputs: Its input.
        method: Which.
        layers: Layers that go in.
        queries: What to look from; ``legrad`` has none.
        points: ``(B, Q, 2)``, point queries in network pixels.
        targets: Classes, for the last two.
        labels: Ground truth per image.

    Raises:
        InputError: If the network does not fit the method, or a class, layer or query does not exist.
    """
    module, graded = model.module, method == 'grad-rollout'
    with borrowed(module), torch.set_grad_enabled(graded):
        found, output, watch = _layers(module, inputs, method, layers)
        extent = covered_size(input_size(inputs)[0], found.place.grid, patch_stride(module))
        resolved = tuple(resolve_query(q, found.calls[-1], found.place, has_class_token(module)) for q in queries)
        start = _start(resolved, found, points, extent)
        if method == 'rollout':
            rows = rollout(found.calls, start)
            return _flow(found, rows, resolved, patch_stride(module), lost=rows[..., : found.place.prefix].sum(-1))
        scores = _scores(model, output, method)
        model.fit_classes(scores.shape[1])
        classes, _ = resolve_targets(targets, scores.detach(), model.classes, labels)
        if graded:
            rows = _graded(found, scores, classes, start)
        else:
            rows = _legrad(module, inputs, found, list(layers.resolve(watch.names)), classes)
    return _flow(found, rows, resolved, patch_stride(module), classes=classes, scores=scores.detach())


def _layers(
    module: nn.Module, inputs: NetworkInput, method: str, layers: Layers
) -> tuple[_Layers, Any, AttentionWatch]:
    """One forward: the layers that go in, and the network's output."""
    size, batch = input_size(inputs)
    graded = method == 'grad-rollout'

    def look(call: AttentionOp) -> tuple[AttentionOp, TokenLayout, Any]:
        where = find_token_layout(call, batch, size)
        verify(call)
        return call.compact(values=graded), where, block_of(call)

    collector = Collector(Layers.parse(['all'], module) if method == 'legrad' else layers, look)
    with watch_attention(module, batch, collector, leaves='first' if graded else 'none') as watch:
        output = forward(module, inputs)
    return _Layers.of(collector.finish(watch.names, type(module).__name__), method), output, watch


def _flow(found: _Layers, rows: Tensor, queries: tuple[Query, ...], patch: Size | None, **more: Tensor) -> Flow:
    return Flow(
        rows[..., found.place.prefix :].unflatten(-1, found.place.grid),
        tuple(call.index for call in found.calls),
        tuple(call.name for call in found.calls),
        max(call.residual[0] for call in found.calls),
        queries,
        patch,
        **more,
    )


def _scores(model: Model, output: Any, method: str) -> Tensor:
    scores = class_scores(output)
    if scores is None or not has_classes(model.module):
        raise InputError(
            f'{method} explains a class, and {model.name} gives no class scores (it has no classification head)',
            accepted='raw, rollout',
            parameter='method',
        )
    return scores


def _start(queries: Sequence[Query], found: _Layers, points: Tensor, extent: Size) -> Tensor:
    """``(B, Q, N)``: all on the query's token, or spread evenly over those of the image."""
    tokens = found.calls[-1].shape[3]
    start = torch.zeros(len(points), len(queries), tokens, dtype=torch.float64, device=points.device)
    for number, query in enumerate(queries):
        if query.kind == 'mean':
            start[:, number, found.place.prefix :] = 1 / (tokens - found.place.prefix)
        else:
            start[:, number].scatter_(1, positions_of(query, found.place, points[:, number], extent)[:, None], 1.0)
    return start


def _graded(found: _Layers, scores: Tensor, classes: Tensor, start: Tensor) -> Tensor:
    rows = []
    for column in classes.unbind(1):
        objective = scores.gather(1, column[:, None]).sum()
        sources = [call.own for call in found.calls]
        gradients = torch.autograd.grad(objective, sources, retain_graph=True, allow_unused=True)
        with torch.no_grad():
            filled = [torch.zeros_like(s) if g is None else g for g, s in zip(gradients, sources, strict=True)]
            pairs = [c.grouped(g) for c, g in zip(found.calls, filled, strict=True)]
            rows.append(gradient_rollout(found.calls, pairs, start[:, :1])[:, 0])
    return torch.stack(rows, 1)


def _legrad(module: nn.Module, inputs: NetworkInput, found: _Layers, wanted: Sequence[int], classes: Tensor) -> Tensor:
    if found.others or any(block is None for block in found.blocks):
        raise InputError(
            'LeGrad needs one residual block around every attention layer, all over the same tokens',
            accepted='raw, rollout',
            parameter='method',
        )
    blocks = [block for block in found.blocks if block is not None]
    stacked = Blocks(tuple(name for name, _ in blocks), tuple(block for _, block in blocks))

    def score(output: Any) -> Tensor:
        scores = class_scores(output)
        assert scores is not None  # it gave some before
        return scores

    with torch.enable_grad():
        explain = legrad(module, inputs, len(classes), stacked, wanted, score)
        return torch.stack([explain(column) for column in classes.unbind(1)], 1)
