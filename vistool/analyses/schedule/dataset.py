"""The size of a config's training set, from its annotations alone."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from typing import Any

from vistool.analyses.schedule.scopes import in_scope
from vistool.config import Source
from vistool.errors import InputError

log = logging.getLogger('vistool')

_PUBLISHED = {'CIFAR10': 50_000, 'CIFAR100': 50_000, 'MNIST': 60_000, 'FashionMNIST': 60_000, 'ImageNet': 1_281_167}
_SLOW = 5.0  # seconds after which a hint is due


def read_size(source: Source) -> int:
    """Images in the training set: its annotations are read, no image is, and nothing is downloaded.

    Where the files are absent, the training sets that everybody has in one size are taken at that size, with a warning.

    Raises:
        InputError: If the dataset cannot be read and its size is not known.
    """
    settings = (source.config.get('train_dataloader') or {}).get('dataset')
    if not isinstance(settings, Mapping):
        raise InputError(
            f'{source.name} names no training set', hint='give its size with --dataset-size', argument='config'
        )
    start = time.monotonic()
    try:
        with in_scope(source.config):
            from mmengine.registry import DATASETS

            size = len(DATASETS.build(_without_pipeline(settings)))
    except Exception as error:  # a dataset is foreign code, and its files may be anything
        return _published(source, settings, error)
    if time.monotonic() - start > _SLOW:
        log.info('reading the annotations took a while; --dataset-size %d skips it', size)
    return size


def _without_pipeline(settings: Mapping[str, Any]) -> Any:
    """The dataset's settings without transforms, which may import much, and without downloads."""
    plain: Any = copy.deepcopy(settings)

    def strip(node: Any) -> None:
        if isinstance(node, dict):
            if 'pipeline' in node:
                node['pipeline'] = []
            for value in node.values():
                strip(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                strip(value)

    strip(plain)
    if _name(plain) in ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'):
        plain['download'] = False
    return plain


def _published(source: Source, settings: Mapping[str, Any], error: Exception) -> int:
    name = _name(settings)
    whole = settings.get('split', 'train') in ('', 'train') and not settings.get('indices')
    own = settings.get('ann_file') or settings.get('test_mode')
    if name in _PUBLISHED and whole and not own:
        size = _PUBLISHED[name]
        log.warning('%s is not here; taking its published %d images (--dataset-size gives another size)', name, size)
        return size
    reason = f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'
    raise InputError(
        f'the training set of {source.name} cannot be read ({reason})',
        hint='give its size with --dataset-size',
        argument='config',
    ) from error


def _name(settings: Mapping[str, Any]) -> str:
    kind = settings.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
