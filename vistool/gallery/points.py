"""Where images lie on an embedding map: read from a table with a row per image, such as vis_tsne writes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistool.environment import shareable
from vistool.errors import InputError
from vistool.records import find_path, read_text

_ACCEPTED = "vis_tsne's output folder or its .csv: a row per image with path or name, x and y"
Point = tuple[float, float]


@dataclass(frozen=True)
class PointTable:
    """The places of images on one or several maps.

    Attributes:
        names: What the maps are called.
        by_path: The points of an image, one per map, by the path of its file.
        by_name: The same by its name.
    """

    names: tuple[str, ...]
    by_path: Mapping[str, tuple[Point, ...]]
    by_name: Mapping[str, tuple[Point, ...]]

    def of(self, entry: Mapping[str, Any]) -> tuple[Point, ...] | None:
        """The points of an image: found by its path, else by its name.

        Args:
            entry: Its entry in a manifest.
        """
        return self.by_path.get(str(entry.get('input'))) or self.by_name.get(str(entry['name']))


def read_points(spec: str | Path, parameter: str) -> PointTable:
    """The table in a folder, or a table itself.

    Args:
        spec: The folder or the ``.csv`` file.
        parameter: The parameter that named it.

    Raises:
        InputError: There is no such table, there are several, or a row is damaged.
    """
    path = find_path(spec, parameter)
    if path.is_dir():
        found = [each for each in sorted(path.glob('*.csv')) if _maps(_rows(each, parameter)[:1])]
        if len(found) != 1:
            told = ', '.join(each.name for each in found) if found else 'none'
            raise InputError(
                f'{str(path)!r} holds {len(found)} tables with x and y ({told})', accepted=_ACCEPTED,
                hint='name the file' if found else '', parameter=parameter,
            )  # fmt: skip
        path = found[0]
    rows = _rows(path, parameter)
    ends = _maps(rows[:1])
    if not ends or not {'path', 'name'} & set(rows[0]):
        told = ', '.join(filter(None, rows[0])) if rows else 'no row'
        raise InputError(f'{path} has {told}', accepted=_ACCEPTED, parameter=parameter)
    by_path: dict[str, tuple[Point, ...]] = {}
    by_name: dict[str, tuple[Point, ...]] = {}
    for number, row in enumerate(rows, 2):
        points = tuple(_point(row, end, f'{path}, line {number}', parameter) for end in ends)
        if row.get('path'):
            by_path.setdefault(str(shareable(row['path'])), points)
        if row.get('name'):
            by_name.setdefault(row['name'], points)
    names = [path.stem, *(f'{path.stem} {number}' for number in range(2, len(ends) + 1))]
    return PointTable(tuple(names), by_path, by_name)


def _rows(path: Path, parameter: str) -> list[dict[str, str]]:
    text = read_text(path, parameter)
    try:
        return list(csv.DictReader(io.StringIO(text, newline='')))
    except csv.Error as error:
        raise InputError(f'{path} is not a table ({error})', accepted=_ACCEPTED, parameter=parameter) from error


def _maps(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The endings of the columns that are maps: ``''`` for x and y, ``'_2'`` for x_2 and y_2, and so on."""
    names = set(rows[0]) if rows else set()
    ends = ['', *(f'_{number}' for number in range(2, 20))]
    return [end for end in ends if {f'x{end}', f'y{end}'} <= names]


def _point(row: Mapping[str, str], end: str, where: str, parameter: str) -> Point:
    try:
        x, y = float(row[f'x{end}']), float(row[f'y{end}'])
    except (TypeError, ValueError) as error:
        raise InputError(f'{where}: x or y is not a number', accepted=_ACCEPTED, parameter=parameter) from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError(f'{where}: x or y is not finite', accepted=_ACCEPTED, parameter=parameter)
    return x, y
