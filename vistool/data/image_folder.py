"""A folder of images as a dataset, so that it can be browsed without a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import CustomDataset

from vistool.data.images import read_image
from vistool.data.samples import images_below
from vistool.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """The images that any command finds in a folder, as :func:`~vistool.data.samples.images_below` lists them.

    With labels, the folder at the top that holds an image is its class; folders without images are not classes.
    """

    def _find_samples(self) -> list[str] | list[tuple[str, int]]:
        root = Path(self.img_prefix)
        paths = [path.relative_to(root).as_posix() for path in images_below(root)]
        if not self.with_label:
            return paths
        classes = tuple(sorted({path.partition('/')[0] for path in paths}))
        self._metainfo['classes'] = classes
        return [(path, classes.index(path.partition('/')[0])) for path in paths]


@TRANSFORMS.register_module()
class LoadImageOfFolder(LoadImageFromFile):
    """mmcv's loader, which reads what OpenCV does not know (TGA, often AVIF) as the other commands do."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Reads the file of ``results['img_path']``; blue comes first, as in all images of mmcv.

        Raises:
            InputError: The file is not an image.
        """
        path = results['img_path']
        if cv2.haveImageReader(str(path)):
            found: dict[str, Any] | None = super().transform(results)
            return found
        image = np.ascontiguousarray(read_image(path)[:, :, ::-1])
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results
