"""The features that a classifier decides by: what enters the layer that gives the scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError, counted, param
from vistool.network.capture import hooked, remembered, tensors_of
from vistool.network.inputs import run_network
from vistool.network.layers import EVERY_CALL, find_target_layers, module_path
from vistool.network.outputs import pooled_features, pooling
from vistool.network.tensors import NetworkInput, float_tensors, input_size, tensors

log = logging.getLogger('vistool')

_MOST_VALUES = 1 << 20
"""Per image: what is larger does not enter the layer that gives the scores."""
_MOST_SCORES = 1 << 14
"""Per image: what is larger and has two axes is a map or tokens, not scores. Keeping those would take gigabytes."""


def score_features(
    root: nn.Module, inputs: NetworkInput, scores_of: Callable[[Any], Tensor | None]
) -> tuple[str, Tensor, Any]:
    """The pooled features of a batch, from one forward.

    A classifier's are the input of the last layer with weights whose output is the scores (found by comparing values,
    after softmax or sigmoid where the network applies them). Which one it is, is remembered: later batches keep what it
    alone was given, and compare its values. A network without scores gives features itself: its class
    token, or the mean of its output over positions.

    Args:
        root: The network.
        inputs: A batch.
        scores_of: The scores ``(B, C)`` in what the network returned; None where it gives none.

    Returns:
        Where the features are, ``(B, D)`` in float32, and what the network returned.

    Raises:
        InputError: No layer gives the scores.
    """
    size, batch = input_size(inputs)
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    known: dict[str, str] = remembered(root, 'layer of the scores', shapes, dict)
    layers = {name: module for name, module in root.named_modules() if _has_weights(module)}
    watched = {name: layers[name] for name in known.values() if name in layers} or layers
    seen, output = _seen(root, inputs, batch, watched)
    scores = scores_of(output)
    if scores is None:
        _say(root, 'the output', pooling(output, size))
        return 'output', pooled_features(output, size).detach().float(), output
    found = _before_scores(seen, scores)
    if found is None and watched is not layers:  # another one gives the scores of these images
        seen, output = _seen(root, inputs, batch, layers)
        found = _before_scores(seen, scores)
    if found is None:
        raise _no_layer(root, scores)
    known['layer'], features = found
    return f'input of {known["layer"]}', features, output


def _before_scores(seen: Sequence[tuple[str, Tensor, Tensor]], scores: Tensor) -> tuple[str, Tensor] | None:
    """The last layer whose output is the scores, and what it was given, ``(B, D)``; None where there is none."""
    for name, given, gives in reversed(seen):
        if given.flatten(1).shape[1] and _gives(gives.flatten(1), scores.detach()):
            return name, given.flatten(1).float()
    return None


def _no_layer(root: nn.Module, scores: Tensor) -> InputError:
    """Why no layer was found that gives the scores."""
    if not bool(scores.isfinite().any()):
        return InputError(
            f'no score of {type(root).__name__} is finite',
            hint='look for NaN or infinity in the weights, the input, or the precision of the run',
        )
    return InputError(
        f'no layer of {type(root).__name__} gives the scores as they are, so its features are not known',
        hint=f'name a layer with {param("layers")}',
        parameter='layers',
    )


def _seen(
    root: nn.Module, inputs: NetworkInput, batch: int, layers: Mapping[str, nn.Module]
) -> tuple[list[tuple[str, Tensor, Tensor]], Any]:
    """What layers that may give scores were given and returned, by name, and the output of the network."""
    seen: list[tuple[str, Tensor, Tensor]] = []

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        given = [tensor for _, tensor in float_tensors(args)]
        if not given or not isinstance(output, Tensor) or given[0].shape[0] != batch or output.shape[0] != batch:
            return
        vector = sum(length > 1 for length in output.shape[1:]) <= 1
        if given[0].numel() <= _MOST_VALUES * batch and (vector or output.numel() <= _MOST_SCORES * batch):
            seen.append((name, given[0].detach(), output.detach()))

    with hooked(layers, keep):
        output = run_network(root, inputs)
    return seen, output


def _has_weights(module: nn.Module) -> bool:
    return next(module.children(), None) is None and next(module.parameters(recurse=False), None) is not None


def _gives(output: Tensor, scores: Tensor) -> bool:
    """Whether a layer's output is the scores, as they are or squashed."""
    if output.shape != scores.shape:
        return False
    forms: Sequence[Tensor] = (output, output.softmax(1), output.sigmoid())
    return any(torch.allclose(form.float(), scores.float(), rtol=1e-4, atol=1e-5) for form in forms)


def layer_features(root: nn.Module, inputs: NetworkInput, name: str) -> tuple[Tensor, Any]:
    """The output of one layer, pooled: the class token of tokens, else the mean over positions.

    The last call counts where none is named (``layer#2``), and the last tensor that it returns. Where there are
    several, that is logged once, and so is what is pooled.

    Args:
        root: The network.
        inputs: A batch.
        name: The layer, as :func:`~vistool.network.layers.find_target_layers` takes it.

    Returns:
        ``(B, D)`` in float32, and what the network returned.

    Raises:
        InputError: There is no such layer, or it gives no features.
    """
    (target,) = find_target_layers(root, [name])
    size, batch = input_size(inputs)
    if target.call == EVERY_CALL:
        raise InputError(f'{name!r} names every call', accepted='one call, such as layer#1', parameter='layers')
    found: list[Tensor] = []
    calls = 0

    def keep(_: str, module: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        if target.call in (None, calls):
            found[:] = [tensor.detach() for tensor in tensors_of(name, output).values()]

    with hooked({module_path(target.name): target.module}, keep):
        output = run_network(root, inputs)
    if target.call is not None and target.call > calls:
        raise InputError(
            f'layer {name!r} runs {counted(calls, "time")}', accepted=f'a call from 1 to {calls}', parameter='layers'
        )
    if not found or found[-1].ndim not in (2, 3, 4) or found[-1].shape[0] != batch:
        shapes = ', '.join('×'.join(map(str, tensor.shape)) for tensor in found) or 'nothing'
        raise InputError(
            f'layer {name!r} gives no features of each image ({shapes})',
            accepted='(B, D), (B, L, D) or (B, D, h, w)',
            parameter='layers',
        )
    if (calls > 1 and target.call is None) or len(found) > 1:
        text = (
            f'layer {name} runs {counted(calls, "time")} and returns {counted(len(found), "tensor")}: the last is taken'
        )
        remembered(root, f'features of {name}', text, partial(log.info, '%s', text))
    _say(root, f'layer {name}', pooling(found[-1], size))
    return pooled_features(found[-1], size).float(), output


def _say(root: nn.Module, name: str, pooled: str) -> None:
    """Prints once for a network what is made of tokens or maps."""
    if pooled:
        text = f'features: {pooled} of {name}'
        remembered(root, f'pooling of {name}', text, partial(log.info, '%s', text))
