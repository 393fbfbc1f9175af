"""One forward for every map: activations at the layers, scores, and gradients by the tail's backward only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.capture import Activation, activations, frozen
from vistool.network.layer_search import check_gradient, last_used, suggestion
from vistool.network.outputs import class_scores
from vistool.network.tokens import Layout, NoSpatialMap, find_layout


@dataclass(frozen=True)
class Tokens:
    """What the user says about token layouts; None leaves it to be found.

    Attributes:
        extra: Number of tokens before the grid; 0 is a value.
        flat: Whether layers give tokens, ``(B, L, C)``.
    """

    extra: int | None = None
    flat: bool | None = None


@dataclass(frozen=True)
class Layer:
    """A target layer in one forward.

    Attributes:
        name: Its dotted name.
        value: Its output.
        layout: How that is laid out in space.
        call: Which of its calls gave it, counted from 0, where the network runs it several times.
        calls: How many times it ran.
    """

    name: str
    value: Tensor
    layout: Layout
    call: int = 0
    calls: int = 1

    def map(self, tensor: Tensor) -> Tensor:
        """``tensor``, shaped like the layer's output, as a detached ``(B, K, h, w)`` in at least float32."""
        maps = self.layout.to_map(tensor.detach())
        return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


@dataclass(frozen=True)
class Forward:
    """What one forward left: the model's output, its class scores ``(B, C)`` if it gives any, the layers, and B."""

    output: Any
    scores: Tensor | None
    layers: tuple[Layer, ...]
    count: int
    instead: Callable[[str], str] = lambda name: ''
    """A hint that names another layer than the one given."""

    def gradients(self, objective: Tensor, *, last: bool) -> list[Tensor]:
        """∂objective/∂layer for every layer, by one backward through the tail.

        Args:
            objective: A scalar.
            last: Whether the graph may go afterwards.

        Raises:
            InputError: If the objective does not depend on a layer, or only on its prefix tokens.
        """
        values = [layer.value for layer in self.layers]
        if not objective.requires_grad:
            raise self._no_path(self.layers[0].name)
        found = torch.autograd.grad(objective, values, retain_graph=not last, allow_unused=True)
        for layer, gradient in zip(self.layers, found, strict=True):
            if gradient is None:
                raise self._no_path(layer.name)
            check_gradient(layer.name, gradient, layer.layout, self.instead)
        return list(found)

    def _no_path(self, name: str) -> InputError:
        return InputError(
            f'the score does not depend on layer {name!r}',
            hint=f'{self.instead(name)}, or take a method without gradients (EigenCAM)',
            parameter='layers',
        )


@contextmanager
def forward(
    module: nn.Module, inputs: Any, targets: Mapping[str, nn.Module], *, gradients: bool, tokens: Tokens | None = None
) -> Iterator[Forward]:
    """Runs ``module`` once and keeps what the maps are made from.

    Nothing is recorded before the earliest target layer and no parameter gets a gradient; mode, ``requires_grad``,
    ``.grad`` and hooks are as found when the context ends.

    Args:
        module: The network.
        inputs: A tensor ``(B, C, H, W)``, or a tuple (by position) or dict (by name) of tensors.
        targets: Target layers by name.
        gradients: Whether gradients will be asked for.
        tokens: What the user says about token layouts.

    Raises:
        InputError: If a layer is not reached or gives no spatial map.
    """
    with frozen(module), activations(module, targets, cut=gradients) as found:
        if not gradients:
            torch.set_grad_enabled(False)  # frozen() puts the caller's mode back
        output = call(module, inputs)
        if gradients or all(len(calls) < 2 for calls in found.values()):
            yield _kept(module, inputs, targets, found, output, tokens or Tokens())
            return
    # which of several calls matters only gradients tell: it has to be the same one for every method
    with forward(module, inputs, targets, gradients=True, tokens=tokens) as run:
        yield run


def _kept(
    module: nn.Module,
    inputs: Any,
    targets: Mapping[str, nn.Module],
    found: Mapping[str, Sequence[Activation]],
    output: Any,
    tokens: Tokens,
) -> Forward:
    size, batch = input_size(inputs)
    layers = []
    instead = partial(suggestion, module, inputs)
    for name, calls in found.items():
        if not calls:
            raise InputError(f'layer {name!r} was not reached in the forward pass', hint=instead(name))
        chosen = last_used(calls, output)
        layout = _layout(name, targets[name], calls[chosen], size, batch, tokens, instead)
        layers.append(Layer(name, calls[chosen].value, layout, chosen, len(calls)))
    return Forward(output, class_scores(output), tuple(layers), batch, instead)


def call(module: nn.Module, inputs: Any) -> Any:
    """``module(inputs)``, with tuples spread by position and dicts by name."""
    if isinstance(inputs, Mapping):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, (tuple, list)) else module(inputs)


def input_size(inputs: Any) -> tuple[tuple[int, int], int]:
    """``(H, W)`` and the batch size of the first image-like tensor in ``inputs``."""
    tensors: Sequence[Any] = (
        list(inputs.values())
        if isinstance(inputs, Mapping)
        else inputs
        if isinstance(inputs, (tuple, list))
        else [inputs]
    )
    image = next((tensor for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim == 4), None)
    if image is None:
        shapes = [tuple(tensor.shape) for tensor in tensors if isinstance(tensor, Tensor)]
        raise InputError(f'no image among the inputs {shapes}', accepted='at least one tensor (B, C, H, W)')
    return (int(image.shape[2]), int(image.shape[3])), int(image.shape[0])


def _layout(
    name: str,
    layer: nn.Module,
    kept: Activation,
    size: tuple[int, int],
    batch: int,
    tokens: Tokens,
    instead: Callable[[str], str],
) -> Layout:
    try:
        return find_layout(
            kept.value, size, kept.grids, batch=batch, layer=layer, prefix=tokens.extra, tokens=tokens.flat
        )
    except NoSpatialMap as error:
        if tokens.extra is not None:
            raise InputError(
                f'{tokens.extra} does not fit layer {name!r}: {error}',
                hint='leave it out to have the layout found',
                parameter='extra_tokens',
            ) from error
        raise InputError(
            f'layer {name!r} gives no spatial map: {error}', hint=instead(name), parameter='layers'
        ) from error
