"""How pictures look: the options that every command shares, checked once, and color maps as tables."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError, close_matches
from vistool.visualization.text import find_face

# Tables of matplotlib's color maps of these names (a test compares them), kept because importing matplotlib takes
# longer than drawing forty pictures.
_TABLES = Path(__file__).with_name('colormaps.npy')


@lru_cache(maxsize=1)
def _bundled() -> dict[str, NDArray[np.uint8]]:
    records = np.load(_TABLES, allow_pickle=False)
    return {str(record['name']): record['table'].copy() for record in records}


@lru_cache(maxsize=32)
def lookup_table(name: str) -> NDArray[np.uint8]:
    """The color map ``name`` as a read-only uint8 ``(256, 3)`` RGB table.

    Args:
        name: Any name that ``matplotlib.colormaps`` knows; upper and lower case are told apart as there.

    Raises:
        InputError: The name is unknown; the message lists close ones.
    """
    table = _bundled().get(name)
    if table is None:
        table = _from_matplotlib(name)
    table.setflags(write=False)
    return table


def _from_matplotlib(name: str) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    if name not in colormaps:
        near = close_matches(name, colormaps)
        raise InputError(
            f'unknown color map {name!r}',
            accepted='any matplotlib color map (jet, viridis, inferno, RdBu_r …)',
            hint=near,
            parameter='colormap',
        )
    colormap = colormaps[name].resampled(256)
    return np.asarray(colormap(np.arange(256), bytes=True))[:, :3].copy()


Layout = Literal['grid', 'overlay']
Scale = Literal['each', 'shared', 'percentile', 'box']
View = Literal['original', 'network']
Interpolation = Literal['nearest', 'bilinear', 'bicubic']
Align = Literal['center', 'corner']
SheetImages = Literal['rows', 'columns']
StyleOption: TypeAlias = str | int | float | tuple[int, int] | tuple[float, float] | tuple[str, ...] | None
"""The value of a field of :class:`Style`, given as a keyword."""
Theme = Literal['darkgrid', 'whitegrid', 'dark', 'white', 'ticks']

_PAPER_WIDTHS = {'column': 3.25, 'text': 6.875}
_UNITS = {
    'in': 1.0,
    'cm': 1 / 2.54,
    'mm': 1 / 25.4,
    'pt': 1 / 72.27,
}  # in inches; TeX's points, as \\the\\columnwidth prints them
_LEAST_PAPER, _MOST_PAPER = 1.0, 40.0  # inches
_POINTS_PER_INCH = 72.0
_PIXELS_PER_INCH = 96.0
_LONGEST_SIDE = 160.0  # inches
LEAST_PANEL, MOST_PANEL = 16, 16384
"""Sides of panels, in pixels."""
_LEAST_FONT, _MOST_FONT = 4.0, 24.0  # points


@dataclass(frozen=True)
class Style:
    """How results are drawn. ``None`` leaves a choice to the kind of result.

    Attributes:
        layout: ``grid`` (a titled figure) or ``overlay`` (each map blended over the network's image, nothing else).
        width: ``column`` (3.25 in), ``text`` (6.875 in), a width on paper (``'5.5in'``, ``'14cm'``, ``'84mm'``,
            ``'240pt'``), ``screen`` (tiles of about 320 px), or the total width in pixels. None: ``column`` for PDF
            and SVG, else ``screen``.
        dpi: Pixels per inch of pictures for paper, also of the photos inside a PDF.
        scale: ``each`` gives every map its own color scale, ``shared`` one scale to all maps of the picture
            (differences have their own). None: one scale per group for feature maps, else each. ``percentile``: as
            None, but ending at the 2nd and 98th percentile. ``box``: as None, but ending at the largest value within
            the box or region that the map explains.
        colormap: A matplotlib color map. None: jet for CAM, inferno for attention, viridis or RdBu_r for features.
        alpha: Weight of the colors over the photo, in [0, 1], or ``heat``: transparent where the map is cold. None:
            0.5 for CAM; the others are drawn without the photo.
        colorbar: Whether bars are drawn. None: for feature maps, and where scales are shared.
        interpolation: How a map is brought to the size of a tile. None: bilinear for CAM, else nearest.
        align: Whether enlarging aligns the ``center`` or the ``corner`` of the first pixels.
        arrangement: Rows and columns of the tiles of one row of the figure. None: as many columns as fit.
        view: ``original`` draws on the whole file, ``network`` on what the network saw. None: original for CAM.
        theme: seaborn's style of that name, for curves.
        log_scale: Whether curves have a logarithmic axis; values of 0 and below are not drawn on it.
        font: The family of all text, by its name on this machine (``'Times New Roman'``), ``'CM'``, or a font file.
            None: DejaVu Sans. Characters that it lacks are taken from other fonts.
        font_size: Size of titles in points, 4 to 24; the rest follows. None: 7 on paper, 9 on the screen.
        size: Width and height of a figure of curves in inches, at 96 pixels to the inch; goes before ``width``.
        row_titles: What the rows of heat maps are called, from the top, in place of their own titles; of a sheet all of
            its rows.
        column_titles: What the columns of maps are called, from the left.
        sheet_images: Whether each image of a sheet is a row of its maps or a column.
        panel_size: Height of each panel in pixels, or its width and height, with white beside photos of another shape.
            None: the photo's own size.
    """

    layout: Layout = 'grid'
    width: str | int | None = None
    dpi: int = 300
    scale: Scale | None = None
    colormap: str | None = None
    alpha: float | Literal['heat'] | None = None
    colorbar: bool | None = None
    interpolation: Interpolation | None = None
    align: Align = 'center'
    view: View | None = None
    arrangement: tuple[int, int] | None = None
    theme: Theme = 'whitegrid'
    log_scale: bool = False
    font: str | None = None
    font_size: float | None = None
    size: tuple[float, float] | None = None
    row_titles: tuple[str, ...] = ()
    column_titles: tuple[str, ...] = ()
    sheet_images: SheetImages = 'rows'
    panel_size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            InputError: An option has a value that is not accepted.
        """
        _check_choice('layout', self.layout, get_args(Layout))
        _check_choice('scale', self.scale, (None, *get_args(Scale)))
        _check_choice('interpolation', self.interpolation, (None, *get_args(Interpolation)))
        _check_choice('align', self.align, get_args(Align))
        _check_choice('view', self.view, (None, *get_args(View)))
        _check_choice('theme', self.theme, get_args(Theme))
        _check_choice('sheet_images', self.sheet_images, get_args(SheetImages))
        _check_width(self.width)
        _check_panel(self.panel_size)
        for name in ('row_titles', 'column_titles'):
            _check_titles(name, getattr(self, name))
        if self.arrangement is not None and min(self.arrangement) < 1:
            raise InputError(
                f'{self.arrangement} is not an arrangement', accepted='at least 1 1', parameter='arrangement'
            )
        _check_size(self.size)
        if isinstance(self.dpi, bool) or not isinstance(self.dpi, int) or not 30 <= self.dpi <= 2400:
            raise InputError(f'{self.dpi!r} is not a resolution', accepted='30 to 2400 dots per inch', parameter='dpi')
        if self.alpha is not None and self.alpha != 'heat' and not _is_fraction(self.alpha):
            raise InputError(f'{self.alpha!r} is not an opacity', accepted='0 to 1, or heat', parameter='alpha')
        if self.colormap is not None:
            lookup_table(self.colormap)
        if self.font is not None:
            find_face(self.font)
        if self.font_size is not None and not _LEAST_FONT <= self.font_size <= _MOST_FONT:
            accepted = f'{_LEAST_FONT:g} to {_MOST_FONT:g} points'
            raise InputError(f'{self.font_size!r} is not a size of titles', accepted=accepted, parameter='font_size')

    def panel(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Heights and widths of a photo in its panel and of the panel, in pixels.

        Args:
            size: Height and width of the photo.
        """
        if self.panel_size is None:
            return size, size
        across, down = (None, self.panel_size) if isinstance(self.panel_size, int) else self.panel_size
        factor = min(down / size[0], math.inf if across is None else across / size[1])
        inside = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        return inside, inside if across is None else (down, across)

    def beside_sheet(self) -> Style:
        """The style of one image's figure where the titles are those of a sheet: those of the maps are the same."""
        columns = self.row_titles if self.sheet_images == 'columns' else self.column_titles
        return replace(self, row_titles=(), column_titles=columns)

    def page(self, vector: bool) -> Page:
        """The page that these options ask for; ``vector`` tells whether the file is a PDF or SVG."""
        width = self.width if self.width is not None else ('column' if vector else 'screen')
        inches = _inches(width) if isinstance(width, str) else None
        if inches is not None:
            return Page(True, inches * _POINTS_PER_INCH, self.dpi / _POINTS_PER_INCH, title=self.font_size)
        density = self.dpi / _PIXELS_PER_INCH if vector else 1.0
        if self.size is not None:
            across, down = (side * _PIXELS_PER_INCH for side in self.size)
            return Page(False, across, density, down, self.font_size)
        return Page(False, float(width) if isinstance(width, int) else None, density, title=self.font_size)


@dataclass(frozen=True)
class Page:
    """The measures of a picture. The unit is a point on paper and a pixel on the screen.

    Attributes:
        paper: Whether the picture is meant for paper.
        width: Total width in units, or None where tiles have a natural size instead (the screen).
        density: Pixels per unit of the raster picture, and of photos inside a vector picture.
        height: Total height of a figure of curves in units, or None for one that follows from its width.
        title: Size of titles in points, or None for the usual one.
    """

    paper: bool
    width: float | None
    density: float
    height: float | None = None
    title: float | None = None

    @property
    def points(self) -> float:
        """Points per unit: 1 on paper, 0.75 on the screen (96 px to the inch)."""
        return 1.0 if self.paper else 0.75

    @property
    def gap(self) -> float:
        """Space between tiles, in units: 3 points."""
        return 3.0 if self.paper else 4.0

    @property
    def margin(self) -> float:
        """White space around everything, in units; none on paper, where the text around it has its own."""
        return 0.0 if self.paper else 6.0

    @property
    def font(self) -> float:
        """Size of titles, in units."""
        return self._scaled(7.0 if self.paper else 12.0)

    @property
    def small_font(self) -> float:
        """Size of captions and of the numbers at bars, in units."""
        return self._scaled(6.0 if self.paper else 11.0)

    @property
    def least_font(self) -> float:
        """Size below which nothing is written, in units."""
        usual = 4.5 if self.paper else 9.0
        return min(usual, self._scaled(usual))

    def _scaled(self, size: float) -> float:
        """A usual size of text, as much larger or smaller as titles are."""
        if self.title is None:
            return size
        return size * self.title / (7.0 if self.paper else 12.0 * self.points)


def _check_choice(argument: str, value: Any, accepted: tuple[Any, ...]) -> None:
    if value not in accepted:
        names = [name for name in accepted if name is not None]
        raise InputError(
            f'unknown value {value!r}',
            accepted=', '.join(names),
            hint=close_matches(str(value), names),
            parameter=argument,
        )


def _check_width(width: Any) -> None:
    pixels = isinstance(width, int) and not isinstance(width, bool)
    if width in (None, 'screen') or (pixels and 64 <= width <= 16384):
        return
    inches = _inches(width) if isinstance(width, str) else None
    if inches is None or not _LEAST_PAPER <= inches <= _MOST_PAPER:
        paper = f'{_LEAST_PAPER:g}in to {_MOST_PAPER:g}in (cm, mm and pt too)'
        accepted = f'column, text, {paper}, screen, or 64 to 16384 pixels'
        raise InputError(f'{width!r} is not a width', accepted=accepted, parameter='width')


def _inches(width: str) -> float | None:
    """A width on paper; None for what is not one."""
    if width in _PAPER_WIDTHS:
        return _PAPER_WIDTHS[width]
    match = re.fullmatch(r'([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(in|cm|mm|pt)', width)
    return float(match[1]) * _UNITS[match[2]] if match else None


def _check_size(size: Any) -> None:
    if size is None or (len(size) == 2 and all(1 <= side <= _LONGEST_SIDE for side in size)):
        return
    raise InputError(
        f'{"*".join(f"{side:g}" for side in size)} is not a window size',
        accepted=f'W*H in inches, each 1 to {_LONGEST_SIDE:g}, such as 12*7',
        parameter='size',
    )


def _check_panel(size: Any) -> None:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if size is None or (whole and all(LEAST_PANEL <= side <= MOST_PANEL for side in sides)):
        return
    raise InputError(
        f'{size!r} is not a size of panels',
        accepted=f'the height, or width and height, each {LEAST_PANEL} to {MOST_PANEL} pixels: 480 or 640*480',
        parameter='panel_size',
    )


def _check_titles(name: str, titles: Any) -> None:
    if isinstance(titles, str) or not all(isinstance(title, str) for title in titles):
        raise InputError(f'{titles!r} is not a list of titles', parameter=name)
    if len(set(titles)) < len(titles):
        raise InputError('two titles are the same', accepted='titles that differ', parameter=name)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
