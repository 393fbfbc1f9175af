"""Maps that know nothing, to hold the others against."""

from __future__ import annotations

import torch
from torch import Tensor

from vistool.analyses.cam.methods import Needs, combine, running
from vistool.analyses.cam.probe import Probe


@running('randomcam', 'RandomCAM', 'a baseline; Adebayo et al., Sanity Checks, NeurIPS 2018', needs=Needs.ACTIVATIONS)
def randomcam(probe: Probe) -> list[Tensor]:
    """W drawn uniformly from [−1, 1] for each channel: by the seed alone, so for all images alike."""
    generator = torch.Generator().manual_seed(probe.seed)
    maps = []
    for layer in probe.layers:
        a = layer.map(layer.value)
        weights = torch.rand(a.shape[1], generator=generator, dtype=torch.float64) * 2 - 1
        maps.append(combine(weights.to(a)[:, None, None] * a, probe.eigen_smooth))
    return maps
