"""Curves over training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vistool.results.base import Result

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Curve:
    """One parameter of one group of parameters over a run.

    Attributes:
        steps: int64 ``(T,)`` iterations, ascending.
        values: float64 ``(T,)``.
        config: Name of the config it belongs to.
        group: Name of the parameter group.
        parameter: ``lr``, ``momentum``, …
        order: Position on a color ramp in [0, 1] (layer decay), or None for a color of its own.
        label: Legend text; ``''`` keeps it out of the legend.
        measured: Whether these are single values that a run logged, drawn as dots rather than as a line.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    config: str
    group: str
    parameter: str
    order: float | None = None
    label: str = ''
    measured: bool = False


@dataclass(frozen=True)
class Curves(Result):
    """Curves over training, such as a learning-rate schedule.

    Attributes:
        curves: The curves, in drawing order.
        epoch_length: Iterations per epoch, for the epoch axis and column; by config name.
        title: Heading.
        facts: One line of numbers under the title.
        warmup: Iterations of warm-up, by config name, where there is one; a short one is enlarged beside the panel.
        ramp: The names of both ends of the color ramp (the first and the last layer), where curves have an ``order``.
        x_label: The unit of the steps, where they are not iterations.
    """

    curves: tuple[Curve, ...]
    epoch_length: Mapping[str, float] = field(default_factory=dict)
    title: str = ''
    facts: str = ''
    warmup: Mapping[str, int] = field(default_factory=dict)
    ramp: tuple[str, str] = ('first layer', 'last layer')
    x_label: str = 'iteration'

    def to_frame(self) -> DataFrame:
        """One row per step of each curve: config, group, parameter, step, epoch (NaN where unknown), value."""
        import pandas

        parts = []
        for curve in self.curves:
            length = self.epoch_length.get(curve.config)
            parts.append(
                pandas.DataFrame(
                    {
                        'config': curve.config,
                        'group': curve.group,
                        'parameter': curve.parameter,
                        'step': curve.steps,
                        'epoch': curve.steps // length if length else np.nan,
                        'value': curve.values,
                    }
                )
            )
        return pandas.concat(parts, ignore_index=True)

    def __repr__(self) -> str:
        return f'Curves of {", ".join(dict.fromkeys(curve.parameter for curve in self.curves))}' + (
            f': {self.facts}' if self.facts else ''
        )
