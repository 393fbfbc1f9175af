"""One forward with its attention: what the methods have in common."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistool.analyses.attention.reading import Reading, read
from vistool.analyses.attention.selection import Layers, Query
from vistool.data.samples import Sample
from vistool.errors import InputError, message_of, param
from vistool.models.input_size import patch_size
from vistool.models.model import Model
from vistool.network.attention_ops import AttentionOp
from vistool.network.attention_watch import watch_attention
from vistool.network.capture import borrowed
from vistool.network.embedding import patch_stride
from vistool.network.tensors import NetworkInput, Size, call_module, input_size
from vistool.network.token_layout import covered_size, find_token_layout


@dataclass
class Collector:
    """Reads the wanted layers as they run; those counted from the end wait until it is known where that is.

    Attributes:
        layers: The choice.
        read: Makes of an operation what is wanted of it; an :class:`~vistool.errors.InputError` is kept.
    """

    layers: Layers
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
                f'{network} runs no attention that can be seen: no softmax(q·k) times values',
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


def read_rows(
    module: nn.Module, inputs: NetworkInput, layers: Layers, queries: Sequence[Query], points: Tensor
) -> tuple[list[Reading], Size | None]:
    """The attention of the queries in the wanted layers, by one forward.

    Args:
        module: The network.
        inputs: Its input.
        layers: Which layers.
        queries: What to look from.
        points: ``(B, Q, 2)``, point queries in network pixels.

    Returns:
        One reading per layer, and the stride of the first convolution.
    """
    size, batch = input_size(inputs)
    classes, stride = has_class_token(module), patch_stride(module)

    def look(op: AttentionOp) -> Reading:
        layout = find_token_layout(op, batch, size)
        extent = size if layout.query_grid is None else covered_size(size, layout.query_grid, stride)
        return read(op, layout, queries, points, extent, classes)

    collector = Collector(layers, look)
    with borrowed(module), torch.no_grad():
        with watch_attention(module, batch, collector) as watch:
            forward(module, inputs)
        return collector.finish(watch.names, type(module).__name__), stride


def require_patch(model: Model, inputs: NetworkInput) -> None:
    """Refuses an image from which not one patch can be cut.

    Raises:
        InputError: If the network input is smaller than a patch.
    """
    size, patch = input_size(inputs)[0], patch_size(model.module)
    if size[0] < patch[0] or size[1] < patch[1]:
        raise InputError(
            f'the network input is {size[0]}×{size[1]}, smaller than a patch of {model.name} ({patch[0]}×{patch[1]})',
            hint=f'use a larger image, or {param("img_size")} with {param("fit", "resize")}',
            parameter='images',
        )


def forward(module: nn.Module, inputs: NetworkInput) -> Any:
    """``module(inputs)``; that the network is built for another size is told in a line.

    Raises:
        InputError: If the network refuses the size of its input.
    """
    try:
        return call_module(module, inputs)
    except (RuntimeError, AssertionError, ValueError) as error:
        text = message_of(error)
        if isinstance(error, InputError) or not re.search(
            r'size|shape|height|width|resolution|dimension|must match', text
        ):
            raise
        height, width = input_size(inputs)[0]
        raise InputError(
            f'{type(module).__name__} does not take {height}×{width} images ({text})',
            hint=f'build it at that size ({param("options")} model.backbone.img_size=…), or leave '
            f'{param("img_size")} out',
            parameter='img_size',
        ) from error


def has_class_token(module: nn.Module) -> bool:
    """Whether the first prefix token is a class token: not where the parameters tell of registers only."""
    names = ' '.join(name for name, _ in module.named_parameters()).lower()
    return bool(re.search(r'cls_?tok|class_?tok|\bcls', names)) or not re.search(r'reg_?tok|register', names)


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
