"""The command line as a result's provenance keeps it: what a person needs to make the file again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path


def command(name: str, argv: list[str] | None = None) -> str:
    """The command line as it was typed, with the program's bare name."""
    return shlex.join([Path(name).stem, *(sys.argv[1:] if argv is None else argv)])


def what_alone(command: str, carried_out: Mapping[str, int | None]) -> str:
    """A command line without the options that say how it is carried out and where its files go.

    Args:
        command: As :func:`command` gives it.
        carried_out: Option, with dashes → how many values follow it (None: all words up to the next option).
    """
    kept: list[str] = []
    drop: int | None = 0
    for word in shlex.split(command):
        name = word.partition('=')[0].replace('_', '-') if word.startswith('--') else word
        if name in carried_out:
            drop = 0 if '=' in word else carried_out[name]
        elif drop is None and not word.startswith('-'):
            continue
        elif drop:
            drop -= 1
        else:
            drop = 0
            kept.append(word)
    return shlex.join(kept)
