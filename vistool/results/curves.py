"""Curves over training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """One parameter of one group of parameters over a run.

    Attributes:
        steps: int64 ``(T,)`` iterations, ascending.
        values: float64 ``(T,)``.
        config: Name of the config it belongs to.
        group: Name of the parameter group.
        parameter: ``lr``, ``momentum``, …
        order: Position on a colour ramp in [0, 1] (layer decay), or None for a colour of its own.
        label: Legend text; ``''`` keeps it out of the legend.
        measured: Whether these are single values that a run logged, drawn as dots, rather than a course.
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
class Curves:
    """Curves over training, such as a learning-rate schedule.

    Attributes:
        curves: The curves, in drawing order.
        epoch_length: Iterations per epoch, for the epoch axis and column; by config name.
        title: Heading.
        facts: One line of numbers under the title.
        warmup: Iterations of warm-up, by config name, where there is one; a short one is drawn enlarged as well.
        ramp: What the ends of the colour ramp stand for (the first and the last layer), where curves have an ``order``.
        provenance: How the result came about; plain JSON values.
        x_label: What the steps are, where they are no iterations.
    """

    curves: tuple[Curve, ...]
    epoch_length: Mapping[str, float] = field(default_factory=dict)
    title: str = ''
    facts: str = ''
    warmup: Mapping[str, int] = field(default_factory=dict)
    ramp: tuple[str, str] = ('first layer', 'last layer')
    provenance: Mapping[str, Any] = field(default_factory=dict)
    x_label: str = 'iteration'
