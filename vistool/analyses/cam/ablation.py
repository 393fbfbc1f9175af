"""AblationCAM: a channel matters as much as the score drops without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vistool.analyses.cam.engine import Layer
from vistool.analyses.cam.methods import Needs, combine, running
from vistool.analyses.cam.probe import Probe, rows
from vistool.analyses.cam.tail import CannotReplay, Tail, record
from vistool.capture import frozen

log = logging.getLogger('vistool')

BUDGET = 2**26
"""Bytes of ablated copies of a layer's output that run at once."""
MOST = 256
WHOLE = 32
"""Copies at once where the whole network has to run."""


@running(
    'ablationcam',
    'AblationCAM',
    'Desai and Ramaswamy, Ablation-CAM, WACV 2020',
    needs=Needs.RUNS | Needs.ACTIVATIONS,
)
def ablationcam(probe: Probe) -> list[Tensor]:
    """W_k = (y − y_k) / y, where y_k is the score with channel k of the layer's map set to 0."""
    maps = []
    for layer in probe.layers:
        a = layer.map(layer.value)
        with frozen(probe.module), torch.no_grad():
            weights = torch.stack([ablation_weights(probe, layer, row) for row in range(len(a))])
        maps.append(combine(weights.to(a)[:, :, None, None] * a, probe.eigen_smooth))
    return maps


def ablation_weights(probe: Probe, layer: Layer, row: int) -> Tensor:
    """The weights ``(K,)`` of a layer's channels for one image of the batch.

    The network's prefix runs once. Only the tail runs for the ablated copies, many at a time, an intact one among the first: if
    that does not reproduce the score (networks that join prefix and tail in other ways than by broadcasting, or change the
    prefix in place), the whole network runs instead.
    """
    inputs = rows(probe.inputs, row, row + 1)
    tail = record(probe.module, layer.name, probe.modules[layer.name], inputs)
    plain = probe.score(tail.output, row, 1)

    def scores(run: Callable[[Tensor], Any], chunk: int) -> Tensor:
        return torch.cat([probe.score(run(batch), row, len(batch)) for batch in _ablated(layer, tail.value, chunk)])

    size = max(1, BUDGET // max(1, tail.value.numel() * tail.value.element_size()))
    try:
        found = scores(lambda batch: _checked(tail, batch, probe, row, plain), min(size, MOST))
    except (CannotReplay, RuntimeError, IndexError, ValueError) as error:
        log.info('AblationCAM at %s runs the whole network for every channel: %s', layer.name, error)
        found = scores(tail.run_whole, WHOLE)
    return (found[0] - found[1:]) / found[0]


def _checked(tail: Tail, batch: Tensor, probe: Probe, row: int, plain: Tensor) -> Any:
    """The tail's output, its first score compared with the plain one where the first copy is intact."""
    intact = torch.equal(batch[:1], tail.value)
    output = tail.run(batch)
    if intact:
        score = probe.score(output, row, len(batch))[:1]
        slack = torch.finfo(plain.dtype).eps ** 0.5
        if not torch.allclose(score, plain, rtol=slack, atol=slack):
            raise CannotReplay('its prefix cannot be played back')
    return output


def _ablated(layer: Layer, value: Tensor, chunk: int) -> Any:
    """Copies of ``value`` ``(1, …)``, ``chunk`` at a time: the first intact, then one without each channel."""
    channels = layer.layout.to_map(value).shape[1]
    for start in range(-1, channels, chunk):
        wanted = torch.arange(start, min(start + chunk, channels), device=value.device)
        batch = value.expand(len(wanted), *value.shape[1:]).clone()
        ablated = (wanted >= 0).nonzero()[:, 0]
        layer.layout.to_map(batch)[ablated, wanted[ablated]] = 0
        yield batch
