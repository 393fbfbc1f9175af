"""Which call of a layer is meant that runs several times in one forward: one rule for every analysis."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vistool.data.inputs import drawn_of
from vistool.errors import param
from vistool.network.capture import Activation, activations, borrowed, hooked_layers, remembered, tensors_of
from vistool.network.inputs import perturbed, run_network
from vistool.network.layer_search import random_mixture
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.tensors import NetworkInput, first_tensor, rows, tensors

log = logging.getLogger('vistool')

_CHANGED = 1e-6
"""A value that changes by more than this share of the largest depends on what was changed."""


def choose_call(
    root: nn.Module, name: str, layer: nn.Module, inputs: NetworkInput, calls: int, read: ScoreReader = BY_PLACE
) -> int:
    """The call of a layer that is explained and drawn, counted from 0.

    The rule: of the calls whose output changes with the image on which maps are drawn, the last through whose map the
    score depends on it. A siamese network calls its backbone once for each image, and only one of these calls sees the
    image that is drawn. DeiT3 of mmpretrain normalizes by ``ln1`` before its last attention, then again before its last
    feed-forward layer, where patch tokens no longer reach the score.

    It takes one forward with a backward, and two without, of the first image, once for each network and input size.
    The choice is logged in one line, and so is a layer that does not depend on the drawn image at all.

    Args:
        root: The network.
        name: The layer.
        layer: Its module.
        inputs: A batch.
        calls: How many times it runs.
        read: Finds the scores in what the network returns.
    """
    if calls < 2 and sum(tensor.ndim == 4 for tensor in tensors(inputs)) < 2:
        return 0
    one = rows(inputs, 0, 1)
    key = tuple(tuple(tensor.shape) for tensor in tensors(one)), drawn_of(one)
    return remembered(root, f'call of {name} by {read.key}', key, lambda: _choose(root, name, layer, one, read))


def _choose(root: nn.Module, name: str, layer: nn.Module, one: NetworkInput, read: ScoreReader) -> int:
    dependent = [index for index, changed in enumerate(dependence(root, {name: layer}, one)[name]) if changed]
    with borrowed(root), activations(root, {name: layer}, watch=False) as found:
        output = run_network(root, one)
        used = _used(found[name], output, read)
    count, both = len(found[name]), [index for index in used if index in dependent]
    chosen = (both or dependent or used or [count - 1])[-1]
    drawn = drawn_of(one)
    image = 'the image' if drawn is None else f'input {drawn!r}'
    if not dependent:
        text = f'layer {name} does not depend on {image}, on which maps are drawn'
        remembered(root, f'warning of {name}', text, lambda: log.warning(text))
    if count > 1:
        rules = [('that depends on it', dependent), ('that the score depends on', used)]
        why = ' and '.join(words for words, calls in rules if chosen in calls) or 'of all'
        choice = f'layer {name} runs {count} times: call #{chosen + 1} is drawn on {image} (the last {why})'
        choice += f'; choose another with {param("layers", f"{name}#1")}'
        remembered(root, f'choice of {name}', choice, lambda: log.info(choice))
    return chosen


def _used(calls: Sequence[Activation], output: Any, read: ScoreReader) -> list[int]:
    """The calls whose output influences the score through more than the first token."""
    scalar = objective(output, 1, read)
    if scalar is None or not scalar.requires_grad:
        return []
    gradients = torch.autograd.grad(scalar, [call.value for call in calls], allow_unused=True)
    return [
        index
        for index, gradient in enumerate(gradients)
        if gradient is not None and gradient.ndim > 2 and (gradient if gradient.ndim > 3 else gradient[:, 1:]).any()
    ]


def objective(output: Any, count: int, read: ScoreReader = BY_PLACE) -> Tensor | None:
    """A scalar to differentiate: the best class's score, or a fixed random mixture of a headless network's features.

    Args:
        output: What the network returned.
        count: Number of images.
        read: Finds the scores in it.
    """
    scores = read(output, count)
    if scores is not None and scores.numel():
        return scores.amax(1).sum()
    features = first_tensor(output)
    return None if features is None else random_mixture(features)


def count_calls(root: nn.Module, layers: Mapping[str, nn.Module], inputs: NetworkInput) -> dict[str, int]:
    """How many times layers run in one forward: one forward of the first image, once for each input size."""
    one = rows(inputs, 0, 1)
    key = tuple(layers), tuple(tuple(tensor.shape) for tensor in tensors(one))

    def count() -> dict[str, int]:
        with watched(root, layers) as seen:
            run_network(root, one)
        return {name: len(values) for name, values in seen.items()}

    return remembered(root, 'number of calls', key, count)


def dependence(root: nn.Module, layers: Mapping[str, nn.Module], inputs: NetworkInput) -> dict[str, list[bool]]:
    """For every call of layers, whether what they return depends on the image on which maps are drawn.

    Two forwards: with the image, and with noise on it. All other inputs stay.

    Args:
        root: The network.
        layers: Layers by name.
        inputs: A batch; of one image if the forwards are to cost little.
    """
    runs = []
    for given in (inputs, perturbed(inputs)):
        with watched(root, layers, keep=True) as seen:
            run_network(root, given)
        runs.append(seen)
    return {
        name: [
            index >= len(runs[1][name]) or differs(value, runs[1][name][index])
            for index, value in enumerate(runs[0][name])
        ]
        for name in layers
    }


def differs(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether a tensor of one run is another in a second run, by more than rounding."""
    if one is None or other is None or one.shape != other.shape:
        return one is not other
    scale = max(float(one.abs().max()), 1e-30) if one.numel() else 1.0
    return bool(((one - other).abs() > _CHANGED * scale).any())


@contextmanager
def watched(
    root: nn.Module, layers: Mapping[str, nn.Module], *, keep: bool = False
) -> Iterator[dict[str, list[Tensor | None]]]:
    """The first tensor of every call of layers while the network runs without gradients; None unless ``keep``."""
    seen: dict[str, list[Tensor | None]] = {name: [] for name in layers}

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        value = next(iter(tensors_of(name, output).values()), None) if keep else None
        seen[name].append(None if value is None else value.detach().clone())

    with borrowed(root), torch.no_grad(), hooked_layers(layers, note):
        yield seen
