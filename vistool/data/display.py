"""Which values and bands of an image become black, white, red, green and blue: for pictures, never for a network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError

STAND_IN = 128
"""The gray that stands in for a photo that nobody knows."""
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
_FILLED = 1 / 3
"""A nominal range (0 to 4095, 0 to 1) is used where the brightest values reach at least this share of it."""
_PERCENTILES = (0.5, 99.5)
"""Else the range goes from one of these percentiles to the other."""
_MUCH = 0.05
"""More clipped values than this are mentioned."""
_MOST_SAMPLES = 4_000_000
_STRIP = 1 << 20  # pixels that are converted at a time


@dataclass(frozen=True)
class Shown:
    """How the values of one image are shown.

    Attributes:
        low: The value that is shown as black, in the units of the file.
        high: The value that is shown as white.
        bands: Numbers, from 1, of the bands that are shown as red, green and blue, or of the one that is shown as gray.
        count: How many bands there are.
        clipped: Share of the values beyond ``low`` and ``high``.
        missing: Share of the values that are not finite; they are shown as black.
        known: Whether there is a photo at all; a tensor alone has none, and :data:`STAND_IN` is shown for it.
    """

    low: float = 0.0
    high: float = 255.0
    bands: tuple[int, ...] = (1, 2, 3)
    count: int = 3
    clipped: float = 0.0
    missing: float = 0.0
    known: bool = True

    @property
    def scale(self) -> float:
        """Levels of a byte per unit of the file."""
        return 255 / (self.high - self.low)

    def describe(self) -> str:
        """What is not shown as it is stored: ``'shown 0–4095 · bands 1–3 of 8'``; ``''`` for an ordinary photo."""
        if not self.known:
            return 'no photo given with the tensor, gray stands in for it'
        parts = [f'shown {_span(self.low, self.high)}'] if (self.low, self.high) != (0, 255) else []
        usual = tuple(range(1, self.count + 1)) if self.count in (1, 3) else ()
        if self.bands != usual:
            parts.append(f'{_listed(self.bands)} of {self.count}')
        if self.clipped > _MUCH:
            parts.append(f'{self.clipped:.0%} clipped')
        if self.missing > 0:
            parts.append(f'{"<1%" if self.missing < 0.005 else f"{self.missing:.0%}"} not finite')
        return ' · '.join(parts)

    def planes(self, count: int, bgr: bool, bands: Sequence[int] | None = None) -> list[int]:
        """Which of ``count`` planes are shown as red, green and blue; a network may get fewer than the file has.

        Args:
            count: Planes of the image at hand.
            bgr: Whether the first three or more planes are in reverse order.
            bands: The file's band in each plane, before any reversal; None: all in their order.
        """
        order = [2, 1, 0, *range(3, count)] if bgr and count >= 3 else list(range(count))
        there = list(bands) if bands is not None else list(range(1, count + 1)) if count == self.count else []
        wanted = [there.index(band) for band in self.bands if band in there]
        if len(wanted) != len(self.bands):
            wanted = [band - 1 for band in default_bands(count)]
        return [order[place] for place in wanted]


def default_bands(count: int) -> tuple[int, ...]:
    """The first three bands, or the first of one or two."""
    return (1, 2, 3) if count >= 3 else (1,)


def _number(value: float) -> str:
    whole = abs(value) < 1e10 and (value == round(value) or abs(value) >= 1000)
    text = f'{value:.0f}' if whole else f'{value:.3g}'
    return text.replace('e+', 'e').replace('-', '−')


def _span(low: float, high: float) -> str:
    return f'{_number(low)}{"–" if low >= 0 else " to "}{_number(high)}'


def _listed(bands: Sequence[int]) -> str:
    if len(bands) == 1:
        return f'band {bands[0]}'
    running = list(bands) == list(range(bands[0], bands[0] + len(bands)))
    return f'bands {bands[0]}–{bands[-1]}' if running else f'bands {", ".join(map(str, bands))}'


@dataclass(frozen=True)
class Display:
    """What the user says of how images are shown.

    Attributes:
        low: A value that is shown as black, or a percentile; None: found for each image (``auto``).
        high: The same for white.
        percent: Whether they are percentiles.
        bands: Numbers, from 1, of one band or three; none: the first three, or the first of one or two.
        axes: ``HWC`` or ``CHW``, of arrays in files; None: as the pipeline and the network declare.
    """

    low: float | None = None
    high: float | None = None
    percent: bool = False
    bands: tuple[int, ...] = ()
    axes: str | None = None

    @classmethod
    def of(
        cls,
        display_range: str | Sequence[float] | None = None,
        bands: str | int | Sequence[int] | None = None,
        axes: str | None = None,
    ) -> Display:
        """Reads what a user writes.

        Args:
            display_range: ``auto``, ``LO,HI`` in the units of the file, ``P%,Q%``, or two numbers.
            bands: ``4,3,2``, ``8``, or numbers.
            axes: ``HWC`` or ``CHW``.

        Raises:
            InputError: One of them has another form.
        """
        low, high, percent = _read_range(display_range)
        if axes is not None and axes.upper() not in ('HWC', 'CHW'):
            raise InputError(f'{axes!r} is not an order of axes', accepted='HWC, CHW', parameter='axes')
        return cls(low, high, percent, _read_bands(bands), axes and axes.upper())

    @classmethod
    def from_config(cls, config: Any) -> Display:
        """Reads ``display = dict(range='2%,98%', bands=[4, 3, 2], axes='HWC')`` of a config; all keys are optional.

        Raises:
            InputError: It has another form.
        """
        given = config.get('display') if config is not None else None
        if given is None:
            return cls()
        unknown = sorted(set(given) - {'range', 'bands', 'axes'}) if hasattr(given, 'keys') else [str(given)]
        if unknown:
            problem = f'display: unknown {unknown[0]!r}'
            raise InputError(problem, accepted='dict(range=…, bands=…, axes=…)', parameter='config')
        return cls.of(given.get('range'), given.get('bands'), given.get('axes'))

    def over(self, other: Display) -> Display:
        """These choices, and the other's where none was made."""
        mine = self if self.low is not None else other
        return Display(mine.low, mine.high, mine.percent, self.bands or other.bands, self.axes or other.axes)

    def shown(self, values: NDArray[Any], usual: tuple[int, ...] = ()) -> Shown:
        """How an image is shown.

        Args:
            values: ``(H, W, C)`` as stored, any real type.
            usual: The bands that are shown where the user names none; none: the first three, or the first.

        Raises:
            InputError: It has no such band.
        """
        count = values.shape[2]
        for band in self.bands:
            if band > count:
                raise InputError(f'no band {band} in an image of {count}', accepted=f'1 to {count}', parameter='bands')
        bands = self.bands or usual or default_bands(count)
        if self.low is None and values.dtype == np.uint8:
            return Shown(bands=bands, count=count)
        step = max(1, math.isqrt(values.shape[0] * values.shape[1] * len(bands) // _MOST_SAMPLES))
        sampled = values[::step, ::step, [band - 1 for band in bands]].reshape(-1)
        finite = sampled[np.isfinite(sampled)]
        if not finite.size:  # perhaps only among those left out
            sampled = values[..., [band - 1 for band in bands]].reshape(-1)
            finite = sampled[np.isfinite(sampled)]
        if not finite.size:
            raise InputError('no value of the image is finite', hint='look for a mask or a value that means "no data"')
        if self.low is None:
            low, high = automatic_range(finite)
        elif self.percent:
            low, high = (float(each) for each in np.percentile(finite, (self.low, self.high or 0)))
        else:
            low, high = self.low, float(self.high or 0)
        if not high > low:  # one value everywhere: a medium gray
            low, high = low - 0.5, low + 0.5
        clipped = float(np.mean((finite < low) | (finite > high)))
        return Shown(float(low), float(high), bands, count, clipped, 1 - finite.size / sampled.size)


def automatic_range(finite: NDArray[Any]) -> tuple[float, float]:
    """The range that a person would choose for these values.

    - Booleans and fractions: 0 to 1. Whole numbers from 0: 0 to 255, 1023, 4095, 16383, 65535, the first that holds the
      largest value (12-bit data in 16 bits is 0 to 4095). Both only where the brightest values fill at least a third of
      the range, so that a dark image stays visible.
    - Else, and for negative values: from the 0.5th to the 99.5th percentile.

    Args:
        finite: The image's finite values, ``(N,)``, at least one.
    """
    if finite.dtype == np.bool_:
        return 0.0, 1.0
    low, high = (float(each) for each in np.percentile(finite, _PERCENTILES))
    least, most = float(finite.min()), float(finite.max())
    if least >= 0:
        whole = finite.dtype.kind in 'ui' or bool(np.all(finite == np.floor(finite)))
        tops = [2.0**depth - 1 for depth in _DEPTHS if 2.0**depth > most] if whole and most > 1 else []
        top = 1.0 if most <= 1 else tops[0] if tops else math.inf
        if high >= _FILLED * top:
            return 0.0, top
    return (low, high) if high > low else (least, most)


def _read_range(given: str | Sequence[float] | None) -> tuple[float | None, float | None, bool]:
    if given is None or given == 'auto':
        return None, None, False
    accepted = 'auto, LO,HI (0,4095) or P%,Q% (2%,98%)'
    words = given.split(',') if isinstance(given, str) else [str(each) for each in given]
    percent = all(word.strip().endswith('%') for word in words)
    try:
        numbers = [float(word.strip().removesuffix('%') if percent else word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise InputError(f'{given!r} is not a range of values', accepted=accepted, parameter='display_range')
    low, high = numbers
    if not low < high or (percent and not 0 <= low < high <= 100):
        raise InputError(
            f'the range {given!r} is empty', accepted=f'{accepted}, the lower end first', parameter='display_range'
        )
    return low, high, percent


def _read_bands(given: str | int | Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    words = [given] if isinstance(given, int) else given.split(',') if isinstance(given, str) else list(given)
    found = [int(str(word)) for word in words if re.fullmatch(r'\s*[1-9][0-9]{0,4}\s*', str(word))]
    if len(found) != len(words) or len(found) not in (1, 3):
        raise InputError(
            f'{given!r} are not bands', accepted='one number or three from 1, such as 4,3,2', parameter='bands'
        )
    return tuple(found)


def strips(height: int, width: int) -> Iterator[slice]:
    """Rows of an image, some at a time, so that a conversion needs little memory beside the image."""
    rows = max(1, _STRIP // max(width, 1))
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


PHOTO = Shown()
"""How an ordinary photo is shown: as it is."""
NO_PHOTO = Shown(known=False)
"""How an unknown photo is shown: as gray."""
