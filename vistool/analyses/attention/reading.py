"""From an operation and its place to maps: the rows of the queries, prefix tokens dropped, windows put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vistool.analyses.attention.selection import Query
from vistool.errors import InputError
from vistool.network.attention_ops import TOLERANCE, Call
from vistool.network.token_layout import Place


@dataclass(frozen=True)
class Reading:
    """The attention of one layer.

    Attributes:
        index: Number of the layer.
        name: Dotted name of its module.
        maps: ``(B, Q, heads, h, w)``: of each query, the probability of every token of the image.
        prefix: ``(B, Q, heads, P)``: the probabilities of the prefix tokens.
        padding: ``(B, Q, heads)``: what is left, the probability of padding in windows.
        residual: How far attention times values was from the module's own output, relative to its largest value.
        mixed: Whether heads were mixed after the softmax.
        queries: The queries, ``auto`` resolved.
        query_grid: ``(h, w)`` of the queries, or None.
    """

    index: int
    name: str
    maps: Tensor
    prefix: Tensor
    padding: Tensor
    residual: float
    mixed: bool
    queries: tuple[Query, ...]
    query_grid: tuple[int, int] | None


def read(
    call: Call, place: Place, queries: Sequence[Query], points: Tensor, extent: tuple[int, int], classes: bool
) -> Reading:
    """Maps of every query.

    Args:
        call: The operation.
        place: Where its tokens are.
        queries: What to look from.
        points: ``(B, Q, 2)``, ``(x, y)`` of point queries in network pixels; unused for other kinds.
        extent: ``(H, W)`` network pixels that the query grid covers.
        classes: Whether the first prefix token is a class token, as far as is known.

    Raises:
        InputError: If there is no such query, or the weights do not rebuild the module's output.
    """
    resolved = tuple(resolve_query(query, call, place, classes) for query in queries)
    rows = []
    for number, query in enumerate(resolved):
        if query.kind == 'mean':
            rows.append(mean_row(call, place, len(points)))
        else:
            rows.append(_row(call, place, positions_of(query, place, points[:, number], extent)))
    stacked = torch.stack(rows, 1)
    verify(call)
    prefix, image = stacked[..., : place.prefix], stacked[..., place.prefix :]
    padding = (1 - stacked.sum(-1)).clamp_min(0) if place.windows is not None else stacked.new_zeros(stacked.shape[:3])
    maps = image.unflatten(-1, place.grid)
    return Reading(
        call.index, call.name, maps, prefix, padding, call.residual[0], call.mixed, resolved, place.query_grid
    )


def verify(call: Call) -> None:
    """Checks a sample of rows against the operation's own output.

    Raises:
        InputError: If the weights do not rebuild it.
    """
    groups = torch.linspace(0, call.shape[0] - 1, min(call.shape[0], 4), device=_device(call)).long().unique()
    positions = torch.linspace(0, call.shape[2] - 1, min(call.shape[2], 4), device=_device(call)).long().unique()
    positions = positions.expand(len(groups), -1)
    if not call.check(groups, positions, call.rows(groups, positions)):
        raise _unproven(call)


def _unproven(call: Call) -> InputError:
    dtype = call.output.dtype if call.output is not None else torch.float32
    return InputError(
        f"{call.name}: attention times values misses the module's own output by {call.residual[0]:.1e} of its largest "
        f'value (tolerance {TOLERANCE.get(dtype, 1e-4):.0e} for {str(dtype).removeprefix("torch.")})',
        hint='what would be drawn is not what the model computed; choose another layer',
        parameter='layers',
    )


def _device(call: Call) -> torch.device:
    tensor = call.weights if call.weights is not None else call.query
    assert tensor is not None
    return tensor.device


def resolve_query(query: Query, call: Call, place: Place, classes: bool) -> Query:
    """The query that this layer has; ``auto`` becomes the class token or the mean."""
    single = call.shape[2] == 1
    has_class = single or (place.query_grid is not None and place.query_prefix > 0 and classes)
    if query.kind == 'auto':
        return replace(query, kind='cls' if has_class else 'mean')
    if query.kind == 'cls' and not has_class:
        raise InputError(f'{call.name} has no class token', accepted='mean, or X,Y', parameter='queries')
    if query.kind == 'token' and (query.index >= call.shape[2] or place.windows is not None):
        problem = f'no token {query.index}: {call.name} has {call.shape[2]} queries'
        if place.windows is not None:
            problem = f'{call.name} attends within windows, whose tokens have no number of their own'
        raise InputError(problem, accepted='cls, mean, X,Y', parameter='queries')
    if query.kind == 'point' and place.query_grid is None:
        raise InputError(
            f'{call.name} has {call.shape[2]} queries that are no places in the image',
            accepted='cls, mean, or the number of a token',
            parameter='queries',
        )
    return query


def positions_of(query: Query, place: Place, points: Tensor, extent: tuple[int, int]) -> Tensor:
    """The query's token in each image, int64 ``(B,)``; tokens of a grid come after the prefix."""
    if query.kind in ('cls', 'token'):
        return torch.full((len(points),), query.index, dtype=torch.long, device=points.device)
    assert place.query_grid is not None
    height, width = place.query_grid
    column = (points[:, 0] * width / extent[1]).long().clamp(0, width - 1)
    row = (points[:, 1] * height / extent[0]).long().clamp(0, height - 1)
    return place.query_prefix + row * width + column


def _row(call: Call, place: Place, tokens: Tensor) -> Tensor:
    """Attention of one query of each image, ``(B, heads, prefix + h · w)``."""
    batch = len(tokens)
    if place.windows is None:
        groups, positions = torch.arange(batch, device=tokens.device), tokens[:, None]
        rows = call.rows(groups, positions)
        if not call.check(groups, positions, rows):
            raise _unproven(call)
        return rows[:, :, 0]
    count = place.grid[0] * place.grid[1]
    wanted = torch.arange(batch, device=tokens.device) * count + tokens
    at = torch.empty(batch * count, dtype=torch.long, device=tokens.device)
    flat = place.windows.flatten()
    at[flat[flat >= 0]] = (flat >= 0).nonzero()[:, 0]
    groups, positions = at[wanted] // call.shape[2], (at[wanted] % call.shape[2])[:, None]
    rows = call.rows(groups, positions)
    if not call.check(groups, positions, rows):
        raise _unproven(call)
    inside = place.windows[groups] - (torch.arange(batch, device=tokens.device) * count)[:, None]
    return _scatter(rows[:, :, 0], inside, torch.arange(batch, device=tokens.device), batch, count)


def mean_row(call: Call, place: Place, batch: int) -> Tensor:
    """Attention averaged over the queries that are in the image, ``(B, heads, prefix + h · w)``; streamed.

    Where no query is in the image (latents), over all of them.
    """
    groups, heads, queries, keys = call.shape
    first = place.query_prefix if place.query_grid is not None else 0
    total = torch.zeros(groups, heads, keys, device=_device(call), dtype=torch.float32)
    for part, weights in call.chunks():
        if place.windows is not None:
            weights = weights * (place.windows[:, None, part, None] >= 0)
        elif part.start < first:
            weights = weights[:, :, first - part.start :]
        total = total + weights.sum(2)
    if place.windows is None:
        return total / (queries - first)
    count = place.grid[0] * place.grid[1]
    image = place.windows.clamp_min(0).amax(1) // count  # every window lies in one image
    inside = torch.where(place.windows < 0, -1, place.windows % count)
    return _scatter(total, inside, image, batch, count) / count


def _scatter(rows: Tensor, inside: Tensor, image: Tensor, batch: int, count: int) -> Tensor:
    """Adds rows over windows ``(n, heads, keys)`` up in their images, ``(batch, heads, count)``; padding is dropped."""
    heads = rows.shape[1]
    result = rows.new_zeros(batch * heads * count + 1)
    offset = (image[:, None] * heads + torch.arange(heads, device=rows.device))[:, :, None] * count
    target = torch.where(inside[:, None] < 0, batch * heads * count, offset + inside[:, None].clamp_min(0))
    result.index_add_(0, target.flatten(), rows.flatten())
    return result[:-1].view(batch, heads, count)
