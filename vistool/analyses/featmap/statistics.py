"""Per-channel statistics of layers over all images of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vistool.network.features import Feature
from vistool.results import ChannelStatistics, LayerStatistics

Array = NDArray[np.float64]


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

    def result(self) -> ChannelStatistics:
        """The statistics of everything seen."""
        return ChannelStatistics(
            layers=tuple(
                LayerStatistics(
                    model, layer, found.mean, found.std, found.share_of_zeros, found.low, found.high, found.dead
                )
                for (model, layer), found in self._found.items()
            )
        )
