"""What a check of CAM methods found: a verdict for each method and check, and the maps and numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.errors import counted
from vistool.results.base import Result

if TYPE_CHECKING:
    from pandas import DataFrame

Verdict = Literal['pass', 'fail', 'open']
"""``'open'``: the check cannot be made, or does not decide; the text says why."""


@dataclass(frozen=True)
class Finding:
    """What one check says of one method.

    Attributes:
        check: The check's name.
        method: The method's name.
        verdict: ``'pass'``, ``'fail'`` or ``'open'``.
        text: The reason, in words.
        value: The number that was judged; None where there is none.
    """

    check: str
    method: str
    verdict: Verdict
    text: str
    value: float | None = None


@dataclass(frozen=True, eq=False)
class Cascade:
    """The maps of one method while more and more of the network is random.

    Attributes:
        maps: float32 ``(S + 1, H, W)`` in [0, 1] of the first image: of the trained network, then of each stage.
        similarity: float64 ``(S + 1, 3)``: rank correlation and SSIM with the trained network's maps, and the share of
            the images whose maximum stays in its cell of 7×7; means over the images.
    """

    maps: NDArray[np.float32]
    similarity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """One grid of photos, and the map of the class of one of them.

    Attributes:
        check: ``'gridpg'`` or ``'difull'``.
        method: The method.
        image: uint8 ``(H, W, 3)`` RGB.
        values: float32 ``(H, W)`` in [0, 1].
        cell: Row and column of the photo of the class.
        share: How much of the map lies there.
        target: The class.
    """

    check: str
    method: str
    image: NDArray[np.uint8]
    values: NDArray[np.float32]
    cell: tuple[int, int]
    share: float
    target: str


@dataclass(frozen=True, kw_only=True)
class CheckReport(Result):
    """Whether methods work on a model.

    Attributes:
        model: The model's name.
        layers: The layers that maps were taken from.
        count: How many images there were.
        titles: Method → its title.
        checks: The checks that were made.
        findings: One for each method and check, method by method.
        image: uint8 ``(H, W, 3)`` RGB, the first image as the network saw it.
        stages: What is random at each stage of the cascade: the deepest block.
        cascades: Method → its cascade; empty where it was not made.
        grids: The first grid of each method and game.
        rows: Every number: ``method``, ``check``, ``image``, ``name``, ``value``.
    """

    model: str
    layers: tuple[str, ...]
    count: int
    titles: Mapping[str, str]
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    image: NDArray[np.uint8]
    stages: tuple[str, ...] = ()
    cascades: Mapping[str, Cascade] = field(default_factory=dict)
    grids: tuple[Grid, ...] = ()
    rows: tuple[Mapping[str, float | int | str], ...] = ()

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What failed."""
        return tuple(each for each in self.findings if each.verdict == 'fail')

    @property
    def passes(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def __getitem__(self, place: tuple[str, str]) -> Finding:
        """The finding of a method and a check, ``report['gradcam', 'direction']``."""
        method, check = place
        return next(each for each in self.findings if (each.method, each.check) == (method, check))

    def to_frame(self) -> DataFrame:
        """Every number as a table."""
        from pandas import DataFrame

        return DataFrame(list(self.rows), columns=['method', 'check', 'image', 'name', 'value'])

    def __repr__(self) -> str:
        bad = ', '.join(f'{each.method} fails {each.check}' for each in self.failed)
        return f'CheckReport of {", ".join(self.titles)} on {counted(self.count, "image")}: {bad or "all pass"}'
