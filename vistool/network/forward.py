"""One forward for every map: activations, scores, gradients by a backward that ends at the layers, and layer search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vistool.errors import InputError, counted, param
from vistool.network.calls import choose_call
from vistool.network.capture import Activation, activations, borrowed, listed, modules_of, remembered
from vistool.network.inputs import run_network
from vistool.network.layer_search import FoundLayer, searched
from vistool.network.layers import (
    call_of,
    default_layers,
    function_of,
    module_path,
    network_name,
    package_of,
    unwrapped,
)
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.positions import Check, checked_layout
from vistool.network.stages import find_stages
from vistool.network.tensors import (
    Layout,
    NetworkInput,
    NoSpatialMap,
    PooledMap,
    Size,
    TokenHints,
    find_layout,
    input_size,
    tensors,
)

log = logging.getLogger('vistool')

Pullback: TypeAlias = list[tuple[Tensor, Tensor | None]]
"""Tensors of a forward's graph, each with the gradient of a number at it, or None where it is that number itself; the
number depends on the network through them alone."""


def search_layer(module: nn.Module, inputs: NetworkInput, read: ScoreReader = BY_PLACE) -> str | None:
    """The layer to explain by :func:`~vistool.network.layer_search.search`, or None where no map reaches the score."""
    return searched(module, inputs, read).name or None


class UnsuitedLayer(InputError):
    """A layer that is not suited to a score or an input size, although it is the default for the network.

    Attributes:
        why: Why, after "the default for this network:".
    """

    why = ''


class OutsideGrid(UnsuitedLayer):
    """After a layer the score depends on tokens outside its map only, as behind a transformer's last attention."""

    why = 'after it this score depends on tokens outside the grid only'


class SinglePosition(UnsuitedLayer):
    """The map of a layer has a single position, as at the end of a network for larger images."""

    why = 'at this input size it has a single position'


def layers_to_explain(module: nn.Module, inputs: NetworkInput, read: ScoreReader = BY_PLACE) -> list[str]:
    """The default target layers: the table's, else one found by search; ``[]`` for neither.

    What was chosen, and how, is logged once.
    """
    names, found = default_layers(module), None
    if better := _better_layers(module, inputs).get(read.key):
        return [better]
    if not names:
        found = searched(module, inputs, read)
        names = [found.name] if found.name else []
        if found.grids and input_size(inputs)[1] == 1:  # the forward of the search has shown them
            _known_grids(module, inputs).setdefault(found.name, [found.grids])
    remembered(module, 'default layers logged', tuple(names), lambda: _log_choice(module, names, found))
    return names


def better_layer(
    module: nn.Module, inputs: NetworkInput, read: ScoreReader, default: str, error: UnsuitedLayer
) -> str | None:
    """A layer in place of a default that is not suited; None where there is no other.

    A network of the table may be asked for a score that it was not trained with, such as the class token of one that
    averages its patches: then the layer is searched for. Or it gets images so small that its last map has a single
    position: then its last stage with more than one is taken. The choice is logged, and remembered for
    :func:`layers_to_explain`.

    Args:
        module: The network.
        inputs: Its input.
        read: Finds the score.
        default: The layer.
        error: Why it is not suited.
    """
    name, how = None, 'the last stage with more than one position'
    if isinstance(error, SinglePosition):
        with suppress(InputError):
            name = find_stages(module, inputs)[-1]
    if name is None:
        name, how = search_layer(module, inputs, read), 'found by layer search'
    if name is None or name == default:
        return None
    _better_layers(module, inputs)[read.key] = name
    log.warning(
        f'target layer: %s (%s; not %s, the default for this network: %s); choose another with {param("layers")}',
        name,
        how,
        default,
        error.why,
    )
    return name


def _better_layers(module: nn.Module, inputs: NetworkInput) -> dict[Hashable, str]:
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(module, 'layers of scores', shapes, dict)


def _log_choice(module: nn.Module, names: Sequence[str], found: FoundLayer | None) -> None:
    if not names:
        return
    if found is None:
        log.info('target layer: %s (the default for this network)', ', '.join(names))
        return
    log.warning(
        f'target layer: %s (found by layer search, as %s is not in the table: %s); choose another with '
        f'{param("layers")}',
        found.name,
        network_name(module),
        'the last with a map the score depends on' if found.followed else 'the last with a map; it has no gradient',
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


def zero_weights(module: nn.Module, inputs: NetworkInput, read: ScoreReader) -> str:
    """``': the weights of head are all zero'`` where that is why no score depends on the image, else ``''``."""
    found = searched(module, inputs, read)
    return f': the weights of {found.zero} are all zero' if found.zero else ''


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
    if layout.extra and gradient.any():
        raise OutsideGrid(
            f'after layer {name!r} the score depends on its {counted(layout.extra, "token")} outside the grid only: '
            'the gradient at every patch is zero',
            hint=suggest(name),
            parameter='layers',
        )
    log.warning('the gradient of the score at %s is zero everywhere, so there is nothing to see%s', name, why())


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

    @property
    def label(self) -> str:
        """Its name for captions, with the call where there are several: ``'backbone.layer4#1'``."""
        return f'{self.name}#{self.call + 1}' if self.calls > 1 and call_of(self.name) is None else self.name

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
        quantized: Whether the network has int8 layers; asked only where no gradient was found.
        levels: Whether the layers are levels of a pyramid, of which a score may depend on a single one.
    """

    output: Any
    scores: Tensor | None
    layers: tuple[Layer, ...]
    count: int
    suggest: Callable[[str], str] = lambda name: ''
    why_zero: Callable[[], str] = lambda: ''
    quantized: Callable[[], bool] = lambda: False
    levels: bool = False

    def gradients(self, objective: Tensor | Pullback, *, last: bool) -> list[Tensor]:
        """The gradient of a score at every layer, by one backward that ends at the earliest of them.

        Args:
            objective: The score, a scalar; or tensors of the graph with the gradient of the score at each.
            last: Whether the graph may be freed afterwards.

        Raises:
            InputError: If the score does not depend on a layer, or only on its prefix tokens. At the levels of a
                pyramid (:attr:`levels`) the gradient is zero instead, and a warning says so where all of them are.
        """
        values = [layer.value for layer in self.layers]
        pullback: Pullback = [(objective, None)] if isinstance(objective, Tensor) else objective
        if self.levels:
            pullback = [(tensor, gradient) for tensor, gradient in pullback if tensor.requires_grad]
        if not all(tensor.requires_grad for tensor, _ in pullback):
            raise self._no_path(self.layers[0].name)
        found: Sequence[Tensor | None] = [None] * len(values)
        if pullback:
            tensors, given = zip(*pullback, strict=True)
            found = torch.autograd.grad(tensors, values, given, retain_graph=not last, allow_unused=True)
        known = [gradient for gradient in found if gradient is not None]
        if self.levels and known and not any(bool(gradient.any()) for gradient in known):
            log.warning(
                'the gradient of a score is zero at every layer, so there is nothing to see: the score is saturated '
                '(1 or 0 in floating point), or the edge lies at the border of the image, where it is cut off'
            )
        if self.levels and not known:
            log.warning(
                'a score does not depend on %s: it comes from another level of the pyramid',
                ', '.join(layer.name for layer in self.layers),
            )
        for layer, gradient in zip(self.layers, found, strict=True):
            if self.levels:
                continue
            if gradient is None:
                raise self._no_path(layer.name)
            check_gradient(layer.name, gradient, layer.layout, self.suggest, self.why_zero)
        return [
            torch.zeros_like(value) if gradient is None else gradient
            for value, gradient in zip(values, found, strict=True)
        ]

    def _no_path(self, name: str) -> InputError:
        if self.quantized():
            return InputError(
                f'int8 layers have no gradient, so no score can be followed back to {name!r}',
                hint='use EigenCAM (class-agnostic), or the network before it was quantized',
                parameter='methods',
            )
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
    dense: bool = False,
    run: Callable[[], Any] | None = None,
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
        dense: Whether the network predicts at places of the image (a detector, a segmenter): its maps are where the
            predictions are, so their order is not checked by changing the image, and they may be levels of a pyramid.
        run: Runs the network once on ``inputs`` and returns its output, where something else watches that run as well.

    Raises:
        InputError: If a layer is not reached or gives no spatial map.
    """
    with borrowed(module):
        with activations(module, targets, cut=gradients, known=_known_grids(module, inputs)) as found:
            if not gradients:
                torch.set_grad_enabled(False)  # borrowed() restores the caller's mode
            output = run_network(module, inputs) if run is None else run()
        yield _collect(module, inputs, targets, found, output, hints or TokenHints(), read, dense)


def _known_grids(module: nn.Module, inputs: NetworkInput) -> dict[str, list[Sequence[Size]]]:
    """The spatial sizes seen before layers, as far as a forward of inputs of these shapes has shown them."""
    shapes = tuple(tuple(tensor.shape) for tensor in tensors(inputs))
    return remembered(module, 'grids', shapes, dict)


def _collect(
    module: nn.Module,
    inputs: NetworkInput,
    targets: Mapping[str, nn.Module],
    found: Mapping[str, Sequence[Activation]],
    output: Any,
    hints: TokenHints,
    read: ScoreReader,
    dense: bool,
) -> Forward:
    size, batch = input_size(inputs)
    layers = []
    suggest = partial(suggestion, module, inputs, read)
    for name, calls in found.items():
        if not calls:
            raise _unreached(name, suggest)
        chosen = _call(module, name, targets[name], inputs, len(calls), read)
        grids, layer = calls[chosen].grids, targets[name]
        if dense:
            lay_out = partial(_unchecked_layout, size=size, grids=grids, batch=batch, layer=layer, hints=hints)
        else:
            check = Check(module, inputs, name)
            lay_out = partial(
                checked_layout, size=size, grids=grids, batch=batch, layer=layer, hints=hints, check=check, name=name,
                call=chosen,
            )  # fmt: skip
        try:
            place, layout = _map_of(name, calls[chosen], lay_out, hints, suggest)
        except SinglePosition:
            if not dense or len(found) == 1:
                raise
            log.info('%s has a single position for this image, so it has no map', name)  # a pyramid's highest level
            continue
        if dense:
            _say_unchecked(module, name, layout)
        layers.append(Layer(name, calls[chosen].tensors[place], layout, place, chosen, len(calls)))
    why = partial(zero_weights, module, inputs, read)
    return Forward(
        output, read(output, batch), tuple(layers), batch, suggest, why, partial(_is_quantized, module), dense
    )


def _is_quantized(module: nn.Module) -> bool:
    """Whether a network has int8 layers."""
    return any('.quantized.' in f'{type(child).__module__}.' for child in modules_of(module))


def _say_unchecked(module: nn.Module, name: str, layout: Layout) -> None:
    """Prints once that tokens of a detector or segmenter are taken to lie row by row.

    In transformers' own modules they are known to.
    """
    around = unwrapped(module).get_submodule(module_path(name).rpartition('.')[0])
    if layout.axes in ('BLC', 'BCL') and package_of(around) != 'transformers':
        height, width = layout.grid
        text = f'layer {name}: its tokens are taken for {height}×{width} positions row by row (not checked)'
        remembered(module, f'tokens of {name}', text, partial(log.info, '%s', text))


def _unchecked_layout(
    tensor: Tensor, size: Size, grids: Sequence[Size], *, batch: int, layer: nn.Module, hints: TokenHints, place: str
) -> Layout:
    return find_layout(tensor, size, grids, batch=batch, layer=layer, hints=hints)


def _call(module: nn.Module, name: str, layer: nn.Module, inputs: NetworkInput, calls: int, read: ScoreReader) -> int:
    """The call of a layer that its name asks for, else the one that :func:`choose_call` gives; counted from 0."""
    asked = call_of(name)
    if asked is None:
        return choose_call(module, name, layer, inputs, calls, read)
    if asked > calls:
        raise InputError(
            f'layer {name!r}: {module_path(name)!r} runs {counted(calls, "time")} in the forward pass',
            parameter='layers',
        )
    return asked - 1


def _unreached(name: str, suggest: Callable[[str], str]) -> InputError:
    if function := function_of(name):
        problem = f'layer {name!r}: the network applies no {function} to what {module_path(name)!r} returns'
    else:
        problem = f'layer {name!r} was not reached in the forward pass'
    return InputError(problem, hint=suggest(name), parameter='layers')


def _map_of(
    name: str,
    kept: Activation,
    lay_out: Callable[..., Layout],
    hints: TokenHints,
    suggest: Callable[[str], str],
) -> tuple[str, Layout]:
    """The place and layout of the one map among the tensors that a layer returned.

    Raises:
        InputError: If there is none, or if there are several to choose from.
    """
    found: dict[str, Layout] = {}
    reasons: list[NoSpatialMap] = []
    for place, tensor in kept.tensors.items():
        try:
            found[place] = lay_out(tensor, place=place)
        except NoSpatialMap as error:
            reasons.append(error)
    if len(found) > 1:
        raise InputError(
            f'layer {name!r} returns {counted(len(found), "map")}',
            accepted=f'one of {listed(module_path(name), {place: kept.tensors[place] for place in found})}',
            parameter='layers',
        )
    if found:
        return next(iter(found.items()))
    if hints.prefix is not None:
        raise InputError(
            f'{hints.text} does not fit layer {name!r}: {reasons[0]}',
            hint='leave it out to have the layout found',
            parameter='extra_tokens',
        )
    kind = SinglePosition if any(isinstance(reason, PooledMap) for reason in reasons) else InputError
    raise kind(f'layer {name!r} gives no spatial map: {reasons[0]}', hint=suggest(name), parameter='layers')
