r"""The panels of a figure as a LaTeX table: rows and columns of ``\includegraphics`` with their titles, as text."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vistool.visualization.facets import Facets
from vistool.visualization.files import encoded, write_file

log = logging.getLogger('vistool')

_MOST_COLUMNS = 8  # the photo, the mean and six heads
_GAP, _LABEL = 0.01, 0.04  # of the line: between columns, and for the titles of the rows
_MOST_READ = 1 << 20  # bytes
_SIGNED = re.compile(rb'% Made by vistool, ([0-9a-f]{16})[^\n]*\n')
_INTRODUCTION = r"""% It needs the package graphicx. Names of files have no folder. Include it by one of these lines:
%   \import{FOLDER/}{figure}                            with the package import
%   {\graphicspath{{FOLDER/}}\input{FOLDER/figure.tex}}
"""
_SPECIAL = {
    '\\': r'\textbackslash{}', '{': r'\{', '}': r'\}', '$': r'\$', '&': r'\&', '%': r'\%', '#': r'\#', '_': r'\_',
    '^': r'\textasciicircum{}', '~': r'\textasciitilde{}', '<': r'\ensuremath{<}', '>': r'\ensuremath{>}',
    '|': r'\ensuremath{|}', '−': r'\ensuremath{-}', '×': r'\ensuremath{\times}', '·': r'\ensuremath{\cdot}',
    '↑': r'\ensuremath{\uparrow}', '↓': r'\ensuremath{\downarrow}', '›': r'\ensuremath{>}', '…': r'\ldots{}',
    '–': '--', '"': "''", 'Δ': r'\ensuremath{\Delta}',
}  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX shows it: characters that are commands to it, or that pdfLaTeX does not know, are escaped."""
    return ''.join(_SPECIAL.get(character, character) for character in ' '.join(text.split()))


def plain_name(name: str, taken: Collection[str] = ()) -> str:
    """The name of a file without characters that LaTeX would read as commands, numbered where it is ``taken``."""
    plain = re.sub(r'[#%&{}~^$\\]+', '', name) or 'panel'
    numbered = (plain if number == 1 else f'{plain}-{number}' for number in itertools.count(1))
    return next(each for each in numbered if each not in taken)


def write_figure(
    path: Path, arrangement: Facets, names: Sequence[str], aspect: float, inputs: Mapping[str, str] | None = None
) -> list[Path]:
    """Writes the table of a figure's panels beside them, unless there is a file that vistool did not leave so.

    The first line holds a checksum of the others. A file of that name whose checksum is another, or that has none, was
    written or changed by somebody, and is kept; a line on stderr says so.

    Args:
        path: The file.
        arrangement: The rows and columns of the maps.
        names: File names of the panels: that of the input, then one for each map.
        aspect: Height of a panel by its width.
        inputs: Query → the input with its ring alone, for queries whose rows have a photo of their own.

    Returns:
        The file, if it was written.

    Raises:
        InputError: The folder cannot be written in.
    """
    if path.is_file() and not _is_own(path):
        log.warning('%s was not written by vistool, or was changed since; it is kept', path)
        return []
    body = encoded(_INTRODUCTION + figure(arrangement, names, aspect, inputs))
    digest = hashlib.sha256(body).hexdigest()[:16]
    write_file(path, f'% Made by vistool, {digest}. A changed file is not overwritten.\n'.encode() + body, 'panels')
    return [path]


def _is_own(path: Path) -> bool:
    with path.open('rb') as file:
        data = file.read(_MOST_READ)
    signed = _SIGNED.match(data)
    return signed is not None and hashlib.sha256(data[signed.end() :]).hexdigest()[:16].encode() == signed[1]


def figure(arrangement: Facets, names: Sequence[str], aspect: float, inputs: Mapping[str, str] | None = None) -> str:
    r"""The table, as wide as the line: the input first, then the maps; more than eight columns are cut into blocks.

    Args:
        arrangement: The rows and columns of the maps.
        names: File names of the panels: that of the input, then one for each map.
        aspect: Height of a panel by its width.
        inputs: Query → the input with its ring alone, for queries whose rows have a photo of their own.
    """
    columns, rows = ['input', *arrangement.columns], _rows(arrangement, names, inputs or {})
    blocks = math.ceil(len(columns) / _MOST_COLUMNS)
    across = math.ceil(len(columns) / blocks)
    labeled = len(rows) > 1
    free = 1 - (_LABEL + _GAP if labeled else 0) - _GAP * (across - 1)
    width = math.floor(free / across * 1e4) / 1e4
    lines = []
    for start in range(0, len(columns), across):
        block = columns[start : start + across]
        titles = [rf'\parbox[b]{{{width:.4f}\linewidth}}{{\centering\footnotesize {escape(each)}}}' for each in block]
        lines.append(' & '.join([''] * labeled + titles) + r' \\[0.5ex]')
        for title, cells in rows:
            label = [_label(title, width * aspect)] if labeled else []
            lines.append(
                '\n  & '.join(label + [_panel(cells.get(each), width) for each in block]) + rf' \\[{_GAP}\linewidth]'
            )
    caption = f'% {escape(arrangement.caption)}\n' if arrangement.caption else ''
    return (
        caption
        + '\\begingroup\n'
        + f'\\setlength{{\\tabcolsep}}{{{_GAP / 2}\\linewidth}}\\relax\n'
        # Titles of rows on several lines make the table wider than the line.
        + f'\\setbox0\\hbox{{\\begin{{tabular}}{{@{{}}{"c" * (across + labeled)}@{{}}}}\n'
        + '\n'.join(lines)
        + '\n\\end{tabular}}\\relax\n'
        + '\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\box0}\\else\\box0\\fi\\endgroup\n'
    )


def _rows(arrangement: Facets, names: Sequence[str], inputs: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    """The title of each row, and its file in each column; a row with two maps in a column becomes two."""
    found: list[tuple[str, dict[str, str]]] = []
    for tile, name in zip(arrangement.tiles, names[1:], strict=True):
        free = (cells for title, cells in found if title == tile.row and tile.column not in cells)
        cells = next(free, None)
        if cells is None:
            cells = {'input': inputs[tile.query]} if tile.query in inputs else {}
            found.append((tile.row, cells))
        cells[tile.column] = name
    if not inputs:
        found[0][1]['input'] = names[0]
    return [*found]


def _panel(name: str | None, width: float) -> str:
    if name is None:
        return '{}'
    return rf'\raisebox{{-0.5\height}}{{\includegraphics[width={width:.4f}\linewidth]{{{name}}}}}'


def _label(title: str, height: float) -> str:
    text = rf'\parbox{{{height:.4f}\linewidth}}{{\centering\footnotesize {escape(title)}}}'
    return rf'\rotatebox[origin=c]{{90}}{{{text}}}'
