"""What maps of detectors and segmenters explain: single predictions, and regions of a class.

A detector's targets are its own predictions, chosen by :class:`Instances`. A segmenter's are the pixels that it gives a
class, one pixel, or a region of the user's own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.cam.targets import pulled_back
from vistool.data.datasets import class_name
from vistool.data.images import read_image
from vistool.data.samples import Sample
from vistool.errors import InputError, close_matches, param
from vistool.models.classes import class_id, read_class
from vistool.models.model import Model, Targets, resolve_targets, same_for_all
from vistool.network.detection import ATTRIBUTES, Adapter, Detections, iou
from vistool.network.forward import Pullback
from vistool.network.segmentation import Segmenter
from vistool.network.tensors import Size
from vistool.results import Instance
from vistool.results import Target as Explained

log = logging.getLogger('vistool')

_SAME_OBJECT = 0.1
"""A box that overlaps no prediction by more than this is not one of them."""


@dataclass(frozen=True)
class Instances:
    """Which predictions are explained.

    Attributes:
        chosen: ``'top5'``, ``'all'``, or numbers of predictions in the order of their scores, from 0.
        threshold: Predictions with a lower score are left out.
        box: Left, top, right and bottom in pixels of the original: the prediction that matches it best.
        attributes: What of each is explained, from :data:`~vistool.network.detection.ATTRIBUTES`.
    """

    chosen: str | int | Sequence[int | str] = 'top5'
    threshold: float = 0.3
    box: Sequence[float] | None = None
    attributes: Sequence[str] = ('class',)

    def check(self) -> None:
        """Checks what can be wrong whatever the images are.

        Raises:
            InputError: A choice is not accepted.
        """
        _ = self.numbers
        if not 0 <= self.threshold <= 1:
            raise InputError(f'{self.threshold:g} is not a score', accepted='0 to 1', parameter='score_threshold')
        if self.box is not None and (
            len(self.box) != 4 or not (self.box[0] < self.box[2] and self.box[1] < self.box[3])
        ):
            raise InputError(
                f'{",".join(f"{each:g}" for each in self.box)} is not a box',
                accepted='X1,Y1,X2,Y2 in pixels of the original, with X1 < X2 and Y1 < Y2',
                parameter='box',
            )
        for each in self.attributes:
            if each not in ATTRIBUTES:
                raise InputError(
                    f'unknown attribute {each!r}',
                    accepted=', '.join(ATTRIBUTES),
                    hint=close_matches(str(each), ATTRIBUTES),
                    parameter='attribute',
                )

    @property
    def numbers(self) -> int | list[int] | None:
        """How many of the surest, or which; None for all.

        Raises:
            InputError: It is something else.
        """
        given = [self.chosen] if isinstance(self.chosen, (str, int)) else list(self.chosen)
        if len(given) == 1 and isinstance(given[0], str):
            if given[0] == 'all':
                return None
            if found := re.fullmatch(r'top(\d+)', given[0]):
                return int(found[1])
        try:
            chosen = [int(each) for each in given]
        except ValueError:
            chosen = []
        if not chosen or min(chosen) < 0:
            raise InputError(
                f'{" ".join(map(str, given))!r} does not name predictions',
                accepted='topN, all, or numbers of predictions from 0',
                parameter='instances',
            )
        return chosen

    def of(self, found: Sequence[Instance], targets: Targets, names: Sequence[str] | None) -> list[Instance]:
        """The predictions of one image that are explained.

        Args:
            found: All predictions above the threshold, in the order of their scores.
            targets: The only classes that are of interest; none means all.
            names: Class names by id.

        Raises:
            InputError: There is none.
        """
        wanted = _classes(targets, names)
        pool = [each for each in found if wanted is None or each.id in wanted]
        if self.box is not None:
            return [self._matching(pool)]
        numbers = self.numbers
        if isinstance(numbers, list):
            known = {each.number: each for each in pool}
            if missing := [number for number in numbers if number not in known]:
                raise InputError(
                    f'no prediction {missing[0]}',
                    accepted=', '.join(f'{each.number} ({each.name})' for each in pool[:12]),
                    hint=f'lower {param("score_threshold")}',
                    parameter='instances',
                )
            return [known[number] for number in numbers]
        if not pool:
            others = ', '.join(dict.fromkeys(each.name for each in found))
            raise InputError(
                'the detector predicts none of these classes here',
                accepted=others or 'no class',
                hint=f'lower {param("score_threshold")}',
                parameter='targets',
            )
        return pool[:numbers]

    def _matching(self, pool: Sequence[Instance]) -> Instance:
        assert self.box is not None
        boxes = torch.tensor([each.box for each in pool])
        overlap = iou(boxes, torch.tensor([float(each) for each in self.box])) if len(pool) else boxes
        if not len(pool) or float(overlap.max()) < _SAME_OBJECT:
            raise InputError(
                'no prediction overlaps this box',
                accepted='; '.join(
                    f'{each.name} {",".join(f"{edge:.0f}" for edge in each.box or ())}' for each in pool[:6]
                ),
                hint=f'lower {param("score_threshold")}',
                parameter='box',
            )
        return pool[int(overlap.argmax())]


def _classes(targets: Targets, names: Sequence[str] | None) -> set[int] | None:
    """The ids of the classes that targets name; None for no restriction."""
    given = same_for_all(targets)
    if not given:
        return None
    found = set()
    for each in given:
        index = read_class(each, names, 'targets') if isinstance(each, str) else each
        known = class_id(index, names) if isinstance(index, str) else index
        assert known is not None
        found.add(known)
    return found


@dataclass(frozen=True)
class InstanceTarget:
    """One prediction of each image of a batch; images may have different numbers of them.

    Attributes:
        plain: The predictions of the images as they are.
        chosen: The prediction that is explained of each image, or None.
        attribute: What of it.
        detector: Reads the predictions in other outputs.
        size: ``(H, W)`` of the input.
        pulled: The gradient of the chosen predictions' numbers, once it is known.
    """

    plain: Detections
    chosen: Sequence[Instance | None]
    attribute: str
    detector: Adapter
    size: Size
    pulled: Pullback = field(default_factory=list)

    def asks(self, image: int) -> bool:
        """Whether the image has such a prediction."""
        return self.chosen[image] is not None

    def explained(self, image: int) -> Explained:
        """The target of an image as results name it."""
        one = self.chosen[image]
        assert one is not None
        return Explained(target_name(one, self.attribute), one.id, one.score)

    def instance(self, image: int) -> Instance | None:
        """The prediction of an image."""
        return self.chosen[image]

    def pullback(self, output: Any, rows: Tensor) -> Pullback:
        """The gradient of the sum over the images."""
        return self.pulled

    def score(self, output: Any, rows: Tensor) -> Tensor:
        """How sure the detector is of the same object in changed copies of the images; see :func:`similarity`."""
        found = self.detector.read(output, len(rows), self.size)
        scores = []
        for row, image in enumerate((rows % len(self.chosen)).tolist()):
            one = self.chosen[image]
            scores.append(found.boxes[row].new_zeros(()) if one is None else similarity(found, row, self._own(image)))
        return torch.stack(scores)

    def _own(self, image: int) -> tuple[int, Tensor]:
        one = self.chosen[image]
        assert one is not None and one.id is not None
        return one.id, self.plain.boxes[image][one.number].detach()

    def values(self, output: Any, count: int) -> Tensor:
        """The scores ``(B,)`` of the chosen predictions."""
        return torch.tensor([0.0 if one is None else one.score for one in self.chosen])


def target_name(one: Instance, attribute: str = 'class') -> str:
    """What a prediction is called: ``'#0 cat'``, ``'#0 cat, left edge'``."""
    what = {'class': '', 'box': ', box'}.get(attribute, f', {attribute} edge')
    return f'#{one.number} {one.name}{what}'


def similarity(found: Detections, row: int, own: tuple[int, Tensor]) -> Tensor:
    """How much one image's predictions still hold an object: the largest IoU · score of its class.

    This is the similarity of Petsiuk et al. (D-RISE, CVPR 2021) for detectors that give one score for each prediction.

    Args:
        found: Predictions.
        row: The image.
        own: The object's class and box.
    """
    label, box = own
    same = found.labels[row] == label
    if not bool(same.any()):
        return found.scores[row].new_zeros(())
    return (iou(found.boxes[row][same], box.to(found.boxes[row])) * found.scores[row][same]).max()


def instance_targets(
    model: Model,
    detector: Adapter,
    found: Detections,
    samples: Sequence[Sample],
    choice: Instances,
    targets: Targets,
    size: Size,
) -> tuple[list[InstanceTarget], list[list[Instance]]]:
    """The targets of a batch, and all predictions of each image.

    Raises:
        InputError: An image has no prediction that is asked for.
    """
    names = model.classes
    every = [_instances(model, found, image, sample, choice.threshold) for image, sample in enumerate(samples)]
    for image, own in enumerate(every):
        if not own:
            best = float(found.scores[image].detach().max()) if len(found.scores[image]) else 0.0
            raise InputError(
                f'{model.name} predicts nothing with a score of at least {choice.threshold:g} here; the surest '
                f'prediction has {best:.3g}',
                accepted=f'{param("score_threshold")} 0 to 1',
                hint=f'lower {param("score_threshold")}' if best else 'check the checkpoint and the image',
                parameter='score_threshold',
            )
    chosen = [choice.of(own, targets, names) for own in every]
    made = []
    for number in range(max(map(len, chosen))):
        row = [each[number] if number < len(each) else None for each in chosen]
        made += [InstanceTarget(found, row, attribute, detector, size) for attribute in choice.attributes]
    for attribute in choice.attributes:
        own_targets = [target for target in made if target.attribute == attribute]
        places = [
            (target, (image, one.number))
            for target in own_targets
            for image, one in enumerate(target.chosen)
            if one is not None
        ]
        for (target, _), pulled in zip(places, found.pullbacks([place for _, place in places], attribute), strict=True):
            target.pulled.extend(pulled)
    return made, every


def _instances(model: Model, found: Detections, image: int, sample: Sample, threshold: float) -> list[Instance]:
    """The predictions of one image with at least this score, in pixels of the original."""
    made = []
    for number, (score, label, box) in enumerate(
        zip(found.scores[image].tolist(), found.labels[image].tolist(), found.boxes[image].tolist(), strict=True)
    ):
        if score < threshold:
            continue
        mask = None if found.masks is None else found.masks[image][number].cpu().numpy()
        made.append(
            Instance(
                number, class_name(label, model.classes), label, score, _to_original(box, sample), tuple(box), mask
            )
        )
    return made


def _to_original(box: Sequence[float], sample: Sample) -> tuple[float, float, float, float]:
    """A box of the network's input in pixels of the original, where there is one."""
    left, top, right, bottom = box
    if sample.geometry is None:
        return left, top, right, bottom
    corners = sample.geometry.to_original([[left, top], [right, top], [right, bottom], [left, bottom]])
    (x1, y1), (x2, y2) = corners.min(0), corners.max(0)
    return float(x1), float(y1), float(x2), float(y2)


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
        given: NDArray[Any] = np.asarray(self.mask if isinstance(self.mask, np.ndarray) else read_image(self.mask))
        values: NDArray[np.bool_] = (given != 0).any(2) if given.ndim == 3 else given != 0
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
        point = np.array([self.point], np.float64) + 0.5
        if sample.geometry is not None:
            point = sample.geometry.to_network(point)
        column, row = (int(np.floor(each)) for each in point[0])
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            height, width = size if sample.original is None else sample.original.shape[:2]
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
        logits = self.segmenter.logits(output, self.size)
        scores = []
        for row, image in enumerate((rows % len(self.classes)).tolist()):
            index = self.classes[image]
            region = self.regions[image].to(logits.device)
            scores.append(logits.new_zeros(()) if index is None else logits[row, index][region].sum())
        return torch.stack(scores)

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
    predicted, shares = logits.argmax(1), _probabilities(logits)
    areas = torch.stack([(predicted == index).flatten(1).sum(1) for index in range(logits.shape[1])], 1).float()
    names = model.classes if model.classes and len(model.classes) == logits.shape[1] else None
    every = [_regions(names, predicted[image], shares[image], areas[image]) for image in range(len(samples))]
    own = [choice.at(sample, size) for sample in samples]
    ranked = areas.clone()
    for index in range(logits.shape[1]):
        if class_name(index, names).lower().strip('_') == 'background':
            ranked[:, index] = ranked[:, index].clamp_max(0.5)  # the default only where nothing else is predicted
    for image, region in enumerate(own):
        if region is not None:  # the class of most of its pixels
            inside = predicted[image][region.to(predicted.device)]
            ranked[image] = torch.bincount(inside, minlength=logits.shape[1]).float()
    shared = same_for_all(targets) or []
    ranking = bool(shared) and all(re.fullmatch(r'top[- ]?\d+', str(each).lower()) for each in shared)
    chosen = resolve_targets(targets, ranked, names, [None] * len(samples))
    made = []
    for column in chosen.ids.unbind(1):
        classes: list[int | None] = []
        regions: list[Tensor] = []
        instances: list[Instance | None] = []
        for image, index in enumerate(column.tolist()):
            region = own[image] if own[image] is not None else predicted[image] == index
            assert region is not None
            if not bool(region.any()) and ranking:
                classes.append(None)
                regions.append(region.cpu())
                instances.append(None)
                continue
            if not bool(region.any()):
                there = ', '.join(f'{each.name}' for each in every[image][:12])
                raise InputError(
                    f'{class_name(index, names)} is not predicted anywhere here',
                    accepted=there,
                    hint=f'give pixels of your own ({param("point", "X,Y")}, {param("region", "FILE")})',
                    parameter='targets',
                )
            classes.append(index)
            regions.append(region.cpu())
            score = float(shares[image, index][region.to(shares.device)].mean())
            known = next((each for each in every[image] if each.id == index), None)
            if own[image] is not None or known is None:
                name = class_name(index, names)
                known = Instance(len(every[image]), name, index, score, None, None, region.cpu().numpy())
                every[image].append(known)
            instances.append(known)
        if any(each is not None for each in instances):
            made.append(RegionTarget(segmenter, size, classes, regions, instances))
    return made, every


def _probabilities(logits: Tensor) -> Tensor:
    """Class scores as probabilities: by softmax, or in proportion where they are products of probabilities already."""
    if logits.shape[1] > 1 and bool((logits >= 0).all()) and bool((logits <= 1).all()):
        return logits
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()


def _regions(names: tuple[str, ...] | None, predicted: Tensor, shares: Tensor, areas: Tensor) -> list[Instance]:
    found: list[Instance] = []
    for index in areas.argsort(descending=True, stable=True).tolist():
        if not areas[index]:
            break
        mask = predicted == index
        score = float(shares[index][mask].mean())
        found.append(Instance(len(found), class_name(index, names), index, score, None, None, mask.cpu().numpy()))
    return found
