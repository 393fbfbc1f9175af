"""Per-channel statistics of layers over all images of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vistool.network.features import Feature
from vistool.results import Curve, Curves

Array = NDArray[np.float64]

COLUMNS = ('model', 'layer', 'channel', 'mean', 'std', 'zeros', 'min', 'max', 'dead')


@dataclass
class Channels:
    """Running sums over the positions of all images, one entry per channel; float64.

    Attributes:
        count: Positions seen.
    """

    count: int
    total: Array
    squares: Array
    zeros: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, maps: Tensor) -> Channels:
        """Of a batch ``(B, C, h, w)``."""
        values = maps.detach().double().cpu().transpose(0, 1).flatten(1)
        shift = values.mean(1)
        return cls(
            values.shape[1],
            shift.numpy() * values.shape[1],
            (values - shift[:, None]).square().sum(1).numpy(),
            (values == 0).sum(1).double().numpy(),
            values.amin(1).numpy(),
            values.amax(1).numpy(),
        )

    def __add__(self, other: Channels) -> Channels:
        # Squares are about each part's own mean (Chan et al., 1979), so that a large mean costs no digits
        between = self.total / self.count - other.total / other.count
        count = self.count + other.count
        return Channels(
            count,
            self.total + other.total,
            self.squares + other.squares + between**2 * (self.count * other.count / count),
            self.zeros + other.zeros,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def mean(self) -> Array:
        """Over all positions of all images."""
        return self.total / self.count

    @property
    def std(self) -> Array:
        """Over all positions of all images (population)."""
        return np.sqrt(self.squares / self.count)

    @property
    def share_of_zeros(self) -> Array:
        """In [0, 1]; exact zeros only."""
        return self.zeros / self.count

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Channels that are zero everywhere in all images."""
        return self.zeros == self.count


@dataclass
class Statistics:
    """What the layers of one run's models did, channel by channel. Fed by :meth:`see`, then read once."""

    _found: dict[tuple[str, str], Channels] = field(default_factory=dict)

    def see(self, model: str, features: Sequence[Feature]) -> None:
        """Takes in a batch."""
        for feature in features:
            more = Channels.of(feature.maps)
            key = (model, feature.name)
            self._found[key] = self._found[key] + more if key in self._found else more

    def table(self) -> bytes:
        """A CSV table, one row per channel: mean, std, share of zeros, minimum, maximum, and whether it is dead."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(COLUMNS)
        for (model, layer), found in self._found.items():
            columns = (found.mean, found.std, found.share_of_zeros, found.low, found.high)
            for channel, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
                writer.writerow((model, layer, channel, *map(repr, values), int(found.dead[channel])))
        return text.getvalue().encode()

    def curves(self) -> Curves:
        """Mean, std and share of zeros of the channels, each sorted from the largest down, one line per layer."""
        several = len({model for model, _ in self._found}) > 1
        drawn = []
        for (model, layer), found in self._found.items():
            dead = int(found.dead.sum())
            label = f'{model} · {layer}' if several else layer
            label += f' ({dead} of {len(found.total)} dead)' if dead else ''
            columns = {'mean': found.mean, 'std': found.std, 'share of zeros': found.share_of_zeros}
            for name, values in columns.items():
                steps = np.arange(1, len(values) + 1, dtype=np.int64)
                drawn.append(
                    Curve(steps, np.sort(values)[::-1], model, layer, name, label=label if name == 'mean' else '')
                )
        return Curves(tuple(drawn), x_label='channels, largest first')
