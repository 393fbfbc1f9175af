"""What all results have in common, and coordinates, which say what each part of a result is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from vistool import display
from vistool.errors import counted

if TYPE_CHECKING:
    from typing_extensions import Self

Coordinate = str | int | float

COORDINATES = (
    'model', 'minus', 'method', 'reduction', 'layer', 'target', 'instance', 'attribute', 'call', 'head', 'channel',
    'query', 'share', 'epoch', 'iteration',
)  # fmt: skip
"""The names of coordinates, in the order in which they are listed; a result kind of your own may have others.

``model`` and ``minus`` (the model whose map was subtracted), ``method`` of a CAM or of attention, ``reduction`` of
channels, ``layer`` (its dotted name), ``target`` (a class name), ``instance`` (its number)
and ``attribute`` (an edge), ``call``, ``head`` (a number, ``'mean'``
or ``'max'``), ``channel``, ``query``, ``share`` (of the attention that the highlighted tokens hold),
``epoch`` or ``iteration`` (how many a training had completed; one of them, where a result follows a training).
"""


class Coordinates(Mapping[str, Coordinate]):
    """An immutable, hashable mapping of coordinate names to values, listed in the order of :data:`COORDINATES`.

    >>> Coordinates(target='cup', method='gradcam')
    method='gradcam', target='cup'
    """

    __slots__ = ('_items',)

    def __init__(self, values: Mapping[str, Coordinate] | None = None, /, **more: Coordinate) -> None:
        given = {**(values or {}), **more}
        self._items = {name: given[name] for name in COORDINATES if name in given}
        if len(self._items) < len(given):
            self._items.update(sorted((name, value) for name, value in given.items() if name not in self._items))

    def __getitem__(self, name: str) -> Coordinate:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in self._items.items())


_LONGEST = 60  # characters


def _brief(value: Any) -> str:
    """A value in a few words: the shape of an array, the number of parts."""
    if hasattr(value, 'shape') and hasattr(value, 'dtype') and value.shape:
        return f'{value.dtype} {"×".join(map(str, value.shape))}'
    text = repr(value)
    if len(text) <= _LONGEST and '\n' not in text:
        return text
    if isinstance(value, Sized) and not isinstance(value, str):
        return counted(len(value), 'entry', 'entries')
    return f'{text[:_LONGEST]}…'


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Sized) and len(value) == 0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an analysis returns: frozen, and without any code that draws it.

    :mod:`vistool.visualization.kinds` says how each kind becomes a picture, and how to add a kind.

    Attributes:
        provenance: How the result came about; plain JSON values. It is written to files, never read back.
        companions: Results that belong to this one and are written beside it, such as ``stats``.
    """

    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    companions: Mapping[str, Result] = field(default_factory=dict, repr=False)

    def __init_subclass__(cls, **more: Any) -> None:
        """Gives every kind, also those of users, the short ``repr``: that of a dataclass writes all values out."""
        super().__init_subclass__(**more)
        if '__repr__' not in vars(cls):
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """The kind, and what it holds in a few words."""
        shown = ((each.name, getattr(self, each.name)) for each in fields(self) if each.repr)
        told = ', '.join(f'{name}: {_brief(value)}' for name, value in shown if not _is_empty(value))
        return f'{type(self).__name__}({told})'

    def with_provenance(self, **more: object) -> Self:
        """The same result with more entries in its provenance."""
        return replace(self, provenance={**self.provenance, **more})

    def _repr_png_(self) -> bytes | None:
        """The picture that a notebook shows."""
        return None if display.renderer is None else display.renderer(self)
