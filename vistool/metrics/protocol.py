"""How pixels are removed and what is scored: everything that changes a metric's value and is not the map."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from vistool.errors import InputError, close_matches

Baseline: TypeAlias = Literal['blur', 'mean', 'black', 'minimum', 'linear']
"""What takes the place of removed pixels:

- ``blur``: the image after a Gaussian blur;
- ``mean``: the mean color of the image itself;
- ``black``: the pixel value 0, or, in the space of the network, zeros (the mean color of its training data);
- ``minimum``: the smallest of the network's input values, over all channels: what Quantus calls black;
- ``linear``: ROAD's noisy linear imputation from the pixels that are left.
"""

Ties: TypeAlias = Literal['random', 'position', 'together']
"""Units of equal value leave in random order, row by row, or all at once (more than asked for is removed then)."""

TEN_TO_NINETY = tuple(range(10, 100, 10))
_REFERENCE_SIDE = 224


@dataclass(frozen=True)
class Protocol:
    """How metrics are measured. The default is argued for in ``docs/en/metrics.md``.

    Attributes:
        name: Its name.
        covers: Which metrics that score changed images it defines; empty: all.
        block: Units are blocks of ``block × block`` pixels, ordered by their mean.
        steps: How many steps the curves of insertion and deletion have.
        order: Which units leave first: the most or the least relevant.
        ties: How units of equal value are ordered.
        baseline: What takes the place of removed pixels.
        start: What insertion starts from, where that is another baseline; None: ``baseline``.
        blur: The Gaussian's kernel and standard deviation in pixels of an image whose shorter side is 224; for other
            images both are scaled.
        score: What is scored of a class: its probability or its logit. Values and other scores are taken as they are.
        space: ``'pixels'``: black is the pixel value 0, a blur continues the image's edge, and ``noise`` and ``radius``
            are shares of the image's standard deviation. ``'network'``: all of that in the network's own input values,
            with zeros around the image.
        drop: Whether a drop of the score is ``'relative'`` to it or ``'absolute'``.
        percent: How much ROAD removes, in percent of the units.
        noise: Standard deviation of the noise on imputed pixels.
        radius: Sensitivity adds noise from the uniform distribution on ``[-radius, radius]``.
        samples: How many noisy copies sensitivity takes the maximum over.
        tolerance: Pixels around a mask that the pointing game still counts as a hit.
        threshold: The share of a map's maximum above which IoU counts a pixel.
        seed: Of ties and noise.
    """

    name: str = 'vistool'
    covers: tuple[str, ...] = ()
    block: int = 8
    steps: int = 28
    order: Literal['most', 'least'] = 'most'
    ties: Ties = 'random'
    baseline: Baseline = 'blur'
    start: Baseline | None = None
    blur: tuple[int, float] = (97, 16.0)
    score: Literal['probability', 'logit'] = 'probability'
    space: Literal['pixels', 'network'] = 'pixels'
    drop: Literal['relative', 'absolute'] = 'relative'
    percent: tuple[int, ...] = TEN_TO_NINETY
    noise: float = 0.01
    radius: float = 0.02
    samples: int = 10
    tolerance: int = 15
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every value, so that a wrong one is reported before any work."""
        self._among('order', ('most', 'least'))
        self._among('ties', get_args(Ties))
        self._among('baseline', get_args(Baseline))
        self._among('start', (*get_args(Baseline), None))
        self._among('score', ('probability', 'logit'))
        self._among('space', ('pixels', 'network'))
        self._among('drop', ('relative', 'absolute'))
        for name, least in (('steps', 2), ('block', 1), ('samples', 1), ('tolerance', 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f'{value!r}', accepted=f'an integer from {least} up', parameter=name)
        if not self.percent or not all(0 < each < 100 for each in self.percent):
            raise InputError(f'{self.percent!r}', accepted='numbers between 0 and 100', parameter='percent')
        if not 0 < self.threshold <= 1:
            raise InputError(f'{self.threshold!r}', accepted='above 0, at most 1', parameter='threshold')
        if self.blur[0] < 1 or self.blur[0] % 2 == 0 or self.blur[1] <= 0:
            raise InputError(f'{self.blur!r}', accepted='an odd kernel, and a positive deviation', parameter='blur')

    def _among(self, name: str, known: tuple[str | None, ...]) -> None:
        if getattr(self, name) not in known:
            raise InputError(f'{getattr(self, name)!r}', accepted=', '.join(map(str, known)), parameter=name)

    def blur_at(self, side: int) -> tuple[int, float]:
        """The Gaussian's odd kernel and standard deviation in pixels, for an image with this shorter side."""
        kernel, deviation = self.blur
        factor = side / _REFERENCE_SIDE
        return 2 * max(1, round((kernel - 1) / 2 * factor)) + 1, deviation * factor

    def entry(self) -> dict[str, Any]:
        """As plain JSON values, for provenance."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }


PROTOCOLS = {
    each.name: each
    for each in (
        Protocol(),
        Protocol(
            'rise',
            ('insertion', 'deletion'),
            block=1,
            baseline='black',
            start='blur',
            blur=(11, 5.0),
            space='network',
        ),
        Protocol(
            'gradcam',
            ('road', 'drop', 'increase'),
            block=1,
            ties='together',
            baseline='black',
            space='network',
            drop='absolute',
        ),
        Protocol(
            'torchcam',
            ('insertion', 'deletion', 'drop', 'increase'),
            block=1,
            steps=20,
            ties='position',
            baseline='black',
            space='network',
        ),
        Protocol(
            'quantus',
            ('deletion',),
            block=1,
            ties='position',
            baseline='minimum',
            space='network',
            radius=0.2,
            samples=200,
            tolerance=0,
        ),
    )
}
"""The protocols that have a name: our default, and those that other implementations follow."""


def find_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of this name; a protocol itself comes back as it is.

    Raises:
        InputError: There is no such protocol.
    """
    if isinstance(protocol, Protocol):
        return protocol
    found = PROTOCOLS.get(str(protocol).lower())
    if found is None:
        raise InputError(
            f'unknown protocol {protocol!r}',
            accepted=', '.join(PROTOCOLS),
            hint=close_matches(str(protocol), PROTOCOLS),
            parameter='protocol',
        )
    return found
