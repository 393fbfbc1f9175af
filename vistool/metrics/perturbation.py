"""Changed copies of an image: which units leave first, and what takes their place.

All of it works on the network's own input values. Normalization is affine for each channel, so replacing, blurring and
interpolating pixels there gives what it would give before normalization; only the pixel value 0 has to be found.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vistool.errors import InputError, param
from vistool.metrics.imputation import fill
from vistool.metrics.protocol import Baseline, Protocol
from vistool.metrics.registry import Case

_LEVELS = 1.5
"""Rounding to uint8, and resizing in float, leave no larger differences between a photo and what the network gets."""


@dataclass(frozen=True, eq=False)
class Order:
    """In which order the units of an image leave.

    Attributes:
        relevance: float ``(h, w)``, the relevance of each unit; what leaves first is the largest.
        size: ``(H, W)`` of the image.
        block: Side of a unit in pixels; the units at the right and lower edge may be smaller.
        together: Whether units of equal relevance leave at once.
        ranks: int64 ``(h, w)``, the place of each unit in the order.
    """

    relevance: Tensor
    size: tuple[int, int]
    block: int
    together: bool
    ranks: Tensor

    @property
    def count(self) -> int:
        """How many units there are."""
        return self.relevance.numel()

    def first(self, count: int) -> Tensor:
        """The pixels of the first ``count`` units, bool ``(H, W)``; where ties leave at once it may be more."""
        if self.together and 0 < count < self.count:
            threshold = self.relevance.flatten().sort(descending=True).values[count - 1]
            return self._pixels(self.relevance >= threshold)
        return self._pixels(self.ranks < count)

    def first_percent(self, percent: int) -> Tensor:
        """The pixels of the first units, as close to ``percent`` as whole units allow, bool ``(H, W)``."""
        if self.together:
            threshold = np.percentile(self.relevance.numpy(), 100 - percent)
            return self._pixels(~(self.relevance < threshold))
        return self.first(round(self.count * percent / 100))

    def _pixels(self, units: Tensor) -> Tensor:
        grown = units.repeat_interleave(self.block, 0).repeat_interleave(self.block, 1)
        return grown[: self.size[0], : self.size[1]]


def removal_order(case: Case, least: bool = False) -> Order:
    """The order in which a map says that units leave.

    Args:
        case: The map. Values that are not finite count as 0.
        least: Whether the least relevant units leave first.
    """
    protocol, values = case.protocol, case.known
    size = (int(values.shape[0]), int(values.shape[1]))
    if protocol.block > 1:
        values = F.avg_pool2d(values[None, None], protocol.block, ceil_mode=True)[0, 0]
    relevance = 1 - values if least else values
    flat = -relevance.flatten().numpy()
    if protocol.ties == 'random':
        places = np.random.default_rng(protocol.seed).permutation(len(flat))
        order = np.lexsort((places, flat))
    else:
        order = np.argsort(flat, kind='stable')
    ranks = torch.empty(len(flat), dtype=torch.int64)
    ranks[torch.from_numpy(order.copy())] = torch.arange(len(flat))
    return Order(relevance, size, protocol.block, protocol.ties == 'together', ranks.view(relevance.shape))


@dataclass(frozen=True, eq=False)
class Removal:
    """Takes pixels out of an image.

    Attributes:
        case: The image and the protocol.
        kind: What takes the place of removed pixels.
    """

    case: Case
    kind: Baseline

    def __call__(self, removed: Tensor) -> Tensor:
        """The image ``(C, H, W)`` without the pixels of a mask bool ``(H, W)``."""
        image = self.case.image
        if self.kind == 'linear':
            return self.imputed(removed[None])[0]
        return torch.where(removed.to(image.device), self.baseline, image)

    def imputed(self, removed: Tensor) -> Tensor:
        """Copies ``(N, C, H, W)`` of the image, each without the pixels of its mask in ``(N, H, W)``."""
        return impute(self.case.image, removed, self.case.protocol)

    def faded(self, kept: Tensor) -> Tensor:
        """The image mixed with its baseline: as much of a pixel is left as ``kept`` ``(H, W)`` in [0, 1] says."""
        kept = kept.to(self.case.image)
        baseline = self.baseline
        return self.case.image * kept + baseline * (1 - kept)

    @cached_property
    def baseline(self) -> Tensor:
        """The image with every pixel removed, ``(C, H, W)``."""
        image, protocol = self.case.image, self.case.protocol
        if self.kind == 'blur':
            return blurred(image, *protocol.blur_at(min(image.shape[1:])), zeros=protocol.space == 'network')
        if self.kind == 'black':
            return black(image, self.case.photo, protocol).expand_as(image)
        if self.kind == 'minimum':
            return image.min().expand_as(image)
        return image.mean((1, 2), keepdim=True).expand_as(image)


def blurred(image: Tensor, kernel: int, deviation: float, *, zeros: bool) -> Tensor:
    """An image ``(C, H, W)`` after a Gaussian blur.

    Args:
        image: The image.
        kernel: Side of the Gaussian in pixels, odd.
        deviation: Its standard deviation in pixels.
        zeros: Whether zeros lie around the image; otherwise its edge continues.
    """
    radius = kernel // 2
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-(offsets**2) / (2 * deviation**2))
    weights = weights / weights.sum()
    around = {'mode': 'constant'} if zeros else {'mode': 'replicate'}
    padded = F.pad(image[:, None], (radius, radius, radius, radius), **around)  # type: ignore[arg-type]
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1))[:, 0]


def black(image: Tensor, photo: NDArray[np.uint8] | None, protocol: Protocol) -> Tensor:
    """The network values ``(C, 1, 1)`` of black.

    In the space of pixels they are found by comparing the image with its photo: a line for each channel, which has to
    fit to within rounding.

    Raises:
        InputError: The photo is not known, or not an affine function of what the network gets.
    """
    if protocol.space == 'network':
        return image.new_zeros(len(image), 1, 1)
    x = image.detach().cpu().double().flatten(1).numpy()
    y = None if photo is None or photo.shape[:2] != image.shape[1:] else photo.reshape(-1, 3).T.astype(np.float64)
    for order in ((0, 1, 2), (2, 1, 0)) if len(x) == 3 else ((0,),):
        lines = [] if y is None else [_line(y[band], values) for band, values in zip(order, x, strict=False)]
        if lines and all(line is not None for line in lines) and len(lines) == len(x):
            return image.new_tensor(lines).view(-1, 1, 1)
    raise InputError(
        'the network value of black is not known for this image',
        accepted=f'{param("baseline", "blur")}, {param("baseline", "mean")}, or {param("space", "network")}',
        parameter='protocol',
    )


def _line(levels: NDArray[np.float64], values: NDArray[np.float64]) -> float | None:
    """The value that level 0 has; None where values are not a line of the levels."""
    spread = levels.std()
    if spread == 0:
        return None
    slope = float(((levels - levels.mean()) * (values - values.mean())).mean()) / spread**2
    if slope <= 0 or np.abs((values - values.mean()) / slope - (levels - levels.mean())).max() > _LEVELS:
        return None
    return float(values.mean() - slope * levels.mean())


def impute(image: Tensor, removed: Tensor, protocol: Protocol) -> Tensor:
    """ROAD's noisy linear imputation: each removed pixel is the weighted mean of its neighbors, plus noise.

    Where nothing is left, the mean color of the image takes the place.

    Args:
        image: ``(C, H, W)``.
        removed: bool ``(N, H, W)``, the removed pixels of each copy.
        protocol: Its ``noise`` and ``seed``. The noise of a copy depends on them and its removed pixels alone.

    Returns:
        ``(N, C, H, W)``, like the image.
    """
    removed = removed.cpu()
    filled = image.mean((1, 2), keepdim=True).expand_as(image).repeat(len(removed), 1, 1, 1)
    partly = removed.flatten(1).any(1) & ~removed.flatten(1).all(1)
    if partly.any():
        filled[partly.to(image.device)] = fill(image, removed[partly])
    if protocol.noise:
        for mask, copy in zip(removed, filled, strict=True):
            pattern = zlib.crc32(mask.numpy().tobytes())
            drawn = np.random.default_rng((protocol.seed, pattern)).standard_normal((len(image), int(mask.sum())))
            copy[:, mask.to(image.device)] += (
                protocol.noise * amplitude(image, protocol) * torch.from_numpy(drawn).to(copy)
            )
    return torch.where(removed[:, None].to(image.device), filled.to(image), image)


def amplitude(image: Tensor, protocol: Protocol) -> float:
    """What noise of size 1 is in network values: 1, or in the space of pixels the image's standard deviation."""
    return 1.0 if protocol.space == 'network' else float(image.double().std(correction=0))


def with_noise(image: Tensor, protocol: Protocol, number: int) -> Tensor:
    """A noisy copy of an image ``(C, H, W)``: uniform noise up to the protocol's ``radius``, from the seed.

    Args:
        image: The image.
        protocol: Its ``radius`` and ``seed``.
        number: Which copy.
    """
    drawn = np.random.default_rng((protocol.seed, number)).uniform(-1, 1, tuple(image.shape))
    return image + torch.from_numpy(drawn).to(image) * (protocol.radius * amplitude(image, protocol))
