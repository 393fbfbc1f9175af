"""Which samples of a dataset are shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vistool.data.datasets.annotations import class_ids
from vistool.errors import InputError, close_matches

Mode = Literal['original', 'transformed', 'concat', 'pipeline', 'batch']


def choose(
    samples: Any,
    indices: Sequence[str] = (),
    classes: Sequence[str] = (),
    per_class: int | None = None,
    shuffle: bool = False,
    number: int | None = None,
) -> list[int]:
    """Indices of the samples to show, in order.

    Args:
        samples: Has a length, ``classes``, ``seed`` and ``label(index)``; labels are read only where they are needed.
        indices: ``7``, ``-1``, ``10-19``, ``1,2,5``; none means all.
        classes: Ids or names (one whole synonym); a sample of any of them is taken.
        per_class: At most so many of each class.
        shuffle: Whether the order is drawn, from the seed.
        number: At most so many in all; None: no limit.

    Raises:
        InputError: An index is out of range, a class does not exist, or nothing is left.
    """
    for name, value in (('per_class', per_class), ('show_number', number)):
        if value is not None and value < 1:
            raise InputError(f'{value} is no number of images', accepted='1 or more', parameter=name)
    pool = at_indices(indices, len(samples)) if indices else list(range(len(samples)))
    if shuffle:
        pool = np.random.default_rng(abs(samples.seed)).permutation(pool).tolist()
    if classes or per_class is not None:
        pool = of_classes(samples, pool, classes, per_class, number)
    if not pool:
        raise InputError(f'no sample of {" ".join(classes)!r}' if classes else 'the dataset is empty')
    return pool if number is None else pool[:number]


def at_indices(texts: Sequence[str], length: int) -> list[int]:
    """The places that ``7``, ``-1``, ``10-19`` and ``1,2,5`` name among ``length``, in the order given."""
    found: list[int] = []
    for text in (part for each in texts for part in str(each).split(',') if part):
        span = re.fullmatch(r'(\d+)-(\d+)', text)
        if not span and not re.fullmatch(r'[+-]?\d+', text):
            raise InputError(f'{text!r} is no index', accepted='7, -1, 10-19 or 1,2,5', parameter='indices')
        ends = [int(each) for each in span.groups()] if span else [int(text)]
        for index in ends:
            if not -length <= index < length:
                raise InputError(
                    f'no sample {index} in a dataset of {length}', accepted=f'0 to {length - 1}', parameter='indices'
                )
        found += range(ends[0], ends[1] + 1) if span else [ends[0] % length]
    return found


def of_classes(
    samples: Any, pool: Sequence[int], classes: Sequence[str], per_class: int | None, number: int | None
) -> list[int]:
    """Those of ``pool`` that are of any of the ``classes``, at most ``per_class`` of each and ``number`` in all."""
    wanted = {_class_id(text, samples.classes) for text in classes}
    counts: Counter[int] = Counter()
    kept: list[int] = []
    for index in pool:
        ids = set(class_ids(samples.label(index)))
        counted = (ids & wanted) if wanted else ids
        if (wanted and not counted) or (per_class and counted and all(counts[each] >= per_class for each in counted)):
            continue
        counts.update(counted)
        kept.append(index)
        full = per_class and wanted and all(counts[each] >= per_class for each in wanted)
        if full or len(kept) == number:
            break  # labels of a large dataset take long to read: no further than needed
    return kept


def _class_id(text: str, names: Sequence[str] | None) -> int:
    if re.fullmatch(r'[+-]?\d+', text):
        index = int(text)
        if index < 0 or (names is not None and index >= len(names)):
            limit = f'0 to {len(names) - 1}' if names else 'ids from 0'
            raise InputError(f'no class {index}', accepted=limit, parameter='classes')
        return index
    if names is None:
        raise InputError(f'class {text!r}: the dataset has no class names', accepted='ids', parameter='classes')
    synonyms = [{_plain(part) for part in [entry, *entry.split(',')]} for entry in names]
    hits = [index for index, each in enumerate(synonyms) if _plain(text) in each]
    if len(hits) > 1:
        listed = ', '.join(f'{index} ({names[index]})' for index in hits)
        raise InputError(f'class {text!r} is ambiguous: {listed}', hint='give the id', parameter='classes')
    if not hits:
        pool = [part.strip() for entry in names for part in entry.split(',')]
        hint = close_matches(text, pool) or f'the first are {", ".join(entry.split(",")[0] for entry in names[:5])}'
        raise InputError(f'no class {text!r}', accepted='an id or a whole class name', hint=hint, parameter='classes')
    return hits[0]


def _plain(name: str) -> str:
    return ' '.join(name.lower().replace('_', ' ').split())
