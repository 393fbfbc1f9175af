"""Metrics of many images → means with bootstrap intervals, paired differences, mean curves.

Images are the unit that is drawn: the maps of several targets of one image are averaged first, because they depend on
each other. All methods and metrics share the draws, so that differences between methods are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vistool.metrics.registry import METRICS, Needs
from vistool.results import Estimate, MeanCurve, Measure, MetricMean, MetricsSummary, ScoreCurve

RESAMPLES = 2000
"""How many times the images are drawn with replacement."""

LEVEL = 95
"""Percent of the draws that an interval covers."""

FRACTIONS = np.linspace(0, 1, 21)
"""Where curves are read before they are averaged."""

TRADE = 'insertion - deletion'
"""A metric that follows from two: how far the curves of insertion and deletion lie apart."""

_AT_ONCE = 1 << 22
"""Numbers that are drawn at a time, so that memory stays flat."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MapMetrics:
    """The metrics of one map.

    Attributes:
        image: The number of its image.
        series: The method, with the model or layer where there are several.
        values: Name → value; NaN where a metric is not defined.
        chance: Name → what a map that knows nothing gets.
        curves: Name → scores at :data:`FRACTIONS`.
    """

    image: int
    series: str
    values: Mapping[str, float]
    chance: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


def is_whole(curve: ScoreCurve) -> bool:
    """Whether a curve runs from nothing to all of the image, so that it can be averaged with others."""
    return bool(curve.fractions[0] == 0 and curve.fractions[-1] == 1)


def sampled(curve: ScoreCurve) -> list[float]:
    """The scores of a whole curve at :data:`FRACTIONS`, to four digits: manifests hold many of them."""
    return [float(f'{score:.4g}') for score in np.interp(FRACTIONS, curve.fractions, curve.scores)]


def bootstrap_means(values: Array, seed: int, resamples: int = RESAMPLES) -> Array:
    """The means of columns over rows drawn with replacement; the same draws for all columns.

    Args:
        values: ``(n, k)``; NaN is left out of a mean.
        seed: Of the draws, ``np.random.default_rng(seed).integers(0, n, n)`` for each.
        resamples: How many draws.

    Returns:
        ``(resamples, k)``; NaN where a draw holds no value.
    """
    count = len(values)
    generator = np.random.default_rng(seed)
    known = np.isfinite(values)
    filled, means = np.where(known, values, 0.0), []
    step = max(1, _AT_ONCE // count)
    for start in range(0, resamples, step):
        part = min(step, resamples - start)
        drawn = generator.integers(0, count, (part, count)) + count * np.arange(part)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=part * count).reshape(part, count).astype(np.float64)
        with np.errstate(invalid='ignore'):
            means.append((weights @ filled) / (weights @ known.astype(np.float64)))
    return np.concatenate(means)


def estimate(values: Array, draws: Array) -> Estimate:
    """A mean ``(n,)`` with the interval of its bootstrap ``(resamples,)``."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan)
    if len(known) < 2:
        return Estimate(float(known.mean()), math.nan, math.nan)
    tail = (100 - LEVEL) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return Estimate(float(known.mean()), float(low), float(high))


def p_value(draws: Array) -> float:
    """The two-sided p-value of a mean difference being 0, from its bootstrap ``(resamples,)``; never 0."""
    known = draws[np.isfinite(draws)]
    least = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + least) / (1 + len(known))))


def summarize(maps: Sequence[MapMetrics], baselines: Sequence[str] = (), seed: int = 0) -> MetricsSummary:
    """Means over images with bootstrap intervals, differences to the first series, and mean curves.

    Args:
        maps: The metrics of every map; the series come in the order in which they first appear.
        baselines: The series that know nothing about the network.
        seed: Of the draws.
    """
    series = list(dict.fromkeys(each.series for each in maps))
    table = _Table(maps, series, [each for each in series if each in baselines])
    draws = table.draws(seed)
    means = [_mean(table, draws, one, name) for one in series for name, values in table.values.items() if one in values]
    return MetricsSummary(
        images=len(table.images),
        measures={name: _measure(name) for name in table.values},
        means=tuple(means),
        baselines=tuple(table.baselines),
        curves=tuple(_curves(table, seed)),
    )


def _measure(name: str) -> Measure:
    if name == TRADE:
        return Measure('ins − del', 'higher')
    return METRICS[name].told if name in METRICS else Measure(name, 'higher')


def _judges(name: str) -> bool:
    """Whether a metric compares a map with the network or with the object, so that a baseline should do worse."""
    return name == TRADE or (name in METRICS and bool(METRICS[name].needs & (Needs.SCORES | Needs.TRUTH)))


class _Table:
    """The metrics of a run, with a row for each image.

    Attributes:
        images: The numbers of the images.
        series: The methods.
        baselines: Those of them that know nothing about the network.
        values: Metric → series → ``(n,)``.
        chance: Likewise.
        curves: Curve → series → ``(n, points)``.
    """

    def __init__(self, maps: Sequence[MapMetrics], series: Sequence[str], baselines: Sequence[str]) -> None:
        self.series, self.baselines = series, baselines
        self.images = list(dict.fromkeys(each.image for each in maps))
        self.values = self._filled([(each, each.values) for each in maps])
        self.chance = self._filled([(each, each.chance) for each in maps])
        self.curves = self._filled([(each, each.curves) for each in maps], (len(FRACTIONS),))
        if {'insertion', 'deletion'} <= self.values.keys():
            inserted, deleted = self.values['insertion'], self.values['deletion']
            trade = {one: inserted[one] - deleted[one] for one in series if one in inserted and one in deleted}
            names = list(self.values)
            behind = max(map(names.index, ('insertion', 'deletion'))) + 1
            ordered = [*names[:behind], TRADE, *names[behind:]]
            self.values = {name: trade if name == TRADE else self.values[name] for name in ordered}

    def _filled(
        self, found: Sequence[tuple[MapMetrics, Mapping[str, float | Sequence[float]]]], shape: tuple[int, ...] = ()
    ) -> dict[str, dict[str, Array]]:
        """The mean over the maps of each image; NaN where there is no value."""
        rows = {image: row for row, image in enumerate(self.images)}
        sums: dict[str, dict[str, Array]] = {}
        counts: dict[str, dict[str, Array]] = {}
        for each, numbers in found:
            for name, value in numbers.items():
                new = np.asarray(value, np.float64)
                for kept, add in ((sums, np.nan_to_num(new)), (counts, np.isfinite(new))):
                    column = kept.setdefault(name, {})
                    column.setdefault(each.series, np.zeros((len(rows), *shape)))[rows[each.image]] += add
        with np.errstate(invalid='ignore'):
            return {
                name: {one: sums[name][one] / counts[name][one] for one in self.series if one in sums[name]}
                for name in sums
            }

    def differences(self, name: str, one: str) -> dict[str, Array]:
        """What a series has more than the first series and than each baseline, image by image."""
        values = self.values[name]
        others = dict.fromkeys([self.series[0], *self.baselines])
        return {other: values[one] - values[other] for other in others if other in values and other != one}

    def draws(self, seed: int) -> dict[tuple[str, str, str], Array]:
        """The bootstrap of each mean, and of each difference to another series."""
        columns: dict[tuple[str, str, str], Array] = {}
        for name, values in self.values.items():
            for one, column in values.items():
                columns[name, one, ''] = column
                columns |= {(name, one, other): each for other, each in self.differences(name, one).items()}
        drawn = bootstrap_means(np.stack(list(columns.values()), 1), seed)
        return dict(zip(columns, drawn.T, strict=True))


def _mean(table: _Table, draws: Mapping[tuple[str, str, str], Array], one: str, name: str) -> MetricMean:
    values, first = table.values[name][one], table.series[0]
    known = int(np.isfinite(values).sum())
    differences = table.differences(name, one)
    chances = table.chance.get(name, {}).get(one, np.empty(0))
    chances = chances[np.isfinite(chances)]
    sign = 1 if _measure(name).better == 'higher' else -1
    beaten = {
        other: estimate(sign * differences[other], sign * draws[name, one, other]).low > 0
        for other in table.baselines
        if other in differences
    }
    paired = differences.get(first)
    return MetricMean(
        one,
        name,
        known,
        len(values) - known,
        estimate(values, draws[name, one, '']),
        float(chances.mean()) if len(chances) else None,
        None if paired is None else estimate(paired, draws[name, one, first]),
        None if paired is None or np.isfinite(paired).sum() < 2 else p_value(draws[name, one, first]),
        () if one in table.baselines or not _judges(name) else tuple(each for each, won in beaten.items() if not won),
    )


def _curves(table: _Table, seed: int) -> Iterator[MeanCurve]:
    tail = (100 - LEVEL) / 2
    for name, by_series in table.curves.items():
        for one, curves in by_series.items():
            known = curves[np.isfinite(curves).all(1)]
            if len(known):
                low, high = np.percentile(bootstrap_means(known, seed), [tail, 100 - tail], axis=0)
                yield MeanCurve(one, name, FRACTIONS, known.mean(0), low, high)
