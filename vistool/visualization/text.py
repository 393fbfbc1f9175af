"""Text: which font has a character, how wide a line is, and its pixels.

The font is the one that a picture asks for, else the one that matplotlib brings (DejaVu Sans), found without importing
it, and for characters that they lack whatever CJK font the system has. ``vector`` uses the same files, so widths
measured here hold there too.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from vistool.errors import InputError, close_matches

LINE_HEIGHT, ASCENT = 1.3, 0.98
"""Height of a line and of its part above the baseline, as multiples of the font's size."""

# Nearer the front is preferred. Several, because no one of them has every script.
_FALLBACK_STEMS = (
    'notosanscjk', 'notosanssc', 'sourcehansans', 'wqy-microhei', 'wqy-zenhei', 'pingfang', 'msyh', 'hiraginosans',
    'droidsansfallback', 'arphic', 'uming', 'simhei', 'simsun', 'deng', 'yugoth', 'malgun', 'nanumgothic', 'unifont',
    'arial unicode', 'arialuni', 'stheiti', 'songti',
)  # fmt: skip
_FOLDERS = (
    '/usr/share/fonts', '/usr/local/share/fonts', '~/.fonts', '~/.local/share/fonts', '/System/Library/Fonts',
    '/Library/Fonts', '~/Library/Fonts', 'C:/Windows/Fonts', '~/AppData/Local/Microsoft/Windows/Fonts',
)  # fmt: skip
_REFERENCE_SIZE = 100
# Hinting at small sizes makes lines up to this much wider than their scaled outline.
_HINTING_SLACK = 1.02
# FreeType faces are not safe to share between threads; drawing one line takes microseconds and is cached.
_lock = threading.RLock()


@dataclass(frozen=True)
class Face:
    """A font file, and the index of the face in it (collections hold several)."""

    path: str
    index: int = 0


@lru_cache(maxsize=1)
def main_face() -> Face:
    """DejaVu Sans, from matplotlib's own data."""
    spec = importlib.util.find_spec('matplotlib')
    if spec is None or spec.origin is None:  # pragma: no cover - matplotlib is a dependency
        raise ModuleNotFoundError('matplotlib')
    return Face(str(Path(spec.origin).parent / 'mpl-data' / 'fonts' / 'ttf' / 'DejaVuSans.ttf'))


_chosen: ContextVar[Face | None] = ContextVar('chosen', default=None)


@contextmanager
def using(name: str | None) -> Iterator[None]:
    """Writes in a font, by its name, within this thread; None is DejaVu Sans.

    Raises:
        InputError: There is no such font here.
    """
    token = _chosen.set(None if name is None else find_face(name))
    try:
        yield
    finally:
        _chosen.reset(token)


def first_face() -> Face:
    """The font in which is written what it has."""
    return _chosen.get() or main_face()


_SHORT_NAMES = {'cm': 'cmr10', 'computer modern': 'cmr10', 'times': 'Times New Roman'}


@lru_cache(maxsize=16)
def find_face(name: str) -> Face:
    """A font of this machine, or of those that matplotlib brings, by the name of its family, or by its file.

    Raises:
        InputError: There is none of this name.
    """
    if name.lower().endswith(_SUFFIXES) and os.path.isfile(name):
        face = Face(os.path.abspath(name))
    else:
        from matplotlib import font_manager

        wanted = _SHORT_NAMES.get(name.lower(), name)
        known = {entry.name.lower(): entry.name for entry in font_manager.fontManager.ttflist}
        if wanted.lower() not in known:
            raise InputError(
                f'no font {name!r} on this machine',
                accepted='the name of a font family, CM, STIXGeneral (like Times), or a .ttf or .otf file',
                hint=close_matches(wanted, known.values(), 3),
                parameter='font',
            )
        face = Face(font_manager.findfont(font_manager.FontProperties(family=known[wanted.lower()])))
    if not _characters(face):
        raise InputError(f'{name!r} is not a font that can be read', parameter='font')
    return face


@lru_cache(maxsize=1)
def fallback_faces() -> tuple[Face, ...]:
    """Fonts of this machine for characters that DejaVu Sans lacks, best first; at most four."""
    found: dict[int, str] = {}
    for path in _font_files():
        stem = Path(path).stem.lower().replace('_', '')
        ranks = [rank for rank, wanted in enumerate(_FALLBACK_STEMS) if stem.startswith(wanted)]
        if ranks and not any(weight in stem for weight in ('bold', 'black', 'light', 'thin', 'medium', 'serif')):
            found.setdefault(ranks[0], path)
    return tuple(_simplified_face(found[rank]) for rank in sorted(found)[:4])


def _font_files() -> Iterator[str]:
    for folder in _FOLDERS:
        for parent, folders, files in os.walk(os.path.expanduser(folder)):
            folders.sort()
            yield from (os.path.join(parent, name) for name in sorted(files) if name.lower().endswith(_SUFFIXES))


_SUFFIXES = ('.ttf', '.ttc', '.otf')


def _simplified_face(path: str) -> Face:
    """The face for simplified Chinese of a collection that has one per region, else its first."""
    if path.lower().endswith('.ttc'):
        for index in range(12):
            try:
                family = ImageFont.truetype(path, 10, index=index).getname()[0] or ''
            except OSError:
                break
            if family.endswith(' SC'):
                return Face(path, index)
    return Face(path)


@lru_cache(maxsize=8)
def _characters(face: Face) -> frozenset[int]:
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with TTFont(face.path, fontNumber=face.index, lazy=True) as font:
            return frozenset(font.getBestCmap() or ())
    except (OSError, TTLibError):
        return frozenset()


@lru_cache(maxsize=4096)
def _face_of(character: str, first: Face) -> Face:
    # DejaVu has all of Latin-1; asking the font files costs tens of milliseconds, once.
    if first == main_face() and (ord(character) < 0x100 or character in '…·×–—'):
        return first
    for face in (first, main_face(), *fallback_faces()):
        if ord(character) in _characters(face):
            return face
    _warn_missing(character)
    return main_face()


@lru_cache(maxsize=1)
def _warn_once() -> None:
    logging.getLogger('vistool').warning(
        'no font on this machine has some of the characters to draw; boxes stand in for them '
        '(install a CJK font, such as the package fonts-noto-cjk or fonts-wqy-zenhei)'
    )


def _warn_missing(character: str) -> None:
    if character.isprintable():
        _warn_once()


def runs(text: str) -> list[tuple[Face, str]]:
    """``text`` cut into pieces that one font has."""
    pieces: list[tuple[Face, str]] = []
    first = first_face()
    for character in text:
        face = _face_of(character, first)
        if pieces and pieces[-1][0] == face:
            pieces[-1] = (face, pieces[-1][1] + character)
        else:
            pieces.append((face, character))
    return pieces


@lru_cache(maxsize=64)
def _font(face: Face, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(face.path, size, index=face.index, layout_engine=ImageFont.Layout.BASIC)


def text_width(text: str, size: float) -> float:
    """Width of a line at font size ``size``, in the same unit."""
    return _width(text, first_face()) * size


@lru_cache(maxsize=4096)
def _width(text: str, first: Face) -> float:
    """Width of a line at font size 1; ``first`` is the font in use, by which lines are told apart here."""
    with _lock:
        length = sum(_font(face, _REFERENCE_SIZE).getlength(piece) for face, piece in runs(text))
    return length / _REFERENCE_SIZE * _HINTING_SLACK


def text_mask(text: str, size: float) -> tuple[NDArray[np.uint8], int, int]:
    """One line of text as pixels.

    Args:
        text: The line.
        size: Font size in pixels.

    Returns:
        Coverage, uint8 ``(h, w)``; the row of the baseline in it; the advance of the line in pixels.
    """
    return _mask(text, size, first_face())


@lru_cache(maxsize=1024)
def _mask(text: str, size: float, first: Face) -> tuple[NDArray[np.uint8], int, int]:
    """See :func:`text_mask`; ``first`` is the font in use, by which lines are told apart here."""
    ascent, descent = int(np.ceil(size * 1.2)), int(np.ceil(size * 0.5))
    with _lock:
        pieces = [(_font(face, size), piece) for face, piece in runs(text)]
        advances = [font.getlength(piece) for font, piece in pieces]
        width = int(np.ceil(sum(advances)))
        mask = np.zeros((ascent + descent, width + 2), np.uint8)
        x = 0.0
        for (font, piece), advance in zip(pieces, advances, strict=True):
            glyphs, (left, top) = font.getmask2(piece, mode='L', anchor='ls')
            _paste(mask, np.array(glyphs, np.uint8).reshape(glyphs.size[::-1]), round(x) + left, ascent + top)
            x += advance
    mask.setflags(write=False)
    return mask, ascent, width


def _paste(mask: NDArray[np.uint8], glyphs: NDArray[np.uint8], x: int, y: int) -> None:
    top, left = max(0, -y), max(0, -x)
    glyphs = glyphs[top : mask.shape[0] - y, left : mask.shape[1] - x]
    target = mask[y + top : y + top + glyphs.shape[0], x + left : x + left + glyphs.shape[1]]
    np.maximum(target, glyphs, out=target)


def decoded(text: str) -> str:
    """``text`` with a replacement character for each byte of a file's name that is not UTF-8: no font draws those."""
    return _UNDECODED.sub('\ufffd', text)


_UNDECODED = re.compile('[\ud800-\udfff]')


def clean(text: str) -> str:
    """``text`` on one line, without control characters."""
    text = decoded(text)
    return ' '.join(''.join(character if character.isprintable() else ' ' for character in text).split())


def elide(text: str, size: float, width: float) -> str:
    """``text`` with its middle left out where it is wider than ``width``; ``''`` where nothing fits.

    A number at the end ("Egyptian cat 0.36", "cup <0.01") is kept whole where there is room for more than it.
    """
    text = clean(text)
    if text_width(text, size) <= width:
        return text
    score = _SCORE.search(text)
    if score:
        shortened = _elided(text[: score.start()] + '…', size, width - text_width(score[0], size))
        if len(shortened) > 3:
            return shortened.rstrip('…') + '…' + score[0]
    return _elided(text, size, width)


_SCORE = re.compile(r' [<−-]?\d[\d.,]*(?:e[-+]?\d+)?%?$')


def _elided(text: str, size: float, width: float) -> str:
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text) - 1  # characters kept
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if text_width(_without_middle(text, kept), size) <= width else (low, kept - 1)
    shortened = _without_middle(text, low) if low >= 2 else ''
    return shortened if len(shortened) > 1 else ''


def _without_middle(text: str, kept: int) -> str:
    """The first and last characters; a number at the cut is left out whole, for half of one is another number."""
    head, tail = (kept + 1) // 2, len(text) - kept // 2
    inside = [span for match in _NUMBER.finditer(text) if (span := match.span())]
    head = next((start for start, end in inside if start < head < end), head)
    tail = next((end for start, end in inside if start < tail < end), tail)
    return text[:head].rstrip() + '…' + text[tail:].lstrip()


_NUMBER = re.compile(r'[-−]?\d+(?:[.,×]\d+)*(?:e[-−+]?\d+)?%?')


# A line may be broken at spaces, after "·", and between any two CJK characters; a word, if it has to, at its parts.
_TOKEN = re.compile(r'\s*(?:[\u2e80-\u9fff\uac00-\ud7af\uff01-\uff60]|[^\s\u2e80-\u9fff\uac00-\ud7af\uff01-\uff60]+)')

_HUMP = re.compile(r'(?<=[a-z0-9+])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=×)(?=\d)|(?<=[A-Za-z0-9][-_])(?=[A-Za-z0-9])')


def wrap(text: str, size: float, width: float, lines: int) -> list[str]:
    """``text`` on at most ``lines`` lines, as few as do; what is still too long is elided."""
    wrapped: list[str] = []
    rest = clean(text)
    while rest:
        last = len(wrapped) == lines - 1
        line = rest if last or text_width(rest, size) <= width else _first_line(rest, size, width)
        shown = line.removesuffix(' ·') if len(line) < len(rest) else line
        wrapped.append(elide(shown, size, width))
        rest = rest[len(line) :].strip().removeprefix('· ')
    return wrapped


def _first_line(text: str, size: float, width: float) -> str:
    ends = [match.end() for match in _TOKEN.finditer(text)]
    fitting = [end for end in ends if text_width(text[:end].removesuffix(' ·'), size) <= width]
    # "stage 3 · 14×14×320" breaks at its dot, where what follows has room enough then
    dots = [end for end in fitting if text[:end].endswith(' ·') and text_width(text[end:].strip(), size) <= width]
    if not fitting:
        ends = _best_part(text, ends[0], size, width) or ends
    return text[: dots[-1] if dots else fitting[-1] if fitting else ends[0]]


def _best_part(text: str, end: int, size: float, width: float) -> list[int]:
    """Where to break "EigenGradCAM", which ends at ``end``, between two of its parts: as evenly as can be."""
    parts = [match.start() for match in _HUMP.finditer(text[:end])]
    pairs = [(text_width(text[:part], size), text_width(text[part:], size), part) for part in parts]
    fitting = [(max(first, rest), part) for first, rest, part in pairs if first <= width]
    return [min(fitting)[1]] if fitting else []
