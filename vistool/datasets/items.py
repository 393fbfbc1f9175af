"""A dataset's samples for those who bring their own pipeline: where the image is, and what is known of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vistool.datasets.annotations import Label, class_ids, class_name, class_names, info_of, label_of
from vistool.datasets.opening import open_dataset
from vistool.errors import InputError


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One sample, not yet read; ``pipeline.read(item.source, index=item.index, name=item.name, info=item.info)`` does.

    Attributes:
        source: The image file, or uint8 RGB ``(H, W, 3)`` where the dataset holds arrays.
        name: Output stem: index, class and file; unique in the dataset.
        index: Position in the dataset, wrappers included.
        label: The ground truth: a class id, several ids, a score for each class, one label per task, or None.
        info: What the dataset knows of the sample; without the image.
    """

    source: Path | NDArray[np.uint8]
    name: str
    index: int
    label: Label
    info: dict[str, Any]

    @property
    def path(self) -> Path | None:
        """The image file, if there is one."""
        return self.source if isinstance(self.source, Path) else None


class DatasetItems(Sequence[DatasetItem]):
    """The samples of a dataset, made one at a time from its annotations.

    Attributes:
        dataset: The dataset, wrappers included.
        classes: Names of the classes by id, or None.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.classes = class_names(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def label(self, index: int) -> Label:
        """The ground truth of one sample."""
        return label_of(info_of(self.dataset, index))

    @overload
    def __getitem__(self, index: int) -> DatasetItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[DatasetItem]: ...
    def __getitem__(self, index: int | slice) -> DatasetItem | list[DatasetItem]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        info = info_of(self.dataset, place)
        label, source = label_of(info), source_of(info)
        path = source if isinstance(source, Path) else None
        if source is None:
            raise InputError(f'sample {place} of the dataset names no image', accepted='img_path or img')
        known = {key: value for key, value in info.items() if key != 'img'}
        return DatasetItem(source, sample_name(place, label, path, self.classes), place, label, known)


def dataset_items(config: Any, phase: str) -> DatasetItems:
    """The samples of a config's dataset; its own pipeline is neither built nor run.

    Args:
        config: An mmengine Config.
        phase: ``train``, ``val`` or ``test``.

    Raises:
        InputError: The config has no such phase, or the dataset or its files are not there.
    """
    return DatasetItems(open_dataset(config, phase, with_pipeline=False))


def source_of(info: dict[str, Any]) -> Path | NDArray[np.uint8] | None:
    """Where a sample's image is: a file, the first of several, or an array in memory (as the dataset keeps it)."""
    path = info.get('img_path')
    path = path[0] if isinstance(path, (list, tuple)) and path else path
    if path is not None:
        return Path(str(path))
    image = info.get('img')
    if image is None:
        return None
    image = np.asarray(image, np.uint8)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def sample_name(index: int, label: Label, path: Path | None, names: tuple[str, ...] | None) -> str:
    """``000012_tabby_photo``: index, class and the file's stem, without what file systems dislike."""
    ids = class_ids(label)
    parts = [f'{index:06d}', class_name(ids[0], names) if len(ids) == 1 else '', path.stem if path else '']
    return '_'.join(re.sub(r'[^\w.+=-]+', '-', part).strip('-')[:60] for part in parts if part)
