"""Metrics over the images of a run: means with intervals, differences to the first method, and mean curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vistool.errors import counted
from vistool.results.base import Result
from vistool.results.heatmaps import Measure

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its 95 % interval.

    Attributes:
        mean: The mean; NaN where there is no value.
        low: Where the interval begins; NaN for fewer than two images.
        high: Where it ends.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricMean:
    """One metric of one method over the images of a run.

    Attributes:
        series: The method, with the model or layer where there are several.
        metric: The metric's name.
        images: For how many images it is defined.
        left_out: For how many it is not, such as those with an empty mask.
        value: Its mean.
        chance: The mean of what a map that knows nothing gets; None where that is not known.
        difference: The mean of the paired differences to the first series; None for the first itself.
        p: The two-sided p-value of that difference; None for the first itself, or for fewer than two images.
        not_better_than: The baselines that it does not beat: the interval of the difference includes 0, or is on the
            wrong side. Empty for baselines, and for metrics that say nothing about the network or the object.
    """

    series: str
    metric: str
    images: int
    left_out: int
    value: Estimate
    chance: float | None = None
    difference: Estimate | None = None
    p: float | None = None
    not_better_than: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference to the first series lies on one side of 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """The mean of a curve over images.

    Attributes:
        series: The method.
        name: The curve's name, such as ``'insertion'``.
        fractions: float64 ``(n,)``, the share of the pixels that was removed or is in.
        mean: float64 ``(n,)``.
        low: float64 ``(n,)``, where the 95 % interval of the mean begins.
        high: float64 ``(n,)``, where it ends.
    """

    series: str
    name: str
    fractions: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MetricsSummary(Result):
    """The metrics of a run over many images.

    Attributes:
        images: How many images were measured.
        measures: The metrics, in the order in which they were asked for.
        baselines: The series that know nothing about the network.
        means: One for each series and metric.
        curves: Mean curves, where there are any.
    """

    images: int
    measures: Mapping[str, Measure]
    means: tuple[MetricMean, ...]
    baselines: tuple[str, ...] = ()
    curves: tuple[MeanCurve, ...] = field(default=(), repr=False)

    @property
    def series(self) -> tuple[str, ...]:
        """The methods, the first one first."""
        return tuple(dict.fromkeys(each.series for each in self.means))

    def of(self, series: str, metric: str) -> MetricMean | None:
        """One metric of one series; None where it was not measured."""
        return next((each for each in self.means if (each.series, each.metric) == (series, metric)), None)

    def rows(self) -> list[dict[str, str | float | int | None]]:
        """One row of plain values per series and metric; unknown ones are None."""
        found: list[dict[str, str | float | int | None]] = []
        for each in self.means:
            away = each.difference
            found.append(
                {
                    'method': each.series,
                    'metric': each.metric,
                    'better': self.measures[each.metric].better,
                    'images': each.images,
                    'left out': each.left_out,
                    'mean': each.value.mean,
                    'low': each.value.low,
                    'high': each.value.high,
                    'chance': each.chance,
                    'difference': None if away is None else away.mean,
                    'difference low': None if away is None else away.low,
                    'difference high': None if away is None else away.high,
                    'p': each.p,
                    'not better than': ', '.join(each.not_better_than),
                }
            )
        return found

    def to_frame(self) -> DataFrame:
        """One row per series and metric."""
        from pandas import DataFrame

        return DataFrame(self.rows())

    def __repr__(self) -> str:
        images = counted(self.images, 'image')
        return f'MetricsSummary of {", ".join(self.measures)} over {images}: {", ".join(self.series)}'
