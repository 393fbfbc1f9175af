"""From a config and a phase to its dataset; what is missing is said in one line."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vistool.data.datasets.annotations import Label, class_ids, class_name, class_names, info_of, label_of
from vistool.errors import InputError, close_matches, param

PHASES = ('train', 'val', 'test')


def open_dataset(config: Any, phase: str, with_pipeline: bool = True) -> Any:
    """The dataset that a config names for a phase, built and with its annotations read; no image is opened.

    Args:
        config: An mmengine Config; its ``default_scope`` says whose datasets are meant.
        phase: ``train``, ``val`` or ``test``.
        with_pipeline: Without it no transform is built, for those who read images in their own way.

    Raises:
        InputError: The config has no such phase, or the dataset or its files are not there.
    """
    described = dataset_config(config, phase)
    if not with_pipeline:
        described = _without_pipelines(described)
    scope = scope_of(config)
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        try:
            _register(scope)
            with DATASETS.switch_scope_and_registry(None) as registry:
                offline = _offline(described, registry)
            dataset = DATASETS.build(offline)
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
        except Exception as error:
            raise _unopened(described, phase, error) from error
    return dataset


def dataset_config(config: Any, phase: str) -> dict[str, Any]:
    """The dataset's config for a phase, as plain dictionaries.

    Raises:
        InputError: The config has none.
    """
    if phase not in PHASES:
        raise InputError(f'unknown phase {phase!r}', accepted=', '.join(PHASES), parameter='phase')
    loader = config.get(f'{phase}_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    if not dataset:
        there = [name for name in PHASES if (config.get(f'{name}_dataloader') or {}).get('dataset')]
        hint = '' if there else 'give a config with a train_dataloader, val_dataloader or test_dataloader'
        raise InputError(
            f'the config has no {phase} dataset ({phase}_dataloader.dataset)',
            accepted=', '.join(there),
            hint=hint,
            parameter='phase',
        )
    return _plain(dataset)


def scope_of(config: Any) -> str:
    """Whose registries a config's names are looked up in; mmpretrain's where it does not say."""
    scope = config.get('default_scope') or 'mmpretrain'
    return 'mmpretrain' if scope == 'mmcls' else str(scope)


def _register(scope: str) -> None:
    """Import a package's datasets and transforms, as its own tools do before they build any."""
    if scope == 'mmengine':
        return
    import importlib

    try:
        importlib.import_module(f'{scope}.datasets')
    except ModuleNotFoundError as error:
        if error.name != scope:
            raise
        raise InputError(
            f'the config is for the package {scope}, which is not installed',
            hint=f'install {scope}',
            parameter='config',
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return type(value)(_plain(each) for each in value) if type(value) in (list, tuple) else value


def _without_pipelines(value: Any) -> Any:
    """A dataset's config with every pipeline empty, also inside wrappers."""
    if isinstance(value, dict):
        return {key: [] if key == 'pipeline' else _without_pipelines(each) for key, each in value.items()}
    return [_without_pipelines(each) for each in value] if isinstance(value, list) else value


def _offline(described: Any, registry: Any) -> Any:
    """Datasets that fetch what is missing without being asked are told not to; ``download=True`` in a config stands."""
    if isinstance(described, list):
        return [_offline(each, registry) for each in described]
    if not isinstance(described, dict):
        return described
    changed = {key: _offline(each, registry) if key in _INNER else each for key, each in described.items()}
    kind = described.get('type')
    cls = registry.get(kind) if isinstance(kind, str) else kind
    if inspect.isclass(cls) and any('download' in _parameters(base) for base in cls.__mro__):
        changed.setdefault('download', False)
    return changed


def _parameters(cls: type) -> tuple[str, ...]:
    own = vars(cls).get('__init__')
    return tuple(inspect.signature(own).parameters) if own is not None and cls is not object else ()


_INNER = ('dataset', 'datasets')


def _unopened(described: dict[str, Any], phase: str, error: Exception) -> InputError:
    """Why a dataset could not be opened: what is missing, else what its class said."""
    if isinstance(error, InputError):
        return error
    names = ', '.join(_types(described))
    missing = getattr(error, 'filename', None) or next(_missing(described), None)
    inner = '' if 'data_root' in described else 'dataset.'
    option = f'{param("options")} {phase}_dataloader.dataset.{inner}data_root=FOLDER'
    if missing:
        here = os.path.dirname(str(missing))
        near = close_matches(os.path.basename(str(missing)), os.listdir(here)) if os.path.isdir(here) else ''
        return InputError(
            f'the {phase} dataset {names} needs {str(missing)!r}, which is not there',
            hint=near or f'put the data there, or use {option}',
            parameter='config',
        )
    text = ' '.join(str(error).split()) or type(error).__name__
    return InputError(f'the {phase} dataset {names} cannot be opened: {text}', parameter='config')


def _types(described: Any) -> Iterator[str]:
    """The class names of a dataset, from the wrapper inwards."""
    if isinstance(described, list):
        for each in described:
            yield from _types(each)
    elif isinstance(described, dict):
        kind = described.get('type', 'dataset')
        yield kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
        for key in _INNER:
            yield from _types(described.get(key))


def _missing(described: Any) -> Iterator[str]:
    """Folders and files that a dataset's config names and that do not exist."""
    if isinstance(described, list):
        for each in described:
            yield from _missing(each)
    if not isinstance(described, dict):
        return
    root = str(described.get('data_root') or '')
    if '://' in root:
        return
    prefix = described.get('data_prefix')
    named = [described.get('ann_file'), *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    for path in [root, *(os.path.join(root, name) for name in named if isinstance(name, str) and name)]:
        if path and '://' not in path and not os.path.exists(os.path.expanduser(path)):
            yield path
    for key in _INNER:
        yield from _missing(described.get(key))


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
