"""Detectors of mmdet.

Two-stage detectors, YOLOX, DETR and its relatives keep the graph of their predictions. Dense heads on
``base_dense_head`` (RetinaNet, FCOS, ATSS, RTMDet, …) cut it where they filter, so there a prediction is traced back to
the level, position and class of the raw output that it equals.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vistool.environment import installed_version
from vistool.errors import InputError
from vistool.network.detection import Adapter, Detections, Place, attribute_of, matching, untraceable
from vistool.network.forward import Pullback
from vistool.network.tensors import NetworkInput, Size, find_image

_OPS = 'mmcv._ext'


class MMDetAdapter(Adapter):
    """Runs and reads mmdet's detectors."""

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__(module, path)
        self.raw: tuple[Any, ...] | None = None
        self.samples: list[Any] = []

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is a detector."""
        return any(kind.__name__ == 'BaseDetector' for kind in type(module).__mro__)

    def prepared(self, inputs: NetworkInput, samples: Sequence[Any]) -> NetworkInput:
        """The images with what mmdet's heads ask about them, for boxes in pixels of the network's input.

        Raises:
            InputError: mmcv was installed without its compiled ops.
        """
        require_ops()
        image = find_image(inputs)
        assert image is not None
        size = int(image.shape[2]), int(image.shape[3])
        self.samples = [_described(sample.data, size) for sample in samples]
        return {'inputs': image, 'data_samples': copy.deepcopy(self.samples), 'mode': 'predict'}

    def repeated(self, inputs: NetworkInput, index: int, count: int) -> NetworkInput:
        """With a description for each copy."""
        assert isinstance(inputs, dict)
        return {**inputs, 'data_samples': [copy.deepcopy(self.samples[index]) for _ in range(count)]}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes what a dense head returns."""
        head: Any = getattr(self.module, 'bbox_head', None)
        self.raw = None

        def note(child: nn.Module, args: Any, output: Any) -> None:
            if self.raw is None and isinstance(output, tuple):
                self.raw = output

        if head is None:
            yield
            return
        handle = head.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    def read(self, output: Any, count: int, size: Size) -> Detections:
        """The predictions of each image, the surest first."""
        parts, masks = [], []
        for each in output:
            found = each.pred_instances
            boxes = found.bboxes.tensor if hasattr(found.bboxes, 'tensor') else found.bboxes
            order = found.scores.detach().argsort(descending=True, stable=True)
            parts.append((found.scores[order], found.labels[order], boxes[order]))
            if 'masks' in found:
                masks.append(_padded(found.masks[order].detach().bool(), size))
        scores, labels, boxes = zip(*parts, strict=True)
        if self.raw is not None and not any(each.requires_grad for each in scores):
            return _Dense(self.module, self.raw, self.samples, scores, labels, boxes, masks or None)
        return Detections(scores, labels, boxes, masks=masks or None)

    def query_boxes(self, output: Any, size: Size) -> list[Tensor] | None:
        """The boxes of the last decoder layer of DETR's relatives, cut at the image's border."""
        boxes = self.raw[1] if self.raw is not None and len(self.raw) > 1 else None
        if not isinstance(boxes, Tensor) or boxes.ndim != 4 or boxes.shape[-1] != 4:
            return None
        found = []
        for own, sample in zip(boxes[-1], self.samples, strict=True):
            height, width = sample.metainfo['img_shape']
            center, half = own[:, :2], own[:, 2:] / 2
            limits = own.new_tensor([width, height, width, height])
            found.append((torch.cat([center - half, center + half], 1) * limits).clamp_min(0).minimum(limits))
        return found

    def layers(self) -> list[str]:
        """The levels of the neck that predictions come from."""
        module: Any = self.module
        neck = getattr(module, 'neck', None)
        if neck is None:
            return []
        extractor = getattr(getattr(module, 'roi_head', None), 'bbox_roi_extractor', None)
        extractor = extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
        priors = getattr(getattr(module, 'bbox_head', None), 'prior_generator', None)
        levels: Any = getattr(extractor, 'num_inputs', None) or getattr(priors, 'num_levels', None)
        levels = levels or getattr(module, 'num_feature_levels', None) or getattr(neck, 'num_outs', 1)
        prefix = f'{self.path}.' if self.path else ''
        return [f'{prefix}neck[{level}]' for level in range(levels)]


def require_ops() -> None:
    """Refuses an mmcv without compiled ops, which mmdet needs to predict.

    Raises:
        InputError: They are missing.
    """
    try:
        found = importlib.util.find_spec(_OPS) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        own = 'onedl-' if installed_version('onedl-mmdetection') else ''
        raise InputError(
            "mmcv has no compiled ops (mmcv._ext), which mmdet's detectors need to predict (nms, roi_align)",
            hint=f'install it as mmdet says: pip install -U {own or "open"}mim && mim install {own}mmcv',
            parameter='model',
        )


def _described(data: Any, size: Size) -> Any:
    """What mmdet calls a data sample, with the sizes that its heads ask for; the scale is 1."""
    found = copy.deepcopy(data['data_samples']) if isinstance(data, dict) and 'data_samples' in data else None
    if found is None:
        from mmdet.structures import DetDataSample

        found = DetDataSample()
    shape = tuple(found.metainfo.get('img_shape', size)[:2])
    sizes = {'img_shape': shape, 'ori_shape': shape, 'batch_input_shape': size, 'pad_shape': size}
    found.set_metainfo({**sizes, 'scale_factor': (1.0, 1.0)})
    return found


def _padded(masks: Tensor, size: Size) -> Tensor:
    """Masks ``(N, h, w)`` of the image without its padding, at the input's size."""
    height, width = masks.shape[-2:]
    return nn.functional.pad(masks, (0, size[1] - width, 0, size[0] - height))


class _Dense(Detections):
    """Predictions of a dense head, traced back to its raw outputs."""

    def __init__(
        self,
        module: Any,
        raw: tuple[Any, ...],
        samples: Sequence[Any],
        scores: Sequence[Tensor],
        labels: Sequence[Tensor],
        boxes: Sequence[Tensor],
        masks: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__(scores, labels, boxes, masks=masks)
        self.head, self.raw, self.samples = module.bbox_head, raw, samples

    def pullbacks(self, places: Sequence[Place], attribute: str) -> list[Pullback]:
        """Each prediction's number from the one raw output that it equals."""
        return [[(self._traced(place, attribute), None)] for place in places]

    def _traced(self, place: Place, attribute: str) -> Tensor:
        image, index = place
        label, own = int(self.labels[image][index]), self.boxes[image][index]
        for level in range(len(self.raw[0])):
            scores, boxes = self._level(image, level, label)
            row = matching(scores.detach(), boxes.detach(), self.scores[image][index], own)
            if row is not None:
                return attribute_of(scores[row], boxes[row], attribute)
        raise untraceable(self, place)

    def _level(self, image: int, level: int, label: int) -> tuple[Tensor, Tensor]:
        """Scores ``(A,)`` for a class and boxes ``(A, 4)`` of all outputs of a level, with their graph."""
        head = self.head
        classes, moves = self.raw[0][level][image], self.raw[1][level][image]
        shape = self.samples[image].metainfo['img_shape']
        logits = classes.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)
        scores = scores[:, label]
        if len(self.raw) > 2 and self.raw[2] is not None:
            scores = scores * self.raw[2][level][image].permute(1, 2, 0).reshape(-1).sigmoid()
        priors = head.prior_generator.single_level_grid_priors(
            classes.shape[-2:], level, dtype=moves.dtype, device=moves.device
        )
        boxes = head.bbox_coder.decode(
            priors, moves.permute(1, 2, 0).reshape(-1, head.bbox_coder.encode_size), max_shape=shape
        )
        return scores, boxes.tensor if hasattr(boxes, 'tensor') else boxes
