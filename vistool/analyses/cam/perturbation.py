"""CAM methods that perturb a layer: AblationCAM, and a random baseline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vistool.analyses.cam.maps import combine
from vistool.analyses.cam.methods import Needs, Probe, register_perturbation_cam
from vistool.errors import InputError
from vistool.network.capture import borrowed
from vistool.network.forward import Layer
from vistool.network.prefix import CannotReplay, cache_prefix
from vistool.network.tensors import rows

log = logging.getLogger('vistool')

BUDGET = 2**24
"""Bytes of ablated copies of a layer's output that run at once: as many as a CPU's cache holds."""
BUDGET_ON_DEVICES = 2**28
MOST = 256
WHOLE = 32
"""Copies at once if the whole network has to run."""


@register_perturbation_cam(
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
        with borrowed(probe.module), torch.no_grad():
            weights = torch.stack([ablation_weights(probe, layer, row) for row in range(len(a))])
        maps.append(combine(weights.to(a)[:, :, None, None] * a, probe.eigen_smooth))
    return maps


def ablation_weights(probe: Probe, layer: Layer, row: int) -> Tensor:
    """The weights ``(K,)`` of a layer's channels for one image of the batch.

    What comes before the layer runs once and is cached; only the rest runs for the ablated copies, many at a time. The
    first copy is intact: if it does not reproduce the score (because the network does not broadcast the cached part, or
    changes it in place), the whole network runs instead.
    """
    one = rows(probe.inputs, row, row + 1)
    prefix = cache_prefix(probe.module, layer.name, probe.modules[layer.name], one, layer.call, layer.place)
    if prefix.value.is_quantized:
        raise InputError(
            f'{layer.name!r} returns int8 numbers, whose channels cannot be set to 0 one by one',
            hint='use EigenCAM (class-agnostic), or the network before it was quantized',
            parameter='methods',
        )
    plain = probe.score(prefix.output, row, 1)

    def scores(run: Callable[[Tensor], Any], chunk: int) -> Iterator[Tensor]:
        for batch in _ablated(layer, prefix.value, chunk):
            yield probe.score(run(batch), row, len(batch))

    budget = BUDGET if prefix.value.device.type == 'cpu' else BUDGET_ON_DEVICES
    size = max(1, budget // max(1, prefix.value.numel() * prefix.value.element_size()))
    try:
        found = torch.cat(list(_checked(scores(prefix.run, min(size, MOST)), plain)))
    except (CannotReplay, RuntimeError, IndexError, ValueError) as error:
        log.info('AblationCAM at %s runs the whole network for every channel: %s', layer.name, error)
        found = torch.cat(list(scores(prefix.run_whole, WHOLE)))
    return (found[0] - found[1:]) / found[0]


def _checked(scores: Iterator[Tensor], plain: Tensor) -> Iterator[Tensor]:
    """``scores``, after checking that the first one, of the intact copy, is the plain score."""
    first = next(scores)
    slack = torch.finfo(plain.dtype).eps ** 0.5
    if not torch.allclose(first[:1], plain, rtol=slack, atol=slack):
        raise CannotReplay('what comes before the layer cannot be replayed')
    yield first
    yield from scores


def _ablated(layer: Layer, value: Tensor, chunk: int) -> Iterator[Tensor]:
    """Copies of ``value`` ``(1, …)``, ``chunk`` at a time: the first intact, then one without each channel.

    One batch is reused, with the ablated channels restored, unless the network wrote into it.
    """
    whole = layer.layout.to_map(value)[0]
    batch, written = value[:0], -1
    for start in range(-1, len(whole), chunk):
        wanted = torch.arange(start, min(start + chunk, len(whole)), device=value.device)
        if len(wanted) != len(batch) or batch._version != written:
            batch = value.expand(len(wanted), *value.shape[1:]).clone()
        copies = (wanted >= 0).nonzero()[:, 0]
        maps = layer.layout.to_map(batch)
        maps[copies, wanted[copies]] = 0
        written = batch._version
        yield batch
        if batch._version == written:
            maps[copies, wanted[copies]] = whole[wanted[copies]]
            written = batch._version


@register_perturbation_cam(
    'randomcam', 'RandomCAM', 'a baseline; Adebayo et al., Sanity Checks, NeurIPS 2018', needs=Needs.ACTIVATIONS
)
def randomcam(probe: Probe) -> list[Tensor]:
    """W drawn uniformly from [−1, 1] for each channel, from the seed alone: the same for all images."""
    generator = torch.Generator().manual_seed(probe.seed)
    maps = []
    for layer in probe.layers:
        a = layer.map(layer.value)
        weights = torch.rand(a.shape[1], generator=generator, dtype=torch.float64) * 2 - 1
        maps.append(combine(weights.to(a)[:, None, None] * a, probe.eigen_smooth))
    return maps
