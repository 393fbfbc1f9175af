"""Pictures in rows: dataset samples, pipeline steps, patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.patches import PatchGrid


@dataclass(frozen=True)
class Cut:
    """How a picture is cut into patches, and what is said about them.

    Attributes:
        grid: Where the patches lie; where they reach beyond the picture there is padding.
        border: Width of the border drawn around each patch, in pixels of the picture.
        color: Of the borders, RGB.
        padding: Grey level of what lies beyond the picture.
        sequence: Names of the tokens before the patches, if the patches are laid out as one row (wrapped as text is);
            None: as a mosaic.
        order: Whether the patches' numbers are written on them, where they can be read.
        hidden: ``(N,)``, patches that are masked; None: none are.
        highlight: Numbers of patches to bring out; the others are faded.
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
        title: Heading lines above the picture.
        footer: Lines under it (label, index).
        wrong: Whether the footer is drawn in red.
        cut: How it is cut into patches; None: it is drawn whole.
        fields: Rectangles to draw on it, each in a colour of its own: left, top, right, bottom in its pixels.
    """

    pixels: NDArray[np.uint8]
    title: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    wrong: bool = False
    cut: Cut | None = None
    fields: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class ImageGrid:
    """Pictures in rows, such as dataset samples, pipeline steps or patches.

    Attributes:
        rows: The pictures, row by row; rows may differ in length.
        caption: One line for the whole grid.
        provenance: How the result came about; plain JSON values.
    """

    rows: tuple[tuple[GridImage, ...], ...]
    caption: str = ''
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def with_provenance(self, **more: Any) -> ImageGrid:
        """The same result with more entries in its provenance."""
        return replace(self, provenance={**self.provenance, **more})
