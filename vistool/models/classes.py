"""Class names of a network, and the class ids that a user asks for."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vistool.data.datasets import classes_called
from vistool.errors import InputError, close_matches

if TYPE_CHECKING:
    from mmengine import Config

log = logging.getLogger('vistool')


def fitting_names(name: str, found: Sequence[Sequence[str] | None], count: int | None) -> tuple[str, ...] | None:
    """The first of several lists of class names with one name for each output; a warning if it is not the first list.

    Args:
        name: The model's name, for the message.
        found: Lists of names in order of preference; those that are None or empty are ignored.
        count: The number of outputs; None if it is unknown.
    """
    known = [tuple(names) for names in found if names]
    fitting = [names for names in known if count is None or len(names) == count]
    if known and known[0] not in fitting:
        instead = 'others are used' if fitting else 'classes are shown by their number'
        log.warning('%s: %d class names do not belong to %d outputs; %s', name, len(known[0]), count, instead)
    return fitting[0] if fitting else None


def dataset_classes(config: Config) -> tuple[str, ...] | None:
    """The class names of the config's dataset: its own ``metainfo``, else the METAINFO of its type."""
    from mmengine.registry import DATASETS

    from vistool.registry import in_scope

    for phase in ('test', 'val', 'train'):
        dataset = (config.get(f'{phase}_dataloader') or {}).get('dataset') or {}
        while dataset.get('dataset'):  # wrappers (RepeatDataset, KFoldDataset, …) hold the real one
            dataset = dataset['dataset']
        meta = dataset.get('metainfo') or {}
        if not meta and isinstance(dataset.get('type'), str):
            with in_scope(config), DATASETS.switch_scope_and_registry(None) as registry:
                kind = registry.get(dataset['type'])
            meta = getattr(kind, 'METAINFO', None) or {}
        names = meta.get('classes', meta.get('CLASSES'))
        if names and not isinstance(names, str):
            return tuple(names)
    return None


def resolve_classes(
    wanted: Sequence[int | str], scores: Tensor, names: Sequence[str] | None, labels: Sequence[int | None]
) -> Tensor:
    """The class ids to explain for each image.

    Args:
        wanted: Ids, names (one whole synonym, case-insensitive), ``'topN'``, or ``'label'`` for the ground truth;
            empty means ``'top1'``.
        scores: ``(B, C)``.
        names: Class names by id, with synonyms separated by commas; None if unknown.
        labels: Ground truth per image, None if unknown.

    Returns:
        int64 ``(B, T)``. A class that is requested twice, for example as an id and as top 1, appears once if that holds
        for all images.

    Raises:
        InputError: An id is out of range, or a name is unknown or ambiguous.
    """
    columns: list[Tensor] = []
    for target in wanted or ['top1']:
        columns += _columns(str(target).strip(), scores, names, labels)
    unique: list[Tensor] = []
    for column in columns:
        if not any(torch.equal(column, other) for other in unique):
            unique.append(column)
    return torch.stack(unique, 1)


def _columns(target: str, scores: Tensor, names: Sequence[str] | None, labels: Sequence[int | None]) -> list[Tensor]:
    batch, count = scores.shape
    if ranking := re.fullmatch(r'top[- ]?(\d+)', target, re.IGNORECASE):
        k = int(ranking[1])
        if not 1 <= k <= count:
            raise InputError(f'{target!r} of {count} classes', accepted=f'top1 to top{count}', parameter='targets')
        return list(scores.topk(k, dim=1).indices.unbind(1))
    if target.lower() == 'label' and class_id('label', names, missing_ok=True) is None:
        if any(label is None for label in labels):
            raise InputError(
                "'label' asked for, but the image has no known label",
                accepted='ids, names, top3',
                hint="give an image of the config's dataset (@val)",
                parameter='targets',
            )
        return [torch.tensor(labels, device=scores.device)]
    index = int(target) if re.fullmatch(r'[+-]?\d+', target) else class_id(target, names)
    assert index is not None
    if not 0 <= index < count:
        raise InputError(f'no class {index}', accepted=f'0 to {count - 1}', parameter='targets')
    return [torch.full((batch,), index, device=scores.device)]


def class_id(name: str, names: Sequence[str] | None, *, missing_ok: bool = False) -> int | None:
    """The id of the class one of whose synonyms is ``name``, case-insensitively.

    Raises:
        InputError: There is none (the error lists close matches; with ``missing_ok``, None is returned) or several.
    """
    hits = classes_called(name, names or ())
    if len(hits) == 1:
        return hits[0]
    if hits:
        assert names is not None
        listed = ', '.join(f'{index} ({names[index]})' for index in hits)
        raise InputError(f'class {name!r} is ambiguous: {listed}', hint='give the id', parameter='targets')
    if missing_ok:
        return None
    if not names:
        raise InputError(
            f'class {name!r}: the class names are not known here',
            accepted='an id, or top3',
            parameter='targets',
        )
    pool = [part for entry in names for part in (piece.strip() for piece in entry.split(','))]
    raise InputError(
        f'no class {name!r}',
        accepted=f'an id from 0 to {len(names) - 1}, a whole class name, top3',
        hint=close_matches(name, pool),
        parameter='targets',
    )
