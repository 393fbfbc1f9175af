"""Numbers and ranges as users write them, alike for samples, layers, heads, channels, predictions and patches.

``7`` is one, ``-1`` the last one, ``4-8`` are five, with both ends. ``4:8`` are four, ``:4`` and ``-3:`` have an open
end: a slice as Python has it. Commas separate several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vistool.errors import InputError, on_one_line

FORMS = 'numbers and ranges: 7, -1, 4-8 (with 8), 4:8 (without 8), -3:'
POSITIVE_FORMS = 'numbers and ranges: 7, 4-8 (with 8), 4:8 (without 8)'
_LARGEST = 10**6
"""The most that a range may hold where nothing else bounds it."""

_NUMBER = re.compile(r'[+-]?\d{1,18}')
_SPAN = re.compile(r'([+-]?\d{1,18})-([+-]?\d{1,18})')
_SLICE = re.compile(r'([+-]?\d{1,18})?:([+-]?\d{1,18})?')


def several(
    given: object, one: tuple[type, ...], parameter: str, accepted: str, also: tuple[type, ...] = ()
) -> list[Any]:
    """What a user of Python gave as one value or as several, as a list.

    Args:
        given: The value, or an iterable of values.
        one: Types of one value.
        parameter: The parameter that holds it.
        accepted: For the error.
        also: Types that are values among several, but not alone.

    Raises:
        InputError: It is neither.
    """
    if isinstance(given, one):
        return [given]
    found = list(given) if isinstance(given, Iterable) else None
    if found is None or not all(isinstance(each, (*one, *also)) for each in found):
        raise InputError(f'{on_one_line(repr(given))[:80]} is not accepted', accepted=accepted, parameter=parameter)
    return found


def words_of(given: Sequence[object]) -> Iterator[str]:
    """The words between spaces and commas."""
    return (part for each in given for part in str(each).replace(' ', '').split(',') if part)


def is_range(word: str) -> bool:
    """Whether a word is a range, not a single number."""
    return bool(_SPAN.fullmatch(word) or _SLICE.fullmatch(word))


def places(word: str, count: int, absent: Callable[[int], InputError]) -> range | None:
    """The places among ``count`` that a word stands for; None if it is neither a number nor a range.

    Args:
        word: Without commas.
        count: How many there are; negative numbers count from the end.
        absent: Makes the error for a number that is out of range; the ends of a slice may be, as in Python.

    Raises:
        InputError: A number does not exist.
    """

    def place(number: str) -> int:
        if not -count <= int(number) < count:
            raise absent(int(number))
        return int(number) % count

    if _NUMBER.fullmatch(word):
        return range(place(word), place(word) + 1)
    if span := _SPAN.fullmatch(word):
        return range(place(span[1]), place(span[2]) + 1)
    if part := _SLICE.fullmatch(word):
        first, last = (int(end) if end else None for end in part.groups())
        return range(count)[first:last]
    return None


def positive(given: Sequence[object], what: str, parameter: str, also: str = '') -> tuple[int, ...]:
    """Numbers and ranges where it is not known how many there are: no negative numbers, no open ends; each once.

    Args:
        given: The words.
        what: What each is, for the error.
        parameter: The parameter that holds them.
        also: What it accepts besides, for the error.

    Raises:
        InputError: A word is something else.
    """
    found: dict[int, None] = {}
    for word in words_of(given):
        if re.fullmatch(r'\d{1,9}', word):
            span = range(int(word), int(word) + 1)
        elif ends := re.fullmatch(r'(\d{1,9})([-:])(\d{1,9})', word):
            span = range(int(ends[1]), int(ends[3]) + (ends[2] == '-'))
        else:
            span = range(0)
        if not 0 < len(span) <= _LARGEST:
            raise InputError(f'{word!r} is not {what}', accepted=also + POSITIVE_FORMS, parameter=parameter)
        found.update(dict.fromkeys(span))
    return tuple(found)
