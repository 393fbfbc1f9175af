"""What the checks are called, and the thresholds that they judge by: all of them stand here, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vistool.errors import InputError, close_matches

CHECKS = {
    'randomization': 'the map changes when the weights are random',
    'classes': 'maps of different classes differ',
    'gridpg': 'in a grid of four photos the map lies on the photo of the class (grid pointing game)',
    'difull': 'the same, with each photo classified on its own (DiFull)',
    'direction': 'removing the most relevant pixels hurts more than removing the least relevant',
    'maps': 'maps are not blank, constant, saturated, or of the border only',
    'stability': 'noise that nobody sees leaves the map as it is',
    'layers': 'whether another layer has better maps (advice, never fails)',
}
"""Name → what passes it, in the order of the report."""


@dataclass(frozen=True)
class Criteria:
    """Thresholds. They are wide on purpose: what fails is broken, what passes is not thereby right.

    Attributes:
        survival: A method fails ``randomization`` if the mean rank correlation between its maps and those of the random
            network exceeds this in every draw. An edge map has 1. Random convolutions still pass contrast on, so
            methods that take positive evidence only reach 0.85 on objects with strong edges.
        draws: How many random networks are drawn for that; each also runs once for every image.
        stages: Into how many steps the cascade is divided at most; the first is the head alone.
        similarity: A method fails ``classes`` if the mean over the images of the rank correlation between the map of
            the explained class and that of the least similar other class exceeds this. Similar breeds share evidence,
            so the least similar of several classes counts. A method that ignores the class has exactly 1.
        others: How many random classes are compared, besides the second most likely.
        sure: Photos whose predicted class is not more likely than the next one by this are not explained in grids:
            where their evidence lies is not known. It is what ``--only uncertain`` goes by.
        grids: How many grids are played at most; each takes a forward of four photos.
        inside: A method fails ``gridpg`` or ``difull`` if on average a smaller share of its map lies on the right
            photo. Chance is 0.25; half as much again is more than chance gives in the mean of a few grids.
        inverted: A method fails ``direction`` if removing the *least* relevant pixels first lowers the area under the
            score by more than this share of the score. Between that and its opposite the check is undecided: the score
            hardly depends on what is removed first.
        usual: A method fails ``maps`` if at least this share of its maps are blank, constant, saturated or border-only.
            A single map may rightly be blank: there may be no positive evidence.
        top: A map is saturated if more than half of it lies above this.
        ring: Width of the border, as a share of each side: one cell of a map of 7×7.
        border: A map is border-only if a larger share of it lies in that ring, which covers 0.49 of the image.
        unstable: A method fails ``stability`` if under noise of 2% of the image's contrast its map changes by more than
            this share of its norm, in the median over the images. Two unrelated maps differ by more than 1.
        better: Another layer is advised where its insertion is higher by more than this, and in most images.
    """

    survival: float = 0.9
    draws: int = 3
    stages: int = 6
    similarity: float = 0.995
    others: int = 3
    sure: float = 0.2
    grids: int = 8
    inside: float = 0.375
    inverted: float = 0.05
    usual: float = 0.5
    top: float = 0.95
    ring: float = 1 / 7
    border: float = 0.95
    unstable: float = 0.5
    better: float = 0.02


def find_checks(names: str | Iterable[str]) -> list[str]:
    """The checks with these names, each once, in the order of the report; none given means all.

    Raises:
        InputError: There is no such check.
    """
    given = [names] if isinstance(names, str) else list(names)
    for name in given:
        if name.lower() not in (*CHECKS, 'all'):
            raise InputError(
                f'unknown check {name!r}',
                accepted=f'all, {", ".join(CHECKS)}',
                hint=close_matches(name, CHECKS),
                parameter='checks',
            )
    wanted = {name.lower() for name in given} or {'all'}
    return [name for name in CHECKS if name in wanted or 'all' in wanted]
