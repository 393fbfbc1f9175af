"""The table of metrics: each with its paper, its formula, its range, its direction, and what it needs."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool import ranges
from vistool.errors import InputError, close_matches
from vistool.metrics.protocol import Protocol
from vistool.results import Measure, ScoreCurve


class Needs(enum.Flag):
    """What a metric needs besides the map."""

    NOTHING = 0
    """Only the map."""
    SCORES = enum.auto()
    """The network's score for changed copies of the image."""
    TRUTH = enum.auto()
    """A mask of where the object is."""
    MAPS = enum.auto()
    """Maps of noisy copies of the image, by the same method."""


@dataclass(frozen=True)
class Together:
    """A way to make several copies at once that is faster than one by one.

    Attributes:
        key: Copies with equal keys can be made together.
        make: Makes them ``(N, C, H, W)`` from their masks ``(N, H, W)``.
    """

    key: Hashable
    make: Callable[[Tensor], Tensor] = field(compare=False)


@dataclass(frozen=True, eq=False)
class Copy:
    """A changed copy of the image, made when its turn comes.

    Attributes:
        key: Copies with equal keys are the same image and go through the network once.
        make: Makes it: ``(C, H, W)``, network values.
        together: Makes it with others, from its mask.
        mask: bool ``(H, W)``, what ``together`` asks for.
    """

    key: Hashable
    make: Callable[[], Tensor]
    together: Together | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Measured:
    """A metric's value, and the curves that it was computed from.

    Attributes:
        value: The number; NaN where the metric is not defined.
        curves: Name → curve.
        chance: What a map that knows nothing gets, where that is known.
    """

    value: float
    curves: Mapping[str, ScoreCurve] = field(default_factory=dict)
    chance: float | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """One map to measure.

    Attributes:
        values: The map ``(H, W)`` as it is drawn, in [0, 1], float32 or float64, on the CPU.
        image: ``(C, H, W)``, network values.
        protocol: How to measure.
        photo: uint8 ``(H, W, 3)`` RGB, the image before normalization.
        truth: bool ``(H, W)``, where the object is; None where that is not known.
        again: Maps ``(H, W)`` of noisy copies of the image.
    """

    values: Tensor
    image: Tensor
    protocol: Protocol
    photo: NDArray[np.uint8] | None = None
    truth: NDArray[np.bool_] | None = None
    again: Sequence[Tensor] = ()

    @cached_property
    def key(self) -> Hashable:
        """Tells this map from others of the same image."""
        return self.values.numpy().tobytes()

    @cached_property
    def known(self) -> Tensor:
        """The map, with 0 in place of what is not finite."""
        return torch.where(self.values.isfinite(), self.values, torch.zeros_like(self.values))


Scoring: TypeAlias = Generator[Sequence[Copy], Tensor, 'float | Measured']
"""Yields copies of the image, is sent their scores ``(n,)``, and returns what it measured."""

Measuring: TypeAlias = Callable[[Case], 'float | Measured | Scoring']


@dataclass(frozen=True)
class Metric:
    """A number about a map.

    Attributes:
        name: Its name.
        short: A short name, for tiles; users may type it too.
        paper: Where it is defined.
        formula: How it is computed, in one line.
        range: Its least and largest value.
        better: Whether ``'higher'`` or ``'lower'`` is better.
        needs: What it needs besides the map.
        measure: Computes it from a :class:`Case`; with ``Needs.SCORES`` a generator, see :data:`Scoring`.
    """

    name: str
    short: str
    paper: str
    formula: str
    range: tuple[float, float]
    better: Literal['higher', 'lower']
    needs: Needs
    measure: Measuring

    @property
    def told(self) -> Measure:
        """What a figure says of it."""
        return Measure(self.short, self.better)


METRICS: dict[str, Metric] = {}
"""Name → metric, in the order of the documentation, the user's own last."""

_DOCUMENTED = (
    *('insertion', 'deletion', 'road', 'drop', 'increase', 'sparseness', 'sensitivity', 'energy', 'pointing', 'iou'),
    'bestiou',
)


def register_metric(
    name: str,
    *,
    paper: str,
    formula: str,
    range: tuple[float, float],
    better: Literal['higher', 'lower'] = 'higher',
    needs: Needs = Needs.NOTHING,
    short: str = '',
) -> Callable[[Measuring], Measuring]:
    """Registers a function ``case → value``; works from a user's own file too.

    >>> @register_metric('area', paper='nobody, 2026', formula='share of pixels above 0.5', range=(0, 1))
    ... def area(case):
    ...     return float((case.known > 0.5).float().mean())

    Args:
        name: The name users type; case, dashes and underscores do not matter.
        paper: Where it is defined.
        formula: How it is computed, in one line.
        range: Its least and largest value.
        better: Whether ``'higher'`` or ``'lower'`` is better.
        needs: What it needs besides the map. With ``Needs.SCORES`` the function is a generator that yields copies of
            the image and is sent their scores.
        short: A short name, for tiles; default: ``name``.
    """

    def register(measure: Measuring) -> Measuring:
        METRICS[_key(name)] = Metric(_key(name), short or name, paper, formula, range, better, needs, measure)
        ranks = {key: rank for rank, key in enumerate(_DOCUMENTED)}
        ordered = sorted(METRICS.items(), key=lambda item: ranks.get(item[0], len(ranks)))
        METRICS.clear()
        METRICS.update(ordered)
        return measure

    return register


def find_metrics(names: str | Iterable[str], protocol: Protocol | None = None) -> dict[str, Metric]:
    """The metrics with these names or short names, each once, in the order given.

    Args:
        names: A name or several.
        protocol: The protocol, which may not define all of them.

    Raises:
        InputError: A name is unknown, or the protocol does not define the metric.
    """
    found: dict[str, Metric] = {}
    shorts = {_key(metric.short): metric for metric in METRICS.values()}
    for name in ranges.several(names, (str,), 'metrics', 'the name of a metric, or several'):
        metric = METRICS.get(_key(name)) or shorts.get(_key(name))
        if metric is None:
            raise InputError(
                f'unknown metric {name!r}',
                accepted=', '.join(METRICS),
                hint=close_matches(name, METRICS),
                parameter='metrics',
            )
        if (
            protocol is not None
            and protocol.covers
            and Needs.SCORES in metric.needs
            and metric.name not in protocol.covers
        ):
            raise InputError(
                f'the protocol {protocol.name} does not define {metric.name}',
                accepted=', '.join(protocol.covers),
                parameter='metrics',
            )
        found[metric.name] = metric
    return found


def _key(name: str) -> str:
    return name.lower().replace('-', '').replace('_', '')
