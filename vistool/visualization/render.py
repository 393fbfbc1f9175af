"""A result to a picture: pixels, bytes of a file, a matplotlib figure, bare overlays. No files here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vistool.results import Curves, Heatmaps, ImageGrid, Result
from vistool.visualization import raster
from vistool.visualization.files import VECTOR_SUFFIXES, encode_pixels
from vistool.visualization.grids import grid_scene
from vistool.visualization.heatmaps import heatmaps_scene, overlays
from vistool.visualization.scene import Pixels, Scene
from vistool.visualization.style import Page, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scene(result: Heatmaps | ImageGrid, style: Style, page: Page) -> Scene:
    """The layout of a result on a page."""
    if isinstance(result, Heatmaps):
        return heatmaps_scene(result, style, page)
    return grid_scene(result, page)


def picture_bytes(result: Result, style: Style, suffix: str) -> bytes:
    """A result as the bytes of a picture file with this suffix (grid layout)."""
    if suffix in VECTOR_SUFFIXES:
        from vistool.visualization.vector import encode

        return encode([_figure(result, style, vector=True)], suffix)
    return encode_pixels(picture_pixels(result, style), suffix)


def picture_pixels(result: Result, style: Style) -> Pixels:
    """A result as uint8 ``(H, W, 3)`` RGB pixels (grid layout)."""
    if isinstance(result, Curves):
        from vistool.visualization.vector import rasterize

        return rasterize(_figure(result, style, vector=False))
    page = style.page(vector=False)
    return raster.paint(scene(result, style, page), page.density)


def figure(result: Result, style: Style | None = None) -> Figure:
    """A result as a matplotlib figure, made without pyplot; notebooks display it, ``savefig`` writes it."""
    return _figure(result, style or Style(), vector=False)


def _figure(result: Result, style: Style, vector: bool) -> Figure:
    page = style.page(vector)
    if isinstance(result, Curves):
        from vistool.visualization.curves import curves_figure

        return curves_figure(result, page, style.theme)
    from vistool.visualization import vector as painter

    return painter.figure(scene(result, style, page), page)


def overlay(result: Heatmaps, style: Style | None = None) -> list[Pixels]:
    """Each map blended over the network's image, uint8 ``(H, W, 3)`` RGB at the network's size."""
    return overlays(result, style or Style())


def show(result: Result, style: Style, title: str = 'vistool', seconds: float = 0.0) -> None:
    """Open a window with a result and wait until it is closed, or for some seconds if they are more than 0.

    Raises:
        InputError: No window can be opened here.
    """
    from vistool.visualization import vector

    page = style.page(vector=False)
    if isinstance(result, Curves):
        from vistool.visualization.curves import draw_curves

        vector.show(lambda target: draw_curves(result, page, target, style.theme), title, seconds)
        return
    drawn = scene(result, style, page)
    vector.show(lambda target: vector.paint(drawn, page, target), title, seconds)
