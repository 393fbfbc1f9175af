"""One forward for every map: activations of the layers, scores, and gradients by a backward that ends at the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.capture import Activation, activations, borrowed
from vistool.network.layer_search import check_gradient, last_used, suggestion
from vistool.network.outputs import class_scores
from vistool.network.tensors import NetworkInput, Size, call_module, input_size
from vistool.network.tokens import Layout, NoSpatialMap, TokenHints, find_layout


@dataclass(frozen=True)
class Layer:
    """A target layer in one forward.

    Attributes:
        name: Its dotted name.
        value: Its output.
        layout: How that is laid out in space.
        call: Which of its calls returned it, counted from 0.
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
    """What one forward produced.

    Attributes:
        output: What the network returned.
        scores: Class scores ``(B, C)``, or None if it gives none.
        layers: The target layers.
        count: B.
        suggest: ``name → hint`` that names another layer than the one given.
    """

    output: Any
    scores: Tensor | None
    layers: tuple[Layer, ...]
    count: int
    suggest: Callable[[str], str] = lambda name: ''

    def gradients(self, objective: Tensor, *, last: bool) -> list[Tensor]:
        """∂objective/∂layer for every layer, by one backward that ends at the earliest of them.

        Args:
            objective: A scalar.
            last: Whether the graph may be freed afterwards.

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
            check_gradient(layer.name, gradient, layer.layout, self.suggest)
        return list(found)

    def _no_path(self, name: str) -> InputError:
        return InputError(
            f'the score does not depend on layer {name!r}',
            hint=f'{self.suggest(name)}, or use a method without gradients (EigenCAM)',
            parameter='layers',
        )


@contextmanager
def forward(
    module: nn.Module,
    inputs: NetworkInput,
    targets: Mapping[str, nn.Module],
    *,
    gradients: bool,
    hints: TokenHints | None = None,
) -> Iterator[Forward]:
    """Runs ``module`` once and keeps what the maps are computed from.

    Nothing is recorded before the earliest target layer and no parameter gets a gradient. The network is as before when
    the context ends.

    Args:
        module: The network.
        inputs: A tensor ``(B, C, H, W)``, or a tuple (by position) or dict (by name) of tensors.
        targets: Target layers by name.
        gradients: Whether gradients will be asked for.
        hints: What the user says about token layouts.

    Raises:
        InputError: If a layer is not reached or gives no spatial map.
    """
    with borrowed(module), activations(module, targets, cut=gradients) as found:
        if not gradients:
            torch.set_grad_enabled(False)  # borrowed() restores the caller's mode
        output = call_module(module, inputs)
        if gradients or all(len(calls) < 2 for calls in found.values()):
            yield _collect(module, inputs, targets, found, output, hints or TokenHints())
            return
    # Only gradients tell which of several calls matters, and it has to be the same one for every method
    with forward(module, inputs, targets, gradients=True, hints=hints) as run:
        yield run


def _collect(
    module: nn.Module,
    inputs: NetworkInput,
    targets: Mapping[str, nn.Module],
    found: Mapping[str, Sequence[Activation]],
    output: Any,
    hints: TokenHints,
) -> Forward:
    size, batch = input_size(inputs)
    layers = []
    suggest = partial(suggestion, module, inputs)
    for name, calls in found.items():
        if not calls:
            raise InputError(f'layer {name!r} was not reached in the forward pass', hint=suggest(name))
        chosen = last_used(calls, output)
        layout = _layout(name, targets[name], calls[chosen], size, batch, hints, suggest)
        layers.append(Layer(name, calls[chosen].value, layout, chosen, len(calls)))
    return Forward(output, class_scores(output), tuple(layers), batch, suggest)


def _layout(
    name: str,
    layer: nn.Module,
    kept: Activation,
    size: Size,
    batch: int,
    hints: TokenHints,
    suggest: Callable[[str], str],
) -> Layout:
    try:
        return find_layout(kept.value, size, kept.grids, batch=batch, layer=layer, hints=hints)
    except NoSpatialMap as error:
        if hints.prefix is not None:
            raise InputError(
                f'{hints.prefix} does not fit layer {name!r}: {error}',
                hint='leave it out to have the layout found',
                parameter='extra_tokens',
            ) from error
        raise InputError(
            f'layer {name!r} gives no spatial map: {error}', hint=suggest(name), parameter='layers'
        ) from error
