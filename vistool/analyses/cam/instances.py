"""Which predictions of a detector maps explain, and which objects of the dataset those are."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vistool import ranges
from vistool.data.datasets import class_name
from vistool.data.geometry import Mask
from vistool.data.samples import Sample
from vistool.data.truth import Region, Truth
from vistool.errors import InputError, close_matches, param
from vistool.models.classes import class_id, read_class
from vistool.models.model import Model, Targets, same_for_all
from vistool.network.detection import ATTRIBUTES, Adapter, Detections, iou
from vistool.network.forward import Pullback
from vistool.network.tensors import Size
from vistool.results import Instance
from vistool.results import Target as Explained

log = logging.getLogger('vistool')

_SAME_OBJECT = 0.1
"""A box that overlaps no prediction by more than this is not one of them."""

TRUE_POSITIVE = 0.5
"""A prediction is an object of the dataset from this IoU up, as in COCO's AP50 and VOC."""


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
        return list(ranges.positive(given, 'the number of a prediction', 'instances', 'topN or all alone, or '))

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


@dataclass(frozen=True)
class Followed:
    """The objects that another detector's maps explain, to be explained as this detector predicts them.

    Attributes:
        images: The other detector's predictions, for each image of the batch.
        threshold: Predictions with a lower score are left out.
        attributes: What of each is explained.
    """

    images: Sequence[Sequence[Instance]]
    threshold: float = 0.3
    attributes: Sequence[str] = ('class',)

    def of(self, image: int, found: Sequence[Instance], model: Model) -> list[Instance | None]:
        """For each object of an image the prediction that is this object; None where there is none.

        It is the prediction of the same class name with the largest IoU, from :data:`TRUE_POSITIVE` up.
        """
        chosen: list[Instance | None] = []
        for one in self.images[image]:
            same = [each for each in found if each.name.lower() == one.name.lower()]
            overlap = iou(torch.tensor([each.box for each in same]).reshape(-1, 4), torch.tensor(one.box))
            if not len(overlap) or float(overlap.max()) < TRUE_POSITIVE:
                log.warning(
                    '%s predicts no %s where #%d is (IoU of at least %g, score of at least %g), so it has no map of it',
                    model.name, one.name, one.number, TRUE_POSITIVE, self.threshold,
                )  # fmt: skip
                chosen.append(None)
                continue
            chosen.append(same[int(overlap.argmax())])
        return chosen

    def numbers(self, image: int, found: Sequence[Instance], chosen: Sequence[Instance | None]) -> dict[int, int]:
        """Number of a prediction → its number in results: that of the object that it is, else one after all others."""
        own = {
            one.number: other.number for one, other in zip(chosen, self.images[image], strict=True) if one is not None
        }
        after = max((each.number for each in self.images[image]), default=-1) + 1
        rest = [each.number for each in found if each.number not in own]
        return own | {number: after + place for place, number in enumerate(rest)}


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
        objects: For each image, number of a prediction → the object of the dataset that it is.
        numbers: For each image, number of a prediction → its number in results; none means that it keeps its own.
    """

    plain: Detections
    chosen: Sequence[Instance | None]
    attribute: str
    detector: Adapter
    size: Size
    pulled: Pullback = field(default_factory=list)
    objects: Sequence[Mapping[int, Region]] = ()
    numbers: Sequence[Mapping[int, int]] = ()

    def truth(self, image: int, sample: Sample) -> Mask:
        """Where the object of the prediction is, as the network sees it; nothing where it is not one of the dataset's.

        A truth without classes, such as a folder of masks, is the same for all predictions.
        """
        one = self.chosen[image]
        assert one is not None and sample.truth is not None
        if all(region.box is None for region in sample.truth.regions):
            return sample.inside()
        region = self.objects[image].get(one.number)
        return sample.inside(regions=() if region is None else (region,))

    def asks(self, image: int) -> bool:
        """Whether the image has such a prediction."""
        return self.chosen[image] is not None

    def explained(self, image: int) -> Explained:
        """The target of an image as results name it."""
        one = self.instance(image)
        assert one is not None
        return Explained(target_name(one, self.attribute), one.id, one.score)

    def instance(self, image: int) -> Instance | None:
        """The prediction of an image as results name it."""
        one = self.chosen[image]
        return one if one is None or not self.numbers else replace(one, number=self.numbers[image][one.number])

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


@dataclass(frozen=True)
class Found:
    """What a detector finds in a batch, beside what the dataset knows.

    Attributes:
        instances: The predictions of each image above the threshold, the surest first.
        missed: The objects of each image that no prediction is.
        objects: For each image, number of a prediction → the object that it is.
    """

    instances: list[list[Instance]]
    missed: list[list[Instance]]
    objects: list[dict[int, Region]]


def instance_targets(
    model: Model,
    detector: Adapter,
    found: Detections,
    samples: Sequence[Sample],
    choice: Instances | Followed,
    targets: Targets,
    size: Size,
) -> tuple[list[InstanceTarget], Found]:
    """The targets of a batch, and what is found in each image.

    Raises:
        InputError: An image has no prediction that is asked for.
    """
    threshold = choice.threshold
    every = [instances_of(model, found, image, sample, threshold) for image, sample in enumerate(samples)]
    for image, own in enumerate(every):
        if not own and isinstance(choice, Instances):
            raise _nothing(model, found.scores[image], threshold)
    matched = [match(own, sample.truth, model.classes) for own, sample in zip(every, samples, strict=True)]
    known = Found([each[0] for each in matched], [each[1] for each in matched], [each[2] for each in matched])
    numbers: list[dict[int, int]] = []
    chosen: Sequence[Sequence[Instance | None]]
    if isinstance(choice, Followed):
        chosen = [choice.of(image, own, model) for image, own in enumerate(known.instances)]
        numbers = [choice.numbers(image, *both) for image, both in enumerate(zip(known.instances, chosen, strict=True))]
    else:
        chosen = [choice.of(own, targets, model.classes) for own in known.instances]
    made = []
    for number in range(max(map(len, chosen))):
        row = [each[number] if number < len(each) else None for each in chosen]
        made += [
            InstanceTarget(found, row, attribute, detector, size, objects=known.objects, numbers=numbers)
            for attribute in choice.attributes
        ]
    _pull(found, made, choice.attributes)
    if numbers:
        named = [
            [replace(each, number=own[each.number]) for each in one]
            for one, own in zip(known.instances, numbers, strict=True)
        ]
        known = replace(known, instances=named)
    return made, known


def _nothing(model: Model, scores: Tensor, threshold: float) -> InputError:
    """What to say of an image in which a detector finds nothing."""
    best = float(scores.detach().max()) if len(scores) else 0.0
    return InputError(
        f'{model.name} predicts nothing with a score of at least {threshold:g} here; the surest prediction has '
        f'{best:.3g}',
        accepted=f'{param("score_threshold")} 0 to 1',
        hint=f'lower {param("score_threshold")}' if best else 'check the checkpoint and the image',
        parameter='score_threshold',
    )


def _pull(found: Detections, made: Sequence[InstanceTarget], attributes: Sequence[str]) -> None:
    """Gives each target the gradient of its predictions' numbers, all those of an attribute at once."""
    for attribute in attributes:
        places = [
            (target, (image, one.number))
            for target in made
            if target.attribute == attribute
            for image, one in enumerate(target.chosen)
            if one is not None
        ]
        for (target, _), pulled in zip(places, found.pullbacks([place for _, place in places], attribute), strict=True):
            target.pulled.extend(pulled)


def match(
    found: Sequence[Instance], truth: Truth | None, names: tuple[str, ...] | None
) -> tuple[list[Instance], list[Instance], dict[int, Region]]:
    """Predictions as true and false positives, and the objects that none of them is.

    In the order of their scores each prediction takes the object of its class with the largest IoU that is still free,
    if that is at least :data:`TRUE_POSITIVE`. One that lies mostly on objects that the data mark as ignored is neither.

    Args:
        found: The predictions, the surest first.
        truth: Where the objects are; unknown without boxes.
        names: Class names by id.

    Returns:
        The predictions with their IoU and kind; the missed objects; number of a prediction → its object.
    """
    known = [] if truth is None else [region for region in truth.regions if region.box is not None]
    if truth is None or (truth.regions and not known):
        return list(found), [], {}
    boxes = torch.tensor([region.box for region in known]).reshape(-1, 4)
    ignored = torch.tensor(truth.ignored).reshape(-1, 4)
    free = [True] * len(known)
    told, objects = [], {}
    for one in found:
        own = torch.tensor(one.box)
        overlap = iou(boxes, own).tolist()
        same = [n for n, region in enumerate(known) if region.label is None or region.label == one.id]
        best = max((n for n in same if free[n]), key=overlap.__getitem__, default=None)
        share = max((overlap[n] for n in same), default=0.0)
        kind = 'false positive'
        if best is not None and overlap[best] >= TRUE_POSITIVE:
            free[best], objects[one.number], share, kind = False, known[best], overlap[best], 'true positive'
        elif len(ignored) and float(_covered(ignored, own).max()) >= TRUE_POSITIVE:
            kind = ''
        told.append(replace(one, iou=share, kind=kind))
    lost = [region for region, unmatched in zip(known, free, strict=True) if unmatched]
    return told, [_missed(region, len(told) + n, names) for n, region in enumerate(lost)], objects


def _covered(boxes: Tensor, box: Tensor) -> Tensor:
    """The share of a box ``(4,)`` that each of other boxes ``(N, 4)`` covers, ``(N,)``."""
    inside = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp_min(0).prod(1)
    return inside / (box[2:] - box[:2]).prod().clamp_min(1e-9)


def _missed(region: Region, number: int, names: tuple[str, ...] | None) -> Instance:
    name = 'object' if region.label is None else class_name(region.label, names)
    return Instance(number, name, region.label, 0.0, region.box, kind='miss')


def instances_of(model: Model, found: Detections, image: int, sample: Sample, threshold: float = 0.0) -> list[Instance]:
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
