"""How words on the command line become arguments."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from vistool.errors import InputError, in_python


class Parser(argparse.ArgumentParser):
    """An argument parser of the command-line contract.

    Options may be spelled with dashes or underscores and are never abbreviated; ``-1,-2`` is a value; bad usage raises
    :class:`~vistool.errors.InputError`; a list option that took in a positional says so. The ``dest`` of an option is
    the Python parameter that it sets.
    """

    def __init__(self, prog: str, description: str | None, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # argparse takes only plain numbers for values; '-1,-2' and '-5,3' are values as well
        self._negative_number_matcher = re.compile(r'^-\.?\d')

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print with a usage block."""
        hint = f'see {self.prog} --help'
        if 'required' in message:
            hint = f'positional arguments go before options that take a list; {hint}'
        raise InputError(message, hint=hint)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses ``argv`` (the process's own by default); options and positionals may be mixed."""
        words = [_dashed(word) for word in (sys.argv[1:] if argv is None else argv)]
        args = self.parse_intermixed_args(words)
        for action in self._actions:
            if action.option_strings and action.nargs in ('+', '*') and action.dest != 'compare':
                self._check_list(_long(action), getattr(args, action.dest, None) or [])
        return args

    def spelling(self, parameter: str, value: str | None = None) -> str:
        """A parameter as this command's user types it: its option, or the name of its positional."""
        for action in self._actions:
            if action.dest == parameter:
                flag = action.nargs in (0, '*') and value == 'True'
                return _long(action) if value is None or flag else f'{_long(action)} {value}'
        return in_python(parameter, value)

    def command(self, argv: Sequence[str] | None, without: Collection[str] = ()) -> str:
        """The command line as it was typed, with the program's bare name.

        Args:
            argv: Its words; None: the process's own.
            without: Parameters whose options are left out.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        dropped = {
            option: 1 if action.nargs is None else 0 if action.nargs == 0 else None
            for action in self._actions
            if action.dest in without
            for option in action.option_strings
        }
        kept: list[str] = []
        drop: int | None = 0
        for word in words:
            name = word.partition('=')[0].replace('_', '-') if word.startswith('--') else word
            if name in dropped:
                drop = 0 if '=' in word else dropped[name]
            elif drop is None and not word.startswith('-'):
                continue
            elif drop:
                drop -= 1
            else:
                drop = 0
                kept.append(word)
        return shlex.join([Path(self.prog).stem, *kept])

    def _check_list(self, option: str, values: Sequence[object]) -> None:
        for value in values:
            text = str(value)
            if text == 'none' or text.startswith('demo://') or os.path.isfile(text):
                raise InputError(
                    f'{text!r} looks like a positional argument that the list took in',
                    hint=f'put positionals before {option}, or another option between',
                    parameter=option,
                )


def _long(action: argparse.Action) -> str:
    """An option's first long name, or a positional's."""
    name = next((each for each in action.option_strings if each.startswith('--')), None)
    return name or (action.metavar if isinstance(action.metavar, str) else action.dest)


def _dashed(word: str) -> str:
    if not word.startswith('--'):
        return word
    name, equals, value = word.partition('=')
    return name.replace('_', '-') + equals + value
