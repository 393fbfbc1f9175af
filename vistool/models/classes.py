"""Class names of a network, and the class ids that a user asks for."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vistool.data.dataloaders import read_loader
from vistool.data.datasets import classes_called, read_class
from vistool.errors import InputError, close_matches, counted, param
from vistool.records import find_path, read_text

if TYPE_CHECKING:
    from mmengine import Config

log = logging.getLogger('vistool')


OWN = 'own'
"""The target that stands for each compared model's own prediction."""


def fitting_names(name: str, found: Sequence[Sequence[str] | None], count: int | None) -> tuple[str, ...] | None:
    """The first of several lists of class names with one name for each output; a warning if it is not the first list.

    Args:
        name: The model's name, for the message.
        found: Lists of names in order of preference; those that are None or empty are ignored.
        count: The number of outputs; None if it is unknown. One output may stand for two classes.
    """
    known = [tuple(names) for names in found if names]
    fitting = [names for names in known if count is None or len(names) == count or (count == 1 and len(names) == 2)]
    if known and count is not None and known[0] not in fitting:
        instead = 'others are used' if fitting else 'classes are shown by their number'
        log.warning('%s: %s for %s; %s', name, counted(len(known[0]), 'class name'), counted(count, 'output'), instead)
    return fitting[0] if fitting else None


def check_names(name: str, classes: Sequence[str], count: int, parameter: str) -> None:
    """Refuses class names of the caller's own that are not one for each output; of one output, two are accepted.

    Raises:
        InputError: Their number is another one.
    """
    if len(classes) != count and (count, len(classes)) != (1, 2):
        raise InputError(
            f'{counted(len(classes), "class name")} for {counted(count, "output")} of {name}',
            accepted='one for each output, in their order',
            parameter=parameter,
        )


def read_names(file: str | Path, parameter: str) -> tuple[str, ...]:
    """The class names in a text file, one a line, in the order of the ids.

    Raises:
        InputError: It cannot be read, has no names, or an empty one between others.
    """
    path = find_path(file, parameter)
    names = [line.strip() for line in read_text(path, parameter).rstrip().splitlines()]
    if not names:
        raise InputError(f'{path} has no names', accepted='a class name on each line', parameter=parameter)
    if '' in names:
        raise InputError(f'{path}, line {names.index("") + 1}: no name', parameter=parameter)
    return tuple(names)


def dataset_classes(config: Config) -> tuple[str, ...] | None:
    """The class names of the config's dataset: its own ``metainfo``, its ``classes``, or the METAINFO of its type."""

    def named(loader: Mapping[str, Any]) -> tuple[str, ...] | None:
        dataset = loader.get('dataset') or {}
        while inner := dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None):
            dataset = inner  # wrappers (RepeatDataset, KFoldDataset, …) hold the real one
        own = dataset.get('metainfo') or {}
        found = (_listed(own), _read(dataset.get('classes')), _listed(_metainfo_of(dataset, config)))
        return next(filter(None, found), None)

    return next(filter(None, (named(read_loader(config, phase, named)) for phase in ('test', 'val', 'train'))), None)


def _listed(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = meta.get('classes', meta.get('CLASSES'))
    return tuple(map(str, names)) if names and not isinstance(names, str) else None


def _read(classes: Any) -> tuple[str, ...] | None:
    """A dataset's ``classes``: names, or a text file with one a line."""
    if isinstance(classes, str):
        path = Path(classes).expanduser()
        return tuple(path.read_text(encoding='utf-8').splitlines()) if path.is_file() else None
    return tuple(map(str, classes)) if classes else None


def _metainfo_of(dataset: Mapping[str, Any], config: Config) -> Mapping[str, Any]:
    """The METAINFO of a dataset's type."""
    from mmengine.registry import DATASETS

    from vistool.registry import in_scope

    kind = dataset.get('type')
    if isinstance(kind, str):
        with in_scope(config), DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return getattr(kind, 'METAINFO', None) or {}


@dataclass(frozen=True)
class Chosen:
    """The classes (or values) to explain for each image of a batch.

    Attributes:
        ids: int64 ``(B, T)``.
        signs: ``(B, T)``, 1, or −1 where the evidence against is asked for.
        asked: bool ``(B, T)``, which of them are asked for where images have different numbers of them (the others
            repeat the image's first); None: all.
    """

    ids: Tensor
    signs: Tensor
    asked: Tensor | None = None

    @classmethod
    def decoded(cls, chosen: Tensor, asked: Tensor | None = None) -> Chosen:
        """From what :func:`resolve_classes` returns."""
        against = chosen < 0
        return cls(torch.where(against, ~chosen, chosen), torch.where(against, -1, 1), asked)


def resolve_classes(
    wanted: Sequence[int | str], scores: Tensor, names: Sequence[str] | None, labels: Sequence[int | None]
) -> Tensor:
    """The class ids to explain for each image.

    Args:
        wanted: Ids, names (one whole synonym, case-insensitive), ``'topN'``, or ``'label'`` for the ground truth; empty
            means ``'top1'``, and so does ``'own'``, which other models of a comparison do not take over. ``'id:10'``
            and ``'name:10'`` tell an id from a name that is a number; a minus before a name asks for the evidence
            against the class.
        scores: ``(B, C)``.
        names: Class names by id, with synonyms separated by commas; None if unknown.
        labels: Ground truth per image, None if unknown.

    Returns:
        int64 ``(B, T)``, ``~id`` for the evidence against a class; see :meth:`Chosen.decoded`. A class that is
        requested twice, for example as an id and as top 1, appears once if that holds for all images.

    Raises:
        InputError: An id is out of range, or a name is unknown or ambiguous.
    """
    columns: list[Tensor] = []
    for target in wanted or ['top1']:
        columns += _columns(target.strip() if isinstance(target, str) else target, scores, names, labels)
    unique: list[Tensor] = []
    for column in columns:
        if not any(torch.equal(column, other) for other in unique):
            unique.append(column)
    return torch.stack(unique, 1)


def _columns(
    target: int | str, scores: Tensor, names: Sequence[str] | None, labels: Sequence[int | None]
) -> list[Tensor]:
    batch, count = scores.shape
    if isinstance(target, str):
        against = re.fullmatch(r'-\s*([^\d\s].*)', target)
        if against and not classes_called(target, names or ()):
            return [~column for column in _columns(against[1], scores, names, labels)]
        if ranking := re.fullmatch(r'top[- ]?(\d{1,9})', target, re.IGNORECASE):
            k = int(ranking[1])
            if not 1 <= k <= count:
                raise InputError(
                    f'{target!r} of {counted(count, "class", "classes")}',
                    accepted=f'top1 to top{count}',
                    parameter='targets',
                )
            return list(scores.topk(k, dim=1).indices.unbind(1))
        if target.lower() == OWN and class_id(OWN, names, missing_ok=True) is None:
            return [scores.argmax(1)]
        if target.lower() == 'label' and class_id('label', names, missing_ok=True) is None:
            return [_labels(labels, count, scores.device)]
    index = read_class(target, names, 'targets') if isinstance(target, str) else target
    known = class_id(index, names) if isinstance(index, str) else index
    assert known is not None
    if not 0 <= known < count:
        raise InputError(f'no class {known}', accepted=f'0 to {count - 1}', parameter='targets')
    return [torch.full((batch,), known, device=scores.device)]


def _labels(labels: Sequence[int | None], count: int, device: torch.device) -> Tensor:
    known = [label for label in labels if label is not None]
    if len(known) < len(labels):
        raise InputError(
            "'label' asked for, but the image has no known label",
            accepted='ids, names, top3',
            hint="give an image of the config's dataset (@val), or a .txt list with its class after a comma",
            parameter='targets',
        )
    if wrong := [label for label in known if not 0 <= label < count]:
        raise InputError(
            f'the label {wrong[0]} of the image is not one of the {counted(count, "class", "classes")} of the network',
            hint=f'check the dataset, and which output holds the scores ({param("output")})',
            parameter='targets',
        )
    return torch.tensor(known, device=device)


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
