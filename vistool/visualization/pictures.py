"""A result as a picture: pixels, bytes of a file, a matplotlib figure, bare overlays, a window. No files here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, overload

from vistool.errors import InputError, close_matches
from vistool.results import Heatmaps, Result
from vistool.visualization import kinds, raster
from vistool.visualization.files import SUFFIXES, VECTOR_SUFFIXES, encode_pixels
from vistool.visualization.heatmaps import overlays
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Page, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@overload
def show(result: Result, **style: Any) -> Figure: ...
@overload
def show(result: Sequence[Result], **style: Any) -> list[Figure]: ...
def show(result: Result | Sequence[Result], **style: Any) -> Figure | list[Figure]:
    """The picture of a result as a matplotlib figure; a notebook shows it.

    Args:
        result: What an analysis returned: one result, or a list of them.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``width='column'``.

    Raises:
        InputError: A style is not accepted, or something cannot be drawn.
    """
    chosen = style_of(style)
    return figure(result, chosen) if isinstance(result, Result) else [figure(each, chosen) for each in result]


@overload
def render(result: Result, format: str = 'png', **style: Any) -> bytes: ...
@overload
def render(result: Sequence[Result], format: str = 'png', **style: Any) -> list[bytes]: ...
def render(result: Result | Sequence[Result], format: str = 'png', **style: Any) -> bytes | list[bytes]:
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
def overlay(result: Heatmaps, **style: Any) -> list[Pixels]: ...
@overload
def overlay(result: Sequence[Heatmaps], **style: Any) -> list[list[Pixels]]: ...
def overlay(result: Heatmaps | Sequence[Heatmaps], **style: Any) -> list[Pixels] | list[list[Pixels]]:
    """Each map over the network's image: uint8 ``(H, W, 3)`` RGB at the network's size.

    Args:
        result: Heat maps of one image, or a list of them.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``alpha=0.4``.
    """
    chosen = style_of(style)
    if isinstance(result, Result):
        return [pixels for _, pixels in overlays(result, chosen)]
    return [[pixels for _, pixels in overlays(each, chosen)] for each in result]


def style_of(given: dict[str, Any]) -> Style:
    """Keyword arguments as a style.

    Raises:
        InputError: A name or value is not accepted.
    """
    known = [each.name for each in fields(Style)]
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise InputError(f'unknown style {unknown!r}', accepted=', '.join(known), hint=close_matches(unknown, known, 3))
    return Style(**given)


def picture_bytes(result: Result, style: Style, suffix: str) -> bytes:
    """A result as the bytes of a picture file with this suffix (grid layout)."""
    if suffix in VECTOR_SUFFIXES:
        from vistool.visualization.vector import encode

        return encode([_figure(result, style, style.page(vector=True))], suffix)
    return encode_pixels(picture_pixels(result, style), suffix)


def picture_pixels(result: Result, style: Style) -> Pixels:
    """A result as uint8 ``(H, W, 3)`` RGB pixels (grid layout)."""
    page = style.page(vector=False)
    scene = kinds.to_scene(result, style, page)
    if scene is not None:
        return raster.paint(scene, page.density)
    from vistool.visualization.vector import rasterize

    return rasterize(_figure(result, style, page))


def figure(result: Result, style: Style | None = None) -> Figure:
    """A result as a matplotlib figure, made without pyplot; notebooks display it, ``savefig`` writes it."""
    style = style or Style()
    return _figure(result, style, style.page(vector=False))


def _figure(result: Result, style: Style, page: Page) -> Figure:
    from matplotlib.figure import Figure

    from vistool.visualization.vector import parameters

    with parameters():
        made = Figure(dpi=page.density * 72 / page.points)
        _draw(result, made, style, page)
    return made


def _draw(result: Result, made: Figure, style: Style, page: Page) -> None:
    scene = kinds.to_scene(result, style, page)
    if scene is None:
        kinds.draw_figure(result, made, style, page)
        return
    from vistool.visualization import vector

    vector.paint(scene, page, made)


def open_window(result: Result, style: Style, title: str = 'vistool', seconds: float = 0.0) -> None:
    """Opens a window with a result and waits until it is closed, or for some seconds if they are more than 0.

    Raises:
        InputError: No window can be opened here.
    """
    from vistool.visualization import vector

    page = style.page(vector=False)
    vector.show(lambda target: _draw(result, target, style, page), title, seconds)
