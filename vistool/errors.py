"""Errors that a user can act on, each in one line."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_MARKED = re.compile('\ue000(\\w+)(?:\ue001([^\ue002]*))?\ue002')

Spelling = Callable[[str, str | None], str]
"""``(parameter, value) → text``: how a parameter, with a value or without, is written for the reader."""


def param(name: str, value: object = None) -> str:
    """A mention of a parameter inside a message, written later as its reader knows it.

    From Python ``param('reduction', 'pca')`` reads ``reduction='pca'``; a command writes ``--channel-reduction pca``.

    Args:
        name: The parameter, as Python spells it.
        value: A value to give it, or None to mention the parameter alone.
    """
    return f'\ue000{name}\ue002' if value is None else f'\ue000{name}\ue001{value}\ue002'


def in_python(name: str, value: str | None) -> str:
    """A parameter as a Python user writes it."""
    if value is None:
        return name
    literal = re.fullmatch(r'-?\d+(\.\d+)?|True|False|None|[\[({].*', value)
    return f'{name}={value}' if literal else f'{name}={value!r}'


def spelled(text: str, spelling: Spelling = in_python) -> str:
    """``text`` with every :func:`param` written out."""
    return _MARKED.sub(lambda found: spelling(found[1], found[2]), text)


class Speller(logging.Filter):
    """Writes out the parameters that log messages mention.

    Attributes:
        spelling: How; commands put their own here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spelling: Spelling = in_python

    def filter(self, record: logging.LogRecord) -> bool:
        """Spells the record's message; passes every record."""
        if '\ue000' in (message := record.getMessage()):
            record.msg, record.args = spelled(message, self.spelling), None
        return True


log_speller = Speller()
logging.getLogger('vistool').addFilter(log_speller)


class InputError(ValueError):
    """Bad input: a wrong argument, file, config, checkpoint or name.

    ``str(error)`` is one line that names the parameter, what was given, what is accepted and the next step. A command
    prints it after ``error: `` with the option in place of the parameter, and exits with 2; from Python it is an
    ordinary ``ValueError``.

    Args:
        problem: What is wrong, with the value as given.
        accepted: What would be accepted instead.
        hint: The next step, in the imperative.
        parameter: The parameter at fault, as Python spells it (``'layers'``).
    """

    def __init__(self, problem: str, *, accepted: str = '', hint: str = '', parameter: str = '') -> None:
        self.problem, self.accepted, self.hint, self.parameter = problem, accepted, hint, parameter
        super().__init__(problem, accepted, hint, parameter)

    def __str__(self) -> str:
        return self.line()

    def __reduce__(self) -> tuple[Callable[..., InputError], tuple[str, str, str, str]]:
        return _rebuilt, (self.problem, self.accepted, self.hint, self.parameter)

    def line(self, spelling: Spelling = in_python) -> str:
        """The error as one line.

        Args:
            spelling: How parameters are written.
        """
        parts = [f'{spelling(self.parameter, None)}: {self.problem}' if self.parameter else self.problem]
        if self.accepted:
            parts.append(f'accepted: {self.accepted}')
        if self.hint:
            parts.append(self.hint)
        return ' '.join(spelled('; '.join(parts), spelling).split())

    def under(self, parameter: str) -> InputError:
        """The same error, naming the parameter it came from (kept if one is named already)."""
        return InputError(self.problem, accepted=self.accepted, hint=self.hint, parameter=self.parameter or parameter)


@contextmanager
def naming(parameter: str, *instead_of: str) -> Iterator[None]:
    """Lets errors that come from inside name ``parameter``, if they name nothing or one of ``instead_of``."""
    try:
        yield
    except InputError as error:
        if error.parameter and error.parameter not in instead_of:
            raise
        raise InputError(error.problem, accepted=error.accepted, hint=error.hint, parameter=parameter) from error


def _rebuilt(problem: str, accepted: str, hint: str, parameter: str) -> InputError:
    """Pickled errors cross processes; the constructor takes keywords only."""
    return InputError(problem, accepted=accepted, hint=hint, parameter=parameter)


MOST_SEED = 2**32 - 1
"""The largest seed that NumPy takes."""


def check_count(value: int, least: int, most: int, parameter: str) -> None:
    """Refuses a number that is not from ``least`` to ``most``.

    Raises:
        InputError: It is not; the error names the parameter.
    """
    if value < least or value > most:
        bound = f'at least {least}' if value < least else f'at most {most:,}'
        raise InputError(f'must be {bound}, not {value}', parameter=parameter)


def check_seed(seed: int) -> None:
    """Refuses a seed that not every random generator takes.

    Raises:
        InputError: It is negative or too large.
    """
    check_count(seed, 0, MOST_SEED, 'seed')


_CONTROLS = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')


def on_one_line(name: object) -> str:
    """A file's name as messages, captions and records write it: line breaks and other control characters escaped."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], str(name))


def message_of(error: BaseException) -> str:
    """What an exception of another package says: whole, on one line; its type where it says nothing.

    A ``KeyError`` is shown without the quotes that Python puts around its message.
    """
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return ' '.join(str(message).split()) or type(error).__name__


def without_name(text: str, name: object, instead: str = 'it') -> str:
    """A foreign message that names a file which the line names already: without that name, or ``instead`` of it.

    Args:
        text: From :func:`message_of`, which puts the line breaks of a name on one line.
        name: The file.
        instead: What stands where the name is part of a sentence.
    """
    for form in dict.fromkeys((str(name), ' '.join(str(name).split()))):
        for ending in (f': {form!r}', f": '{form}'", f': {form}') if form else ():
            text = text.replace(ending, '')
        text = text.replace(form, instead) if form else text
    return text


def counted(count: int, noun: str, plural: str = '') -> str:
    """A number with its noun, as messages and captions write it: ``'1 image'``, ``'2 images'``, ``'1,200 images'``.

    Args:
        count: How many.
        noun: One of them.
        plural: Several of them, where that is not ``noun`` and an s.
    """
    return f'{count:,} {noun if count == 1 else plural or noun + "s"}'


def cause_of(error: BaseException) -> str:
    """An exception of another package with its type: ``'ValueError: depth 7 is not supported'``."""
    message = message_of(error)
    return message if message == type(error).__name__ else f'{type(error).__name__}: {message}'


def close_matches(name: str, candidates: Iterable[str], count: int = 5) -> str:
    """``'did you mean a, b?'`` for the candidates nearest to ``name``, or ``''`` where none is near."""
    pool = list(dict.fromkeys(candidates))
    lowered: dict[str, str] = {candidate.lower(): candidate for candidate in pool}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)]
    near += [candidate for candidate in pool if name and name.lower() in candidate.lower() and candidate not in near]
    return f'did you mean {", ".join(near[:count])}?' if near else ''
