"""Heat maps to a scene: facets to tiles, tiles to lines that fit the page; every channel as a picture of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, zip_longest

import cv2
import numpy as np
from numpy.typing import NDArray

from vistool.data.display import strips
from vistool.results import ChannelStack, Coordinates, Heatmap, Heatmaps, Instance
from vistool.visualization.facets import (
    SCALED_ALONE,
    Facet,
    Facets,
    check_titles,
    facets,
    found_text,
    remark,
    score_text,
    with_titles,
)
from vistool.visualization.files import safe_name
from vistool.visualization.layout import Row, cut, label_column, lines_of
from vistool.visualization.raster import blend, colorize, mark_missing, overlay, resize_image, resize_map, rgb_map
from vistool.visualization.sampled import LevelLegend, PointMarks, pale
from vistool.visualization.scene import BLACK, RED, WHITE, Color, Pixels, Scene, Tile
from vistool.visualization.style import Page, Style
from vistool.visualization.table import (
    Cell,
    Frame,
    Labels,
    Line,
    Mark,
    Measures,
    Outline,
    Ring,
    arrange,
    contours,
    single,
)
from vistool.visualization.views import ColorMapping, View, choose_view, map_colors, scaled_alone

# Tiles of more pixels are drawn in strips: a map in floating point takes several times the memory of its photo.
_LARGE = 1 << 24
_SHADE = np.float32(0.8)  # how dark the photo gets outside a spotlight
_OUTLINE = (0, 230, 255)  # visible on every color of inferno
_TRUTH = (20, 20, 20)  # with white on both sides, visible on every color of jet
_SPECK, _NAMED = 1e-3, 5e-3  # of the image's area: what is too small for an outline, and for a name
_CLASS_COLORS: tuple[Color, ...] = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (23, 190, 207), (140, 86, 75),
    (227, 119, 194), (188, 189, 34), (90, 90, 90),
)  # fmt: skip


def heatmaps_scene(result: Heatmaps, style: Style, page: Page) -> Scene:
    """A figure of one image's maps.

    Args:
        result: The maps; must not be empty.
        style: How to draw.
        page: Where to draw.

    Raises:
        InputError: A map or image cannot be drawn; the message says why.
    """
    painter = _Painter(result, style, _hatch(page))
    rows, constants = _rows(painter, always_label=False)
    noted = remark(result, hatched=bool(painter.hatch))
    told = painter.facets.caption.split(' · ')  # it may name the only method already
    alone = SCALED_ALONE if scaled_alone(result, style) else ''
    said = painter.facets.caption, *(each for each in constants if each not in told), alone, '' if page.paper else noted
    caption = ' · '.join(dict.fromkeys(text for text in said if text))
    lines = lines_of(result.kind, rows, page, painter.facets.compared, style.arrangement)
    if page.paper:  # which has no caption of its own
        lines[-1] = replace(lines[-1], remark=noted)
    return arrange(lines, page, caption)


def sheet_scenes(results: Sequence[Heatmaps], style: Style, page: Page, tallest: float | None = None) -> list[Scene]:
    """Several images' maps on pages: rows are images (and their classes) and columns are maps, or the other way round.

    Args:
        results: One per image.
        style: How to draw; its titles of rows and columns are those of the sheet.
        page: Measures of a page.
        tallest: Height of a page in units; None: 9 in on paper, 4000 px on the screen.

    Raises:
        InputError: A map or image cannot be drawn, or there are more or fewer titles than rows or columns.
    """
    painters = [_Painter(result, style.beside_sheet(), _hatch(page)) for result in results]
    tallest = tallest or (648.0 if page.paper else 4000.0)
    across = style.sheet_images == 'columns'
    blocks = _images_across(painters, style, page) if across else [[line] for line in _images_down(painters, style)]
    header = None if across or not blocks else blocks[0][0]
    pages: list[list[Line]] = []
    while blocks:
        count = 1
        while (
            count < len(blocks)
            and arrange(_with_header(list(chain(*blocks[: count + 1])), header), page, fill=True).height <= tallest
        ):
            count += 1
        pages.append(_with_header(list(chain(*blocks[:count])), header))
        blocks = blocks[count:]
    return [arrange(each, page, fill=True) for each in pages]


def _images_down(painters: Sequence[_Painter], style: Style) -> list[Line]:
    """A sheet's lines: one for each image and class, with its maps."""
    figures = [(painter.result.kind, _rows(painter, always_label=True)[0]) for painter in painters]
    labels = iter(_sheet_titles([row.label for _, rows in figures for row in rows], style.row_titles, 'row_titles'))
    label_at = max((label_column(rows) for _, rows in figures), default=0)
    lines: list[Line] = []
    for painter, (_, rows) in zip(painters, figures, strict=True):
        # Lines are not broken: down a sheet, a column means one thing.
        rows = [replace(row, label=next(labels)) for row in rows]
        own = cut(rows, max(len(row.cells) for row in rows), beside=True, label_at=label_at)
        lines += [*own[:-1], replace(own[-1], remark=remark(painter.result, hatched=bool(painter.hatch)))]
    return lines


def _images_across(painters: Sequence[_Painter], style: Style, page: Page) -> list[list[Line]]:
    """A sheet's blocks of lines: the photos on the first line of a block, then a line for each of their maps.

    A column is an image, or one of its classes. There are as many in a block as are large enough, evenly spread.
    """
    columns = [(row, rows[0].lead[0]) for painter in painters for rows in [_rows(painter, True)[0]] for row in rows]
    titles = _sheet_titles([row.label for row, _ in columns], style.column_titles, 'column_titles')
    heads = [
        photo and (photo if photo.title and not style.column_titles else _titled(photo, title))
        for title, (_, photo) in zip(titles, columns, strict=True)
    ]
    maps = [(*row.lead[1:], *row.cells) for row, _ in columns]
    lines = [Line(tuple(heads)), *map(_labeled_line, zip_longest(*maps))]
    noted = '; '.join(dict.fromkeys(filter(None, (remark(each.result, bool(each.hatch)) for each in painters))))
    lines[-1] = replace(lines[-1], remark=noted)
    blocks: list[list[Line]] = []
    for parts in range(1, len(columns) + 1):
        each = math.ceil(len(columns) / parts)
        starts = range(0, len(columns), each)
        blocks = [[replace(line, cells=line.cells[start : start + each]) for line in lines] for start in starts]
        if min(Measures(block, page).picture for block in blocks) >= _least_height(page):
            break
    return blocks


def _titled(cell: Cell, title: str) -> Cell:
    return replace(cell, title=(title,) if title else (), title_color=BLACK)


def _labeled_line(cells: Sequence[Cell | None]) -> Line:
    """A line of one map of each image, called as the map is."""
    label = next((' '.join(cell.title) for cell in cells if cell and cell.title), '')
    return Line(tuple(cell and replace(cell, title=()) for cell in cells), label)


def _least_height(page: Page) -> float:
    """How low the tiles of a sheet with images as columns may get before it is broken."""
    return 36.0 if page.paper else 80.0 if page.width is not None else 140.0


def _sheet_titles(own: Sequence[str], titles: Sequence[str], parameter: str) -> Sequence[str]:
    """The titles of a sheet's images and classes: the user's, if there are any.

    Raises:
        InputError: There are more or fewer than images and classes.
    """
    check_titles(own, titles, parameter)
    return titles or own


def _hatch(page: Page) -> int:
    """The distance of the lines that mark what is not finite, in pixels: 3 points on paper; 0 on the screen."""
    return max(4, round(3 * page.density)) if page.paper else 0


def _with_header(lines: Sequence[Line], header: Line | None) -> list[Line]:
    """Lines with the header's titles above the first tile of each column of a page, where all lines share them."""
    if header is None or not all(_fits(line, header) for line in lines):
        return list(lines)
    missing = dict(enumerate(header.cells))
    found = []
    for line in lines:
        cells = list(line.cells)
        for place, cell in enumerate(cells):
            if cell is not None and cell.title_color != RED:  # a ground truth belongs to its own photo
                head = missing.pop(place, None)
                cells[place] = replace(cell, title=head.title if head and head.title_color != RED else ())
        found.append(replace(line, cells=tuple(cells)))
    return found


def _fits(line: Line, header: Line) -> bool:
    """Whether every tile of a line has the title of the header's column, or none, or one of its own."""
    if len(line.cells) != len(header.cells):
        return False
    pairs = zip(line.cells, header.cells, strict=True)
    return all(
        not cell or not cell.title or cell.title_color == RED or (head is not None and cell.title == head.title)
        for cell, head in pairs
    )


def panel_scenes(result: Heatmaps, style: Style) -> list[tuple[str, Scene]]:
    """The input and each map, by name: untitled, at the photo's own size or the style's, one unit a pixel."""
    painter = _Painter(result, style)
    page = Page(paper=False, width=None, density=1.0)
    cells = [('input', _input_cell(painter, painter.facets.rows, first=False))]
    given = Counter(facet.name for facet in painter.facets.tiles)
    cells += [
        (
            facet.name if given[facet.name] == 1 else f'{facet.group}/{facet.name}',
            _map_cell(item, facet, colors, painter),
        )
        for item, facet, colors in zip(result.maps, painter.facets.tiles, painter.colors, strict=True)
    ]
    inside, canvas = style.panel(painter.view.size)
    return [(name, single(cell, inside, page, canvas)) for name, cell in cells]


def query_scenes(result: Heatmaps, style: Style) -> dict[str, Scene]:
    """The input with one ring alone, for each of several queries that are points, as a panel; none for a single one."""
    if len(result.queries) < 2:
        return {}
    painter = _Painter(result, style)
    rows = {tile.query: tile.row for tile in painter.facets.tiles if tile.query in result.queries}
    page = Page(paper=False, width=None, density=1.0)
    inputs = {query: _input_cell(painter, [row], first=False) for query, row in rows.items()}
    inside, canvas = style.panel(painter.view.size)
    return {query: single(cell, inside, page, canvas) for query, cell in inputs.items()}


def overlays(result: Heatmaps, style: Style) -> list[tuple[str, Pixels]]:
    """Each map by name, blended over the network's image at its own size, uint8 ``(H, W, 3)``, and nothing else."""
    painter = _Painter(result, replace(style, layout='overlay', view='network'))
    views = [painter.view_of(item) for item in result.maps]
    tiles = [painter.tile(colors, view)(view.size) for colors, view in zip(painter.colors, views, strict=True)]
    return [(facet.name, tile) for facet, tile in zip(painter.facets.tiles, tiles, strict=True)]


class _Painter:
    """Draws the tiles of one result; resized photos are kept, because most tiles need the same."""

    def __init__(self, result: Heatmaps, style: Style, hatch: int = 0) -> None:
        if not result.maps:
            raise ValueError('a result without maps cannot be drawn')
        self.view: View = choose_view(result, style)
        self.colors = map_colors(result, style)
        self.facets = with_titles(facets(result), style.row_titles, style.column_titles)
        self.align, self.hatch = style.align, hatch
        self.style = style
        self.result = result
        self.photo = lru_cache(maxsize=4)(self._photo)

    def _photo(self, size: tuple[int, int]) -> Pixels:
        return resize_image(self.view.photo, size)

    def view_of(self, item: Heatmap) -> View:
        """The figure's view, or the map's own where it comes from another network."""
        return self.view if item.view is None else choose_view(self.result, self.style, item.view)

    def background(self, view: View) -> Tile:
        """Draws the pale photo on which sampling points lie."""

        def draw(size: tuple[int, int]) -> Pixels:
            return pale(resize_image(view.photo, size))

        return draw

    def tile(self, mapping: ColorMapping, view: View, spotlight: bool = False) -> Tile:
        """Draws a map; with ``spotlight`` the photo, bright where the map is 1 and dark where it is 0."""

        def rows_of(size: tuple[int, int], rows: slice) -> Pixels:
            whole = rows.stop - rows.start == size[0]
            values, covered = view.map_at(
                mapping.values, size, mapping.interpolation, self.align, None if whole else rows
            )
            resized = self.photo if view.photo is self.view.photo else partial(resize_image, view.photo)
            photo = resized(size)[rows]
            everywhere = covered is None or bool(covered.all())
            if spotlight:
                dark = blend(photo, np.zeros_like(photo), _SHADE * (1 - np.nan_to_num(values)))
                return mark_missing(dark, np.isnan(values), self.hatch)
            if mapping.alpha is not None:
                return overlay(photo, np.clip(values, 0, 1), mapping.table, mapping.alpha, covered, self.hatch)
            if values.ndim == 3:
                colors = rgb_map(values, self.hatch)
            else:
                colors = colorize(values, mapping.table, self.hatch)
            return colors if everywhere else blend(photo, colors, 1.0, covered)

        def draw(size: tuple[int, int]) -> Pixels:
            # The lines of a hatching run on from strip to strip, and without a geometry a map is resized as a whole.
            if self.hatch or view.geometry is None or size[0] * size[1] <= _LARGE:
                return rows_of(size, slice(0, size[0]))
            canvas = np.empty((*size, 3), np.uint8)
            for rows in strips(*size):
                canvas[rows] = rows_of(size, rows)
            return canvas

        return draw


@dataclass(frozen=True)
class _Tile:
    """A map, where it stands, and its cell."""

    item: Heatmap
    facet: Facet
    cell: Cell


def _rows(painter: _Painter, always_label: bool) -> tuple[list[Row], list[str]]:
    """The figure's rows, and the names that are constant over it."""
    result, arrangement = painter.result, painter.facets
    rows_of, columns_of = arrangement.rows, arrangement.columns
    several_rows, several_columns = len(rows_of) > 1, len(columns_of) > 1
    one_line = not always_label and not (several_rows and (several_columns or arrangement.points))
    tiles = [
        _Tile(item, facet, _map_cell(item, facet, colors, painter))
        for item, facet, colors in zip(result.maps, arrangement.tiles, painter.colors, strict=True)
    ]
    rows, photos = [], []
    for number, name in enumerate([''] if one_line else rows_of):
        own = [tile for tile in tiles if one_line or tile.facet.row == name]
        cells: list[Cell | None] = [
            replace(tile.cell, title=_title(tile.facet, arrangement, one_line, always_label)) if tile else None
            for tile in (own if one_line else _by_column(own, columns_of))
        ]
        names = rows_of if one_line else (name,)
        lead: list[Cell | None] = [_input_cell(painter, names, number == 0, own[0].item)]
        if result.reference is not None and not number:
            lead.append(_photo_cell(result.reference, 'reference'))
        if len(own) > 2 and _shows_mean(own[0].item) and not _shows_mean(own[1].item):
            lead.append(cells.pop(0))
        label = rows_of[0] if one_line and _labels_only_row(painter) else name
        matrix = _matrix(own, label, tuple(lead), several_rows)
        rows.append(Row(label, tuple(lead), tuple(cells), matrix, lead[0]))
        photos.append((result if result.kind == 'cam' else own[0].item.view or result).image.tobytes())
    rows = _inputs_once(rows, photos)
    labeled = several_rows or _labels_only_row(painter)
    constant_row = '' if labeled or (len(result.maps) == 1 and rows_of[0]) else rows_of[0]
    said = len(result.maps) > 1 or bool(rows_of[0])  # else the only column is the title of the only tile
    return rows, [constant_row, '' if several_columns or not said else columns_of[0]]


def _labels_only_row(painter: _Painter) -> bool:
    """Whether the only row has a label: models are compared on one class, or the user titled it."""
    arrangement = painter.facets
    once = (arrangement.compared and painter.result.kind == 'cam') or bool(painter.style.row_titles)
    return once and len(arrangement.rows) == 1


def _matrix(tiles: Sequence[_Tile], label: str, lead: tuple[Cell | None, ...], several: bool) -> tuple[Row, ...]:
    """The maps of a row that several models have of several methods or layers: models across, the others down.

    Args:
        tiles: The maps.
        label: The row's class.
        lead: What stands at its left.
        several: Whether there are several rows; the class of the only one stands under the photo.
    """
    parts: dict[str, list[_Tile]] = {}
    for tile in tiles:
        parts.setdefault(tile.facet.part, []).append(tile)
    models = {tuple(tile.facet.model for tile in part) for part in parts.values()}
    if len(parts) < 2 or len(models) != 1 or len(next(iter(models))) < 2:
        return ()
    if not several and lead[0] is not None:
        lead, label = (replace(lead[0], footer=(label,)), *lead[1:]), ''
    rows = []
    for number, (part, own) in enumerate(parts.items()):
        cells = tuple(replace(tile.cell, title=(tile.facet.model,)) for tile in own)
        name = ' · '.join(filter(None, (label, part)))
        rows.append(Row(name, lead if not number else (None,) * len(lead), cells))
    return tuple(rows)


def _shows_mean(item: Heatmap) -> bool:
    """Whether a map is the mean over the heads, which stands beside the input."""
    return item.coordinates.get('head') == 'mean'


def _by_column(tiles: Sequence[_Tile], columns: Sequence[str]) -> Sequence[_Tile | None]:
    """A row's maps with a gap for each column that it lacks; as they are where a column has several."""
    places = {tile.facet.column: tile for tile in tiles}
    return [places.get(column) for column in columns] if len(places) == len(tiles) else tiles


def _inputs_once(rows: Sequence[Row], photos: Sequence[bytes]) -> list[Row]:
    """Rows without the input where the row above has it already, with the same rings: it stands beside both."""
    found: list[Row] = []
    shown: tuple[object, object] | None = None
    for row, photo in zip(rows, photos, strict=True):
        now = (photo, row.lead[0].marks if row.lead[0] else ())
        if now == shown:
            matrix = tuple(replace(each, lead=(None, *each.lead[1:])) for each in row.matrix)
            row = replace(row, lead=(None, *row.lead[1:]), matrix=matrix)
        found.append(row)
        shown = now
    return found


def _title(facet: Facet, arrangement: Facets, one_line: bool, always_label: bool) -> tuple[str, ...]:
    """What varies from tile to tile: the column, or in a single line the row where only that varies."""
    if len(arrangement.columns) > 1:
        text = facet.column
    elif one_line:
        text = facet.row or facet.column
    else:
        text = facet.column if always_label else ''
    return (text,) if text else ()


def _map_cell(item: Heatmap, facet: Facet, colors: ColorMapping, painter: _Painter) -> Cell:
    view = painter.view_of(item)
    height, width = view.size
    outline = view.outline()
    marks: list[Mark] = [outline] if outline and colors.alpha is not None else []
    if item.mask is not None:
        marks += [Outline(view.place(line), _OUTLINE) for line in contours(item.mask)]
    if item.truth is not None:
        marks += [Outline(view.place(line), _TRUTH, 1.0, 0.7) for line in contours(item.truth)]
    marks += _found_marks(painter.result, view, item)
    footer = (facet.footer,) if facet.footer else ()
    tile, bar = painter.tile(colors, view, 'share' in item.coordinates), colors.bar
    if item.sampled is not None:
        marks.append(PointMarks(item.sampled, view, _input_size(painter.result, item)))
        if colors.alpha is None:
            tile, bar = painter.background(view), None
    return Cell(
        tile, width / height, footer=footer, numbers=facet.metrics, note=facet.note, marks=tuple(marks), bar=bar
    )


def _input_size(result: Heatmaps, item: Heatmap) -> tuple[int, int]:
    """Height and width of the input of a map's network."""
    image = result.image if item.view is None else item.view.image
    return image.shape[0], image.shape[1]


def _input_cell(painter: _Painter, names: Sequence[str], first: bool, item: Heatmap | None = None) -> Cell:
    result, arrangement = painter.result, painter.facets
    seen = None if item is None or result.kind == 'cam' else item.view
    view = painter.view if item is None or seen is None else painter.view_of(item)
    height, width = view.size
    points = [arrangement.points[name] for name in names if name in arrangement.points]
    rings = tuple(Ring(*view.point(point, (seen or result).geometry)) for point in dict.fromkeys(points))
    found = _found_marks(result, view, None)
    wrong = _mistake(result, arrangement) if first else ()
    photo = painter.photo if view is painter.view else partial(resize_image, view.photo)
    if any(each.mask is not None for each in result.instances):
        photo = partial(_with_regions, result, view, photo)
    sampled = next((each.sampled for each in result if each.sampled is not None and each.view is seen), None)
    legend = () if sampled is None else (LevelLegend(sampled.sizes),)
    return Cell(photo, width / height, wrong, title_color=RED, marks=(*found, *rings, *legend))


def _mistake(result: Heatmaps, arrangement: Facets) -> tuple[str, ...]:
    """The image's own class and the predicted one, where they differ."""
    if not arrangement.ground_truth or result.prediction is None:
        return ()
    truth = f'GT: {arrangement.ground_truth}'
    if arrangement.compared:  # each model has a prediction of its own
        return (truth,)
    return truth, f'predicted: {score_text(result.prediction.name, result.prediction.score)}'


def _photo_cell(photo: Pixels, title: str) -> Cell:
    """The tile of a photo on which no map lies."""
    return Cell(partial(resize_image, photo), photo.shape[1] / photo.shape[0], (title,))


def _found_marks(result: Heatmaps, view: View, item: Heatmap | None) -> list[Mark]:
    """What a detector or segmenter found: all of it with its name on the photo; on a map what that is about, in bold.

    Args:
        result: The maps.
        view: What is drawn on.
        item: The map; None for the photo.
    """
    about, found = None if item is None else result.instance(item), result.found(item)
    if item is not None and about is None and not any(each.box for each in found):
        return []  # a map that explains no region
    marks: list[Mark] = []
    shown = [*([] if item is not None else result.missed), *(each for each in found if each is not about)]
    for each in [*reversed(shown), *([about] if about else [])]:
        own = each is about
        color = WHITE if item is not None else RED if each.kind == 'miss' else _class_color(each)
        text = found_text(each, item is None) if own or item is None else ''
        if each.mask is not None and (own or (item is None and not each.is_background)):
            marks += [Outline(view.place(line), color, 1.2, 0.6) for line in _large(contours(each.mask))]
        if each.box is not None:
            x1, y1, x2, y2 = each.box
            left, top = view.point((x1, y1), result.geometry)
            right, bottom = view.point((x2, y2), result.geometry)
            marks.append(Frame(left, top, right, bottom, color, text, own))
        elif item is None and each.mask is not None and not each.is_background:
            marks += [_name_of_region(each, view, text)] if each.mask.mean() > _NAMED else []
    return marks


def _class_color(found: Instance) -> Color:
    return _CLASS_COLORS[(found.id or 0) % len(_CLASS_COLORS)]


def _with_regions(result: Heatmaps, view: View, photo: Tile, size: tuple[int, int]) -> Pixels:
    """The photo with what was found tinted in the colors of its classes."""
    drawn = photo(size)
    for each in result.instances:
        if each.mask is not None and not each.is_background:
            values, _ = view.map_at(each.mask.astype(np.float32), size, 'nearest', 'center')
            drawn = blend(
                drawn, np.broadcast_to(np.array(_class_color(each), np.uint8), drawn.shape), np.float32(0.55) * values
            )
    return drawn


def _large(lines: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The lines around more than specks."""
    return [line for line in lines if float(np.ptp(line, 0).prod()) > _SPECK]


def _name_of_region(each: Instance, view: View, text: str) -> Labels:
    """A region's name in its thickest part."""
    assert each.mask is not None
    depth = cv2.distanceTransform(np.pad(each.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    height, width = each.mask.shape
    place = np.array([[(column + 0.5) / width, (row + 0.5) / height]])
    ((x, y),) = view.place(place)
    return Labels(((x, y, text, WHITE),), (0.6, 0.2))


def channel_files(result: ChannelStack, style: Style) -> Iterator[tuple[str, Callable[[], Pixels]]]:
    """All pictures of a stack, each drawn when called, by path without suffix.

    Paths are ``[MODEL/]IMAGE/LAYER/channel_0000`` …, then ``sum``.
    """
    for each in result.layers:
        parts = [*([each.model] if each.model else []), result.name, each.layer]
        folder = '/'.join(safe_name(part) for part in parts)
        for name, colors in _colored(each.values, style):
            yield f'{folder}/{name}', partial(_paint, colors, result.size, style)


def as_heatmaps(result: ChannelStack) -> Heatmaps:
    """A stack as one figure of all channels."""
    maps = [
        Heatmap(values, Coordinates({'layer': each.layer, 'channel': channel}))
        for each in result.layers
        for channel, values in enumerate(each.values)
    ]
    return Heatmaps('feature', np.full((*result.size, 3), 255, np.uint8), tuple(maps), provenance=result.provenance)


def _colored(maps: NDArray[np.float32], style: Style) -> Iterator[tuple[str, ColorMapping]]:
    """The channels on one scale, unless the style has one for each, and their sum on its own."""
    digits = len(str(len(maps) - 1))
    total = maps.sum(0, dtype=np.float64).astype(np.float32)
    items = [Heatmap(values, Coordinates(layer='channels', channel=number)) for number, values in enumerate(maps)]
    items.append(Heatmap(total, Coordinates(layer='sum', reduction='sum')))
    nothing = np.zeros((1, 1, 3), np.uint8)
    names = [*(f'channel_{number:0{digits}}' for number in range(len(maps))), 'sum']
    return zip(names, map_colors(Heatmaps('feature', nothing, tuple(items)), style), strict=True)


def _paint(mapping: ColorMapping, size: tuple[int, int], style: Style) -> Pixels:
    if mapping.interpolation == 'nearest':
        # Colors before sizes: a nearest neighbor has the same color, and there are fewer values to look up.
        colors = colorize(mapping.values, mapping.table)
        return np.ascontiguousarray(resize_map(colors, size, 'nearest', style.align))  # type: ignore[arg-type]
    return colorize(resize_map(mapping.values, size, mapping.interpolation, style.align), mapping.table)
