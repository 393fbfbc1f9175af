"""What analyses return: three frozen, inert kinds of result.

Maps are kept as tidy data: a flat tuple in which each entry says in which row and column of a figure it belongs. The
visualizer arranges; an analysis never lays anything out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.geometry import Geometry

Kind = Literal['cam', 'attention', 'feature']


@dataclass(frozen=True)
class NetworkView:
    """What one network saw of the photo: of use where several networks are compared, whose preprocessing may differ.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB, before normalisation.
        geometry: Network pixels to original pixels; None where there is no original.
    """

    image: NDArray[np.uint8]
    geometry: Geometry | None


@dataclass(frozen=True)
class Heatmap:
    """One map and its place in the figure.

    Attributes:
        values: float32 ``(h, w)``, or ``(h, w, 3)`` in [0, 1] for maps that are colours by themselves (PCA).
        name: Name within ``group`` in the raw file, unique there (``'gradcam/espresso'``, ``'head 3'``).
        group: Group in the raw file; all maps of a group have one shape (a layer, usually).
        row: What the figure's row stands for (a class with its score, a query, a model).
        column: What the figure's column stands for (a method, a head, a stage).
        range: The values that 0 and 1 stood for, where ``values`` were scaled to [0, 1]; else None.
        note: A remark drawn on the tile («no positive evidence»).
        footer: A line under the tile (a score of its own, a similarity).
        mask: bool ``(h, w)``, places that are outlined on the map; else None.
        spotlight: Whether the photo is drawn, bright where ``values`` are 1 and dark where they are 0.
        view: What the map's own network saw, where that is another one than the result's; else None.
    """

    values: NDArray[np.float32]
    name: str
    group: str = ''
    row: str = ''
    column: str = ''
    range: tuple[float, float] | None = None
    note: str = ''
    footer: str = ''
    mask: NDArray[np.bool_] | None = None
    spotlight: bool = False
    view: NetworkView | None = None


@dataclass(frozen=True)
class Heatmaps:
    """Heat maps over one image, from a CAM, an attention head or a channel.

    Attributes:
        kind: Decides the default look: ``cam`` (overlay, jet), ``attention`` (inferno, nearest), ``feature`` (viridis,
            or red-blue about zero for signed values).
        image: uint8 ``(H, W, 3)`` RGB, exactly what the network saw, before normalisation.
        maps: The maps, in the order in which they are drawn. Each covers the whole network input.
        original: uint8 ``(H0, W0, 3)`` RGB, the file as a person sees it (EXIF applied); None where there is none.
        geometry: Network pixels to original pixels; None where there is no original.
        queries: For each row that has one, the query's ``(x, y)`` in original pixels (without a geometry: network
            pixels).
        caption: What is constant over the figure, said once.
        ground_truth: Label of the image where it is known and the prediction is wrong, else ``''``.
        recipe: How the result came about; plain JSON values.
    """

    kind: Kind
    image: NDArray[np.uint8]
    maps: tuple[Heatmap, ...]
    original: NDArray[np.uint8] | None = None
    geometry: Geometry | None = None
    queries: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    caption: str = ''
    ground_truth: str = ''
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the figure, in order of first appearance."""
        return tuple(dict.fromkeys(heatmap.row for heatmap in self.maps))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the figure, in order of first appearance."""
        return tuple(dict.fromkeys(heatmap.column for heatmap in self.maps))

    def with_recipe(self, **more: Any) -> Heatmaps:
        """The same result with more entries in its recipe."""
        return replace(self, recipe={**self.recipe, **more})


@dataclass(frozen=True)
class GridImage:
    """One picture of an :class:`ImageGrid`.

    Attributes:
        pixels: uint8 ``(h, w, 3)`` RGB.
        title: Heading lines above the picture.
        footer: Lines under it (label, index).
        wrong: Whether the footer is drawn in red.
    """

    pixels: NDArray[np.uint8]
    title: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    wrong: bool = False


@dataclass(frozen=True)
class ImageGrid:
    """Pictures in rows, such as dataset samples, pipeline steps or patches.

    Attributes:
        rows: The pictures, row by row; rows may differ in length.
        caption: One line for the whole grid.
        recipe: How the result came about; plain JSON values.
    """

    rows: tuple[tuple[GridImage, ...], ...]
    caption: str = ''
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """One parameter of one group of parameters over a run.

    Attributes:
        steps: int64 ``(T,)`` iterations, ascending.
        values: float64 ``(T,)``.
        config: Name of the config it belongs to.
        group: Name of the parameter group.
        parameter: ``lr``, ``momentum``, …
        order: Position on a colour ramp in [0, 1] (layer decay), or None for a colour of its own.
        label: Legend text; ``''`` keeps it out of the legend.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    config: str
    group: str
    parameter: str
    order: float | None = None
    label: str = ''


@dataclass(frozen=True)
class Curves:
    """Curves over training, such as a learning-rate schedule.

    Attributes:
        curves: The curves, in drawing order.
        epoch_length: Iterations per epoch, for the epoch axis and column; by config name.
        title: Heading.
        facts: One line of numbers under the title.
        recipe: How the result came about; plain JSON values.
    """

    curves: tuple[Curve, ...]
    epoch_length: Mapping[str, float] = field(default_factory=dict)
    title: str = ''
    facts: str = ''
    recipe: Mapping[str, Any] = field(default_factory=dict)


Result = Heatmaps | ImageGrid | Curves
