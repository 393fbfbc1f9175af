"""Text that fits its place: broken into lines, and shortened in the middle where that is not enough."""

from __future__ import annotations

import re

from vistool.visualization.fonts import text_width


def clean(text: str) -> str:
    """``text`` on one line, without control characters."""
    return ' '.join(''.join(character if character.isprintable() else ' ' for character in text).split())


def elide(text: str, size: float, width: float) -> str:
    """``text`` with its middle left out where it is wider than ``width``; ``''`` where nothing fits.

    A number at the end («Egyptian cat 0.36») is kept whole where there is room for more than it.
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


_SCORE = re.compile(r' \d[\d.]*%?$')


def _elided(text: str, size: float, width: float) -> str:
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text) - 1  # characters kept
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if text_width(_without_middle(text, kept), size) <= width else (low, kept - 1)
    return _without_middle(text, low) if low >= 2 else ''


def _without_middle(text: str, kept: int) -> str:
    head, tail = (kept + 1) // 2, kept // 2
    return text[:head].rstrip() + '…' + (text[-tail:].lstrip() if tail else '')


# A line may be broken at spaces, after «·», and between any two CJK characters.
_TOKEN = re.compile(r'\s*(?:[\u2e80-\u9fff\uac00-\ud7af\uff01-\uff60]|[^\s\u2e80-\u9fff\uac00-\ud7af\uff01-\uff60]+)')

_HUMP = re.compile(r'(?<=[a-z0-9+])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])')


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
    # «stage 3 · 14×14×320» breaks at its dot, where what follows has room enough then
    dots = [end for end in fitting if text[:end].endswith(' ·') and text_width(text[end:].strip(), size) <= width]
    if not fitting:
        ends = _best_part(text, ends[0], size, width) or ends
    return text[: dots[-1] if dots else fitting[-1] if fitting else ends[0]]


def _best_part(text: str, end: int, size: float, width: float) -> list[int]:
    """Where to break «EigenGradCAM», which ends at ``end``, between two of its parts: as evenly as can be."""
    parts = [match.start() for match in _HUMP.finditer(text[:end])]
    pairs = [(text_width(text[:part], size), text_width(text[part:], size), part) for part in parts]
    fitting = [(max(first, rest), part) for first, rest, part in pairs if first <= width]
    return [min(fitting)[1]] if fitting else []
