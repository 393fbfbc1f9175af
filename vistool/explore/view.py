"""What a page asks for, as typed values, and the command that draws the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vistool.errors import InputError, close_matches

T = TypeVar('T')

KINDS = ('attention', 'similarity', 'pca', 'cam', 'features', 'patches')
MOST_CHANNELS = 64
_LONGEST = 200


@dataclass(frozen=True)
class View:
    """One view of a photo, as a page asks for it.

    Attributes:
        kind: One of :data:`KINDS`.
        layer: Position in the layers that the page was told of; None: the default.
        head: Of attention: ``'mean'``, ``'max'`` or a number.
        point: ``(x, y)`` in pixels of the picture; None: no point.
        query: Of attention without a point: ``'cls'``, ``'mean'`` or ``''`` for the command's default.
        method: Of attention or CAM; ``''`` for the default.
        target: Class id; None: the predicted class.
        instance: Number of a detector's prediction; None: the surest.
        channels: Of features: these channels; none: the strongest.
        count: Of features: how many of the strongest.
        beside: Whether the command draws all models beside each other.
    """

    kind: str
    layer: int | None = None
    head: str = 'mean'
    point: tuple[float, float] | None = None
    query: str = ''
    method: str = ''
    target: int | None = None
    instance: int | None = None
    channels: tuple[int, ...] = ()
    count: int = 12
    beside: bool = False

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> View:
        """Reads the parameters of an address.

        Raises:
            InputError: A value is not accepted.
        """
        kind = given.get('view', '')
        if kind not in KINDS:
            problem, hint = f'unknown view {kind[:_LONGEST]!r}', close_matches(kind[:40], KINDS)
            raise InputError(problem, accepted=', '.join(KINDS), hint=hint)
        for name, value in given.items():
            if len(value) > _LONGEST:
                raise InputError(f'a value of {len(value)} characters', accepted=f'at most {_LONGEST}', parameter=name)
        method = given.get('method', '')
        query = given.get('query', '')
        if query not in ('', 'cls', 'mean'):
            raise InputError(f'unknown query {query!r}', accepted='cls, mean', parameter='queries')
        return cls(
            kind,
            _read(given, 'layer', _whole),
            _read(given, 'head', _head) or 'mean',
            _point(given),
            query,
            method,
            _read(given, 'target', _whole),
            _read(given, 'instance', _whole),
            _read(given, 'channel', _channels) or (),
            min(_read(given, 'count', _whole) or 12, MOST_CHANNELS),
            given.get('beside', '') in ('1', 'true'),
        )


def _read(given: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    text = given.get(name, '').strip()
    if not text:
        return None
    try:
        return read(text)
    except ValueError:
        raise InputError(f'{text!r} is not accepted', accepted=_ACCEPTED[name], parameter=name) from None


_ACCEPTED = {
    'layer': 'a position in the list of layers, from 0',
    'head': 'mean, max, or the number of a head',
    'target': 'a class id, from 0',
    'instance': 'the number of a prediction, from 0',
    'channel': f'up to {MOST_CHANNELS} numbers of channels, from 0, with commas between',
    'count': f'1 to {MOST_CHANNELS}',
    'x': 'a number of pixels',
    'y': 'a number of pixels',
}


def _whole(text: str) -> int:
    if not re.fullmatch(r'[0-9]{1,9}', text):
        raise ValueError(text)
    return int(text)


def _head(text: str) -> str:
    return text if text in ('mean', 'max') else str(_whole(text))


def _channels(text: str) -> tuple[int, ...]:
    found = tuple(dict.fromkeys(_whole(part) for part in text.split(',')))
    if len(found) > MOST_CHANNELS:
        raise ValueError(text)
    return found


def _coordinate(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or abs(value) > 1e6:
        raise ValueError(text)
    return round(value, 2)


def _point(given: Mapping[str, str]) -> tuple[float, float] | None:
    x, y = _read(given, 'x', _coordinate), _read(given, 'y', _coordinate)
    if (x is None) != (y is None):
        raise InputError('one coordinate alone', accepted='x and y', parameter='x' if x is None else 'y')
    return None if x is None or y is None else (x, y)


@dataclass(frozen=True)
class Drawing:
    """What a command draws for a view.

    Attributes:
        tool: The command's name.
        parameters: Its parameters → their values as a user types them; those left out keep their defaults.
    """

    tool: str
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)


def number(value: float) -> str:
    """A coordinate as a user types it: ``'120'``, ``'12.25'``."""
    return f'{value:.2f}'.rstrip('0').rstrip('.')
