"""Rules that judge what changed between two runs: ``iou<0.8``, ``flips>0.5%``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError, param
from vistool.records import shown
from vistool.runs.differences import ImageDifference, RunDifference

NOISE = {'score': 2e-5, 'mass': 2e-5}
"""Changes up to here are noise: ten times what ``tools/checks/noise.py`` measured over threads, batch sizes and
instruction sets with EfficientNet-Lite0 on the demo photos; ``docs/en/vis_diff.md`` has the table.
"""

PER_MAP, PER_IMAGE, COUNTED = ('iou', 'rank', 'mass'), ('score',), ('flips', 'missing', 'unmatched', 'failed')
QUANTITIES = (*PER_MAP, *PER_IMAGE, *COUNTED)
"""What rules judge; see ``docs/en/vis_diff.md``."""

_RULE = re.compile(
    rf'\s*(?:(mean|median)\s+)?({"|".join(QUANTITIES)})\s*(<=|>=|<|>)\s*(-?[0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(%?)\s*',
    re.I,
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    '<': lambda value, bound: value < bound,
    '<=': lambda value, bound: value <= bound,
    '>': lambda value, bound: value > bound,
    '>=': lambda value, bound: value >= bound,
}


@dataclass(frozen=True)
class Rule:
    """A condition under which the comparison fails.

    Attributes:
        quantity: One of :data:`QUANTITIES`.
        sign: ``<``, ``<=``, ``>`` or ``>=``.
        bound: The number.
        share: Whether a count is compared as a share of all.
        over: ``mean`` or ``median`` over all maps or images; ``''``: any of them.
    """

    quantity: str
    sign: str
    bound: float
    share: bool = False
    over: str = ''

    @classmethod
    def of(cls, text: str) -> Rule:
        """A rule as a user writes it: ``'iou<0.8'``, ``'flips>0.5%'``, ``'median rank<0.9'``.

        Raises:
            InputError: It cannot be parsed.
        """
        found = _RULE.fullmatch(text)
        examples = 'iou<0.8, flips>0.5%, score>0.02, mean rank<0.9'
        accepted = f'{", ".join(QUANTITIES)} with <, <=, > or >= and a number: {examples}'
        if found is None:
            raise InputError(f'{shown(text)} is not a rule', accepted=accepted, parameter='fail_if')
        over, quantity, sign, bound, percent = found.groups()
        counted = quantity.lower() in COUNTED
        if over and counted:
            raise InputError(f'{shown(text)}: {quantity} is a count', accepted=accepted, parameter='fail_if')
        value = float(bound) / (100 if percent else 1)
        return cls(quantity.lower(), sign, value, counted and bool(percent), (over or '').lower())

    def __str__(self) -> str:
        bound = f'{self.bound:.6g}' if not self.share else f'{100 * self.bound:.6g}%'
        return f'{self.over} {self.quantity}{self.sign}{bound}'.strip()

    def holds(self, value: float) -> bool:
        """Whether a value fails by this rule; one that is not defined does not."""
        return math.isfinite(value) and _COMPARE[self.sign](value, self.bound)

    def broken_by(self, image: ImageDifference) -> bool:
        """Whether one image alone fails by this rule, or is counted by it."""
        if self.quantity in COUNTED:
            return _counted(image, self.quantity)
        return not self.over and any(self.holds(value) for value in _values_of(image, self.quantity))


def default_rules(found: RunDifference) -> list[Rule]:
    """Any change that is larger than noise, of what the runs have in common."""
    moved = [f'{name}>{bound:g}' for name, bound in NOISE.items()]
    rules = [rule for rule in map(Rule.of, moved) if _finite_values(found, rule.quantity).size]
    return [*rules, *map(Rule.of, ('flips>0', 'missing>0', 'failed>0'))]


@dataclass(frozen=True)
class Verdict:
    """What became of a rule.

    Attributes:
        rule: The rule.
        value: What was compared: the worst, the mean or median, or the count or share.
        failed: Whether the comparison fails by it.
        images: Names of the images that fail by it alone, or are counted.
    """

    rule: Rule
    value: float
    failed: bool
    images: tuple[str, ...] = ()


def judge(found: RunDifference, rules: Sequence[Rule]) -> list[Verdict]:
    """What becomes of each rule.

    Raises:
        InputError: The runs have nothing in common that a rule compares.
    """
    return [_counted_verdict(found, rule) if rule.quantity in COUNTED else _verdict(found, rule) for rule in rules]


def _verdict(found: RunDifference, rule: Rule) -> Verdict:
    values = _finite_values(found, rule.quantity)
    if not values.size:
        raise InputError(
            f'{str(rule)!r}: the runs have no {"scores" if rule.quantity == "score" else "maps"} in common',
            hint=f'run both with {param("save_raw", True)} and the same targets',
            parameter='fail_if',
        )
    worst = values.min() if rule.sign.startswith('<') else values.max()
    value = float({'mean': values.mean(), 'median': np.median(values), '': worst}[rule.over])
    return Verdict(rule, value, rule.holds(value), _broken(found, rule))


def _counted_verdict(found: RunDifference, rule: Rule) -> Verdict:
    count, total = _count(found, rule.quantity)
    value = count / total if rule.share and total else float(count)
    return Verdict(rule, value, rule.holds(value), _broken(found, rule))


def _broken(found: RunDifference, rule: Rule) -> tuple[str, ...]:
    return tuple(image.name for image in found.images if rule.broken_by(image))


def _finite_values(found: RunDifference, quantity: str) -> NDArray[np.float64]:
    values = np.array([value for image in found.images for value in _values_of(image, quantity)], np.float64)
    return values[np.isfinite(values)]


def _values_of(image: ImageDifference, quantity: str) -> list[float]:
    return [image.score] if quantity == 'score' else [getattr(item, quantity) for item in image.maps]


def _counted(image: ImageDifference, quantity: str) -> bool:
    """Whether an image that both runs have is counted."""
    if quantity == 'flips':
        return image.flipped
    if quantity == 'failed':
        return bool(image.errors[1]) and not image.errors[0]
    return quantity == 'unmatched' and any(not item.paired for item in image.maps)


def _count(found: RunDifference, quantity: str) -> tuple[int, int]:
    """How many there are, and of how many."""
    if quantity == 'missing':
        missing = len(found.only_before) + len(found.only_after)
        return missing, len(found.images) + missing
    if quantity == 'unmatched':
        maps = list(found.maps)
        return sum(not item.paired for item in maps), len(maps)
    return sum(_counted(image, quantity) for image in found.images), len(found.images)
