"""The learning rates that a run really used, beside those that were planned."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vistool.analyses.schedule.curves import Merged, percent
from vistool.analyses.schedule.optimizers import OptimizerPlan
from vistool.analyses.schedule.replay import Recording
from vistool.errors import InputError, counted
from vistool.results import Curve

_SAME = 1e-6
"""Rates that differ by less, relative to the plan, are the same but for rounding."""


class UsedRates:
    """The rate of every parameter group of an optimizer in every iteration; groups that stay equal share their numbers.

    mmengine makes a group of every parameter, hundreds of them over hundreds of thousands of iterations, of which few
    differ.
    """

    def __init__(self) -> None:
        self._columns: list[array[float]] = []
        self._column_of: list[int] = []

    def note(self, rates: Sequence[float]) -> None:
        """Adds an iteration: the rate of each group."""
        if not self._column_of:
            self._columns, self._column_of = [array('d')], [0] * len(rates)
        if len(rates) != len(self._column_of):
            raise InputError(f'the run has {len(rates)} parameter groups, and had {len(self._column_of)} before')
        homes: dict[tuple[int, float], int] = {}  # column and rate now → column; one that parts gets a copy
        added: dict[int, float] = {}
        for group, rate in enumerate(rates):
            column = self._column_of[group]
            home = homes.get((column, rate))
            if home is None:
                home = column
                if column in added:
                    home = len(self._columns)
                    self._columns.append(self._columns[column][:])
                homes[column, rate] = home
                added[home] = rate
            self._column_of[group] = home
        for place, rate in added.items():
            self._columns[place].append(rate)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self._column_of)

    def __len__(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    def column(self, group: int) -> NDArray[np.float64]:
        """The rate of a group in each iteration, ``(T,)``."""
        return np.array(self._columns[self._column_of[group]], np.float64)

    def distinct(self, groups: Sequence[int]) -> list[NDArray[np.float64]]:
        """The different columns of some groups."""
        return [np.array(self._columns[each], np.float64) for each in sorted({self._column_of[one] for one in groups})]


@dataclass
class Comparison:
    """The rates of a run, compared with the plan of one optimizer after the other.

    Attributes:
        used: The rates, by optimizer (``''`` for a single one).
        first: Which iteration the first one is; above 0 for a run that was resumed.
        gap: The largest difference so far, relative to the plan.
        parted: The first iteration with a difference that is not rounding; None where there is none.
        beyond: Iterations of the run that the plan does not have.
    """

    used: Mapping[str, UsedRates]
    first: int = 0
    gap: float = field(default=0.0, init=False)
    parted: int | None = field(default=None, init=False)
    beyond: int = field(default=0, init=False)

    def curves(
        self, plan: OptimizerPlan, recording: Recording, merged: Sequence[Merged], planned: Sequence[Curve]
    ) -> list[Curve]:
        """A measured curve for each planned one.

        Raises:
            InputError: The run had other parameter groups.
        """
        used = self.used.get(plan.name) or UsedRates()
        if used.groups != len(plan.groups):
            raise InputError(f'the run has {used.groups} parameter groups, and the config {len(plan.groups)}')
        steps = np.arange(self.first, self.first + len(used), dtype=np.int64)
        measured: list[Curve] = []
        for each, curve in zip(merged, planned, strict=True):
            expected = recording.column(each.members[0])[self.first :]
            for rates in used.distinct(each.members):
                self._compare(rates, expected)
            label, group = '' if measured else 'run', f'{curve.group} (run)'
            rates = used.column(each.members[0])
            measured.append(Curve(steps, rates, curve.config, group, 'lr', None, label, measured=True))
        return measured

    def _compare(self, rates: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        length = min(len(rates), len(expected))
        gaps = np.abs(rates[:length] - expected[:length]) / np.maximum(np.abs(expected[:length]), 1e-300)
        self.gap = max(self.gap, float(gaps.max(initial=0.0)))
        self.beyond = max(self.beyond, len(rates) - length)
        apart = np.flatnonzero(gaps > _SAME)
        if len(apart):
            start = self.first + int(apart[0])
            self.parted = start if self.parted is None else min(self.parted, start)

    def describe(self) -> str:
        """``'600 iterations run, as planned (off by at most 0 %)'``, or from where on they were not."""
        count = max(map(len, self.used.values()), default=0)
        since = f' from iteration {self.first:,} on' if self.first else ''
        if self.parted is None:
            told = f'as planned (off by at most {percent(self.gap)})'
        else:
            told = f'off the plan from iteration {self.parted:,} on, by at most {percent(self.gap)}'
        beyond = f', {self.beyond:,} of them beyond its end' if self.beyond else ''
        return f'{counted(count, "iteration")} run{since}, {told}{beyond}'
