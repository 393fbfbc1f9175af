"""Colour bars: a slim strip of a scale's colours with the numbers at its ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from vistool.visualization import text as fonts
from vistool.visualization.draw import Map, colorize
from vistool.visualization.scene import Box, ImageItem, Pixels, TextItem
from vistool.visualization.style import Page


@dataclass(frozen=True)
class Bar:
    """The scale of a map: the values at the ends of a 256-colour table. Equal scales have equal keys."""

    key: str
    low: float
    high: float
    table: Pixels = field(compare=False)


def bar_width(bar: Bar, page: Page) -> float:
    """Room that a bar takes beside a tile: a gap, the strip and its numbers."""
    widest = max(fonts.text_width(text, page.small_font) for _, text in _ticks(bar))
    return page.gap + _slimness(page) + 0.5 * page.gap + widest


def _slimness(page: Page) -> float:
    return 4.0 if page.paper else 7.0


def _ticks(bar: Bar) -> list[tuple[float, str]]:
    """Places on a bar, 0 at its lower end, and the numbers there."""
    ticks = [(0.0, number(bar.low)), (1.0, number(bar.high))]
    if bar.low < 0 < bar.high:
        ticks.insert(1, (-bar.low / (bar.high - bar.low), '0'))
    return ticks


def number(value: float) -> str:
    """A value with three digits: ``0.125``, ``1230``, ``2.1e−5``."""
    if value == 0 or not math.isfinite(value):
        return '0' if value == 0 else str(value)
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f'{value:.{digits}f}'
        text = text.rstrip('0').rstrip('.') if '.' in text else text
    else:
        mantissa, exponent = f'{value:.1e}'.split('e')
        text = f'{mantissa}e{int(exponent)}'
    return text.replace('-', '−')


def bar_items(bar: Bar, left: float, top: float, bottom: float, page: Page) -> Iterator[ImageItem | TextItem]:
    """The strip and its numbers, with the strip's left edge at ``left``."""
    slim, size = _slimness(page), page.small_font
    yield ImageItem(Box(left, top, slim, bottom - top), partial(_gradient, bar.table))
    free = bottom - top - 2 * size
    for place, text in _ticks(bar):
        if 0 < place < 1 and not size < place * free + size / 2 < free:
            continue  # no room for the zero between the ends
        # The end labels lie within the bar's length; 0.76 of the size is the height of a digit.
        baseline = bottom - place * (bottom - top - 0.76 * size)
        yield TextItem(left + slim + 0.5 * page.gap, baseline, text, size)


def _gradient(table: Pixels, size: tuple[int, int]) -> Pixels:
    height, width = size
    values: Map = np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    return colorize(values, table)
