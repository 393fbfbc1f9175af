"""Maps to compare with: they know nothing about the network, so a method that does not beat them says little."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vistool.analyses.cam.methods import Needs, Probe, register_perturbation_cam
from vistool.network.tensors import find_image

CELL = 32
"""Pixels to a cell of the random map: most networks end at this stride."""


def _image(probe: Probe) -> Tensor:
    image = find_image(probe.inputs)
    assert image is not None
    return image


@register_perturbation_cam(
    'random', 'Random', 'a baseline: noise as coarse as a last stage', needs=Needs.NO_LAYER | Needs.BASELINE
)
def random(probe: Probe) -> list[Tensor]:
    """Uniform noise with a cell for each 32 pixels, from the seed alone: the same for all images."""
    image = _image(probe)
    cells = [max(2, round(side / CELL)) for side in image.shape[2:]]
    noise = torch.rand(cells, generator=torch.Generator().manual_seed(probe.seed)).to(image.device)
    return [noise.expand(len(image), *cells)]


@register_perturbation_cam('sobel', 'Sobel', 'a baseline: edges of the image', needs=Needs.NO_LAYER | Needs.BASELINE)
def sobel(probe: Probe) -> list[Tensor]:
    """How strong the edges are: the norm of the Sobel filters on the mean over channels."""
    gray = F.pad(_image(probe).detach().float().mean(1, keepdim=True), (1, 1, 1, 1), mode='replicate')
    across = gray.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    edges = F.conv2d(gray, torch.stack([across, across.T])[:, None])
    return [edges.norm(dim=1)]


@register_perturbation_cam(
    'center', 'Center', 'a baseline: photographers center the object', needs=Needs.NO_LAYER | Needs.BASELINE
)
def center(probe: Probe) -> list[Tensor]:
    """A Gaussian in the middle of the image; its standard deviation is a quarter of each side."""
    image = _image(probe)
    bells = []
    for side in image.shape[2:]:
        offsets = (torch.arange(side, device=image.device) + 0.5) / side - 0.5
        bells.append(torch.exp(-(offsets**2) / (2 * 0.25**2)))
    return [torch.outer(*bells).expand(len(image), *image.shape[2:])]
