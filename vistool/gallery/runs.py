"""Finished runs read back from their folders: what was run, and one entry per image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from typing_extensions import NotRequired, Required, TypedDict

from vistool.errors import InputError, param
from vistool.records import LINES, RUN, parse_json, read_json, read_text, shown

ARGUMENT = 'gallery'
"""The files of a run in its output folder: what was run, and one entry per image."""


Side = Annotated[int, Ge(1), Le(100_000)]
"""Pixels of one side of a picture."""


class Named(TypedDict, total=False):
    """A class, as a label, a prediction or a target."""

    id: int | None
    name: str | None
    score: float | None


class File(TypedDict):
    """A file that was written: its path from the run directory, or from the folder that ``within`` names."""

    name: str
    bytes: NotRequired[Annotated[int, Ge(0)]]
    crc32: NotRequired[str]
    within: NotRequired[str]


class Number(TypedDict, total=False):
    """A metric of one map."""

    name: Required[str]
    short: str | None
    better: str | None
    value: float | None


class Tile(TypedDict, total=False):
    """A picture of the gallery."""

    kind: str | None
    name: str | None
    file: Required[str]
    photo: str
    width: Side
    height: Side
    row: str | None
    column: str | None
    layer: str | None
    method: str | None
    note: str | None
    footer: str | None
    metrics: list[Number] | None
    instance: int | None


class Found(TypedDict, total=False):
    """An object that a detector found or missed.

    ``kind`` is what the annotations say of it (``true positive``, ``false positive``, ``miss``); ``iou`` is its overlap
    with the object that it was matched to.
    """

    id: int | None
    name: Required[str]
    score: float | None
    iou: float | None
    kind: str | None
    box: list[float] | None


class Compared(TypedDict):
    """What a compared model says of an image."""

    name: str
    prediction: Named | None


class Entry(TypedDict):
    """One line of ``manifest.jsonl``: what became of one image."""

    name: str
    index: NotRequired[int | None]
    input: NotRequired[str | None]
    bytes: NotRequired[int | None]
    mtime: NotRequired[float | None]
    label: NotRequired[Named | None]
    prediction: NotRequired[Named | None]
    targets: NotRequired[list[Named] | None]
    files: NotRequired[list[File] | None]
    tiles: NotRequired[list[Tile] | None]
    seconds: NotRequired[float | None]
    uncertainty: NotRequired[float | None]
    instances: NotRequired[list[Found] | None]
    compared: NotRequired[list[Compared] | None]
    points: NotRequired[list[Annotated[list[float], Len(2, 2)]] | None]
    error: NotRequired[str | None]


class Again(TypedDict):
    """How other images are given to the command of a run.

    ``words`` are its words, None where the images stand; ``images`` is what stood there. ``home`` is the folder in
    which it was started, seen from the run's; None where that would name folders outside.
    """

    words: list[str | None]
    images: str
    home: NotRequired[str | None]


class EmbeddingFacts(TypedDict):
    """A map that the entries have ``points`` on: what it is called, and what is said of it."""

    name: str
    note: str


class Facts(TypedDict, total=False):
    """``run.json``: what was run."""

    format: int
    command: str | None
    tool: str | None
    config: str | None
    checkpoint: str | None
    sha256: str | None
    settings: dict[str, Any] | None
    versions: dict[str, str] | None
    again: Again | None
    embeddings: list[EmbeddingFacts] | None


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
        InputError: As :func:`read_finished`, or there is not one tile.
    """
    run = read_finished(folder, ARGUMENT, _AGAIN)
    if not any(line.get('tiles') for line in run.images):
        raise InputError(f'the run in {str(folder)!r} has no tiles to show', hint=_AGAIN, parameter=ARGUMENT)
    return run


def read_finished(folder: Path, parameter: str, again: str = '') -> FinishedRun:
    """A finished run.

    Args:
        folder: Its output folder.
        parameter: The parameter that named it.
        again: The next step where its records are damaged.

    Raises:
        InputError: The folder does not hold a finished run, or a line is broken.
    """
    for name in (RUN, LINES):
        if not (folder / name).is_file():
            raise InputError(
                f'{str(folder)!r} does not hold a finished run: {name} is missing',
                accepted='the output folder of a finished run over several images',
                hint='finish the run first' if folder.is_dir() else '',
                parameter=parameter,
            )
    facts = read_json(folder / RUN, Facts, parameter, again)
    lines: dict[tuple[Any, str], Entry] = {}
    for number, text in enumerate(read_text(folder / LINES, parameter, hint=again).split('\n'), 1):
        if text.strip():
            where = f'{folder / LINES}, line {number}'
            line = parse_json(text, Entry, where, parameter, again)
            _check_paths(line, where, parameter, again)
            lines[line.get('index'), line['name']] = line
    images = sorted(lines.values(), key=_order)
    return FinishedRun(folder, facts, tuple(images))


def compared_models(run: FinishedRun) -> list[FinishedRun]:
    """The models that a run compared with its own, each as a run over the same images without pictures."""
    names = dict.fromkeys(each['name'] for line in run.images for each in line.get('compared') or ())
    found = []
    for name in names:
        lines = []
        for line in run.images:
            said = next((each for each in line.get('compared') or () if each['name'] == name), None)
            if said is not None:
                kept = {key: line.get(key) for key in ('name', 'index', 'input', 'label')}
                lines.append({**kept, 'prediction': said['prediction']})
        found.append(FinishedRun(run.folder, {'config': name}, tuple(lines)))
    return found


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


_AGAIN = f'run it again with {param("gallery", True)} and {param("resume", True)}'


def _check_paths(entry: Entry, where: str, parameter: str, again: str) -> None:
    """Raises for an entry that names a file outside the folder of its run."""
    own = (file for file in entry.get('files') or () if 'within' not in file)
    names = [file['name'] for file in own]
    for tile in entry.get('tiles') or ():
        names += [tile[key] for key in ('file', 'photo') if key in tile]
    for name in names:
        if not is_relative(name):
            raise InputError(f'{where}: {shown(name)} is not a file of the run', hint=again, parameter=parameter)


def is_relative(name: str) -> bool:
    """Whether a path in a record is the plain path of a file below its folder, without ``..`` or doubled slashes."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or '..' in path.parts or '\0' in name) and name == path.as_posix() != '.'


def own_path(folder: Path, name: str) -> Path:
    """The file ``name`` below ``folder``, to be read or written now: no part of the path may be a link.

    Raises:
        InputError: The path leaves the folder, or leads through a link.
    """
    if not is_relative(name):
        raise InputError(f'{shown(name)} is not a file below {str(folder)!r}', parameter=ARGUMENT)
    path = folder
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            raise InputError(
                f'{str(path)!r} is a link, which a gallery never follows', hint='remove the link', parameter=ARGUMENT
            )
    return path


def _order(line: Entry) -> tuple[float, str]:
    index = line.get('index')
    return (math.inf if index is None else index), line['name']
