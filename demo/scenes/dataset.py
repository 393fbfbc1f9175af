"""The generated scenes as a dataset in PyTorch's own form: an image, and its boxes, labels and masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from demo.scenes.scenes import CLASSES, HERE


class FlipImageOnly(v2.RandomHorizontalFlip):
    """A faulty transform, to be found: it leaves boxes and masks where they were."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Flips images."""
        return super().transform(inpt, params) if isinstance(inpt, tv_tensors.Image) else inpt


STEPS = {**vars(v2), 'FlipImageOnly': FlipImageOnly}


@DATASETS.register_module()
class SceneDataset(torch.utils.data.Dataset):
    """Scenes of ``scenes.json``, through transforms of torchvision's second generation.

    Args:
        transforms: Names and arguments: ``dict(type='RandomHorizontalFlip', p=1.0)``.
        folder: Holds the images, masks and ``scenes.json``.
        indices: Which of them; None: all.
    """

    classes = CLASSES

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any]] = (),
        folder: str | Path = HERE,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.folder = Path(folder)
        record = json.loads((self.folder / 'scenes.json').read_text(encoding='utf-8'))
        self.images = [each for each in record['images'] if indices is None or each['id'] in indices]
        self.objects = [
            [each for each in record['annotations'] if each['image_id'] == image['id']] for image in self.images
        ]
        described = [dict(each) for each in transforms]
        self.transforms = v2.Compose([v2.ToImage(), *(STEPS[each.pop('type')](**each) for each in described)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        """An image ``(3, H, W)``, and ``boxes``, ``labels`` and ``masks``."""
        path = self.folder / self.images[index]['file_name']
        image = Image.open(path).convert('RGB')
        classes = np.asarray(Image.open(path.with_name(f'{path.stem}_mask.png')))
        boxes = torch.tensor([each['bbox'] for each in self.objects[index]])
        labels = torch.tensor([each['category_id'] for each in self.objects[index]])
        masks = np.zeros((len(boxes), *classes.shape), np.bool_)
        for mask, (left, top, width, height) in zip(masks, boxes.int().tolist(), strict=True):
            part = slice(top, top + height), slice(left, left + width)
            mask[part] = classes[part] > 0  # shapes do not overlap
        target = {
            'boxes': tv_tensors.BoundingBoxes(boxes, format='XYWH', canvas_size=classes.shape),
            'labels': labels,
            'masks': tv_tensors.Mask(masks),
        }
        return self.transforms(image, target)
