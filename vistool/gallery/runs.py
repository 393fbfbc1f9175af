"""Finished runs read back from their folders: what was run, and one entry per image."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistool.errors import InputError, param

ARGUMENT = 'gallery'
RUN, LINES = 'run.json', 'manifest.jsonl'
"""The files of a run in its output folder: what was run, and one entry per image."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: Where it is.
        facts: Its ``run.json``.
        images: The lines of its ``manifest.jsonl``, by index and name; of several lines for one image the last.
    """

    folder: Path
    facts: Mapping[str, Any]
    images: tuple[Mapping[str, Any], ...]


def read_run(folder: Path) -> FinishedRun:
    """A finished run that has tiles.

    Raises:
        InputError: The folder does not hold a finished run, a line is broken, or there is not one tile.
    """
    for name in (RUN, LINES):
        if not (folder / name).is_file():
            raise InputError(
                f'{str(folder)!r} does not hold a finished run: {name} is missing',
                accepted='the output folder of a finished run over several images',
                hint=f'finish the run with {param("resume", True)}' if folder.is_dir() else '',
                parameter=ARGUMENT,
            )
    facts = _parsed(_text(folder / RUN), str(folder / RUN))
    lines: dict[tuple[Any, str], Mapping[str, Any]] = {}
    for number, text in enumerate(_text(folder / LINES).split('\n'), 1):
        if text.strip():
            where = f'{folder / LINES}, line {number}'
            line = _checked(_parsed(text, where), where)
            lines[line.get('index'), line['name']] = line
    images = tuple(sorted(lines.values(), key=_order))
    if not any(line.get('tiles') for line in images):
        raise InputError(
            f'the run in {str(folder)!r} has no tiles to show',
            hint=f'run it again with {param("gallery", True)} and {param("resume", True)}',
            parameter=ARGUMENT,
        )
    return FinishedRun(folder, facts, images)


def run_names(runs: Sequence[FinishedRun]) -> list[str]:
    """What tells runs apart: their configs, or their folders where the configs are the same."""
    for names in (
        [str(run.facts.get('config') or run.folder.resolve().name) for run in runs],
        [run.folder.resolve().name for run in runs],
    ):
        if len(set(names)) == len(names):
            return names
    return [f'{run.folder.resolve().name} ({number})' for number, run in enumerate(runs, 1)]


def matched(runs: Sequence[FinishedRun]) -> list[tuple[Mapping[str, Any] | None, ...]]:
    """The same images of several runs side by side: matched by input path, else by name.

    Args:
        runs: The last one's images come first; those that only others have follow.

    Returns:
        One row per image with one line per run, None where the run has not seen the image.

    Raises:
        InputError: A run has not one image in common with the last.
    """
    own, rows = runs[-1], [dict[int, Mapping[str, Any]]() for _ in runs[-1].images]
    for row, line in zip(rows, own.images, strict=True):
        row[len(runs) - 1] = line
    for number, run in enumerate(runs[:-1]):
        left = list(run.images)
        for field in ('input', 'name'):
            left = _place(left, rows, number, field)
        if len(left) == len(run.images):
            raise InputError(
                f'the runs in {str(run.folder)!r} and {str(own.folder)!r} have no image in common',
                hint='run both over the same images',
                parameter=ARGUMENT,
            )
        rows += [{number: line} for line in left]
    return [tuple(row.get(number) for number in range(len(runs))) for row in rows]


def _place(
    lines: Sequence[Mapping[str, Any]], rows: Sequence[dict[int, Mapping[str, Any]]], number: int, field: str
) -> list[Mapping[str, Any]]:
    """Put lines into the rows that agree in ``field``; returns those that fit nowhere."""
    # A dataset may repeat an image: the first goes with the first, the second with the second.
    open_rows: dict[Any, list[dict[int, Mapping[str, Any]]]] = {}
    for row in rows:
        if number not in row:
            first = next(iter(row.values()))  # the last run's, where it has seen the image
            open_rows.setdefault(first.get(field), []).append(row)
    left = []
    for line in lines:
        free = open_rows.get(line.get(field)) if line.get(field) is not None else None
        if free:
            free.pop(0)[number] = line
        else:
            left.append(line)
    return left


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read {str(path)!r}: {error}', parameter=ARGUMENT) from error


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f'{where} is not valid JSON: {error}', hint=_AGAIN, parameter=ARGUMENT) from error
    if not isinstance(value, dict):
        raise InputError(f'{where} is not a JSON object', hint=_AGAIN, parameter=ARGUMENT)
    return value


_AGAIN = f'run it again with {param("gallery", True)} and {param("resume", True)}'
_FIELDS: dict[str, type | tuple[type, ...]] = {
    'index': (int, type(None)),
    'name': str,
    'input': (str, type(None)),
    'label': (dict, type(None)),
    'prediction': (dict, type(None)),
    'targets': (list, type(None)),
    'files': (list, type(None)),
    'tiles': (list, type(None)),
    'error': (str, type(None)),
}


def _checked(line: dict[str, Any], where: str) -> dict[str, Any]:
    """A line whose fields have the types that the page relies on, and whose files lie inside the folder."""
    wrong = next((name for name, kind in _FIELDS.items() if not isinstance(line.get(name), kind)), None)
    entries = [each for name in ('targets', 'files', 'tiles') for each in line.get(name) or ()] if not wrong else []
    if not wrong and not all(isinstance(each, dict) for each in entries):
        wrong = 'targets, files or tiles'
    if wrong:
        raise InputError(f'{where}: the field {wrong!r} is not as vistool writes it', hint=_AGAIN, parameter=ARGUMENT)
    for path in _paths(line):
        if not isinstance(path, str) or path.startswith('/') or '..' in path.split('/'):
            raise InputError(f'{where}: {path!r} is not a file of the run', hint=_AGAIN, parameter=ARGUMENT)
    return line


def _paths(line: Mapping[str, Any]) -> list[Any]:
    tiles = line.get('tiles') or ()
    return [
        *(each.get('name') for each in line.get('files') or ()),
        *(each.get('file') for each in tiles),
        *(each['photo'] for each in tiles if 'photo' in each),
    ]


def _order(line: Mapping[str, Any]) -> tuple[float, str]:
    index = line.get('index')
    return (math.inf if index is None else index), line['name']
