"""A folder of images as a dataset, so that it can be browsed without a config."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.datasets import CustomDataset

from vistool.data.samples import images_below
from vistool.registry import DATASETS


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
