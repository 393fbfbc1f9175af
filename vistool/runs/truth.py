"""Where the objects of a run's images are: from the annotations of its dataset, or from a folder of masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vistool.analyses.base import MapAnalysis
from vistool.data.datasets import DatasetItem, DatasetItems, classes_called
from vistool.data.samples import Sample
from vistool.data.truth import KEYS, MaskFolder, Truth, truth_of
from vistool.errors import InputError, param
from vistool.metrics import no_truth
from vistool.runs.spec import AnyItem

log = logging.getLogger('vistool')

_LOOKED_AT = 64
"""Samples of a dataset in which boxes or masks are looked for, before any work."""


@dataclass
class TruthSource:
    """Tells where the objects of images are.

    Attributes:
        items: The images of the run.
        masks: A folder with a mask for each; None: as the dataset's annotations say.
        ids: The dataset's class ids → the model's, where they differ.
        asked: Whether a metric needs to know; else what cannot be read or matched is left out.
    """

    items: Sequence[AnyItem]
    masks: MaskFolder | None = None
    ids: Mapping[int, int] | None = None
    asked: bool = True
    background: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        names = self.items.classes if isinstance(self.items, DatasetItems) else None
        self.background = next(iter(classes_called('background', names or ())), None)

    def check(self, order: Sequence[int], metrics: Sequence[str]) -> None:
        """Looks at what can be known before any work.

        Args:
            order: Positions of the images that are taken.
            metrics: What needs to know where the objects are.

        Raises:
            InputError: A mask is missing or does not fit, or the dataset has neither boxes nor masks.
        """
        if not self.asked:
            return
        if self.masks is not None:
            paths = [self.items[index].path for index in order]
            files = [path for path in paths if path is not None]
            if len(files) < len(paths):
                raise InputError('the images of this dataset are not files', parameter='masks')
            self.masks.check(files)
            return
        looked_at = [self.items[index] for index in order[:_LOOKED_AT]]
        if not any(key in item.info for item in looked_at if isinstance(item, DatasetItem) for key in KEYS):
            raise InputError(
                f'{", ".join(metrics)} compares a map with a mask of the object, and the dataset has none',
                accepted='annotations with boxes (gt_bboxes), masks (gt_masks) or label maps (gt_sem_seg)',
                hint=f'or give masks with {param("masks", "FOLDER")}',
                parameter='metrics',
            )

    def translate(self, names: Sequence[str] | None) -> None:
        """Finds the model's class ids for the dataset's, by name where the two lists differ.

        Args:
            names: The model's class names by id, or None.

        Raises:
            InputError: They have no name in common.
        """
        own = self.items.classes if isinstance(self.items, DatasetItems) and self.masks is None else None
        if not own or not names or list(own) == list(names):
            return
        found = {number: classes_called(name, names) for number, name in enumerate(own)}
        self.ids = {number: ids[0] for number, ids in found.items() if len(ids) == 1}
        if not self.ids and not self.asked:
            log.info("the dataset's objects are left out: its classes and the model's have no name in common")
            return
        if not self.ids:
            raise InputError(
                f"the dataset's classes ({', '.join(own[:3])}, …) and the model's ({', '.join(names[:3])}, …) have no "
                'name in common, so the object of a class cannot be found',
                hint=f'give masks with {param("masks", "FOLDER")}',
                parameter='metrics',
            )
        missing = [name for number, name in enumerate(own) if number not in self.ids]
        log.info(
            "the objects of the dataset's classes are matched with the model's by name%s",
            f'; {len(missing)} have none, such as {missing[0]}' if missing else '',
        )

    def told(self, item: AnyItem, sample: Sample) -> Sample:
        """A sample that knows where its objects are.

        Raises:
            InputError: Its mask or its annotations cannot be read, or are of an image of another size.
        """
        size = sample.image.shape[:2] if sample.geometry is None else sample.geometry.original_size
        if self.masks is not None:
            truth = self.masks.truth(Path(item.path or item.name), (size[0], size[1]))
        elif isinstance(item, DatasetItem) and (self.asked or self.ids != {}):
            try:
                truth = self._renamed(truth_of(item.info, (size[0], size[1]), self.background))
            except InputError as error:
                if self.asked:
                    raise
                log.warning('%s: its objects are left out: %s', sample.name, error)
                return sample
        else:
            return sample
        return replace(sample, truth=truth)

    def _renamed(self, truth: Truth) -> Truth:
        if self.ids is None:
            return truth
        regions = (
            replace(region, label=self.ids.get(region.label, -1)) if region.label is not None else region
            for region in truth.regions
        )
        return replace(truth, regions=tuple(regions))


def find_truth(analysis: MapAnalysis, masks: str | Path | None, items: Sequence[AnyItem]) -> TruthSource | None:
    """What tells where the objects of a run's images are; None where nothing needs it.

    Args:
        analysis: The analysis.
        masks: The folder of masks that the user named.
        items: The images.

    Raises:
        InputError: The folder is not one, nothing needs it, or there is neither a folder nor a dataset.
    """
    wanting = analysis.needs_truth
    if masks is not None and not wanting:
        raise InputError(
            'no metric needs masks',
            accepted='energy, pointing, iou or bestiou among ' + param('metrics'),
            hint='leave it out',
            parameter='masks',
        )
    if not wanting:
        return None
    if masks is None and not isinstance(items, DatasetItems):
        raise no_truth(wanting)
    return TruthSource(items, None if masks is None else MaskFolder(masks))


def known_objects(items: Sequence[AnyItem]) -> TruthSource | None:
    """What tells a detector's true positives, false positives and misses; None where nothing knows objects.

    Args:
        items: The images of a run.
    """
    looked_at = (item for item in items[:_LOOKED_AT] if isinstance(item, DatasetItem))
    if not any(len(item.info.get(key) or ()) for item in looked_at for key in ('instances', 'gt_bboxes')):
        return None
    return TruthSource(items, asked=False)
