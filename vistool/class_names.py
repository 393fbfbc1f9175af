"""The names of a network's classes: the checkpoint's or the dataset's, where there is one for each output."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine import Config

log = logging.getLogger('vistool')


def fitting_names(name: str, found: Sequence[Sequence[str] | None], count: int | None) -> tuple[str, ...] | None:
    """The first of several lists of class names that has one name for each output; a warning where it is not the first.

    Args:
        name: The model's, for the message.
        found: Lists of names, the best first; those that are None or empty are passed over.
        count: How many outputs there are; None where nobody knows.
    """
    known = [tuple(names) for names in found if names]
    fitting = [names for names in known if count is None or len(names) == count]
    if known and known[0] not in fitting:
        told = 'others are taken' if fitting else 'classes are told by their number'
        log.warning('%s: %d class names do not belong to %d outputs; %s', name, len(known[0]), count, told)
    return fitting[0] if fitting else None


def dataset_classes(config: Config) -> tuple[str, ...] | None:
    """The class names of the config's dataset: its own ``metainfo``, else the METAINFO of its type."""
    from mmengine.registry import DATASETS, DefaultScope

    for phase in ('test', 'val', 'train'):
        dataset = (config.get(f'{phase}_dataloader') or {}).get('dataset') or {}
        while dataset.get('dataset'):  # wrappers (RepeatDataset, KFoldDataset, …) hold the real one
            dataset = dataset['dataset']
        meta = dataset.get('metainfo') or {}
        if not meta and isinstance(dataset.get('type'), str):
            scope = DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine')
            with scope, DATASETS.switch_scope_and_registry(None) as registry:
                kind = registry.get(dataset['type'])
            meta = getattr(kind, 'METAINFO', None) or {}
        names = meta.get('classes', meta.get('CLASSES'))
        if names and not isinstance(names, str):
            return tuple(names)
    return None
