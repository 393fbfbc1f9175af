"""Detectors of torchvision: R-CNN with its regions of interest; RetinaNet, FCOS and SSD with their dense heads.

They prepare images themselves (resizing, normalization, padding) and give boxes in pixels of what they were given.
Their predictions have a graph, but it leads through the outputs for all positions or regions. So a prediction is traced
back to its region, or to its pyramid level and position, and that is evaluated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from vistool.network.detection import (
    Adapter,
    Detections,
    Frame,
    Place,
    attribute_of,
    matching,
)
from vistool.network.forward import Pullback
from vistool.network.tensors import Size

_MASK_THRESHOLD = 0.5
_EXTRA_LEVELS = {LastLevelMaxPool: ('pool',), LastLevelP6P7: ('p6', 'p7')}
"""Names of the levels that a pyramid adds above those of the backbone."""


@dataclass
class _Seen:
    """What was noted during a forward.

    Attributes:
        images: The images as the layers see them, with their sizes without padding.
        features: The maps that the head or the pooling of regions was given.
        raw: What the dense head returned: its fields ``(B, A, …)``.
        anchors: ``(A, 4)`` for each image.
        proposals: ``(P, 4)`` for each image.
        regions: Logits ``(ΣP, K)`` and box moves ``(ΣP, 4·K)`` of all regions of the batch.
    """

    images: Any = None
    features: Any = None
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    anchors: list[Tensor] = field(default_factory=list)
    proposals: list[Tensor] = field(default_factory=list)
    regions: tuple[Tensor, Tensor] | None = None


class TorchvisionAdapter(Adapter):
    """Runs and reads torchvision's detectors."""

    _KINDS = (GeneralizedRCNN, RetinaNet, FCOS, SSD)

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__(module, path)
        self.seen = _Seen()

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is one of the detectors."""
        return isinstance(module, cls._KINDS)

    def layers(self) -> list[str]:
        """The pyramid's levels, without the one that only proposes regions; a backbone without pyramid as it is.

        Levels of a backbone without pyramid are named by their place, since their keys are its own; one of a single
        level may return a tensor.
        """
        module: Any = self.module
        pyramids = [(n, m) for n, m in module.backbone.named_modules() if isinstance(m, FeaturePyramidNetwork)]
        path, pyramid = pyramids[0] if pyramids else ('', module.backbone)
        levels: Sequence[Any]
        if pyramids:
            levels = [*range(len(pyramid.layer_blocks)), *_EXTRA_LEVELS.get(type(pyramid.extra_blocks), ())]
            if isinstance(module, GeneralizedRCNN):
                levels = [level for level in levels if str(level) in module.roi_heads.box_roi_pool.featmap_names]
        elif isinstance(module, GeneralizedRCNN):
            levels = module.roi_heads.box_roi_pool.featmap_names
        else:
            levels = range(len(module.anchor_generator.num_anchors_per_location()))
        parts = [part for part in (self.path, 'backbone', path) if part]
        if len(levels) == 1 and not pyramids:
            return ['.'.join(parts)]
        return [f'{".".join(parts)}[{level}]' for level in levels]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes the prepared images, the maps, and what the head makes of them."""
        module: Any = self.module
        self.seen = seen = _Seen()

        def prepared(child: nn.Module, args: Any, output: Any) -> None:
            seen.images = output[0]

        def headed(child: nn.Module, args: Any, output: Any) -> None:
            if seen.features is None:  # later calls evaluate parts of the maps again
                seen.features, seen.raw = list(args[0]), output

        def anchored(child: nn.Module, args: Any, output: Any) -> None:
            seen.anchors = output

        def pooled(child: nn.Module, args: Any) -> None:
            if seen.features is None:
                seen.features, seen.proposals = args[0], args[1]

        def classified(child: nn.Module, args: Any, output: Any) -> None:
            if seen.regions is None:
                seen.regions = output[0].detach(), output[1].detach()

        with ExitStack() as stack:
            handles = [module.transform.register_forward_hook(prepared)]
            if isinstance(module, GeneralizedRCNN):
                handles.append(module.roi_heads.box_roi_pool.register_forward_pre_hook(pooled))
                handles.append(module.roi_heads.box_predictor.register_forward_hook(classified))
            else:
                handles.append(module.head.register_forward_hook(headed))
                handles.append(module.anchor_generator.register_forward_hook(anchored))
            for handle in handles:
                stack.callback(handle.remove)
            yield

    def read(self, output: Any, count: int, size: Size) -> Detections:
        """The predictions, with what they were computed from."""
        output = output[1] if isinstance(output, tuple) else output
        scores, labels, boxes = ([each[name] for each in output] for name in ('scores', 'labels', 'boxes'))
        images = self.seen.images
        if images is None:  # nobody watched: predictions only
            return Detections(scores, labels, boxes)
        height, width = images.tensors.shape[-2:]
        valid = images.image_sizes[0]
        frame = Frame((int(height), int(width)), (int(valid[0]), int(valid[1])))
        masks = None
        if output and 'masks' in output[0]:
            masks = [each['masks'].detach()[:, 0] > _MASK_THRESHOLD for each in output]
        kind = _Regions if isinstance(self.module, GeneralizedRCNN) else _Dense
        return kind(self.module, self.seen, size, frame, scores, labels, boxes, masks)


class _Traced(Detections):
    """Predictions that are traced back to what they were computed from."""

    def __init__(
        self,
        module: Any,
        seen: _Seen,
        size: Size,
        frame: Frame,
        scores: Sequence[Tensor],
        labels: Sequence[Tensor],
        boxes: Sequence[Tensor],
        masks: Sequence[Tensor] | None,
    ) -> None:
        super().__init__(scores, labels, boxes, frame, masks)
        self.module, self.seen = module, seen
        # from pixels of the prepared image to pixels of the input, as torchvision's transform computes it
        ratio = [given / valid for given, valid in zip(size, frame.valid, strict=True)]
        self.ratio = self.boxes[0].new_tensor([ratio[1], ratio[0], ratio[1], ratio[0]])

    def clipped(self, boxes: Tensor, image: int) -> Tensor:
        """Boxes of the prepared image in pixels of the input, cut at its border."""
        height, width = self.seen.images.image_sizes[image]
        limits = boxes.new_tensor([width, height, width, height])
        return boxes.clamp_min(0).minimum(limits) * self.ratio

    def agrees(self, found: Tensor, place: Place, attribute: str) -> bool:
        """Whether a number that was evaluated again equals the prediction's own."""
        own = float(self.value(place, attribute).detach())
        return abs(float(found.detach()) - own) <= 1e-4 * max(1.0, abs(own))


class _Regions(_Traced):
    """R-CNN: a prediction belongs to one region and one class, and regions do not influence each other."""

    def pullbacks(self, places: Sequence[Place], attribute: str) -> list[Pullback]:
        """The gradient at the pooled features of each prediction's own region."""
        rows = [self._row(place) for place in places]
        if any(row is None for row in rows):
            return super().pullbacks(places, attribute)
        roi: Any = self.module.roi_heads
        regions = [self.seen.proposals[image][row][None] for (image, _), row in zip(places, rows, strict=True)]
        pooled = [self._pooled(image, region) for (image, _), region in zip(places, regions, strict=True)]
        given = torch.cat(pooled).detach().requires_grad_()
        logits, moves = roi.box_predictor(roi.box_head(given))
        scores, boxes = logits.softmax(-1), roi.box_coder.decode(moves, regions)
        values = []
        for number, (image, index) in enumerate(places):
            label = int(self.labels[image][index])
            box = self.clipped(boxes[number, label], image)
            values.append(attribute_of(scores[number, label], box, attribute))
        if not all(self.agrees(value, place, attribute) for value, place in zip(values, places, strict=True)):
            return super().pullbacks(places, attribute)
        (gradient,) = torch.autograd.grad(torch.stack(values).sum(), given)
        return [[(one, gradient[number : number + 1])] for number, one in enumerate(pooled)]

    def _row(self, place: Place) -> int | None:
        """The region of a prediction."""
        image, index = place
        raw = self._raw(image)
        label = int(self.labels[image][index])
        scores, boxes = raw[0][:, label], raw[1][:, label]
        return matching(scores, boxes, self.scores[image][index].detach(), self.boxes[image][index].detach())

    def _raw(self, image: int) -> tuple[Tensor, Tensor]:
        """Scores ``(P, K)`` and boxes ``(P, K, 4)`` of all regions of an image; computed once."""
        cache = self.__dict__.setdefault('_raws', {})
        if image not in cache:
            assert self.seen.regions is not None
            counts = [len(each) for each in self.seen.proposals]
            logits, moves = (each.split(counts)[image] for each in self.seen.regions)
            with torch.no_grad():
                boxes = self.module.roi_heads.box_coder.decode(moves, [self.seen.proposals[image]])
                cache[image] = logits.softmax(-1), self.clipped(boxes, image)
        found: tuple[Tensor, Tensor] = cache[image]
        return found

    def _pooled(self, image: int, regions: Tensor) -> Tensor:
        one = {name: value[image : image + 1] for name, value in self.seen.features.items()}
        found: Tensor = self.module.roi_heads.box_roi_pool(one, [regions], [self.seen.images.image_sizes[image]])
        return found


@dataclass(frozen=True)
class _Cell:
    """Where a dense prediction comes from: image, level, row and column there, anchor of that position, flat row."""

    image: int
    level: int
    y: int
    x: int
    anchor: int
    row: int


class _Dense(_Traced):
    """RetinaNet, FCOS and SSD: a prediction belongs to one level, position and anchor.

    The heads are convolutions, so only the positions around it count: windows around several predictions of a level are
    evaluated as one batch. Where a head is not local (its norms average over the level) the window does not give the
    prediction's value, and the whole level is evaluated.
    """

    def pullbacks(self, places: Sequence[Place], attribute: str) -> list[Pullback]:
        """The gradient at the level that each prediction comes from."""
        found: dict[Place, Pullback] = {}
        cells = {place: self._cell(place) for place in dict.fromkeys(places)}
        levels: dict[int, list[Place]] = {}
        for place, cell in cells.items():
            if cell is None:
                found[place] = super().pullbacks([place], attribute)[0]
            else:
                levels.setdefault(cell.level, []).append(place)
        for level, own in levels.items():
            found |= self._level(level, {place: cells[place] for place in own}, attribute)  # type: ignore[misc]
        return [found[place] for place in places]

    def _level(self, level: int, cells: Mapping[Place, _Cell], attribute: str) -> dict[Place, Pullback]:
        feature: Tensor = self.seen.features[level]
        reach = _reach(self.module.head, level)
        height, width = feature.shape[-2:]
        sides = [min(side, 2 * reach + 1) for side in (height, width)]
        corners = {
            place: (_corner(cell.y, sides[0], height), _corner(cell.x, sides[1], width))
            for place, cell in cells.items()
        }
        windows = [
            feature[cell.image : cell.image + 1, :, top : top + sides[0], left : left + sides[1]]
            for cell, (top, left) in zip(cells.values(), corners.values(), strict=True)
        ]
        given = torch.cat(windows).detach().requires_grad_()
        raw = self._head(level, given)
        per_place = len(next(iter(raw.values()))[0]) // (sides[0] * sides[1])
        values = []
        for number, (place, cell) in enumerate(cells.items()):
            top, left = corners[place]
            row = ((cell.y - top) * sides[1] + cell.x - left) * per_place + cell.anchor
            values.append(self._value({name: each[number, row] for name, each in raw.items()}, place, cell, attribute))
        if not all(self.agrees(value, place, attribute) for value, place in zip(values, cells, strict=True)):
            return {place: self._whole(level, place, cell, attribute) for place, cell in cells.items()}
        (gradient,) = torch.autograd.grad(torch.stack(values).sum(), given)
        found: dict[Place, Pullback] = {}
        for number, (place, cell) in enumerate(cells.items()):
            top, left = corners[place]
            spread = torch.zeros_like(feature)
            spread[cell.image, :, top : top + sides[0], left : left + sides[1]] = gradient[number]
            found[place] = [(feature, spread)]
        return found

    def _whole(self, level: int, place: Place, cell: _Cell, attribute: str) -> Pullback:
        """By the whole level, where the windows do not suffice."""
        feature: Tensor = self.seen.features[level]
        given = feature[cell.image : cell.image + 1].detach().requires_grad_()
        raw = self._head(level, given)
        row = (cell.y * feature.shape[-1] + cell.x) * (raw_len(raw) // feature[0, 0].numel()) + cell.anchor
        value = self._value({name: each[0, row] for name, each in raw.items()}, place, cell, attribute)
        if not self.agrees(value, place, attribute):
            return super().pullbacks([place], attribute)[0]
        (gradient,) = torch.autograd.grad(value, given)
        spread = torch.zeros_like(feature)
        spread[cell.image] = gradient[0]
        return [(feature, spread)]

    def _head(self, level: int, feature: Tensor) -> Mapping[str, Tensor]:
        """What the head gives for one level's map: its fields ``(n, h·w·anchors, …)``."""
        head: Any = self.module.head
        if not isinstance(self.module, SSD):
            raw: Mapping[str, Tensor] = head([feature])
            return raw
        fields = {'bbox_regression': head.regression_head, 'cls_logits': head.classification_head}
        found = {}
        for name, part in fields.items():
            maps = part.module_list[level](feature)
            maps = maps.unflatten(1, (-1, part.num_columns)).permute(0, 3, 4, 1, 2)
            found[name] = maps.flatten(1, 3)
        return found

    def _value(self, raw: Mapping[str, Tensor], place: Place, cell: _Cell, attribute: str) -> Tensor:
        """The prediction's number from its own raw outputs."""
        label, anchor = int(self.labels[place[0]][place[1]]), self.seen.anchors[cell.image][cell.row]
        score = self._scores({name: each[None] for name, each in raw.items()})[0, label]
        box = self._decoded(raw['bbox_regression'][None], anchor[None])[0]
        return attribute_of(score, self.clipped(box, cell.image), attribute)

    def _scores(self, raw: Mapping[str, Tensor]) -> Tensor:
        """Scores ``(A, K)``, as the detector computes them."""
        logits = raw['cls_logits']
        if isinstance(self.module, SSD):
            return logits.softmax(-1)
        if isinstance(self.module, FCOS):
            return (logits.sigmoid() * raw['bbox_ctrness'].sigmoid()).sqrt()
        return logits.sigmoid()

    def _decoded(self, moves: Tensor, anchors: Tensor) -> Tensor:
        coder: Any = self.module.box_coder
        decode: Callable[[Tensor, Tensor], Tensor] = coder.decode
        if not isinstance(self.module, FCOS):
            decode = coder.decode_single
        return decode(moves, anchors)

    def _raw(self, image: int) -> tuple[Tensor, Tensor]:
        """Scores ``(A, K)`` and boxes ``(A, 4)`` of all anchors of an image; computed once."""
        cache = self.__dict__.setdefault('_raws', {})
        if image not in cache:
            with torch.no_grad():
                own = {name: each[image] for name, each in self.seen.raw.items()}
                boxes = self._decoded(own['bbox_regression'], self.seen.anchors[image])
                cache[image] = self._scores(own), self.clipped(boxes, image)
        found: tuple[Tensor, Tensor] = cache[image]
        return found

    def _cell(self, place: Place) -> _Cell | None:
        image, index = place
        scores, boxes = self._raw(image)
        label = int(self.labels[image][index])
        row = matching(scores[:, label], boxes, self.scores[image][index].detach(), self.boxes[image][index].detach())
        if row is None:
            return None
        counts = self.module.anchor_generator.num_anchors_per_location()
        start = 0
        for level, (feature, anchors) in enumerate(zip(self.seen.features, counts, strict=False)):
            height, width = feature.shape[-2:]
            if row < start + height * width * anchors:
                at, anchor = divmod(row - start, anchors)
                return _Cell(image, level, at // width, at % width, anchor, row)
            start += height * width * anchors
        return None


def raw_len(raw: Mapping[str, Tensor]) -> int:
    """How many rows the fields of a dense head have for each image."""
    return int(next(iter(raw.values())).shape[1])


def _reach(head: nn.Module, level: int) -> int:
    """How many positions away an output can depend on: the sum over all convolutions of one branch, or more."""
    branches = []
    for branch in head.children():
        levels: Any = getattr(branch, 'module_list', None)
        part: nn.Module = branch if levels is None else levels[level]
        own = (each for each in part.modules() if isinstance(each, nn.Conv2d))
        branches.append(sum(each.dilation[0] * (each.kernel_size[0] // 2) for each in own))
    return max(branches, default=0)


def _corner(position: int, side: int, whole: int) -> int:
    """Where a window of ``side`` around a position starts, moved so that it lies within the map."""
    return min(max(position - side // 2, 0), whole - side)
