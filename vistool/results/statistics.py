"""Numbers about heads, channels and datasets, and all channels of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vistool.data.near_duplicates import NearDuplicate
from vistool.errors import InputError, counted
from vistool.results.base import Result

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HeadStatistics(Result):
    """What was measured of every attention head for one image.

    Attributes:
        rows: One per layer and head: ``layer`` (its number), ``name``, ``head`` and the measures, as
            :data:`vistool.analyses.attention.statistics.MEASURES` lists them.
    """

    rows: tuple[Mapping[str, float | int | str], ...]

    def to_frame(self) -> DataFrame:
        """The rows as a table."""
        from pandas import DataFrame

        return DataFrame(list(self.rows))

    def __repr__(self) -> str:
        return f'HeadStatistics of {counted(len(self.rows), "head")}'


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of one layer's channels over the positions of all images of a run; arrays are float64 ``(C,)``.

    Attributes:
        model: The model's name.
        layer: The layer's name.
        mean: Mean.
        std: Standard deviation (population).
        zeros: Share of exact zeros, in [0, 1].
        low: Minimum.
        high: Maximum.
        dead: bool ``(C,)``, channels that are zero everywhere.
    """

    model: str
    layer: str
    mean: Array
    std: Array
    zeros: Array
    low: Array
    high: Array
    dead: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics(Result):
    """What the channels of layers did over all images of a run.

    Attributes:
        layers: One entry per model and layer.
    """

    layers: tuple[LayerStatistics, ...]

    def rows(self) -> list[dict[str, float | int | str]]:
        """One row per channel, as plain values."""
        return [
            {
                'model': each.model,
                'layer': each.layer,
                'channel': channel,
                'mean': float(each.mean[channel]),
                'std': float(each.std[channel]),
                'zeros': float(each.zeros[channel]),
                'min': float(each.low[channel]),
                'max': float(each.high[channel]),
                'dead': int(each.dead[channel]),
            }
            for each in self.layers
            for channel in range(len(each.mean))
        ]

    def to_frame(self) -> DataFrame:
        """One row per channel."""
        from pandas import DataFrame

        return DataFrame(self.rows())

    def __repr__(self) -> str:
        return f'ChannelStatistics of {", ".join(dict.fromkeys(each.layer for each in self.layers))}'


@dataclass(frozen=True)
class LayerChannels:
    """Every channel of one layer for one image.

    Attributes:
        layer: The layer's name.
        values: float32 ``(C, h, w)``, the layer's own values at its own size.
        model: The model's name, where several are compared; else ``''``.
    """

    layer: str
    values: NDArray[np.float32]
    model: str = ''


@dataclass(frozen=True, kw_only=True)
class ChannelStack(Result):
    """Every channel of some layers for one image: written as a folder of pictures, one per channel, and their sum.

    Attributes:
        layers: The layers.
        size: Height and width of the pictures, in pixels: the network's input.
        name: The image's name; ``/`` makes sub-folders.
    """

    layers: tuple[LayerChannels, ...]
    size: tuple[int, int]
    name: str = ''

    def __repr__(self) -> str:
        return f'ChannelStack of {", ".join(f"{each.layer} {each.values.shape}" for each in self.layers)}'


def channel_names(count: int) -> tuple[str, ...]:
    """What the channels of an image are called: ``gray``, ``red`` ``green`` ``blue``, or ``band 1`` ``band 2`` …."""
    return {1: ('gray',), 3: ('red', 'green', 'blue')}.get(count) or tuple(f'band {n}' for n in range(1, count + 1))


@dataclass(frozen=True, eq=False)
class ObjectStatistics:
    """The annotations of a dataset in numbers.

    Attributes:
        counts: Objects per class name, in the order of class ids; of label maps, the images that show the class.
        per_image: int ``(N,)`` objects in each image, or classes in each label map.
        sizes: float64 ``(M, 2)`` widths and heights of boxes, in pixels of the images as loaded; without a box, of the
            mask.
        shares: float64 ``(M,)`` of the image's area that a box takes.
        pixels: Share of all pixels per class name; of label maps only.
    """

    counts: Mapping[str, int]
    per_image: NDArray[np.int64]
    sizes: Array
    shares: Array
    pixels: Mapping[str, float] = field(default_factory=dict)

    @property
    def empty(self) -> int:
        """How many images have no annotation."""
        return int((self.per_image == 0).sum())


@dataclass(frozen=True, kw_only=True)
class DatasetSummary(Result):
    """A dataset as a whole.

    Attributes:
        counts: Samples per class name, in the order of class ids.
        sizes: int ``(N, 2)`` heights and widths of the images as loaded.
        found: float64 ``(C, 2)`` mean and standard deviation of each channel (R, G, B where there are three) of the
            images that the network gets, in the units of the files (0-255 for photos).
        expected: The same as the config normalizes with, or None where it does not.
        verdict: Whether the two fit, in words.
        failed: Index and error of each sample that cannot be read.
        rows: One row of numbers per sample, for the table.
        title: Heading.
        objects: What the samples are annotated with; None where no sample has boxes, masks, keypoints or a label map.
        faults: Index, file and text of everything that is wrong with the annotations.
        duplicates: Pairs of nearly equal images; None where they were not searched.
    """

    counts: Mapping[str, int]
    sizes: NDArray[np.int64]
    found: Array
    expected: Array | None
    verdict: str
    failed: tuple[tuple[int, InputError], ...] = ()
    rows: tuple[Mapping[str, float | int | str], ...] = ()
    title: str = ''
    objects: ObjectStatistics | None = None
    faults: tuple[tuple[int, str, str], ...] = ()
    duplicates: tuple[NearDuplicate, ...] | None = None

    def to_frame(self) -> DataFrame:
        """One row per sample."""
        from pandas import DataFrame

        return DataFrame(list(self.rows))

    def __repr__(self) -> str:
        classes = counted(len(self.counts), 'class', 'classes')
        return f'DatasetSummary of {counted(len(self.sizes), "sample")} in {classes}: {self.verdict}'
