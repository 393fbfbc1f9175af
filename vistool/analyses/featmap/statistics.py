"""Per-channel statistics of layers, of one image and merged over all images of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from vistool.results import ChannelStatistics, LayerStatistics


def measure(model: str, layer: str, maps: Tensor) -> LayerStatistics:
    """The statistics of one layer's channels over the positions of its maps.

    Args:
        model: The model's name.
        layer: The layer's name.
        maps: ``(C, h, w)``.
    """
    values = maps.detach().double().cpu().flatten(1)
    mean = values.mean(1)
    return LayerStatistics(
        model=model,
        layer=layer,
        count=values.shape[1],
        mean=mean.numpy(),
        std=(values - mean[:, None]).square().mean(1).sqrt().numpy(),
        zeros=(values == 0).double().mean(1).numpy(),
        low=values.amin(1).numpy(),
        high=values.amax(1).numpy(),
        dead=(values == 0).all(1).numpy(),
    )


def merge(first: ChannelStatistics | None, second: ChannelStatistics) -> ChannelStatistics:
    """The statistics of two sets of images together; ``None``: of no image yet."""
    if first is None:
        return second
    layers = {(each.model, each.layer): each for each in first.layers}
    for each in second.layers:
        key = (each.model, each.layer)
        layers[key] = _merge(layers[key], each) if key in layers else each
    return replace(first, layers=tuple(layers.values()))


def _merge(one: LayerStatistics, other: LayerStatistics) -> LayerStatistics:
    """Variances about each part's own mean (Chan et al., 1979), so that a large mean costs no digits."""
    count = one.count + other.count
    share, rest = one.count / count, other.count / count
    variance = one.std**2 * share + other.std**2 * rest + (one.mean - other.mean) ** 2 * (share * rest)
    return replace(
        one,
        count=count,
        mean=one.mean * share + other.mean * rest,
        std=np.sqrt(variance),
        zeros=one.zeros * share + other.zeros * rest,
        low=np.minimum(one.low, other.low),
        high=np.maximum(one.high, other.high),
        dead=one.dead & other.dead,
    )
