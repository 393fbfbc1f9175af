"""How words on the command line become arguments."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vistool.errors import InputError, in_python

PARAMETERS = {
    'images': 'img',
    'methods': 'method',
    'targets': 'target_category',
    'layers': 'target_layers',
    'queries': 'query',
    'logs': 'log',
    'reduction': 'channel_reduction',
    'criterion': 'topk_by',
    'basis': 'load_basis',
    'theme': 'style',
    'size': 'window_size',
    'contrast': 'similar',
    'options': 'cfg_options',
    'parameters': 'parameter',
    'backends': 'vis_backend',
    'files': 'input',
    'tokens': 'vit_like',
    'extra_tokens': 'num_extra_tokens',
}
"""Parameters whose option has another name."""


class Parser(argparse.ArgumentParser):
    """An argument parser of the command-line contract.

    Options may be spelled with dashes or underscores and are never abbreviated; ``-1,-2`` is a value; bad usage raises
    :class:`~vistool.errors.InputError`; a list option that swallowed a positional says so.
    """

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # argparse takes only plain numbers for values; «-1,-2» and «-5,3» are values as well
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
            if action.option_strings and action.nargs in ('+', '*'):
                given = getattr(args, action.dest, None) or []
                if action.dest != 'compare':
                    self._check_list(action.option_strings[-1], given)
        return args

    def spelling(self, parameter: str, value: str | None = None) -> str:
        """A parameter as this command's user types it: its option, or the name of its positional."""
        for action in self._actions:
            if action.dest in (parameter, PARAMETERS.get(parameter)):
                typed = next((each for each in action.option_strings if each.startswith('--')), action.dest)
                return typed if value is None else f'{typed} {value}'
        return in_python(parameter, value)

    def _check_list(self, option: str, values: Sequence[Any]) -> None:
        for value in values:
            text = str(value)
            if text == 'none' or text.startswith('demo://') or os.path.isfile(text):
                raise InputError(
                    f'{text!r} looks like a positional argument that the list took in',
                    hint=f'put positionals before {option}, or another option between',
                    parameter=option,
                )


def _dashed(word: str) -> str:
    if not word.startswith('--'):
        return word
    name, equals, value = word.partition('=')
    return name.replace('_', '-') + equals + value
