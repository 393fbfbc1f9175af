"""One forward with its attention, read into maps: rows of the queries, prefix tokens dropped, windows put back."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistool.analyses.attention.selection import LayerChoice, Query
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.input_size import patch_size
from vistool.models.model import Model
from vistool.network.attention import TOLERANCE, AttentionOp, Leaves, watch_attention
from vistool.network.attention_answers import AttentionAnswers, attention_answers, is_known
from vistool.network.capture import borrowed, remembered
from vistool.network.embedding import patch_stride
from vistool.network.inputs import run_network
from vistool.network.tensors import NetworkInput, Size, input_size, tensors
from vistool.network.token_layout import TokenLayout, Unplaced, Unrecognized, covered_size, place_tokens

log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Reading:
    """The attention maps of one layer.

    Attributes:
        index: Number of the layer.
        name: Dotted name of its module.
        maps: ``(B, Q, heads, h, w)``: of each query, the probability of every token of the image.
        prefix: ``(B, Q, heads, P)``: the probabilities of the prefix tokens.
        padding: ``(B, Q, heads)``: the rest, the probability of padding in windows.
        residual: How far attention times values is from the module's own output, relative to its largest value.
        mixed: Whether heads were mixed after the softmax.
        queries: The queries, ``auto`` resolved.
        query_grid: ``(h, w)`` of the queries, or None.
        unchecked: Whether the order of its tokens, or of its queries, is assumed.
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
    unchecked: bool = False


def read(
    op: AttentionOp,
    layout: TokenLayout,
    queries: Sequence[Query],
    points: Tensor,
    extent: tuple[int, int],
    classes: bool,
) -> Reading:
    """Maps of every query.

    Args:
        op: The operation.
        layout: Where its tokens are.
        queries: The queries.
        points: ``(B, Q, 2)``, ``(x, y)`` of point queries in network pixels; unused for other kinds.
        extent: ``(H, W)`` network pixels that the query grid covers.
        classes: Whether the first prefix token is a class token, as far as is known.

    Raises:
        InputError: If there is no such query, or the weights do not give the module's output.
    """
    resolved = tuple(resolve_query(query, op, layout, classes) for query in queries)
    rows = []
    for number, query in enumerate(resolved):
        if query.kind == 'mean':
            rows.append(mean_row(op, layout, len(points)))
        else:
            rows.append(_row(op, layout, positions_of(query, layout, points[:, number], extent)))
    stacked = torch.stack(rows, 1)
    if any(query.kind == 'mean' for query in resolved):  # each other row has been checked by itself
        verify(op)
    prefix, image = stacked[..., : layout.prefix], stacked[..., layout.prefix :]
    padding = (1 - stacked.sum(-1)).clamp_min(0) if layout.windows is not None else stacked.new_zeros(stacked.shape[:3])
    maps = image.unflatten(-1, layout.grid)
    return Reading(
        op.index,
        op.name,
        maps,
        prefix,
        padding,
        op.residual[0],
        op.mixed,
        resolved,
        layout.query_grid,
        bool(layout.assumed),
    )


def verify(op: AttentionOp) -> None:
    """Checks a sample of rows against the operation's own output.

    Raises:
        InputError: If the weights do not give that output.
    """
    groups, positions = _spread(op.shape[0], _device(op)), _spread(op.shape[2], _device(op))
    positions = positions.expand(len(groups), -1)
    if not op.check(groups, positions, op.rows(groups, positions)):
        raise _unproven(op)


@lru_cache
def _spread(count: int, device: torch.device) -> Tensor:
    """Up to four of so many places, the first and the last among them."""
    return torch.linspace(0, count - 1, min(count, 4), device=device).long().unique()


def _unproven(op: AttentionOp) -> InputError:
    dtype = op.output.dtype if op.output is not None else torch.float32
    return InputError(
        f"{op.name}: attention times values differs from the module's own output by {op.residual[0]:.1e} of its "
        f'largest value (tolerance {TOLERANCE.get(dtype, 1e-4):.0e} for {str(dtype).removeprefix("torch.")})',
        hint='the map would not show what the model computed; choose another layer',
        parameter='layers',
    )


def _device(op: AttentionOp) -> torch.device:
    tensor = op.weights if op.weights is not None else op.query
    assert tensor is not None
    return tensor.device


def resolve_query(query: Query, op: AttentionOp, layout: TokenLayout, classes: bool) -> Query:
    """The query that this layer has; ``auto`` becomes the class token or the mean."""
    single = op.shape[2] == 1
    has_class = single or (layout.query_grid is not None and layout.query_prefix > 0 and classes)
    if query.kind == 'auto':
        return replace(query, kind='cls' if has_class else 'mean')
    if query.kind == 'cls' and not has_class:
        raise InputError(f'{op.name} has no class token', accepted='mean, or X,Y', parameter='queries')
    if query.kind == 'token' and (query.index >= op.shape[2] or layout.windows is not None):
        problem = f'no token {query.index}: {op.name} has {op.shape[2]} queries'
        if layout.windows is not None:
            problem = f'{op.name} attends within windows, whose tokens are not numbered'
        raise InputError(problem, accepted='cls, mean, X,Y', parameter='queries')
    if query.kind == 'point' and layout.query_grid is None:
        raise InputError(
            f'{op.name} has {op.shape[2]} queries whose places in the image are not known',
            accepted='cls, mean, or the number of a token',
            parameter='queries',
        )
    return query


def positions_of(query: Query, layout: TokenLayout, points: Tensor, extent: tuple[int, int]) -> Tensor:
    """The query's token in each image, int64 ``(B,)``; tokens of a grid come after the prefix."""
    if query.kind in ('cls', 'token'):
        place = query.index
        if query.kind == 'token' and layout.query_order is not None:
            place = layout.query_order.index(place)
        return torch.full((len(points),), place, dtype=torch.long, device=points.device)
    assert layout.query_grid is not None
    height, width = layout.query_grid
    column = (points[:, 0] * width / extent[1]).long().clamp(0, width - 1)
    row = (points[:, 1] * height / extent[0]).long().clamp(0, height - 1)
    return layout.query_prefix + row * width + column


def _row(op: AttentionOp, layout: TokenLayout, tokens: Tensor) -> Tensor:
    """Attention of one query of each image, ``(B, heads, prefix + h · w)``."""
    batch = len(tokens)
    if layout.windows is None:
        groups, positions = torch.arange(batch, device=tokens.device), tokens[:, None]
        rows = op.rows(groups, positions)
        if not op.check(groups, positions, rows):
            raise _unproven(op)
        return rows[:, :, 0]
    assert layout.asking is not None and layout.query_grid is not None
    count, asked = layout.grid[0] * layout.grid[1], layout.query_grid[0] * layout.query_grid[1]
    wanted = torch.arange(batch, device=tokens.device) * asked + tokens
    at = torch.empty(batch * asked, dtype=torch.long, device=tokens.device)
    flat = layout.asking.flatten()
    at[flat[flat >= 0]] = (flat >= 0).nonzero()[:, 0]
    groups, positions = at[wanted] // op.shape[2], (at[wanted] % op.shape[2])[:, None]
    rows = op.rows(groups, positions)
    if not op.check(groups, positions, rows):
        raise _unproven(op)
    inside = layout.windows[groups] - (torch.arange(batch, device=tokens.device) * count)[:, None]
    return _scatter(rows[:, :, 0], inside, torch.arange(batch, device=tokens.device), batch, count)


def mean_row(op: AttentionOp, layout: TokenLayout, batch: int) -> Tensor:
    """Attention averaged over the queries that are in the image, ``(B, heads, prefix + h · w)``; streamed.

    Where no query is in the image (latents), over all of them.
    """
    groups, heads, queries, keys = op.shape
    first = layout.query_prefix if layout.query_grid is not None else 0
    total = torch.zeros(groups, heads, keys, device=_device(op), dtype=torch.float32)
    for part, weights in op.chunks():
        if layout.asking is not None:
            weights = weights * (layout.asking[:, None, part, None] >= 0)
        elif part.start < first:
            weights = weights[:, :, first - part.start :]
        total = total + weights.sum(2)
    if layout.windows is None:
        return total / (queries - first)
    count = layout.grid[0] * layout.grid[1]
    image = layout.windows.clamp_min(0).amax(1) // count  # every window lies in one image
    inside = torch.where(layout.windows < 0, -1, layout.windows % count)
    assert layout.query_grid is not None
    return _scatter(total, inside, image, batch, count) / (layout.query_grid[0] * layout.query_grid[1])


def _scatter(rows: Tensor, inside: Tensor, image: Tensor, batch: int, count: int) -> Tensor:
    """Sums rows over windows ``(n, heads, keys)`` into their images, ``(batch, heads, count)``; padding is dropped."""
    heads = rows.shape[1]
    result = rows.new_zeros(batch * heads * count + 1)
    offset = (image[:, None] * heads + torch.arange(heads, device=rows.device))[:, :, None] * count
    target = torch.where(inside[:, None] < 0, batch * heads * count, offset + inside[:, None].clamp_min(0))
    result.index_add_(0, target.flatten(), rows.flatten())
    return result[:-1].view(batch, heads, count)


@dataclass
class Collector:
    """Reads the wanted layers as they run; those counted from the end wait until the number of layers is known.

    Attributes:
        layers: Which layers are wanted.
        read: Turns an operation into what is wanted; an :class:`~vistool.errors.InputError` is kept for later.
    """

    layers: LayerChoice
    read: Callable[[AttentionOp], Any]
    _done: dict[int, Any] = field(default_factory=dict)
    _waiting: deque[AttentionOp] = field(default_factory=deque)

    def __call__(self, op: AttentionOp) -> None:
        """Takes an operation."""
        if self.layers.now(op.index, op.name):
            self._done[op.index] = self._try(op)
        elif self.layers.depth:
            self._waiting.append(op)
            if len(self._waiting) > self.layers.depth:
                self._waiting.popleft()

    def finish(self, names: Sequence[str], network: str) -> list[Any]:
        """What was read of the wanted layers, in order.

        Raises:
            InputError: If no attention ran, a layer does not exist, or one asked for by itself cannot be read.
        """
        if not names:
            raise InputError(
                f'{network} runs no attention that can be captured: no softmax(q·k) times values',
                hint='for convolutional networks see vis_cam and vis_featmap',
                parameter='config',
            )
        wanted = self.layers.resolve(names)
        for op in self._waiting:
            if op.index in wanted:
                self._done[op.index] = self._try(op)
        self._waiting.clear()
        read = [(self._done[index], single) for index, single in wanted.items()]
        for value, single in read:
            if isinstance(value, InputError) and (single or all(isinstance(v, InputError) for v, _ in read)):
                raise value
        return [value for value, _ in read if not isinstance(value, InputError)]

    def _try(self, op: AttentionOp) -> Any:
        try:
            return self.read(op)
        except InputError as error:
            return error


Look = Callable[[AttentionOp, TokenLayout], Any]
"""What is wanted of a layer, whose images come first and whose tokens lie row by row."""


@dataclass(frozen=True)
class Observation:
    """What was read in one forward.

    Attributes:
        read: What was read of the wanted layers, in order.
        names: Names of all attention layers.
        wanted: Numbers of the wanted layers.
        output: What the network returned.
        answers: How its tokens answer to a changed image; None for a family that is known.
        assumed: What was assumed of the layers that were read, and could not be checked.
        error: Why no layer could be read; None where one was.
    """

    read: list[Any]
    names: list[str]
    wanted: tuple[int, ...]
    output: Any
    answers: AttentionAnswers | None
    assumed: tuple[str, ...] = ()
    error: InputError | None = None


def observe(
    module: nn.Module, inputs: NetworkInput, layers: LayerChoice, look: Look, *, leaves: Leaves = 'none'
) -> Observation:
    """Reads the wanted layers in one forward, under the gradient mode of the caller.

    Families that are not known are asked for their answers first (two more images, once), and so is a known one with a
    layer that cannot be placed otherwise.

    What had to be assumed is logged once.

    Raises:
        InputError: If a layer does not exist or cannot be read; the hint names the last that can be placed.
    """
    answers = None if _is_known(module, inputs) else attention_answers(module, inputs)
    try:
        try:
            found = _observe(module, inputs, layers, look, leaves, answers)
        except Unrecognized:
            if answers is not None:
                raise
            answers = attention_answers(module, inputs)
            found = _observe(module, inputs, layers, look, leaves, answers)
        for text in found.assumed:
            remembered(module, 'assumed of attention', text, partial(log.warning, '%s (it could not be checked)', text))
        return found
    except Unplaced as error:
        last = last_placed(module, inputs, answers)
        hint = 'see vis_cam or vis_featmap' if last is None else f'choose layer {last[0]} ({last[1]})'
        raise Unplaced(error.problem, hint=hint, parameter='layers') from error


def _is_known(module: nn.Module, inputs: NetworkInput) -> bool:
    shapes = tuple(tensor.shape for tensor in tensors(inputs))
    return remembered(module, 'is of a known family', shapes, lambda: is_known(module, inputs))


def observe_last(module: nn.Module, inputs: NetworkInput, look: Look) -> Observation:
    """Reads the last attention layer that can be placed in the image; which one is printed where it is not the last.

    Raises:
        InputError: If there is none.
    """
    try:
        return observe(module, inputs, LayerChoice.parse((-1,), module), look)
    except Unplaced as error:
        answers = None if _is_known(module, inputs) else attention_answers(module, inputs)
        last = last_placed(module, inputs, answers)
        if last is None:
            raise
        log.warning('%s; drawn is layer %d (%s), the last that can be placed', error.problem, *last)
        return observe(module, inputs, LayerChoice.parse((last[0],), module), look)


def last_placed(module: nn.Module, inputs: NetworkInput, answers: AttentionAnswers | None) -> tuple[int, str] | None:
    """Number and name of the last attention layer whose tokens can be placed; by one forward, then remembered."""
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))

    def search() -> tuple[int, str] | None:
        every = LayerChoice.parse(['all'], module)
        try:
            found = _observe(module, inputs, every, lambda op, layout: (op.index, op.name), 'none', answers)
        except InputError:
            return None
        placed: tuple[int, str] = found.read[-1]
        return placed

    return remembered(module, 'last placed attention', (shapes, answers is None), search)


@dataclass(frozen=True, eq=False)
class RecordedLayer:
    """What is kept of one attention layer of a photo: enough for the row of any query.

    Attributes:
        op: The operation, without its values.
        layout: Where its tokens are.
    """

    op: AttentionOp
    layout: TokenLayout


@dataclass(frozen=True, eq=False)
class RecordedAttention:
    """The attention of one photo in one forward, kept: rows of any query in any layer need no other.

    Attributes:
        sample: The photo.
        layers: The layers that can be placed in the image, by their numbers.
        names: Names of all attention layers.
        patch: Stride of the first convolution.
        has_class_token: Whether the first prefix token is a class token, as far as is known.
        why: Why there is no layer that can be shown; ``''`` where there is one.
        output: What the network returned.
    """

    sample: Sample
    layers: Mapping[int, RecordedLayer]
    names: Sequence[str]
    patch: Size | None
    has_class_token: bool
    why: str
    output: Any

    def read(self, number: int, queries: Sequence[Query], points: Tensor, size: Size) -> Reading:
        """The maps of queries in one layer; see :func:`read`."""
        layer = self.layers[number]
        grid = layer.layout.query_grid
        extent = size if grid is None else covered_size(size, grid, self.patch)
        return read(layer.op, layer.layout, queries, points, extent, self.has_class_token)


def record(module: nn.Module, inputs: NetworkInput, sample: Sample) -> RecordedAttention:
    """Runs a network on one photo and keeps the queries and keys of every attention layer that can be shown.

    A network without attention runs as well: then nothing is kept but its output.

    Args:
        module: The network.
        inputs: Its input.
        sample: The photo.

    Raises:
        InputError: If the network fails.
    """

    def look(op: AttentionOp, layout: TokenLayout) -> RecordedLayer:
        verify(op)
        return RecordedLayer(op.compact(), layout)

    every = LayerChoice.parse(['all'], module)
    with borrowed(module), torch.no_grad():
        answers = None if is_known(module, inputs) else attention_answers(module, inputs)
        found = _observe(module, inputs, every, look, 'none', answers, lenient=True)
        if answers is None and isinstance(found.error, Unrecognized):
            found = _observe(module, inputs, every, look, 'none', attention_answers(module, inputs), lenient=True)
    layers = {layer.op.index: layer for layer in found.read}
    why = '' if found.error is None else str(found.error)
    return RecordedAttention(
        sample, layers, found.names, patch_stride(module), has_class_token(module), why, found.output
    )


def _observe(
    module: nn.Module,
    inputs: NetworkInput,
    layers: LayerChoice,
    look: Look,
    leaves: Leaves,
    answers: AttentionAnswers | None,
    lenient: bool = False,
) -> Observation:
    """One forward; ``lenient``: a network none of whose layers can be read is an answer, not an error."""
    size, batch = input_size(inputs)
    assumed: dict[str, None] = {}

    def read(op: AttentionOp) -> Any:
        own, layout = place_tokens(op, batch, size, answers)
        assumed.update({layout.assumed: None} if layout.assumed else {})
        return look(own, layout)

    collector = Collector(layers, read)
    skip = answers.gates() if answers is not None else ()
    with watch_attention(module, batch, collector, leaves=leaves, skip=skip) as watch:
        output = run_network(module, inputs)
    try:
        values = collector.finish(watch.names, type(module).__name__)
    except InputError as error:
        if not lenient:
            raise
        return Observation([], watch.names, (), output, answers, error=error)
    return Observation(values, watch.names, tuple(layers.resolve(watch.names)), output, answers, tuple(assumed))


def read_rows(
    module: nn.Module, inputs: NetworkInput, layers: LayerChoice | None, queries: Sequence[Query], points: Tensor
) -> tuple[list[Reading], Size | None]:
    """The attention of the queries in the wanted layers, by one forward.

    Args:
        module: The network.
        inputs: Its input.
        layers: Which layers; None means the last that can be placed.
        queries: The queries.
        points: ``(B, Q, 2)``, point queries in network pixels.

    Returns:
        One reading per layer, and the stride of the first convolution.
    """
    size, _ = input_size(inputs)
    classes, stride = has_class_token(module), patch_stride(module)

    def look(op: AttentionOp, layout: TokenLayout) -> Reading:
        extent = size if layout.query_grid is None else covered_size(size, layout.query_grid, stride)
        return read(op, layout, queries, points, extent, classes)

    with borrowed(module), torch.no_grad():
        found = observe_last(module, inputs, look) if layers is None else observe(module, inputs, layers, look)
    return found.read, stride


def require_patch(model: Model, inputs: NetworkInput) -> None:
    """Refuses an image that is smaller than a patch.

    Raises:
        InputError: If the network input is smaller than a patch.
    """
    module, size = model.module, input_size(inputs)[0]
    patch = remembered(module, 'patch size', None, lambda: patch_size(module))
    if size[0] < patch[0] or size[1] < patch[1]:
        raise InputError(
            f'the network input is {size[0]}×{size[1]}, smaller than a patch of {model.name} ({patch[0]}×{patch[1]})',
            hint=f'use a larger image, or {param("img_size")} with {param("fit", "resize")}',
            parameter='images',
        )


def has_class_token(module: nn.Module) -> bool:
    """Whether the first prefix token is a class token; not if the names of the parameters mention registers only."""

    def search() -> bool:
        names = ' '.join(name for name, _ in module.named_parameters()).lower()
        return bool(re.search(r'cls_?tok|class_?tok|\bcls', names)) or not re.search(r'reg_?tok|register', names)

    return remembered(module, 'has a class token', None, search)


def network_points(samples: Sequence[Sample], queries: Sequence[Query]) -> Tensor:
    """Point queries in network pixels, ``(B, Q, 2)``; zeros for the others.

    Raises:
        InputError: If a point is outside the photo, or outside what the network sees of it.
    """
    points = np.zeros((len(samples), len(queries), 2))
    for i, sample in enumerate(samples):
        photo = sample.original if sample.geometry is not None and sample.original is not None else sample.image
        height, width = photo.shape[:2]
        for j, query in enumerate(queries):
            if query.kind != 'point':
                continue
            if not (0 <= query.x < width and 0 <= query.y < height):
                raise InputError(
                    f'{query.x:g},{query.y:g} is outside the photo',
                    accepted=f'x from 0 to {width - 1}, y from 0 to {height - 1}',
                    parameter='queries',
                )
            point = np.array([[query.x + 0.5, query.y + 0.5]])
            if sample.geometry is not None:
                point = sample.geometry.to_network(point)
            points[i, j] = point[0]
            (x, y), (h, w) = point[0], sample.image.shape[:2]
            if not (0 <= x < w and 0 <= y < h):
                raise InputError(
                    f'{query.x:g},{query.y:g} is in the photo, but the network crops it away',
                    hint=f'{param("img_size")} keeps the whole photo',
                    parameter='queries',
                )
    return torch.from_numpy(points)
