"""What a dataset knows of a sample before any image is opened: file, label, names of classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

#: A class id, several, a score for each class, one label per task, or none.
Label = int | tuple[int, ...] | np.ndarray | dict[str, Any] | None


def info_of(dataset: Any, index: int) -> dict[str, Any]:
    """The annotations of one sample, through any wrappers; a copy, and the pipeline does not run."""
    if hasattr(dataset, 'get_data_info'):
        return dict(dataset.get_data_info(index))
    if hasattr(dataset, 'data_list'):
        return {**copy.deepcopy(dataset.data_list[index]), 'sample_idx': index}
    inner, place = step_into(dataset, index)
    return {} if inner is None else info_of(inner, place)


def step_into(dataset: Any, index: int) -> tuple[Any, int]:
    """The dataset inside a wrapper that holds a sample, and its place there; ``(None, index)`` where there is none."""
    if getattr(dataset, 'datasets', None):
        which, place = 0, index
        while place >= len(dataset.datasets[which]):
            place -= len(dataset.datasets[which])
            which += 1
        return dataset.datasets[which], place
    inner = getattr(dataset, 'dataset', None)
    if inner is None:
        return None, index
    if hasattr(dataset, 'indices'):  # torch's Subset
        return inner, int(dataset.indices[index])
    if hasattr(dataset, 'repeat_indices'):  # ClassBalancedDataset
        return inner, int(dataset.repeat_indices[index])
    return inner, index % len(inner)  # RepeatDataset; KFoldDataset keeps the subset itself


def base_of(dataset: Any, index: int) -> tuple[Any, int]:
    """The innermost dataset that holds a sample, and the sample's place there."""
    while True:
        inner, place = step_into(dataset, index)
        if inner is None:
            return dataset, index
        dataset, index = inner, place


def bases(dataset: Any) -> Iterator[Any]:
    """The innermost datasets, each once."""
    inner = getattr(dataset, 'datasets', None) or [each for each in [getattr(dataset, 'dataset', None)] if each]
    if not inner:
        yield dataset
        return
    seen: set[int] = set()
    for each in inner:
        for base in bases(each):
            if id(base) not in seen:
                seen.add(id(base))
                yield base


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """Names of the classes by id, or None where the dataset has none."""
    meta = getattr(dataset, 'metainfo', None) or {}
    names = meta.get('classes') or meta.get('CLASSES')
    if not names and (inner := getattr(dataset, 'dataset', None)) is not None:
        return class_names(inner)
    return tuple(map(str, names)) if names and not isinstance(names, str) else None


def label_of(info: Mapping[str, Any]) -> Label:
    """A sample's label, of whatever kind."""
    if (score := info.get('gt_score')) is not None:
        return np.asarray(score, np.float64)
    label = info.get('gt_label')
    if label is None and info.get('instances'):  # detection: the classes that occur
        found = {int(each['bbox_label']) for each in info['instances'] if 'bbox_label' in each}
        return tuple(sorted(found))
    return _label(label)


def _label(label: Any) -> Label:
    if label is None or isinstance(label, str):
        return None
    if isinstance(label, Mapping):
        return dict(label)
    values = np.asarray(label)
    if values.dtype.kind not in 'iub':
        return values.astype(np.float64) if values.dtype.kind == 'f' and values.ndim == 1 else None
    return int(values) if values.ndim == 0 else tuple(int(each) for each in values.reshape(-1))


def class_ids(label: Label) -> tuple[int, ...]:
    """The classes that a label stands for; of scores, those above zero."""
    if isinstance(label, int):
        return (label,)
    if isinstance(label, np.ndarray):
        return tuple(int(each) for each in np.flatnonzero(label > 0))
    if isinstance(label, dict):
        return ()
    return label or ()


def label_text(label: Label, names: tuple[str, ...] | None, most: int = 4) -> str:
    """A label as people read it: «tabby», «cat · dog», «0.70 tabby + 0.30 espresso»; ``''`` for none."""
    lines = label_lines(label, names, most)
    return ' + '.join(lines) if isinstance(label, np.ndarray) else ' · '.join(lines)


def label_lines(label: Label, names: tuple[str, ...] | None, most: int = 4) -> list[str]:
    """The same in parts: a line for each score and each task; all classes of a plain label on one."""
    if label is None:
        return []
    if isinstance(label, dict):
        return [f'{task} {_task_text(value)}' for task, value in label.items()]
    ids = class_ids(label)
    if isinstance(label, np.ndarray):
        ranked = sorted(ids, key=lambda index: -label[index])
        if len(ranked) == 1 and label[ranked[0]] == 1:
            return [class_name(ranked[0], names)]
        parts = [f'{label[index]:.2f} {class_name(index, names)}' for index in ranked[:most]]
        return [*parts, '…'] if len(ranked) > most else parts
    parts = [class_name(index, names) for index in ids[:most]]
    parts += [f'{len(ids) - most} more'] if len(ids) > most else []
    return [' · '.join(parts)] if parts else []


def class_name(index: int, names: tuple[str, ...] | None) -> str:
    """The first synonym of a class, or ``class 7`` where it has no name."""
    if names is None or not 0 <= index < len(names):
        return f'class {index}'
    return names[index].split(',')[0].strip()


def _task_text(value: Any) -> str:
    return ','.join(map(str, value)) if isinstance(value, (list, tuple, np.ndarray)) else str(value)
