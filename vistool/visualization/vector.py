"""Scenes to matplotlib figures, without pyplot: PDF, SVG, windows and notebooks.

Text stays text: Type 42 fonts in PDF, characters in SVG. Files hold no date, program, path, user or host, so that the
same picture is the same bytes, and a double-blind review stays blind.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from vistool.errors import InputError, param
from vistool.visualization import text as fonts
from vistool.visualization.raster import HALO
from vistool.visualization.scene import Box, Color, ImageItem, PathItem, Scene, TextItem
from vistool.visualization.style import Page

_POINTS_PER_INCH = 72.0
_ALIGNMENT = {'left': 'left', 'center': 'center', 'right': 'right'}
_METADATA: dict[str, dict[str, None]] = {
    'pdf': {'Creator': None, 'Producer': None, 'CreationDate': None},
    'svg': {'Creator': None, 'Date': None, 'Format': None, 'Type': None},
}
_PARAMETERS: dict[str, Any] = {
    'pdf.fonttype': 42,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'vistool',
    'text.parse_math': False,
}
_WINDOWLESS = {'agg', 'cairo', 'pdf', 'pgf', 'ps', 'svg', 'template'}
# matplotlib's parameters are one set per process, whatever the thread.
_lock = threading.RLock()


@contextmanager
def parameters(more: dict[str, Any] | None = None) -> Iterator[None]:
    """The defaults of matplotlib with what print-safe files need, whatever the user set; restored at the end."""
    with _lock, matplotlib.rc_context(), warnings.catch_warnings():
        # Characters that no font has are warned about once, in one line, where text is measured.
        warnings.filterwarnings('ignore', message='Glyph .* missing')
        matplotlib.rcdefaults()
        settings: Any = {**_PARAMETERS, 'font.family': _all_families(), **(more or {})}
        matplotlib.rcParams.update(settings)
        # Fonts often lack the weight asked for, and hold odd dates.
        levels = {logger: logger.level for logger in map(logging.getLogger, ('matplotlib.font_manager', 'fontTools'))}
        for logger in levels:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


class ShownFigure(Figure):
    """A figure that notebooks show, also without ``%matplotlib inline``, which registers figures only once it ran."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format='png', dpi=self.dpi)
        return content.getvalue()


class ShownFigures(list[Figure]):
    """Figures that a notebook shows one below the other."""

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for each in self:
            display(each)


def figure(scene: Scene, page: Page) -> Figure:
    """A scene as a figure of its true size."""
    made = Figure()
    paint(scene, page, made)
    return made


def paint(scene: Scene, page: Page, target: Figure) -> None:
    """Draw a scene over the whole of a figure, which gets the scene's size."""
    scene.pixels(page.density)  # refuses what cannot be painted: the photos inside are as dense
    inches = page.points / _POINTS_PER_INCH
    with parameters():
        target.set_dpi(page.density / inches)
        target.set_size_inches(scene.width * inches, scene.height * inches)
        axes = target.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for order, item in enumerate(scene.items):
            if isinstance(item, ImageItem):
                _paint_image(axes, item, page, order)
            elif isinstance(item, TextItem):
                _paint_text(axes, item, page, order)
            else:
                _paint_path(axes, item, page, order)
        axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))


def _paint_image(axes: Any, item: ImageItem, page: Page, order: int) -> None:
    box = item.box
    size = max(1, round(box.height * page.density)), max(1, round(box.width * page.density))
    axes.imshow(
        item.tile(size),
        extent=(box.x, box.right, box.bottom, box.y),
        aspect='auto',
        interpolation='none',
        zorder=order,
    )


def _paint_text(axes: Any, item: TextItem, page: Page, order: int) -> None:
    if not item.text:
        return
    if item.ground is not None:
        width = fonts.text_width(item.text, item.size)
        shift = {'left': 0.0, 'center': width / 2, 'right': width}[item.anchor]
        corner = item.x - shift - 0.2 * item.size, item.y - 0.95 * item.size
        box = Rectangle(corner, width + 0.4 * item.size, 1.27 * item.size, linewidth=0, zorder=order)
        box.set_facecolor(_fractions(item.ground))
        axes.add_patch(box)
    if item.halo is not None:
        axes.add_patch(_halo(item, page, order))
    axes.text(
        item.x,
        item.y,
        item.text,
        family=_families(item.text),
        fontsize=item.size * page.points,
        color=_fractions(item.color),
        ha=_ALIGNMENT[item.anchor],
        va='baseline',
        rotation=90 if item.vertical else 0,
        rotation_mode='anchor',
        parse_math=False,
        zorder=order + 0.5,
    )


def _halo(item: TextItem, page: Page, order: int) -> Any:
    """The outline of the letters as a line under them; path effects would turn the text itself into lines."""
    width = fonts.text_width(item.text, item.size)
    shift = {'left': 0.0, 'center': width / 2, 'right': width}[item.anchor]
    outline = TextPath((0, 0), item.text, size=item.size, prop=FontProperties(family=_families(item.text)))
    place = Affine2D().scale(1, -1).translate(item.x - shift, item.y)
    color = (*_fractions(item.halo or item.color), 0.8)
    line = PathPatch(outline.transformed(place), fill=False, edgecolor=color, zorder=order)
    line.set(linewidth=2 * HALO * item.size * page.points, joinstyle='round')
    return line


def _paint_path(axes: Any, item: PathItem, page: Page, order: int) -> None:
    width = item.width * page.points
    color = _fractions(item.color)
    line = Polygon(item.points, closed=True, fill=item.filled, linewidth=width, zorder=order)
    line.set_edgecolor('none' if item.filled else color)
    line.set_facecolor(color if item.filled else 'none')
    axes.add_patch(line)
    line.set_clip_path(_rectangle(item.clip), axes.transData)


def _rectangle(box: Box) -> Any:
    corners = [(box.x, box.y), (box.right, box.y), (box.right, box.bottom), (box.x, box.bottom), (box.x, box.y)]
    return Path(corners, closed=True)


def _fractions(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _families(text: str) -> list[str]:
    """The families that a line needs, the one in use first; matplotlib falls back character by character."""
    faces = dict.fromkeys([fonts.first_face(), fonts.main_face(), *(face for face, _ in fonts.runs(text))])
    return ['DejaVu Sans' if face == fonts.main_face() else _family(face) for face in faces]


def _all_families() -> list[str]:
    """The families of plots, whose names of classes and files are not known yet: any script may be among them."""
    return [*_families(''), *map(_family, fonts.fallback_faces())]


@lru_cache(maxsize=16)
def _family(face: fonts.Face) -> str:
    manager = font_manager.fontManager
    manager.addfont(face.path)
    entries = [entry for entry in manager.ttflist if entry.fname == face.path]
    # Older versions of matplotlib know only the first face of a collection.
    chosen = [entry for entry in entries if getattr(entry, 'index', 0) == face.index] or entries
    return str(chosen[0].name)


def make_drawable(made: Figure) -> None:
    """Lets every text of a figure be drawn, whatever the file names and class names in it hold."""
    for each in made.findobj(Text):
        each.set_text(fonts.decoded(each.get_text()))


def encode(figures: Sequence[Figure], suffix: str) -> bytes:
    """Figures as the bytes of a ``.pdf`` (a page each) or ``.svg`` file (one figure)."""
    buffer = io.BytesIO()
    with parameters():
        if suffix == '.pdf':
            from matplotlib.backends.backend_pdf import PdfPages  # it imports fontTools, 0.3 s

            with PdfPages(buffer, metadata=_METADATA['pdf']) as pages:
                for each in figures:
                    pages.savefig(each, dpi=each.dpi)
        else:
            (only,) = figures
            only.savefig(buffer, format='svg', dpi=only.dpi, metadata=_METADATA['svg'])
    return buffer.getvalue()


def rasterize(made: Figure) -> Any:
    """A figure as uint8 ``(H, W, 3)`` pixels at its own resolution."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with parameters():
        canvas = FigureCanvasAgg(made)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3].copy()


def check_window() -> None:
    """Refuse early where no window can be opened.

    Raises:
        InputError: There is no screen, or matplotlib has no backend for it.
    """
    from matplotlib import pyplot

    backend = pyplot.get_backend()
    if backend.lower() in _WINDOWLESS:
        raise InputError(
            f'no window can be opened here (matplotlib chose the backend {backend!r})',
            hint=f'leave {param("show")} out, or set MPLBACKEND on a machine with a screen',
            parameter='show',
        )


def show(draw: Callable[[Figure], None], title: str, seconds: float = 0.0) -> None:
    """Open a window with what ``draw`` puts on a figure; wait until it is closed, or for ``seconds`` if more than 0.

    Raises:
        InputError: No window can be opened.
    """
    from matplotlib import pyplot

    check_window()
    window = pyplot.figure(num=title)
    try:
        with parameters():
            draw(window)
        if seconds > 0:
            timer = window.canvas.new_timer(interval=round(seconds * 1000))
            timer.single_shot = True
            timer.add_callback(pyplot.close, window)
            timer.start()
        pyplot.show(block=True)
    finally:
        pyplot.close(window)
