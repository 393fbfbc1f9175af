"""Which pixels of a segmentation maps explain: the region of a class, one pixel, or a region of the user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.cam.targets import pulled_back
from vistool.data.datasets import class_name
from vistool.data.samples import Sample
from vistool.data.truth import nonzero, read_mask
from vistool.errors import InputError, param
from vistool.models.model import Model, Targets, resolve_targets, same_for_all
from vistool.network.forward import Pullback
from vistool.network.segmentation import Segmenter
from vistool.network.tensors import Size
from vistool.results import Instance
from vistool.results import Target as Explained


@dataclass(frozen=True)
class Regions:
    """Which pixels of a segmentation are explained.

    Attributes:
        point: ``(x, y)`` in pixels of the original: one pixel's class.
        mask: A picture of the original's size, or an array: its pixels that are not zero.
    """

    point: Sequence[float] | None = None
    mask: str | Path | NDArray[Any] | None = None

    def check(self) -> None:
        """Checks what can be wrong whatever the images are.

        Raises:
            InputError: A choice is not accepted.
        """
        if self.point is not None and len(self.point) != 2:
            raise InputError(
                f'{self.point} is not a point', accepted='X,Y in pixels of the original', parameter='point'
            )
        if self.point is not None and self.mask is not None:
            raise InputError(f'cannot be combined with {param("point")}', parameter='region')

    def at(self, sample: Sample, size: Size) -> Tensor | None:
        """The region bool ``(H, W)`` on the network's input; None where each class has its own.

        Raises:
            InputError: It lies outside what the network saw, or has another size than the image.
        """
        if self.point is not None:
            return self._pixel(sample, size)
        if self.mask is None:
            return None
        values = nonzero(self.mask) if isinstance(self.mask, np.ndarray) else read_mask(Path(self.mask))
        shape = size if sample.original is None else sample.original.shape[:2]
        if values.shape != shape:
            raise InputError(
                f'the picture is {values.shape[1]}×{values.shape[0]}', accepted=f'{shape[1]}×{shape[0]}, as the image',
                parameter='region',
            )  # fmt: skip
        if sample.geometry is not None:
            values = _on_network(values, sample, size)
        if not values.any():
            raise InputError('no nonzero pixel is in what the network sees', parameter='region')
        return torch.from_numpy(values)

    def _pixel(self, sample: Sample, size: Size) -> Tensor:
        assert self.point is not None
        height, width = size if sample.original is None else sample.original.shape[:2]
        point = np.array([self.point], np.float64) + 0.5
        inside = 0 <= self.point[0] < width and 0 <= self.point[1] < height  # also false for NaN
        if inside and sample.geometry is not None:
            point = sample.geometry.to_network(point)
        column, row = (int(np.floor(each)) for each in point[0]) if inside else (-1, -1)
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            raise InputError(
                f'{self.point[0]:g},{self.point[1]:g} is outside what the network sees',
                accepted=f'a point of the image ({width}×{height})',
                parameter='point',
            )
        found = torch.zeros(size, dtype=torch.bool)
        found[row, column] = True
        return found


def _on_network(values: NDArray[Any], sample: Sample, size: Size) -> NDArray[np.bool_]:
    """A mask of the original on the network's input: the value below each pixel's center."""
    assert sample.geometry is not None
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    centers = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    places = np.floor(sample.geometry.to_original(centers)).astype(int)
    x, y = places[:, 0], places[:, 1]
    inside = (x >= 0) & (y >= 0) & (x < values.shape[1]) & (y < values.shape[0])
    found = np.zeros(len(places), bool)
    found[inside] = values[y[inside], x[inside]]
    return found.reshape(size)


@dataclass(frozen=True)
class RegionTarget:
    """The sum of a class's scores over a region of each image.

    Attributes:
        segmenter: Reads outputs.
        size: ``(H, W)`` of the input.
        classes: The class of each image, or None.
        regions: The region of each image, bool ``(H, W)``.
        instances: The same as results name them.
    """

    segmenter: Segmenter
    size: Size
    classes: Sequence[int | None]
    regions: Sequence[Tensor]
    instances: Sequence[Instance | None]

    def asks(self, image: int) -> bool:
        """Whether the image has such a region."""
        return self.instances[image] is not None

    def explained(self, image: int) -> Explained:
        """The target of an image as results name it."""
        one = self.instances[image]
        assert one is not None
        return Explained(one.name, one.id, one.score)

    def pullback(self, output: Any, rows: Tensor) -> Pullback:
        """The sum over the images, and 1."""
        return pulled_back(self.score(output, rows))

    def score(self, output: Any, rows: Tensor) -> Tensor:
        """The sum of the class's scores over the region, for each row of an output."""
        return self._within(self.segmenter.logits(output, self.size), rows)

    def confidence(self, output: Any, rows: Tensor) -> Tensor:
        """The mean probability of the class over the region, for each row of an output."""
        areas = torch.stack([region.sum() for region in self.regions])[rows % len(self.classes)]
        shares = probabilities(self.segmenter.logits(output, self.size))
        return self._within(shares, rows) / areas.clamp_min(1).to(shares.device)

    def _within(self, values: Tensor, rows: Tensor) -> Tensor:
        """The sum of values ``(n, K, H, W)`` of the class over the region, for each row."""
        sums = []
        for row, image in enumerate((rows % len(self.classes)).tolist()):
            index = self.classes[image]
            region = self.regions[image].to(values.device)
            sums.append(values.new_zeros(()) if index is None else values[row, index][region].sum())
        return torch.stack(sums)

    def instance(self, image: int) -> Instance | None:
        """The region of an image."""
        return self.instances[image]

    attribute = 'class'

    def values(self, output: Any, count: int) -> Tensor:
        """The mean probability ``(B,)`` of the class over its region."""
        return torch.tensor([0.0 if one is None else one.score for one in self.instances])


def region_targets(
    model: Model,
    segmenter: Segmenter,
    logits: Tensor,
    samples: Sequence[Sample],
    choice: Regions,
    targets: Targets,
) -> tuple[list[RegionTarget], list[list[Instance]]]:
    """The targets of a batch, and all regions of each image, the largest first.

    Args:
        model: The model.
        segmenter: Reads outputs.
        logits: Class scores ``(B, K, H, W)``.
        samples: The images.
        choice: Pixels of the user's own.
        targets: Classes; ``topN`` counts by area. None means the class of the largest region that is not background,
            or of the user's own pixels.

    Raises:
        InputError: A class is predicted nowhere.
    """
    size = int(logits.shape[2]), int(logits.shape[3])
    logits = logits.detach()
    names = model.classes if model.classes and len(model.classes) == logits.shape[1] else None
    found = _Segmentation(logits.argmax(1), probabilities(logits), names, [choice.at(each, size) for each in samples])
    shared = same_for_all(targets) or []
    ranking = bool(shared) and all(re.fullmatch(r'top[- ]?\d+', str(each).lower()) for each in shared)
    chosen = resolve_targets(targets, found.ranking(), names, [None] * len(samples))
    made = []
    for column in chosen.ids.unbind(1):
        wanted: list[int | None] = list(column.tolist())
        regions = [found.region(image, index) for image, index in enumerate(column.tolist())]
        instances: list[Instance | None] = []
        for image, region in enumerate(regions):
            if not bool(region.any()) and ranking:  # an image may show fewer classes than are asked for
                wanted[image] = None
            index = wanted[image]
            instances.append(None if index is None else found.instance(image, index, region))
        if any(each is not None for each in instances):
            made.append(RegionTarget(segmenter, size, wanted, [region.cpu() for region in regions], instances))
    return made, found.every


class _Segmentation:
    """What a segmenter predicts for a batch.

    Attributes:
        predicted: The class of every pixel, ``(B, H, W)``.
        shares: The probability of every class there, ``(B, K, H, W)``.
        names: Class names by id.
        own: The region that the user chose in each image, bool ``(H, W)``, or None.
        areas: How many pixels each class has, ``(B, K)``.
        every: All regions of each image, the largest first.
    """

    def __init__(
        self, predicted: Tensor, shares: Tensor, names: tuple[str, ...] | None, own: Sequence[Tensor | None]
    ) -> None:
        self.predicted, self.shares, self.names, self.own = predicted, shares, names, own
        self.areas = torch.stack([(predicted == index).flatten(1).sum(1) for index in range(shares.shape[1])], 1)
        self.every = [self._regions(image) for image in range(len(predicted))]

    def ranking(self) -> Tensor:
        """The order in which classes are explained, ``(B, K)``: by their area, in a region of the user's own by that.

        Background comes after what has an area at all.
        """
        ranked = self.areas.float()
        for index in range(ranked.shape[1]):
            if class_name(index, self.names).lower().strip('_') == 'background':
                ranked[:, index] = ranked[:, index].clamp_max(0.5)
        for image, region in enumerate(self.own):
            if region is not None:
                inside = self.predicted[image][region.to(self.predicted.device)]
                ranked[image] = torch.bincount(inside, minlength=ranked.shape[1]).float()
        return ranked

    def region(self, image: int, index: int) -> Tensor:
        """The user's own region, else where the class is predicted: bool ``(H, W)``."""
        own = self.own[image]
        return self.predicted[image] == index if own is None else own.to(self.predicted.device)

    def instance(self, image: int, index: int, region: Tensor) -> Instance:
        """A region of a class as results name it.

        Raises:
            InputError: It has no pixel.
        """
        name = class_name(index, self.names)
        if not bool(region.any()):
            raise InputError(
                f'{name} is not predicted anywhere here',
                accepted=', '.join(each.name for each in self.every[image][:12]),
                hint=f'give pixels of your own ({param("point", "X,Y")}, {param("region", "FILE")})',
                parameter='targets',
            )
        known = next((each for each in self.every[image] if each.id == index), None)
        if self.own[image] is None and known is not None:
            return known
        score = float(self.shares[image, index][region].mean())
        found = Instance(len(self.every[image]), name, index, score, None, None, region.cpu().numpy())
        self.every[image].append(found)
        return found

    def _regions(self, image: int) -> list[Instance]:
        found: list[Instance] = []
        for index in self.areas[image].argsort(descending=True, stable=True).tolist():
            mask = self.predicted[image] == index
            if not bool(mask.any()):
                break
            score = float(self.shares[image, index][mask].mean())
            name = class_name(index, self.names)
            found.append(Instance(len(found), name, index, score, None, None, mask.cpu().numpy()))
        return found


def probabilities(logits: Tensor) -> Tensor:
    """Class scores ``(B, K, H, W)`` as probabilities: by softmax, or as they are where they are such already."""
    if logits.shape[1] > 1 and bool((logits >= 0).all()) and bool((logits <= 1).all()):
        return logits
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
