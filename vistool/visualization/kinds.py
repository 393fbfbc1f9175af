"""What each kind of result becomes: pictures, numbers, panels, bare overlays. The one place where a kind is declared.

A kind of your own is a frozen dataclass that extends :class:`~vistool.results.Result`. Register what it becomes, and
``vt.show``, ``vt.save``, ``vt.render`` and the :class:`~vistool.visualization.visualizer.Visualizer` accept it::

    @draw_figure.register(Histogram)
    def _(result, figure, style, page):
        figure.set_size_inches(4, 3)
        figure.subplots().hist(result.values)

Register :func:`to_scene` instead for a picture that is laid out in tiles; it needs no matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING

from vistool.errors import InputError
from vistool.results import (
    ChannelStack,
    ChannelStatistics,
    Curves,
    DatasetSummary,
    HeadStatistics,
    Heatmaps,
    ImageGrid,
    Result,
)
from vistool.visualization import raster, raw
from vistool.visualization.files import encode_pixels
from vistool.visualization.grids import bare_tiles, grid_scene
from vistool.visualization.heatmaps import as_heatmaps, channel_files, heatmaps_scene, overlays, panel_scenes
from vistool.visualization.scene import Pixels, Scene
from vistool.visualization.style import Page, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Raw:
    """The numbers of a result as the bytes of a file.

    Attributes:
        suffix: ``.npz`` or ``.csv``.
        data: The bytes.
        always: Whether they are written whenever the picture is, not only where raw numbers are asked for.
    """

    suffix: str
    data: bytes
    always: bool = False


@singledispatch
def to_scene(result: Result, style: Style, page: Page) -> Scene | None:
    """The layout of a result on a page; None for kinds that :func:`draw_figure` draws."""
    return None


@singledispatch
def draw_figure(result: Result, figure: Figure, style: Style, page: Page) -> None:
    """Draws a result over the whole of a matplotlib figure and gives the figure its size."""
    kind = type(result).__name__
    raise InputError(
        f'a result of kind {kind} cannot be drawn',
        hint=f'register to_scene or draw_figure of vistool.visualization.kinds for {kind}',
    )


@singledispatch
def to_raw(result: Result) -> Raw | None:
    """The numbers of a result; None where a kind has none."""
    return None


@singledispatch
def to_overlays(result: Result, style: Style) -> list[tuple[str, Pixels]] | None:
    """Bare images by name, for the overlay layout; None for kinds that are drawn as a figure all the same."""
    return None


@singledispatch
def to_panels(result: Result, style: Style) -> list[tuple[str, Pixels]]:
    """Each tile by name: untitled, all of one pixel size.

    Raises:
        InputError: The kind has no tiles.
    """
    raise InputError(f'{type(result).__name__.lower()} have no panels', parameter='panels')


@singledispatch
def to_files(result: Result, style: Style) -> Iterator[tuple[str, bytes]] | None:
    """A result as the files of a folder, by path inside it; None for kinds that are one picture."""
    return None


# --- heat maps --------------------------------------------------------------------------------------------------------


@to_scene.register(Heatmaps)
def _(result: Heatmaps, style: Style, page: Page) -> Scene:
    return heatmaps_scene(result, style, page)


@to_raw.register(Heatmaps)
def _(result: Heatmaps) -> Raw:
    return Raw('.npz', raw.heatmaps_npz(result))


@to_overlays.register(Heatmaps)
def _(result: Heatmaps, style: Style) -> list[tuple[str, Pixels]]:
    return overlays(result, style)


@to_panels.register(Heatmaps)
def _(result: Heatmaps, style: Style) -> list[tuple[str, Pixels]]:
    return [(name, raster.paint(drawn, 1.0)) for name, drawn in panel_scenes(result, style)]


# --- grids ------------------------------------------------------------------------------------------------------------


@to_scene.register(ImageGrid)
def _(result: ImageGrid, style: Style, page: Page) -> Scene:
    return grid_scene(result, page)


@to_raw.register(ImageGrid)
def _(result: ImageGrid) -> Raw:
    return Raw('.npz', raw.grid_npz(result))


@to_overlays.register(ImageGrid)
def _(result: ImageGrid, style: Style) -> list[tuple[str, Pixels]]:
    return _numbered(bare_tiles(result))


@to_panels.register(ImageGrid)
def _(result: ImageGrid, style: Style) -> list[tuple[str, Pixels]]:
    return _numbered(bare_tiles(result))


def _numbered(tiles: Sequence[Pixels]) -> list[tuple[str, Pixels]]:
    return [(str(number), tile) for number, tile in enumerate(tiles, 1)]


# --- curves -----------------------------------------------------------------------------------------------------------


@draw_figure.register(Curves)
def _(result: Curves, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.curves import draw_curves

    draw_curves(result, page, figure, style.theme)


@to_raw.register(Curves)
def _(result: Curves) -> Raw:
    return Raw('.csv', raw.curves_csv(result))


# --- statistics -------------------------------------------------------------------------------------------------------


@draw_figure.register(HeadStatistics)
def _(result: HeadStatistics, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.plots import draw_head_statistics

    draw_head_statistics(result, figure, style, page)


@to_raw.register(HeadStatistics)
def _(result: HeadStatistics) -> Raw:
    return Raw('.csv', raw.table(result.rows))


@draw_figure.register(ChannelStatistics)
def _(result: ChannelStatistics, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.curves import draw_curves
    from vistool.visualization.plots import channel_curves

    draw_curves(channel_curves(result), page, figure, style.theme)


@to_raw.register(ChannelStatistics)
def _(result: ChannelStatistics) -> Raw:
    return Raw('.csv', raw.table(result.rows()), always=True)


@draw_figure.register(DatasetSummary)
def _(result: DatasetSummary, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.plots import draw_dataset_summary

    draw_dataset_summary(result, figure, page)


@to_raw.register(DatasetSummary)
def _(result: DatasetSummary) -> Raw:
    return Raw('.csv', raw.table(result.rows or [{'index': ''}]))


# --- every channel ----------------------------------------------------------------------------------------------------


@to_scene.register(ChannelStack)
def _(result: ChannelStack, style: Style, page: Page) -> Scene:
    return heatmaps_scene(as_heatmaps(result), style, page)


@to_raw.register(ChannelStack)
def _(result: ChannelStack) -> Raw:
    return Raw('.npz', raw.heatmaps_npz(as_heatmaps(result)))


@to_files.register(ChannelStack)
def _(result: ChannelStack, style: Style) -> Iterator[tuple[str, bytes]]:
    def drawn(file: tuple[str, Callable[[], Pixels]]) -> tuple[str, bytes]:
        return f'{file[0]}.png', encode_pixels(file[1](), '.png')

    with ThreadPoolExecutor(2, 'channels') as pool:  # OpenCV draws and encodes without holding Python's lock
        yield from pool.map(drawn, channel_files(result, style))
