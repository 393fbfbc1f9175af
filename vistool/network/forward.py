"""One forward for every map: activations, scores, gradients by a backward that ends at the layers, and layer search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError, param
from vistool.network.capture import Activation, activations, borrowed, listed, remembered
from vistool.network.inputs import run_network
from vistool.network.layer_search import FoundLayer, random_mixture, search
from vistool.network.layers import default_layers, function_of, module_path, network_name
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.tensors import (
    Layout,
    NetworkInput,
    NoSpatialMap,
    Size,
    TokenHints,
    find_layout,
    first_tensor,
    input_size,
    tensors,
)

log = logging.getLogger('vistool')


def search_layer(module: nn.Module, inputs: NetworkInput, read: ScoreReader = BY_PLACE) -> str | None:
    """The layer to explain by :func:`~vistool.network.layer_search.search`, or None where no map reaches the score."""
    found = _searched(module, inputs, read)
    return found.name if found else None


def _searched(module: nn.Module, inputs: NetworkInput, read: ScoreReader) -> FoundLayer | None:
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    objective = partial(_objective, count=1, read=read)
    # The reader itself may hold the network, which would then never be freed
    return remembered(module, 'layer search', (shapes, read.key), lambda: search(module, inputs, objective))


def layers_to_explain(module: nn.Module, inputs: NetworkInput, read: ScoreReader = BY_PLACE) -> list[str]:
    """The default target layers: the table's, else one found by search; ``[]`` for neither.

    What was chosen, and how, is logged once.
    """
    names, found = default_layers(module), None
    if not names and (found := _searched(module, inputs, read)) is not None:
        names = [found.name]
    remembered(module, 'default layers logged', tuple(names), lambda: _log_choice(module, names, found))
    return names


def _log_choice(module: nn.Module, names: Sequence[str], found: FoundLayer | None) -> None:
    if found is None:
        if names:
            log.info('target layer: %s (the default for this network)', ', '.join(names))
        return
    log.warning(
        'target layer: %s (found by layer search, as %s is not in the table: the last with a map the score depends '
        f'on); choose another with {param("layers")}',
        found.name,
        network_name(module),
    )
    if found.zero:
        log.warning(
            'the weights of %s are all zero, so no score depends on the image and gradients are zero everywhere: load '
            'a checkpoint, or use a method without gradients (EigenCAM)',
            found.zero,
        )


def suggestion(module: nn.Module, inputs: NetworkInput, read: ScoreReader, avoid: str) -> str:
    """A hint that names another layer with a map that the score depends on: the default, or one found by search."""
    names = [*default_layers(module), search_layer(module, inputs, read)]
    name = next((name for name in names if name not in (None, avoid)), None)
    return f'take {name}' if name else f'list all with {param("preview_model")}'


def last_used(calls: Sequence[Activation], output: Any, count: int, read: ScoreReader = BY_PLACE) -> int:
    """The last of a layer's calls in one forward whose output influences the score through more than the first token.

    Some networks run one module twice, and only one of its outputs matters: DeiT3 of mmpretrain normalizes by ``ln1``
    before its last attention, then again before its last feed-forward layer, where patch tokens no longer reach the
    score.
    """
    objective = _objective(output, count, read) if len(calls) > 1 else None
    if objective is None or not objective.requires_grad:
        return len(calls) - 1
    values = [call.value for call in calls]
    gradients = torch.autograd.grad(objective, values, retain_graph=True, allow_unused=True)
    reached = [
        index
        for index, gradient in enumerate(gradients)
        if gradient is not None and gradient.ndim > 2 and (gradient if gradient.ndim > 3 else gradient[:, 1:]).any()
    ]
    return reached[-1] if reached else len(calls) - 1


def zero_weights(module: nn.Module, inputs: NetworkInput, read: ScoreReader) -> str:
    """``': the weights of head are all zero'`` where that is why no score depends on the image, else ``''``."""
    found = _searched(module, inputs, read)
    return f': the weights of {found.zero} are all zero' if found is not None and found.zero else ''


def check_gradient(
    name: str, gradient: Tensor, layout: Layout, suggest: Callable[[str], str], why: Callable[[], str]
) -> None:
    """Warns where a score's gradient at a layer is zero everywhere.

    Args:
        name: The layer.
        gradient: As the layer's output.
        layout: The layer's.
        suggest: Layer → a hint that names another.
        why: Why all gradients are zero, if that is known.

    Raises:
        InputError: If it is zero at every position of the map but not at the tokens before it, as after a
            transformer's last attention.
    """
    if layout.to_map(gradient).any():
        return
    if layout.prefix and gradient.any():
        raise InputError(
            f'after layer {name!r} the score depends on its {layout.prefix} prefix token(s) only: '
            'the gradient at every patch is zero',
            hint=suggest(name),
            parameter='layers',
        )
    log.warning('the gradient of the score at %s is zero everywhere, so there is nothing to see%s', name, why())


def _objective(output: Any, count: int, read: ScoreReader) -> Tensor | None:
    """A scalar to differentiate: the best class's score, or a fixed random mixture of a headless network's features."""
    scores = read(output, count)
    if scores is not None and scores.numel():
        return scores.amax(1).sum()
    features = first_tensor(output)
    if features is None:
        return None
    return random_mixture(features)


@dataclass(frozen=True)
class Layer:
    """A target layer in one forward.

    Attributes:
        name: Its name.
        value: Its map's tensor.
        layout: How that is laid out in space.
        place: Where that tensor is in what the layer returns.
        call: Which of its calls returned it, counted from 0.
        calls: How many times it ran.
    """

    name: str
    value: Tensor
    layout: Layout
    place: str = ''
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
        scores: The scores ``(B, C)``, or None where it gives none.
        layers: The target layers.
        count: B.
        suggest: ``name → hint`` that names another layer than the one given.
        why_zero: Why no score depends on the image, if that is known.
    """

    output: Any
    scores: Tensor | None
    layers: tuple[Layer, ...]
    count: int
    suggest: Callable[[str], str] = lambda name: ''
    why_zero: Callable[[], str] = lambda: ''

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
            check_gradient(layer.name, gradient, layer.layout, self.suggest, self.why_zero)
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
    read: ScoreReader = BY_PLACE,
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
        read: Finds the scores in the network's output.

    Raises:
        InputError: If a layer is not reached or gives no spatial map.
    """
    with borrowed(module), activations(module, targets, cut=gradients) as found:
        if not gradients:
            torch.set_grad_enabled(False)  # borrowed() restores the caller's mode
        output = run_network(module, inputs)
        if gradients or all(len(calls) < 2 for calls in found.values()):
            yield _collect(module, inputs, targets, found, output, hints or TokenHints(), read)
            return
    # Only gradients tell which of several calls matters, and it has to be the same one for every method
    with forward(module, inputs, targets, gradients=True, hints=hints, read=read) as run:
        yield run


def _collect(
    module: nn.Module,
    inputs: NetworkInput,
    targets: Mapping[str, nn.Module],
    found: Mapping[str, Sequence[Activation]],
    output: Any,
    hints: TokenHints,
    read: ScoreReader,
) -> Forward:
    size, batch = input_size(inputs)
    layers = []
    suggest = partial(suggestion, module, inputs, read)
    for name, calls in {name: tuple(calls) for name, calls in found.items()}.items():  # read() may run the network
        if not calls:
            raise _unreached(name, suggest)
        chosen = last_used(calls, output, batch, read)
        place, layout = _map_of(name, targets[name], calls[chosen], size, batch, hints, suggest)
        layers.append(Layer(name, calls[chosen].tensors[place], layout, place, chosen, len(calls)))
    return Forward(
        output, read(output, batch), tuple(layers), batch, suggest, partial(zero_weights, module, inputs, read)
    )


def _unreached(name: str, suggest: Callable[[str], str]) -> InputError:
    if function := function_of(name):
        problem = f'layer {name!r}: the network applies no {function} to what {module_path(name)!r} returns'
    else:
        problem = f'layer {name!r} was not reached in the forward pass'
    return InputError(problem, hint=suggest(name), parameter='layers')


def _map_of(
    name: str,
    layer: nn.Module,
    kept: Activation,
    size: Size,
    batch: int,
    hints: TokenHints,
    suggest: Callable[[str], str],
) -> tuple[str, Layout]:
    """The place and layout of the one map among the tensors that a layer returned.

    Raises:
        InputError: If there is none, or if there are several to choose from.
    """
    found: dict[str, Layout] = {}
    reasons = []
    for place, tensor in kept.tensors.items():
        try:
            found[place] = find_layout(tensor, size, kept.grids, batch=batch, layer=layer, hints=hints)
        except NoSpatialMap as error:
            reasons.append(str(error))
    if len(found) > 1:
        raise InputError(
            f'layer {name!r} returns {len(found)} maps',
            accepted=f'one of {listed(module_path(name), {place: kept.tensors[place] for place in found})}',
            parameter='layers',
        )
    if found:
        return next(iter(found.items()))
    if hints.prefix is not None:
        raise InputError(
            f'{hints.prefix} does not fit layer {name!r}: {reasons[0]}',
            hint='leave it out to have the layout found',
            parameter='extra_tokens',
        )
    raise InputError(f'layer {name!r} gives no spatial map: {reasons[0]}', hint=suggest(name), parameter='layers')
