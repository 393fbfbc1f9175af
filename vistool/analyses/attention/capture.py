"""One forward with its attention, read into maps: rows of the queries, prefix tokens dropped, windows put back."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistool.analyses.attention.deformable import read_sampled, require_points
from vistool.analyses.attention.reading import Reading, read, verify
from vistool.analyses.attention.selection import LayerChoice, Query
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.input_size import patch_size
from vistool.models.model import Model
from vistool.network.attention import AttentionOp, Leaves, watch_attention
from vistool.network.attention_answers import AttentionAnswers, attention_answers, is_known
from vistool.network.capture import borrowed, remembered
from vistool.network.embedding import patch_stride
from vistool.network.inputs import run_network
from vistool.network.sampling import SampledAttention
from vistool.network.tensors import NetworkInput, Size, input_size, tensors
from vistool.network.token_layout import TokenLayout, Unplaced, Unrecognized, covered_size, place_tokens

log = logging.getLogger('vistool')


@dataclass
class Collector:
    """Reads the wanted layers as they run; those counted from the end wait until the number of layers is known.

    Attributes:
        layers: Which layers are wanted.
        read: Turns an operation into what is wanted; an :class:`~vistool.errors.InputError` is kept for later.
    """

    layers: LayerChoice
    read: Callable[[AttentionOp | SampledAttention], Any]
    _done: dict[int, Any] = field(default_factory=dict)
    _waiting: deque[AttentionOp | SampledAttention] = field(default_factory=deque)

    def __call__(self, op: AttentionOp | SampledAttention) -> None:
        """Takes an operation."""
        if self.layers.now(op.index, op.name):
            self._done[op.index] = self._try(op)
        elif self.layers.depth:
            self._waiting.append(op)
            if len(self._waiting) > self.layers.depth:
                self._waiting.popleft()

    def finish(self, names: Sequence[str], network: str, refused: Sequence[str] = ()) -> list[Any]:
        """What was read of the wanted layers, in order.

        Args:
            names: Names of all attention layers.
            network: Name of the network.
            refused: Names of modules that multiply values with something else made of a softmax.

        Raises:
            InputError: If no attention ran, a layer does not exist, or one asked for by itself cannot be read.
        """
        if not names and refused:
            where = ', '.join(dict.fromkeys(name or 'the network' for name in refused[-2:]))
            raise InputError(
                f'{network} changes the weights of its attention after the softmax, so that their rows do not sum to 1 '
                f'where they meet the values ({where}): such weights are not drawn',
                hint='scale the values or the output in place of the weights, or see vis_cam and vis_featmap',
                parameter='model',
            )
        if not names:
            raise InputError(
                f'{network} runs no attention that can be captured: no softmax(q·k) times values',
                hint='for convolutional networks see vis_cam and vis_featmap',
                parameter='model',
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

    def _try(self, op: AttentionOp | SampledAttention) -> Any:
        try:
            return self.read(op)
        except InputError as error:
            return error


Look = Callable[[AttentionOp, TokenLayout], Any]
"""What is wanted of a layer, whose images come first and whose tokens lie row by row."""

LookSampled = Callable[[SampledAttention], Any]
"""What is wanted of a layer of deformable attention."""


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
    module: nn.Module,
    inputs: NetworkInput,
    layers: LayerChoice,
    look: Look,
    *,
    leaves: Leaves = 'none',
    sampled: LookSampled | None = None,
) -> Observation:
    """Reads the wanted layers in one forward, under the gradient mode of the caller.

    Families that are not known are asked for their answers first (two more images, once), and so is a known one with a
    layer that cannot be placed otherwise.

    What had to be assumed is logged once. Layers of deformable attention are counted only where ``sampled`` reads them.

    Raises:
        InputError: If a layer does not exist or cannot be read; the hint names the last that can be placed.
    """
    answers = None if _is_known(module, inputs) else attention_answers(module, inputs)
    try:
        try:
            found = _observe(module, inputs, layers, look, leaves, answers, sampled)
        except Unrecognized:
            if answers is not None:
                raise
            answers = attention_answers(module, inputs)
            found = _observe(module, inputs, layers, look, leaves, answers, sampled)
        for text in found.assumed:
            remembered(module, 'assumed of attention', text, partial(log.warning, '%s (it could not be checked)', text))
        return found
    except Unplaced as error:
        last = last_placed(module, inputs, answers, error.parameter == 'queries', sampled is not None)
        hint = 'see vis_cam or vis_featmap' if last is None else f'choose layer {last[0]} ({last[1]})'
        raise Unplaced(error.problem, accepted=error.accepted, hint=hint, parameter=error.parameter) from error


def _is_known(module: nn.Module, inputs: NetworkInput) -> bool:
    shapes = tuple(tensor.shape for tensor in tensors(inputs))
    return remembered(module, 'is of a known family', shapes, lambda: is_known(module, inputs))


def observe_last(
    module: nn.Module, inputs: NetworkInput, look: Look, sampled: LookSampled | None = None
) -> Observation:
    """Reads the last attention layer that can be placed in the image; which one is printed where it is not the last.

    Raises:
        InputError: If there is none.
    """
    try:
        return observe(module, inputs, LayerChoice.parse((-1,), module), look, sampled=sampled)
    except Unplaced as error:
        answers = None if _is_known(module, inputs) else attention_answers(module, inputs)
        last = last_placed(module, inputs, answers, error.parameter == 'queries', sampled is not None)
        if last is None:
            raise
        log.warning('%s; drawn is layer %d (%s), the last that can be placed', error.problem, *last)
        return observe(module, inputs, LayerChoice.parse((last[0],), module), look, sampled=sampled)


def last_placed(
    module: nn.Module,
    inputs: NetworkInput,
    answers: AttentionAnswers | None,
    queries: bool = False,
    deformable: bool = False,
) -> tuple[int, str] | None:
    """Number and name of the last attention layer whose tokens can be placed; by one forward, then remembered.

    Args:
        module: The network.
        inputs: Its input.
        answers: How its tokens answer to a changed image; None for a family that is known.
        queries: Whether the queries have to be places too.
        deformable: Whether layers of deformable attention count.
    """
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))

    def look(op: AttentionOp, layout: TokenLayout) -> tuple[int, str]:
        if queries and layout.query_grid is None:
            raise Unplaced(f'the queries of {op.name} are not places', parameter='queries')
        return op.index, op.name

    def sampled(op: SampledAttention) -> tuple[int, str]:
        require_points(op, places=queries)
        return op.index, op.name

    def search() -> tuple[int, str] | None:
        every = LayerChoice.parse(['all'], module)
        try:
            found = _observe(module, inputs, every, look, 'none', answers, sampled if deformable else None)
        except InputError:
            return None
        placed: tuple[int, str] = found.read[-1]
        return placed

    return remembered(module, 'last placed attention', (shapes, answers is None, queries, deformable), search)


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


def prepare(module: nn.Module, inputs: NetworkInput) -> None:
    """Runs what :func:`record` has to know about a network, so that it then runs the network once."""
    if not _is_known(module, inputs):
        attention_answers(module, inputs)


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
        answers = None if _is_known(module, inputs) else attention_answers(module, inputs)
        found = _observe(module, inputs, every, look, 'none', answers, lenient=True)
        if answers is None and isinstance(found.error, Unrecognized):
            found = _observe(module, inputs, every, look, 'none', attention_answers(module, inputs), lenient=True)
    layers = {layer.op.index: layer for layer in found.read}
    why = '' if found.error is None else found.error.problem
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
    sampled: LookSampled | None = None,
    lenient: bool = False,
) -> Observation:
    """One forward; ``lenient``: a network none of whose layers can be read is an answer, not an error."""
    size, batch = input_size(inputs)
    assumed: dict[str, None] = {}

    def read(op: AttentionOp | SampledAttention) -> Any:
        if isinstance(op, SampledAttention):
            return None if sampled is None else sampled(op)
        own, layout = place_tokens(op, batch, size, answers)
        assumed.update({layout.assumed: None} if layout.assumed else {})
        return look(own, layout)

    collector = Collector(layers, read)
    skip = answers.gates() if answers is not None else ()
    seen = None if sampled is None else collector
    with watch_attention(module, batch, collector, leaves=leaves, skip=skip, sampled=seen) as watch:
        output = run_network(module, inputs)
    try:
        values = collector.finish(watch.names, type(module).__name__, watch.refused)
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

    def sampled(op: SampledAttention) -> Reading:
        return read_sampled(op, queries, points, size)

    with borrowed(module), torch.no_grad():
        if layers is None:
            found = observe_last(module, inputs, look, sampled)
        else:
            found = observe(module, inputs, layers, look, sampled=sampled)
    return found.read, stride


def whole_layers(
    module: nn.Module, inputs: NetworkInput, layers: LayerChoice | None
) -> list[tuple[AttentionOp, TokenLayout]]:
    """What the whole attention of the wanted layers is computed from, and where their tokens are, by one forward.

    Args:
        module: The network.
        inputs: Its input.
        layers: Which layers; None means the last that can be placed.

    Raises:
        InputError: If a layer does not exist, cannot be placed, or attends to sampled points.
    """

    def look(op: AttentionOp, layout: TokenLayout) -> tuple[AttentionOp, TokenLayout]:
        verify(op)
        return op.compact(), layout

    def sampled(op: SampledAttention) -> tuple[AttentionOp, TokenLayout]:
        raise InputError(
            f'{op.name} is deformable attention: its weights are those of sampled points, not of keys',
            accepted='layers in which every token attends to all',
            parameter='layers',
        )

    with borrowed(module), torch.no_grad():
        if layers is None:
            return observe_last(module, inputs, look, sampled).read
        return observe(module, inputs, layers, look, sampled=sampled).read


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
