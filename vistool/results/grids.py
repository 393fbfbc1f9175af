"""Pictures in rows: dataset samples, pipeline steps, patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.annotations import Annotations
from vistool.data.display import Shown
from vistool.data.patches import PatchGrid
from vistool.errors import InputError, counted
from vistool.results.base import Coordinates, Result

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Cut:
    """How a picture is cut into patches, and what is said about them.

    Attributes:
        grid: Where the patches lie; where they reach beyond the picture there is padding.
        border: Width of the border around each patch, in pixels of the picture.
        color: Color of the borders, RGB.
        padding: Gray level of what lies beyond the picture.
        sequence: Names of the tokens before the patches, if the patches are laid out as one row, wrapped like text;
            None lays them out as a mosaic.
        order: Whether the patches' numbers are written on them, where they can be read.
        hidden: ``(N,)``, the patches that are masked; None masks none.
        highlight: Numbers of the patches to highlight; the others are faded.
        windows: Edges between tokens at which lines are drawn, along rows and along columns.
    """

    grid: PatchGrid
    border: float = 0.0
    color: tuple[int, int, int] = (255, 255, 255)
    padding: int = 225
    sequence: tuple[str, ...] | None = None
    order: bool = False
    hidden: NDArray[np.bool_] | None = None
    highlight: tuple[int, ...] = ()
    windows: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass(frozen=True)
class GridImage:
    """One picture of an :class:`ImageGrid`.

    Attributes:
        pixels: uint8 ``(h, w, 3)`` RGB.
        title: Heading lines of the picture's own; most pictures are titled by their coordinates.
        footer: Lines of its own under it.
        wrong: Whether the lines under it are drawn in red.
        cut: How it is cut into patches; None: it is drawn whole.
        boxes: Rectangles to draw on it, each in its own color: left, top, right, bottom in its pixels.
        coordinates: What it is, as far as it applies: the ``step`` of a pipeline after which it was taken (``original``
            before the first, ``transformed`` after the last), the container ``within`` which it was drawn and which
            ``choice`` of the pipeline that was, ``draw`` and ``view`` (from 0), the ``sample``'s index.
        parameters: What the step drew, as text.
        label: The lines of the sample's label.
        refetched: The index of the sample that the pipeline gave instead; None: it is this one.
        annotations: Boxes, masks, keypoints and a label map to draw on it; None without any.
        remark: A short text on it, of what is wrong.
    """

    pixels: NDArray[np.uint8]
    title: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    wrong: bool = False
    cut: Cut | None = None
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    coordinates: Coordinates = field(default_factory=Coordinates)
    parameters: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    refetched: int | None = None
    annotations: Annotations | None = None
    remark: str = ''


@dataclass(frozen=True)
class ImageGrid(Result):
    """Pictures in rows, such as dataset samples, pipeline steps or patches.

    Attributes:
        rows: The pictures, row by row; rows may differ in length.
        caption: One line for the whole grid.
        mode: What the pictures are, as :class:`~vistool.analyses.dataset.BrowseDataset` names it.
        name: Of the first sample shown.
        samples: One row of numbers for each sample that was read.
        failed: Index and error of each sample that could not be read.
        shown: Which of their files' values and bands the pictures show, each way once.
        classes: Names of the annotations' classes by id; None where they have none.
        palette: Colors of the classes by id, where the dataset has its own.
        skeleton: Pairs of keypoints that are joined by a line, where the dataset says so.
        faults: Index, file and text of everything that is wrong with the annotations.
    """

    rows: tuple[tuple[GridImage, ...], ...]
    caption: str = ''
    mode: str = ''
    name: str = ''
    samples: tuple[Mapping[str, Any], ...] = ()
    failed: tuple[tuple[int, InputError], ...] = ()
    shown: tuple[Shown, ...] = ()
    classes: tuple[str, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    faults: tuple[tuple[int, str, str], ...] = ()

    def to_frame(self) -> DataFrame:
        """One row per sample."""
        from pandas import DataFrame

        return DataFrame(list(self.samples))

    def __repr__(self) -> str:
        told = f': {self.caption}' if self.caption else ''
        return f'ImageGrid of {counted(sum(map(len, self.rows)), "picture")}{told}'
