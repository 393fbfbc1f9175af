"""What each kind of result becomes, and the functions that show, save and render any of them.

This is the one place where a kind is declared: its pictures, numbers, panels, and bare overlays.

A kind of your own is a frozen dataclass that extends :class:`~vistool.results.Result`. Register what it becomes, and
``vt.show``, ``vt.save``, ``vt.render`` and the :class:`~vistool.visualization.visualizer.Visualizer` accept it::

    @draw_figure.register(Histogram)
    def _(result, figure, style, page):
        figure.set_size_inches(4, 3)
        figure.subplots().hist(result.values)

Register :func:`to_scene` instead for a picture that is laid out in tiles; it needs no matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial, singledispatch
from typing import TYPE_CHECKING, cast, overload

from vistool.errors import InputError, close_matches, counted
from vistool.results import (
    ChannelStack,
    ChannelStatistics,
    CheckReport,
    Curves,
    DatasetSummary,
    EmbeddingMap,
    HeadStatistics,
    Heatmaps,
    ImageGrid,
    MetricsSummary,
    Result,
)
from vistool.visualization import files as raw
from vistool.visualization import raster
from vistool.visualization import text as fonts
from vistool.visualization.files import SUFFIXES, VECTOR_SUFFIXES, encode_pixels
from vistool.visualization.grids import bare_tiles, grid_scene, sized_tiles
from vistool.visualization.heatmaps import as_heatmaps, channel_files, heatmaps_scene, overlays, panel_scenes
from vistool.visualization.scene import Pixels, Scene
from vistool.visualization.style import Page, Style, StyleOption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Raw:
    """The numbers of a result as the bytes of a file.

    Attributes:
        suffix: ``.npz`` or ``.csv``.
        source: The bytes, or a function that makes them, which is called only where they are written.
        always: Whether they are written whenever the picture is, not only where raw numbers are asked for.
    """

    suffix: str
    source: bytes | Callable[[], bytes]
    always: bool = False

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self.source if isinstance(self.source, bytes) else self.source()


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
def to_panels(result: Result, style: Style) -> Iterable[tuple[str, Pixels]]:
    """Each tile by name: untitled, all of one pixel size; an iterator may draw them one by one.

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
    return Raw('.npz', partial(raw.heatmaps_npz, result))


@to_overlays.register(Heatmaps)
def _(result: Heatmaps, style: Style) -> list[tuple[str, Pixels]]:
    return overlays(result, style)


@to_panels.register(Heatmaps)
def _(result: Heatmaps, style: Style) -> Iterator[tuple[str, Pixels]]:
    return ((name, raster.paint(drawn, 1.0)) for name, drawn in panel_scenes(result, style))


# --- grids ------------------------------------------------------------------------------------------------------------


@to_scene.register(ImageGrid)
def _(result: ImageGrid, style: Style, page: Page) -> Scene:
    return grid_scene(result, page)


@to_raw.register(ImageGrid)
def _(result: ImageGrid) -> Raw:
    return Raw('.npz', partial(raw.grid_npz, result))


@to_overlays.register(ImageGrid)
def _(result: ImageGrid, style: Style) -> list[tuple[str, Pixels]]:
    return _numbered(bare_tiles(result))


@to_panels.register(ImageGrid)
def _(result: ImageGrid, style: Style) -> list[tuple[str, Pixels]]:
    if style.panel_size is not None:
        return _numbered([raster.paint(each, 1.0) for each in sized_tiles(result, style)])
    return _numbered(bare_tiles(result))


def _numbered(tiles: Sequence[Pixels]) -> list[tuple[str, Pixels]]:
    return [(str(number), tile) for number, tile in enumerate(tiles, 1)]


# --- curves -----------------------------------------------------------------------------------------------------------


@draw_figure.register(Curves)
def _(result: Curves, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.curves import draw_curves

    draw_curves(result, page, figure, style.theme, style.log_scale)


@to_raw.register(Curves)
def _(result: Curves) -> Raw:
    return Raw('.csv', partial(raw.curves_csv, result))


# --- statistics -------------------------------------------------------------------------------------------------------


@draw_figure.register(HeadStatistics)
def _(result: HeadStatistics, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.plots import draw_head_statistics

    draw_head_statistics(result, figure, style, page)


@to_raw.register(HeadStatistics)
def _(result: HeadStatistics) -> Raw:
    return Raw('.csv', partial(raw.table, result.rows))


@draw_figure.register(ChannelStatistics)
def _(result: ChannelStatistics, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.curves import draw_curves
    from vistool.visualization.plots import channel_curves

    draw_curves(channel_curves(result), page, figure, style.theme)


@to_raw.register(ChannelStatistics)
def _(result: ChannelStatistics) -> Raw:
    return Raw('.csv', partial(raw.table, result.rows()), always=True)


@draw_figure.register(DatasetSummary)
def _(result: DatasetSummary, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.plots import draw_dataset_summary

    draw_dataset_summary(result, figure, page)


@to_raw.register(DatasetSummary)
def _(result: DatasetSummary) -> Raw:
    return Raw('.csv', partial(raw.table, result.rows or [{'index': ''}]))


@draw_figure.register(MetricsSummary)
def _(result: MetricsSummary, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.measurements import draw_metrics

    draw_metrics(result, figure, page)


@to_raw.register(MetricsSummary)
def _(result: MetricsSummary) -> Raw:
    return Raw('.csv', raw.table(result.rows()))


# --- embeddings -------------------------------------------------------------------------------------------------------


@draw_figure.register(EmbeddingMap)
def _(result: EmbeddingMap, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.embeddings import draw_embedding

    draw_embedding(result, figure, page)


@to_raw.register(EmbeddingMap)
def _(result: EmbeddingMap) -> Raw:
    return Raw('.csv', raw.table(result.rows()), always=True)


# --- checks -----------------------------------------------------------------------------------------------------------


@draw_figure.register(CheckReport)
def _(result: CheckReport, figure: Figure, style: Style, page: Page) -> None:
    from vistool.visualization.checks import draw_check

    draw_check(result, figure, style, page)


@to_raw.register(CheckReport)
def _(result: CheckReport) -> Raw:
    return Raw('.npz', raw.check_npz(result))


# --- every channel ----------------------------------------------------------------------------------------------------


@to_scene.register(ChannelStack)
def _(result: ChannelStack, style: Style, page: Page) -> Scene:
    return heatmaps_scene(as_heatmaps(result), style, page)


@to_raw.register(ChannelStack)
def _(result: ChannelStack) -> Raw:
    return Raw('.npz', partial(raw.heatmaps_npz, as_heatmaps(result)))


@to_files.register(ChannelStack)
def _(result: ChannelStack, style: Style) -> Iterator[tuple[str, bytes]]:
    def drawn(file: tuple[str, Callable[[], Pixels]]) -> tuple[str, bytes]:
        return f'{file[0]}.png', encode_pixels(file[1](), '.png')

    with ThreadPoolExecutor(2, 'channels') as pool:  # OpenCV draws and encodes without holding Python's lock
        yield from pool.map(drawn, channel_files(result, style))


@overload
def show(result: Result, *, ax: Axes | Sequence[Axes] | None = None, **style: StyleOption) -> Figure: ...
@overload
def show(result: Sequence[Result], *, ax: None = None, **style: StyleOption) -> list[Figure]: ...
def show(
    result: Result | Sequence[Result], *, ax: Axes | Sequence[Axes] | None = None, **style: StyleOption
) -> Figure | list[Figure]:
    """The picture of a result as a matplotlib figure; a notebook shows it.

    Args:
        result: What an analysis returned: one result, or a list of them.
        ax: Axes of a figure of your own, into which the maps are drawn, untitled: one for each map, or one more for the
            photo, which comes first. The array that ``plt.subplots`` returns is accepted as it is.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``width='column'``.

    Raises:
        InputError: A style is not accepted, something cannot be drawn, or there are too few or too many axes.
    """
    from vistool.visualization.vector import ShownFigures

    chosen = style_of(style)
    if ax is not None:
        if not isinstance(result, Result):
            raise InputError(
                counted(len(result), 'result'), accepted='one result', hint='call it for each', parameter='ax'
            )
        return _into(result, chosen, ax)
    if isinstance(result, Result):
        return figure(result, chosen)
    return ShownFigures(figure(each, chosen) for each in result)


def _into(result: Result, style: Style, ax: Axes | Sequence[Axes]) -> Figure:
    """Draws the tiles of a result into axes that are there; returns their figure.

    Raises:
        InputError: There are too few or too many axes.
    """
    import numpy as np

    axes: list[Axes] = list(np.atleast_1d(np.asarray(ax, dtype=object)).ravel())
    tiles = list(to_panels(result, style))
    photo = 1 if tiles and tiles[0][0] == 'input' else 0
    if len(axes) not in (len(tiles), len(tiles) - photo):
        count = f'{len(tiles)}' if not photo else f'{len(tiles) - 1}, or {len(tiles)} with the photo'
        raise InputError(counted(len(axes), 'axis', 'axes'), accepted=count, parameter='ax')
    for each, (_, pixels) in zip(axes, tiles[-len(axes) :], strict=True):
        each.imshow(pixels)
        each.set_axis_off()
    return cast('Figure', axes[0].figure.figure)  # that of a subfigure, too


@overload
def render(result: Result, format: str = 'png', **style: StyleOption) -> bytes: ...
@overload
def render(result: Sequence[Result], format: str = 'png', **style: StyleOption) -> list[bytes]: ...
def render(result: Result | Sequence[Result], format: str = 'png', **style: StyleOption) -> bytes | list[bytes]:
    """The picture of a result as the bytes of a file.

    Args:
        result: What an analysis returned: one result, or a list of them.
        format: ``png``, ``jpg``, ``webp``, ``pdf`` or ``svg``.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``width='column'``.

    Raises:
        InputError: The format is unknown, a style is not accepted, or something cannot be drawn.
    """
    suffix, chosen = '.' + format.lower().removeprefix('.'), style_of(style)
    if suffix not in SUFFIXES:
        raise InputError(
            f'unknown format {format!r}', accepted=', '.join(each[1:] for each in SUFFIXES), parameter='format'
        )
    if isinstance(result, Result):
        return picture_bytes(result, chosen, suffix)
    return [picture_bytes(each, chosen, suffix) for each in result]


@overload
def overlay(result: Heatmaps, **style: StyleOption) -> list[Pixels]: ...
@overload
def overlay(result: Sequence[Heatmaps], **style: StyleOption) -> list[list[Pixels]]: ...
def overlay(result: Heatmaps | Sequence[Heatmaps], **style: StyleOption) -> list[Pixels] | list[list[Pixels]]:
    """Each map over the network's image: uint8 ``(H, W, 3)`` RGB at the network's size.

    Args:
        result: Heat maps of one image, or a list of them.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``alpha=0.4``.

    Raises:
        InputError: A style is not accepted, or a result is not heat maps.
    """
    chosen = style_of(style)
    for each in [result] if isinstance(result, Result) else result:
        if not isinstance(each, Heatmaps):
            raise InputError(
                f'{type(each).__name__} have no maps to overlay', accepted='the result of CAM, Attention or FeatureMaps'
            )
    if isinstance(result, Result):
        return [pixels for _, pixels in overlays(result, chosen)]
    return [[pixels for _, pixels in overlays(each, chosen)] for each in result]


def style_of(given: dict[str, StyleOption]) -> Style:
    """Keyword arguments as a style.

    Raises:
        InputError: A name or value is not accepted.
    """
    known = [each.name for each in fields(Style)]
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise InputError(f'unknown style {unknown!r}', accepted=', '.join(known), hint=close_matches(unknown, known, 3))
    return Style(**given)  # type: ignore[arg-type]  # it checks each of them


def picture_bytes(result: Result, style: Style, suffix: str) -> bytes:
    """A result as the bytes of a picture file with this suffix (grid layout)."""
    if suffix in VECTOR_SUFFIXES:
        from vistool.visualization.vector import encode

        made = _figure(result, style, style.page(vector=True))
        with fonts.using(style.font):
            return encode([made], suffix)
    return encode_pixels(picture_pixels(result, style), suffix)


def picture_pixels(result: Result, style: Style) -> Pixels:
    """A result as uint8 ``(H, W, 3)`` RGB pixels (grid layout)."""
    page = style.page(vector=False)
    with fonts.using(style.font):
        scene = to_scene(result, style, page)
        if scene is not None:
            return raster.paint(scene, page.density)
    from vistool.visualization.vector import rasterize

    return rasterize(_figure(result, style, page))


def figure(result: Result, style: Style | None = None) -> Figure:
    """A result as a matplotlib figure, made without pyplot; notebooks display it, ``savefig`` writes it."""
    style = style or Style()
    return _figure(result, style, style.page(vector=False))


def _figure(result: Result, style: Style, page: Page) -> Figure:
    from vistool.visualization.vector import ShownFigure, parameters

    with fonts.using(style.font), parameters():
        made = ShownFigure(dpi=page.density * 72 / page.points)
        _draw(result, made, style, page)
    return made


def _draw(result: Result, made: Figure, style: Style, page: Page) -> None:
    from vistool.visualization import vector

    with fonts.using(style.font):
        scene = to_scene(result, style, page)
        if scene is not None:
            vector.paint(scene, page, made)
            return
        draw_figure(result, made, style, page)
        vector.make_drawable(made)


def open_window(result: Result, style: Style, title: str = 'vistool', seconds: float = 0.0) -> None:
    """Opens a window with a result and waits until it is closed, or for some seconds if they are more than 0.

    Raises:
        InputError: No window can be opened here.
    """
    from vistool.visualization import vector

    page = style.page(vector=False)
    vector.show(lambda target: _draw(result, target, style, page), title, seconds)
