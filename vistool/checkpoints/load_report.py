"""What of a checkpoint went into a model, told in one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Mismatch(NamedTuple):
    """A tensor that both sides have, with its shape in the checkpoint and in the model."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What of a checkpoint went into a model. Names are the model's.

    Attributes:
        missing: Tensors of the model that the checkpoint lacks; they keep their initial values.
        unexpected: Tensors of the checkpoint that the model lacks; they are not used.
        mismatched: Tensors whose shapes differ; they are not used.
        loaded: Tensors that were loaded.
        renamed: How the checkpoint's names were changed to match (``"'backbone.' removed"``), or ``''``.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    loaded: tuple[str, ...] = ()
    renamed: str = ''

    def __str__(self) -> str:
        """One line for a person; ``''`` where everything fits."""
        parts = []
        if self.missing:
            parts.append(f'missing in the checkpoint, so left as initialised: {summarise(self.missing)}')
        if self.mismatched:
            shown = [f'{name} ({_size(found)}, not {_size(wanted)})' for name, found, wanted in self.mismatched[:3]]
            more = f', … {len(self.mismatched) - 3} more' if len(self.mismatched) > 3 else ''
            parts.append(f'of another shape than in the model, so not loaded: {", ".join(shown)}{more}')
        if self.unexpected:
            parts.append(f'not in the model, so not used: {summarise(self.unexpected)}')
        return '; '.join(parts)


def summarise(names: Iterable[str], most: int = 6) -> str:
    """Names in groups with their counts: ``'backbone.layer4.* (12), head.fc.bias'``."""
    names = list(names)
    groups: dict[str, list[str]] = {}
    for depth in (3, 2, 1):
        groups = {}
        for name in names:
            groups.setdefault('.'.join(name.split('.')[:depth]), []).append(name)
        if len(groups) <= most:
            break
    items = list(groups.items())
    shown = [members[0] if len(members) == 1 else f'{group}.* ({len(members)})' for group, members in items[:most]]
    rest = sum(len(members) for _, members in items[most:])
    return ', '.join(shown) + (f', … {rest} more' if rest else '')


def _size(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape)) or 'scalar'
