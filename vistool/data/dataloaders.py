"""The dataloaders of a config: one for each phase, also where a config lists several, as for ``MultiValLoop``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vistool.errors import InputError, counted, param
from vistool.records import shown

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

log = logging.getLogger('vistool')

PHASES = ('train', 'val', 'test')
LOADERS = tuple(f'{phase}_dataloader' for phase in PHASES)
"""The fields of a config that hold dataloaders."""

_LISTED = '_vistool_listed_dataloaders'
"""Where a config keeps its :class:`_Listed` by field: beside its fields, so that copies have it and dumps do not."""


@dataclass
class _Listed:
    """Several dataloaders of one phase, of which one is used.

    Attributes:
        name: What the config is called.
        used: The one.
        others: All others.
        chosen: Whether the user chose it, or was told that it is used.
    """

    name: str
    used: ConfigDict
    others: list[ConfigDict]
    chosen: bool


def options_by_stage(
    config: Config, options: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, Any], dict[str, Any]]:
    """Options by when they apply to the dataloaders that a config lists.

    Returns:
        Which dataloader of a list is meant (``val_dataloader=1``); what changes the list
        (``val_dataloader.0.batch_size=3``); and all others, as for the chosen one (``val_dataloader.batch_size=3``).
    """
    places, of_lists, others = dict[str, int](), dict[str, Any](), dict[str, Any]()
    for key, value in options.items():
        name, _, inner = key.partition('.')
        if key in LOADERS and isinstance(value, int) and isinstance(config.get(key), (list, tuple)):
            places[key] = value
        elif name in LOADERS and (inner[:1].isdigit() or (isinstance(value, (list, tuple)) and not inner)):
            of_lists[key] = value
        else:
            others[key] = value
    return places, of_lists, others


def choose_loaders(config: Config, name: str, places: Mapping[str, int]) -> None:
    """Leaves one dataloader for each phase in a config: of several, the one at its place, else the first.

    :func:`read_loader` says later that the first is used, to those who read it.

    Args:
        config: The config, which is changed; it stays as it is where it has no lists.
        name: What it is called.
        places: Positions that the user chose, by field.

    Raises:
        InputError: A place is outside its list, or an element of a list is not a dict.
    """
    listed: dict[str, _Listed] = {}
    for field in LOADERS:
        loaders = config.get(field)
        if not isinstance(loaders, (list, tuple)):
            continue
        place = places.get(field, 0)
        if isinstance(place, bool) or not 0 <= place < len(loaders):
            raise InputError(
                f'{field} of {name} has {counted(len(loaders), "entry", "entries")}, and none at {place}',
                accepted=f'0 to {len(loaders) - 1}' if loaders else 'a dict, or a list with one or more',
                parameter='options' if field in places else 'config',
            )
        if not isinstance(loaders[place], Mapping):
            raise InputError(
                f'{field}[{place}] of {name} is {shown(loaders[place])}', accepted='a dict', parameter='config'
            )
        config[field] = loaders[place]
        if len(loaders) > 1:
            others = [each for number, each in enumerate(loaders) if number != place]
            listed[field] = _Listed(name, config[field], others, field in places)
    vars(config)[_LISTED] = listed  # mmengine makes a field of what is set as an attribute


def lists_several(config: Config, field: str) -> bool:
    """Whether a config lists several dataloaders in a field, or did before one was chosen."""
    return isinstance(config.get(field), (list, tuple)) or _listed(config, field) is not None


def _listed(config: Config, field: str) -> _Listed | None:
    found: _Listed | None = getattr(config, '__dict__', {}).get(_LISTED, {}).get(field)
    return found


def phases_with_data(config: Config) -> list[str]:
    """The phases whose dataset a config names."""
    return [phase for phase in PHASES if (config.get(f'{phase}_dataloader') or {}).get('dataset')]


def read_loader(
    config: Config, phase: str, part: Callable[[Mapping[str, Any]], object] | None = None
) -> Mapping[str, Any]:
    """A phase's dataloader; a warning says once if it is the first of several, and nobody chose it.

    Args:
        config: The config.
        phase: ``'train'``, ``'val'`` or ``'test'``.
        part: What is read of a dataloader; there is no warning while the others have the same. None: all of it.

    Returns:
        The dataloader; an empty one where there is none.
    """
    field = f'{phase}_dataloader'
    found = config.get(field)
    loader = found if isinstance(found, Mapping) else {}
    listed = _listed(config, field)
    if listed is None or listed.chosen:
        return loader
    if part is not None and all(part(each) == part(listed.used) for each in listed.others):
        return loader
    listed.chosen = True
    log.warning(
        '%s: the first of %d dataloaders in %s is used; choose another with %s %s=1',
        listed.name, 1 + len(listed.others), field, param('options'), field,
    )  # fmt: skip
    return loader
