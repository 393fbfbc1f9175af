"""What analyses return: frozen, inert kinds of result.

Maps are kept as tidy data: a flat tuple in which each entry says in which row and column of a figure it belongs. The
visualizer arranges; an analysis never lays anything out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry
from vistool.data.patches import PatchGrid

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
        scale: Maps of one name share a colour scale by default; ``''`` means that ``group`` names it.
        signed: Whether colours are centred at zero even where all values lie on one side (a difference).
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
    scale: str = ''
    signed: bool = False


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
        recipe: How the result came about; plain JSON values.
    """

    rows: tuple[tuple[GridImage, ...], ...]
    caption: str = ''
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def with_recipe(self, **more: Any) -> ImageGrid:
        """The same result with more entries in its recipe."""
        return replace(self, recipe={**self.recipe, **more})


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
        measured: Whether these are single values that a run logged, drawn as dots, rather than a course.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    config: str
    group: str
    parameter: str
    order: float | None = None
    label: str = ''
    measured: bool = False


@dataclass(frozen=True)
class Curves:
    """Curves over training, such as a learning-rate schedule.

    Attributes:
        curves: The curves, in drawing order.
        epoch_length: Iterations per epoch, for the epoch axis and column; by config name.
        title: Heading.
        facts: One line of numbers under the title.
        warmup: Iterations of warm-up, by config name, where there is one; a short one is drawn enlarged as well.
        ramp: What the ends of the colour ramp stand for (the first and the last layer), where curves have an ``order``.
        recipe: How the result came about; plain JSON values.
        x_label: What the steps are, where they are no iterations.
    """

    curves: tuple[Curve, ...]
    epoch_length: Mapping[str, float] = field(default_factory=dict)
    title: str = ''
    facts: str = ''
    warmup: Mapping[str, int] = field(default_factory=dict)
    ramp: tuple[str, str] = ('first layer', 'last layer')
    recipe: Mapping[str, Any] = field(default_factory=dict)
    x_label: str = 'iteration'


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset as a whole.

    Attributes:
        counts: Samples per class name, in the order of class ids.
        sizes: int ``(N, 2)`` heights and widths of the images as loaded.
        found: float64 ``(3, 2)`` mean and standard deviation of R, G, B, 0-255, of the images that the network gets.
        expected: The same as the config normalises with, or None where it does not.
        verdict: Whether the two fit, in words.
        failed: Index and reason of each sample that cannot be read.
        title: Heading.
        recipe: How the result came about; plain JSON values.
    """

    counts: Mapping[str, int]
    sizes: NDArray[np.int64]
    found: NDArray[np.float64]
    expected: NDArray[np.float64] | None
    verdict: str
    failed: tuple[tuple[int, str], ...] = ()
    title: str = ''
    recipe: Mapping[str, Any] = field(default_factory=dict)


Result = Heatmaps | ImageGrid | Curves
