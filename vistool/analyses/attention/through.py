"""What the methods that go through all layers draw: which layers, from where, for which class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.attention.calls import Call
from vistool.analyses.attention.capture import Collector, forward, has_class_token
from vistool.analyses.attention.places import Place, cover, place
from vistool.analyses.attention.reading import positions_of, resolve_query, verify
from vistool.analyses.attention.relevance import Blocks, block_of, gradient_rollout, legrad, rollout
from vistool.analyses.attention.selection import Layers, Query
from vistool.analyses.attention.watch import AttentionWatch, watching
from vistool.analyses.cam.engine import input_size
from vistool.analyses.cam.targets import find_classes
from vistool.capture import frozen
from vistool.errors import InputError
from vistool.models import Model, class_scores, has_classes

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
    patch: tuple[int, int] | None
    classes: Tensor | None = None
    scores: Tensor | None = None
    lost: Tensor | None = None


@dataclass
class _Layers:
    """The layers of one forward that share the last one's tokens."""

    calls: list[Call]
    place: Place
    others: int
    blocks: list[tuple[str, nn.Module] | None] = field(default_factory=list)

    @classmethod
    def of(cls, read: Sequence[tuple[Call, Place, Any]], method: str) -> _Layers:
        last, where, _ = read[-1]
        windowed = next((call for call, place, _ in read if place.windows is not None), None)
        odd = windowed or last
        if windowed or last.shape[2] != last.shape[3] or last.mixed:
            why = 'within windows' if windowed else 'with mixed heads' if last.mixed else 'from other tokens'
            raise InputError(
                f'{method} multiplies layers in which every token attends to all, and {odd.name} attends {why}',
                accepted='raw',
                argument='--method',
            )
        same = [(c, b) for c, p, b in read if c.shape[2:] == last.shape[2:] and p == where and not c.mixed]
        if len(same) < len(read):
            message = '%s: of %d attention layers, the %d over the same tokens as the last are taken'
            log.warning(message, method, len(read), len(same))
        return cls([c for c, _ in same], where, len(read) - len(same), [b for _, b in same])


def follow_attention(
    model: Model,
    inputs: Any,
    method: str,
    layers: Layers,
    queries: Sequence[Query],
    points: Tensor,
    targets: Sequence[int | str],
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
    with frozen(module), torch.set_grad_enabled(graded):
        found, output, watch = _layers(module, inputs, method, layers)
        extent = cover(input_size(inputs)[0], found.place.grid, watch.patch)
        resolved = tuple(resolve_query(q, found.calls[-1], found.place, has_class_token(module)) for q in queries)
        start = _start(resolved, found, points, extent)
        if method == 'rollout':
            rows = rollout(found.calls, start)
            return _flow(found, rows, resolved, watch.patch, lost=rows[..., : found.place.prefix].sum(-1))
        scores = _scores(model, output, method)
        model.fit_classes(scores.shape[1])
        classes = find_classes(targets, scores.detach(), model.classes, labels)
        if graded:
            rows = _graded(found, scores, classes, start)
        else:
            rows = _legrad(module, inputs, found, list(layers.resolve(watch.names)), classes)
    return _flow(found, rows, resolved, watch.patch, classes=classes, scores=scores.detach())


def _layers(module: nn.Module, inputs: Any, method: str, layers: Layers) -> tuple[_Layers, Any, AttentionWatch]:
    """One forward: the layers that go in, and the network's output."""
    size, batch = input_size(inputs)
    graded = method == 'grad-rollout'

    def look(call: Call) -> tuple[Call, Place, Any]:
        where = place(call, batch, size)
        verify(call)
        return call.compact(values=graded), where, block_of(call)

    collector = Collector(Layers.parse(['all'], module) if method == 'legrad' else layers, look)
    with watching(module, batch, collector, leaves='first' if graded else 'none') as watch:
        output = forward(module, inputs)
    return _Layers.of(collector.finish(watch.names, type(module).__name__), method), output, watch


def _flow(
    found: _Layers, rows: Tensor, queries: tuple[Query, ...], patch: tuple[int, int] | None, **more: Tensor
) -> Flow:
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
            argument='--method',
        )
    return scores


def _start(queries: Sequence[Query], found: _Layers, points: Tensor, extent: tuple[int, int]) -> Tensor:
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


def _legrad(module: nn.Module, inputs: Any, found: _Layers, wanted: Sequence[int], classes: Tensor) -> Tensor:
    if found.others or any(block is None for block in found.blocks):
        raise InputError(
            'LeGrad needs one residual block around every attention layer, all over the same tokens',
            accepted='raw, rollout',
            argument='--method',
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
