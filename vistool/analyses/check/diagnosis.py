"""Maps that show nothing: blank, constant, saturated, or of the border only; and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vistool.analyses.cam.targets import ClassTarget
from vistool.analyses.check.criteria import Criteria
from vistool.analyses.check.explaining import Explained, map_of
from vistool.errors import InputError
from vistool.network.forward import forward
from vistool.network.layer_search import searched
from vistool.network.tensors import token_hints
from vistool.results import Heatmap


def diagnosis(found: Heatmap, criteria: Criteria) -> str:
    """``'blank'``, ``'constant'``, ``'saturated'`` or ``'border only'``; ``''`` for a map that shows something."""
    values = np.nan_to_num(found.values)
    if values.max() <= 0:
        signed = None if found.signed is None else found.signed[np.isfinite(found.signed)]
        return 'constant' if signed is not None and signed.size and signed.max() > 0 else 'blank'
    if values.max() - values.min() < 1e-6:
        return 'constant'
    if (values >= criteria.top * values.max()).mean() > 0.5:
        return 'saturated'
    return 'border only' if border_share(values, criteria.ring) > criteria.border else ''


def border_share(values: NDArray[np.float32], ring: float) -> float:
    """How much of a map lies within ``ring`` times each side from the border."""
    inner = values[tuple(slice(round(side * ring), side - round(side * ring)) for side in values.shape)]
    return 1 - float(inner.sum(dtype=np.float64) / values.sum(dtype=np.float64))


def reason(kind: str, explained: Explained, method: str, index: int, criteria: Criteria) -> str:
    """Why the map of one image is what :func:`diagnosis` says, as far as the network tells; else ``''``."""
    if explained.methods[method].is_baseline:
        return ''
    try:
        if kind == 'border only':
            return _of_padding(explained, method, index, criteria)
        return _of_evidence(explained, index) if kind in ('blank', 'constant') else ''
    except InputError:
        return ''


def _of_padding(explained: Explained, method: str, index: int, criteria: Criteria) -> str:
    """Whether an image of one color, which has nothing to see at its border, gives the same map."""
    sample = explained.samples[index]
    data = sample.data
    packed = isinstance(data, dict) and 'inputs' in data
    tensor = data['inputs'] if packed else data
    if not isinstance(tensor, torch.Tensor):
        return ''
    flat = tensor.float().mean((1, 2), keepdim=True).to(tensor.dtype).expand_as(tensor).clone()
    even = replace(sample, data={**data, 'inputs': flat} if packed else flat)
    classes = explained.classes[index] if explained.classes else ()
    result = replace(explained.cam, targets=classes)(explained.model, even)
    values = np.nan_to_num(map_of(result, method).values)
    if values.max() > 0 and border_share(values, criteria.ring) > 0.8:
        return 'padding: an image of one color gives such a map too'
    return ''


def _of_evidence(explained: Explained, index: int) -> str:
    """What the layer and the gradient there say of a map without positive values."""
    model, inputs, cam = explained.model, explained.one(index), explained.cam
    hints, read = token_hints(cam.extra_tokens, cam.tokens), explained.reader(inputs)
    with (
        model.borrowed(),
        forward(model.module, inputs, explained.layers, gradients=True, hints=hints, read=read) as run,
    ):
        values = [layer.map(layer.value) for layer in run.layers]
        if not any(value.any() for value in values):
            return f'{_names(explained)} is zero everywhere: its ReLU is dead'
        if not any(value.flatten(2).std(2).any() for value in values if value[0, 0].numel() > 1):
            return f'{_names(explained)} has the same value at every position'
        readout = model.readout(run.output, run.count, inputs)
        if readout is None or explained.classes is None:
            return ''
        scores = readout.scores(run.output, run.count)
        chosen = explained.results[index].targets[0].id
        target = ClassTarget(torch.tensor([chosen], device=scores.device), scores.detach(), readout)
        gradients = run.gradients(target.score(run.output, torch.arange(1)).sum(), last=True)
        if not any(gradient.any() for gradient in gradients):
            zero = searched(model.module, inputs, read).zero
            why = f': the weights of {zero} are all zero' if zero else _saturated(readout.meaning, scores)
            return f'the gradient of the score is zero at {_names(explained)}{why}'
    return 'no positive evidence: every position counts against the class'


def _saturated(meaning: str, scores: torch.Tensor) -> str:
    sure = float(scores.max()) >= 1 - 1e-6
    return (
        ': the network returns probabilities, and this one is saturated at 1'
        if meaning == 'probabilities' and sure
        else ''
    )


def _names(explained: Explained) -> str:
    return ', '.join(explained.results[0].layers)
