"""Per-channel statistics of layers over all images of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class BatchStatistics(ChannelStatistics):
    """Statistics of channels over some images, which can be added to those over other images.

    Attributes:
        sums: The sums they are computed from, by model and layer.
    """

    sums: Mapping[tuple[str, str], Channels]

    @classmethod
    def of(cls, features: Mapping[str, Sequence[Feature]]) -> BatchStatistics:
        """The statistics of one batch, from the features of each model by its name."""
        found = {(model, each.name): Channels.of(each.maps) for model, several in features.items() for each in several}
        return cls._from_sums(found)

    def __add__(self, other: BatchStatistics) -> BatchStatistics:
        both = {key: self.sums[key] + more for key, more in other.sums.items() if key in self.sums}
        return self._from_sums({**self.sums, **other.sums, **both})

    @classmethod
    def _from_sums(cls, sums: Mapping[tuple[str, str], Channels]) -> BatchStatistics:
        layers = tuple(
            LayerStatistics(
                model, layer, found.mean, found.std, found.share_of_zeros, found.low, found.high, found.dead
            )
            for (model, layer), found in sums.items()
        )
        return cls(layers=layers, sums=sums)
