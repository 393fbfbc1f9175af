"""Which layers, heads and queries the user asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TypeAlias

from torch import nn

from vistool import ranges
from vistool.errors import InputError, close_matches
from vistool.network.layers import find_layer, layer_names

LAYERS = f'{ranges.FORMS}; names of modules, all'
_HEADS = f'all, mean, max; {ranges.FORMS}'
_QUERIES = 'cls, mean, X,Y in pixels of the photo, the number of a token, or #N for prediction N of a detector'


@dataclass(frozen=True)
class LayerChoice:
    """A choice of attention layers, which are numbered in the order in which they run.

    Attributes:
        words: As the user gave them.
        names: Canonical dotted names among them.
        depth: How many layers from the end may be wanted; 0 if none is counted from there.
        everything: Whether layers may be wanted whose numbers are not known while the network runs.
    """

    words: tuple[str, ...]
    names: tuple[str, ...]
    depth: int
    everything: bool

    @classmethod
    def parse(cls, wanted: int | str | nn.Module | Sequence[int | str | nn.Module], root: nn.Module) -> LayerChoice:
        """Reads words such as ``-1``, ``0:4``, ``backbone.layers[-1]`` or ``all``, also separated by commas.

        Modules of ``root`` may be given in place of their names.

        Raises:
            InputError: If a word is not accepted.
        """
        given = [wanted] if isinstance(wanted, (int, str, nn.Module)) else wanted
        wanted = [layer_names(root, each)[0] if isinstance(each, nn.Module) else each for each in given]
        words = tuple(part for word in wanted for part in str(word).replace(' ', '').split(',') if part)
        names, depth, everything = [], 0, False
        for word in words:
            if re.fullmatch(r'[+-]?\d{1,9}', word):
                depth = max(depth, -int(word))
            elif re.fullmatch(r'-\d{1,9}:', word):
                depth = max(depth, -int(word[:-1]))
            elif word.lower() == 'all' or ranges.is_range(word):
                everything = True
            else:
                try:
                    names.append(find_layer(root, word)[0])
                except InputError as error:
                    raise InputError(error.problem, accepted=LAYERS, hint=error.hint, parameter='layers') from error
        return cls(words, tuple(names), depth, everything)

    def now(self, index: int, name: str) -> bool:
        """Whether a layer is wanted, as far as is known while the network runs."""
        return self.everything or str(index) in self.words or any(_inside(name, outer) for outer in self.names)

    def resolve(self, names: Sequence[str]) -> dict[int, bool]:
        """The numbers of the wanted layers, in order, and whether each was asked for by itself, not by ``all``.

        Raises:
            InputError: If there is no such layer.
        """
        count = len(names)

        def absent(index: int) -> InputError:
            return InputError(
                f'no layer {index}: {count} attention layers run',
                accepted=f'0 to {count - 1}, or -{count} to -1',
                parameter='layers',
            )

        found: dict[int, bool] = {}
        for word in self.words:
            everyone = word.lower() == 'all'
            chosen = range(count) if everyone else ranges.places(word, count, absent) or range(0)
            single = bool(re.fullmatch(r'[+-]?\d{1,18}', word))
            if not chosen and not everyone and ranges.is_range(word):
                raise InputError(
                    f'{word!r} is an empty range of {count} attention layers', accepted=LAYERS, parameter='layers'
                )
            for index in chosen:
                found[index] = found.get(index, False) or single
        for outer in self.names:
            inside = [index for index, name in enumerate(names) if _inside(name, outer)]
            if not inside:
                raise InputError(
                    f'{outer} runs no attention', hint=close_matches(outer, names), parameter='layers'
                )  # fmt: skip
            found.update(dict.fromkeys(inside, True))
        return dict(sorted(found.items()))


def _inside(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f'{outer}.')


def heads_of(wanted: int | str | Sequence[int | str]) -> list[int | str]:
    """Heads as users give them, one or several, as a list."""
    return ranges.several(wanted, (Integral, str), 'heads', _HEADS)


def find_heads(wanted: int | str | Sequence[int | str], count: int) -> list[int | str]:
    """What is shown of ``count`` heads: numbers, ``'mean'`` and ``'max'``; ``'all'`` is the mean and every head.

    Raises:
        InputError: If there is no such head.
    """

    def absent(head: int) -> InputError:
        problem = f'no head {head}: the layer has {count}'
        return InputError(problem, accepted=f'{_HEADS} (0 to {count - 1})', parameter='heads')

    found: list[int | str] = []
    for word in ranges.words_of(heads_of(wanted)):
        if word.lower() == 'all':
            found += ['mean', *range(count)]
        elif word.lower() in ('mean', 'max'):
            found.append(word.lower())
        elif chosen := ranges.places(word, count, absent):
            found += chosen
        else:
            problem = f'{word!r} is not a head'
            raise InputError(problem, accepted=f'{_HEADS} (0 to {count - 1})', parameter='heads')
    return list(dict.fromkeys(found)) or ['mean', *range(count)]


@dataclass(frozen=True)
class Query:
    """A query: the token whose attention is shown.

    Attributes:
        kind: ``'auto'`` (the class token, else the mean), ``'cls'``, ``'mean'``, ``'point'``, ``'token'``, or
            ``'object'`` (that of a detector's prediction, whose token is not known yet).
        x: For a point, in pixels of the photo.
        y: For a point.
        index: For a token, prefix tokens counted; for a prediction its number.
        name: What the token is called, if not by its number.
        decoded: Whether it is an object query, which only the layers of a detector's decoder have.
    """

    kind: str
    x: float = 0.0
    y: float = 0.0
    index: int = 0
    name: str = ''
    decoded: bool = False

    def check(self, layer: str, queries: int, objects: bool) -> None:
        """Refuses a token that a layer does not have.

        Args:
            layer: Its name.
            queries: How many queries it has.
            objects: Whether those are a detector's object queries.

        Raises:
            InputError: It has none of this number, or no object queries although one is asked for.
        """
        if self.decoded and not objects:
            raise InputError(
                f'the {queries} queries of {layer} are not object queries of the detector',
                accepted='mean, X,Y, the number of a token, or a layer of the decoder',
                parameter='queries',
            )
        if self.index >= queries:
            raise InputError(
                f'no token {self.index}: {layer} has {queries} queries', accepted='cls, mean, X,Y', parameter='queries'
            )

    @property
    def label(self) -> str:
        """Its name in the figure."""
        if self.name:
            return self.name
        if self.kind == 'point':
            return f'({self.x:g}, {self.y:g})'
        return {'cls': 'CLS', 'mean': 'mean query', 'token': f'token {self.index}'}.get(self.kind, '')

    @classmethod
    def parse(cls, word: str | int | Sequence[float] | Query) -> Query:
        """Reads ``cls``, ``mean``, ``x,y`` (or a pair of numbers), the number of a token, or ``#N``.

        Raises:
            InputError: If it is none of them.
        """
        if isinstance(word, Query):
            return word
        text = ','.join(map(str, word)) if isinstance(word, (tuple, list)) else str(word).strip().lower()
        if text in ('cls', 'mean', 'auto'):
            return cls(text)
        if re.fullmatch(r'\d{1,9}', text):
            return cls('token', index=int(text))
        if re.fullmatch(r'#\d{1,9}', text):
            return cls('object', index=int(text[1:]))
        number = r'\s*([+-]?\d{1,9}(?:\.\d{0,30})?)\s*'
        if match := re.fullmatch(rf'\(?{number},{number}\)?', text):
            return cls('point', float(match[1]), float(match[2]))
        hint = 'in Python vt.Attention(...).matrices(model, photo) gives all queries' if text == 'all' else ''
        raise InputError(f'{text!r} is not a query', accepted=_QUERIES, hint=hint, parameter='queries')

    @classmethod
    def parse_all(cls, words: QueryWords) -> list[Query]:
        """Reads one word or several; none means ``auto``. A single point is ``'x,y'`` or ``[(x, y)]``."""
        given = ranges.several(words, (str, Integral, Query), 'queries', _QUERIES, also=(tuple, list))
        return [cls.parse(word) for word in given or ['auto']]


QueryWord: TypeAlias = str | int | Query | Sequence[float]
QueryWords: TypeAlias = QueryWord | Sequence[QueryWord]
