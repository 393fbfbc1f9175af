"""Coordinates to rows, columns and words: the one place that decides how maps are arranged and what is said of them.

Every title, caption, footer, note and file name of heat maps is made here from coordinates and numbers. What varies
becomes a row or a column; what is constant is said once, in the caption.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vistool.errors import InputError, counted
from vistool.results import Coordinate, GridImage, Heatmap, Heatmaps, ImageGrid, Instance, Layer, Measure

COSINE = 'cosine similarity'
SAMPLED = 'points that are read: area = weight, color = level, + = reference point'
_UNITS = ('epoch', 'iteration')
"""What a training counts."""
_MOST_SHOWN = 3
_AT_CENTER, _DISAGREES = 0.4, 0.25
"""A map with this share in the middle ninth of its box lies at the center; below this agreement two maps differ."""
_PLAIN_NUMBERS = 1e-4, 1e9  # smaller and larger ones have an exponent


@dataclass(frozen=True)
class Facet:
    """Where one map stands in the figure, and what is said of it.

    Attributes:
        row: Label of its row.
        column: Title of its column.
        name: Its name in files, unique within ``group``.
        group: Its group in the raw file; the maps of a group have one size.
        method: What the gallery calls this map among those of one layer: the method, the head, the reduction.
        footer: A line under the tile.
        metrics: The metrics of the map in words: ``('ins .71 ↑', 'del .12 ↓')``.
        note: A remark drawn on the tile.
        query: The query whose position is ringed on the row's photo, where there is one.
        part: What of the column is not the model, where models are compared.
        model: The model, likewise.
    """

    row: str
    column: str
    name: str
    group: str
    method: str
    footer: str = ''
    metrics: tuple[str, ...] = ()
    note: str = ''
    query: str = ''
    part: str = ''
    model: str = ''


@dataclass(frozen=True)
class Facets:
    """The arrangement of a result's maps.

    Attributes:
        tiles: One entry per map, in the order of the maps.
        caption: What is constant over the figure.
        points: Row → ``(x, y)`` of its query in original pixels, for the rows that have one.
        ground_truth: The image's own class where the prediction is wrong, else ``''``.
        compared: Whether several models are compared.
    """

    tiles: tuple[Facet, ...]
    caption: str
    points: Mapping[str, tuple[float, float]]
    ground_truth: str
    compared: bool

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The rows of the figure, in order of first appearance."""
        return tuple(dict.fromkeys(tile.row for tile in self.tiles))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the figure, in order of first appearance."""
        return tuple(dict.fromkeys(tile.column for tile in self.tiles))


def facets(result: Heatmaps) -> Facets:
    """Arranges the maps of a result: methods, heads or stages across; classes, queries, layers or models down."""
    arranger = {'cam': _Cam, 'attention': _Attention, 'feature': _Features}[result.kind](result)
    tiles = tuple(arranger.facet(item) for item in result.maps)
    if (unit := next((name for name in _UNITS if name in result.coordinates), None)) is not None:
        tiles = _over_training(arranger, tiles, unit)
    points = {tile.row: result.queries[tile.query] for tile in tiles if tile.query in result.queries}
    caption = _joined(arranger.caption(), _doubt(result))
    return Facets(tiles, caption, points, _ground_truth(result), arranger.compared)


def with_titles(arrangement: Facets, rows: Sequence[str], columns: Sequence[str]) -> Facets:
    """An arrangement whose rows and columns are called as the user wishes.

    Args:
        arrangement: The arrangement.
        rows: Titles of the rows, from the top; none keeps their own.
        columns: Titles of the columns, from the left; likewise.

    Raises:
        InputError: There are more or fewer titles than rows or columns.
    """
    row = _renamed(arrangement.rows, rows, 'row_titles')
    column = _renamed(arrangement.columns, columns, 'column_titles')
    tiles = tuple(replace(tile, row=row[tile.row], column=column[tile.column]) for tile in arrangement.tiles)
    if columns:  # parts and models would be named by themselves
        tiles = tuple(replace(tile, part='', model='') for tile in tiles)
    points = {row[name]: point for name, point in arrangement.points.items()}
    return replace(arrangement, tiles=tiles, points=points)


def _renamed(names: Sequence[str], titles: Sequence[str], parameter: str) -> Mapping[str, str]:
    check_titles(names, titles, parameter)
    return dict(zip(names, titles or names, strict=True))


def check_titles(names: Sequence[str], titles: Sequence[str], parameter: str) -> None:
    """Compares titles of the user's with what they are to name.

    Raises:
        InputError: There are more or fewer.
    """
    if titles and len(titles) != len(names):
        told = ', '.join(name or 'untitled' for name in names)
        what = counted(len(names), parameter.partition('_')[0])
        raise InputError(
            f'{counted(len(titles), "title")} for {what}: {told}', accepted='one for each', parameter=parameter
        )


def _over_training(arranger: _Arranger, tiles: Sequence[Facet], unit: str) -> tuple[Facet, ...]:
    """The arrangement of a film strip: moments of a training across, and down what is shown of each."""
    result = arranger.result
    moments = [int(item.coordinates[unit]) for item in result.maps]
    ranks = [moments[:place].count(moment) for place, moment in enumerate(moments)]
    count = max(ranks, default=-1) + 1
    places = [[at for at, each in enumerate(ranks) if each == rank] for rank in range(count)]
    rows = [_strip_row(arranger, tiles, each) for each in places]
    found = []
    for item, tile, rank, moment in zip(result.maps, tiles, ranks, moments, strict=True):
        target, predicted = item.coordinates.get('target'), result.predictions.get(moment)
        footer = score_text(predicted.name, predicted.score) if predicted is not None else ''
        if target is not None and item.score is not None:
            footer = arranger.scored(item, str(target))
        name = f'{unit} {moment}'
        found.append(replace(tile, row=rows[rank], column=name, name=f'{name}/{tile.name}', footer=footer))
    return tuple(found)


def _strip_row(arranger: _Arranger, tiles: Sequence[Facet], places: Sequence[int]) -> str:
    """What a row of a film strip shows at every moment: its class, unless that is whatever was predicted then."""
    targets = {arranger.result.maps[place].coordinates.get('target') for place in places}
    if targets == {None}:
        return _joined(tiles[places[0]].row, tiles[places[0]].column)
    what = str(next(iter(targets))) if len(targets) == 1 else 'predicted class'
    return _joined(what, tiles[places[0]].column)


def scale_of(result: Heatmaps, item: Heatmap) -> str:
    """Maps with one such key have values on one scale; ``''`` where a map stands alone.

    Attention of compared models: the same head, query and layer, on grids of one size. Features: a layer, its
    differences, or cosine similarities.
    """
    place = item.coordinates
    if result.kind == 'attention':
        alone = len(result.coordinates.get('model', ())) < 2 or item.range is not None or 'share' in place
        same = [f'{name}={value}' for name, value in place.items() if name != 'model']
        return '' if alone else f'{", ".join(same)} {item.values.shape}'
    if result.kind != 'feature':
        return ''
    if not item.comparable and item.layer is not None:
        return f'{place["model"]}: {item.layer.name}'
    scale = COSINE if 'query' in place else str(place.get('layer', ''))
    return f'difference: {scale}' if 'minus' in place else scale


def grid_title(image: GridImage, below: bool = False) -> tuple[str, ...]:
    """The lines above a picture of a grid: its step with size and drawn parameters, its draw and view.

    Args:
        image: The picture.
        below: Whether a picture further up in the column says what both have in common.
    """
    if image.title or not image.coordinates:
        return image.title
    place, size = image.coordinates, pixels_text(image)
    drawn = tuple(_MINUS.sub('−', text) for text in image.parameters)
    which = _joined(*(f'{name} {int(place[name]) + 1}' for name in ('draw', 'view') if name in place))
    step = place.get('step')
    if step is None:
        return (which,) if which else ()
    if step == 'original':
        return tuple(filter(None, (_joined('' if below else 'original', which), size, *drawn)))
    if step == 'transformed':
        return which or 'transformed', size
    if 'within' in place:
        return (*([] if below else [str(place['within'])]), f'› {step}', size, *drawn)
    return (size, *drawn) if below else (str(step), size, *drawn)


_MINUS = re.compile(r'(?<![\w.)\]-])-(?=\d)')
"""The hyphen before a number: ``hue -0.031``, not that of a range or of a name with a number."""


def grid_footer(image: GridImage, mode: str) -> tuple[str, ...]:
    """The lines under a picture of a grid: the sample's label, its index, and what was read instead of it."""
    if 'sample' not in image.coordinates:
        return image.footer
    replaced = '' if image.refetched is None else f'replaced by #{image.refetched}'
    index = f'#{image.coordinates["sample"]}'
    return (*image.label, _joined(index, pixels_text(image) if mode == 'original' else '', replaced))


def remark(result: Heatmaps, hatched: bool = False) -> str:
    """What a reader must know of the values: ``'shown 0–4095 · 12 of 3136 values not finite (magenta)'``.

    Args:
        result: The maps.
        hatched: Whether values that are not finite are hatched, as in print, and not magenta.
    """
    missing, total = result.not_finite
    marked = 'hatched' if hatched else 'magenta'
    given_later = not result.shown.known and result.original is not None
    return _joined(
        '' if given_later else result.shown.describe(),
        f'{missing} of {total} values not finite ({marked})' if missing else '',
    )


def grid_remark(result: ImageGrid) -> str:
    """How the pictures of a grid show their files' values: ``'shown 0–4095; shown 0–1'``."""
    shown = [text for each in result.shown if (text := each.describe())]
    more = f' and {len(shown) - _MOST_SHOWN} other ranges' if len(shown) > _MOST_SHOWN else ''
    return '; '.join(shown[:_MOST_SHOWN]) + more


def pixels_text(image: GridImage) -> str:
    """Width and height of a picture: ``'640×480'``."""
    return f'{image.pixels.shape[1]}×{image.pixels.shape[0]}'


def score_text(name: str, score: float | None, is_value: bool = False) -> str:
    """``'espresso 0.95'``, ``'cup <0.01'``; a value in its own unit: ``'age 57.2'``.

    Args:
        name: The target's name.
        score: The model's score for it.
        is_value: Whether the score is a value, and not that of a class.
    """
    if score is None:
        return name
    return f'{name} {value_text(score) if is_value else _class_score(score)}'.strip()


def value_text(value: float) -> str:
    """A number with at least three digits, zeros at its end left out: ``57.2``, ``0.0032``, ``12,300``, ``1.5e-09``."""
    if not math.isfinite(value) or value == 0:
        return f'{value:g}'
    if not _PLAIN_NUMBERS[0] <= abs(value) < _PLAIN_NUMBERS[1]:
        return _with_minus(f'{value:.3g}')
    text = _with_minus(f'{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}')
    return text.rstrip('0').rstrip('.') if '.' in text else text


def _with_minus(number: str) -> str:
    """A number with a true minus before it."""
    return f'−{number[1:]}' if number.startswith('-') else number


def _class_score(score: float) -> str:
    """Two digits behind the point; a score that is not zero is never written as zero."""
    if abs(score) >= 0.005 or not score:
        return _with_minus(f'{score:.2f}')
    return '<0.01' if score > 0 else value_text(score)


def found_text(found: Instance, scored: bool) -> str:
    """What a detector or segmenter found, on the picture: ``'#0 cat 0.92'``; a region without its number."""
    if found.kind == 'miss':
        return f'missed: {found.name}'
    number = '' if found.box is None else f'#{found.number} '
    wrong = ' (false positive)' if found.kind == 'false positive' and scored else ''
    return f'{number}{score_text(found.name, found.score if scored else None)}{wrong}'


def metrics_text(result: Heatmaps, item: Heatmap) -> tuple[str, ...]:
    """The metrics of a map, each with an arrow to where it is better: ``('ins .71 ↑', 'energy .6 ↑ (chance .2)')``."""
    return tuple(
        f'{measure.short} {short_number(item.metrics[name])} {arrow(measure)}'
        + (f' (chance {short_number(item.chance[name])})' if math.isfinite(item.chance.get(name, math.nan)) else '')
        for name, measure in result.measures.items()
        if name in item.metrics
    )


def arrow(measure: Measure) -> str:
    """Where a metric is better: up or down."""
    return '↑' if measure.better == 'higher' else '↓'


def short_number(value: float) -> str:
    """Two digits without the zero before the point, ``<.01`` or ``>−.01`` for less; a dash for what is not defined."""
    if not math.isfinite(value):
        return '–'
    if abs(value) >= 10:
        return value_text(value)
    if 0 < abs(value) < 0.005:
        return '<.01' if value > 0 else '>−.01'
    return re.sub(r'0(?=\.)', '', _two_digits(value))


SCALED_ALONE = 'each map scaled to its own maximum'
"""What a figure says whose maps have no common scale and no bars."""


def bar_title(result: Heatmaps, item: Heatmap) -> str:
    """What the numbers at the bar of a map are; ``''`` where its row or column says it."""
    place = item.coordinates
    if 'minus' in place:
        return ''  # the row or column is called so
    if result.kind == 'feature':
        if 'query' in place:
            return COSINE
        return {
            'mean': 'mean activation',
            'sum': 'sum of activations',
            'max': 'largest activation',
            'norm': 'norm of the activations',
        }.get(str(place.get('reduction', '')), 'activation')
    return 'attention' if result.kind == 'attention' else 'evidence'


def size_text(layer: Layer | None) -> str:
    """Rows, columns and channels of a layer: ``'14×14×320'``."""
    if layer is None or layer.size is None:
        return ''
    channels, height, width = layer.size
    return f'{height}×{width}×{channels}'


def _ground_truth(result: Heatmaps) -> str:
    label, prediction = result.label, result.prediction
    return label.name if label is not None and prediction is not None and label.id != prediction.id else ''


def _joined(*parts: str) -> str:
    return ' · '.join(part for part in parts if part)


def _doubt(result: Heatmaps) -> str:
    """What is assumed of the maps, because it could not be checked."""
    unchecked = any(item.layer is not None and item.layer.unchecked for item in result.maps)
    return 'token order not checked' if unchecked else ''


def _missing_evidence(item: Heatmap, against: bool) -> str:
    """What a map of zeros means: nothing speaks for the target (or against it), or what does is rounding errors."""
    if np.nanmax(item.values, initial=0) != 0:
        return ''
    if item.signed is not None and not item.signed.any():
        return 'no evidence above rounding'
    return 'no evidence against it' if against else 'no positive evidence'


def _drift(item: Heatmap) -> str:
    """What a comparison with masked input says against a map; ``''`` where it was not made or says nothing."""
    if 'agreement' not in item.metrics:
        return ''
    agreement = item.metrics['agreement']
    if math.isnan(agreement):
        return 'not verified: masking no part of the object lowers its score'
    center, masked = item.metrics['map_center'], item.metrics['masked_center']
    if center >= _AT_CENTER and masked <= center / 2:
        return "drift: evidence lies at the object's center cell, not on it"
    return 'drift: masking the input finds the evidence elsewhere' if agreement < _DISAGREES else ''


class _Arranger:
    """What the kinds have in common."""

    def __init__(self, result: Heatmaps) -> None:
        self.result = result
        self.values = result.coordinates
        self.models = self.values.get('model', ())
        self.compared = len(self.models) > 1
        self.targets = {target.name: target for target in result.targets}
        first = self.models[0] if self.models else None
        own = [item for item in result.maps if item.coordinates.get('model') == first]
        self.first_layers = {item.coordinates.get('layer'): item.layer for item in own}

    def varies(self, name: str) -> bool:
        """Whether a coordinate has more than one value."""
        return len(self.values.get(name, ())) > 1

    def facet(self, item: Heatmap) -> Facet:
        """Where a map stands."""
        raise NotImplementedError

    def caption(self) -> str:
        """What is constant."""
        raise NotImplementedError

    def own_layer(self, item: Heatmap) -> str:
        """The name of a map's layer in its own network."""
        return item.layer.name if item.layer is not None else str(item.coordinates.get('layer', ''))

    def scored(self, item: Heatmap, name: str) -> str:
        """A target's name with the model's score for it."""
        target = item.target or self.targets.get(name)
        return self.score(item, name, target.name if target is not None else name)

    def score(self, item: Heatmap, name: str, shown: str = '') -> str:
        """The model's score for a target, after what is ``shown`` before it."""
        target = item.target or self.targets.get(name)
        text = score_text(shown, item.score, target is not None and target.id is None)
        return text if target is None or target.truth is None else f'{text}, truth {value_text(target.truth)}'

    def group(self, item: Heatmap, name: str) -> str:
        """A group, with the model before it for all models but the first."""
        model = item.coordinates.get('model')
        return f'{model}: {name}' if self.compared and model != self.models[0] else name

    def beside(self, item: Heatmap, column: str, columns: Sequence[str]) -> str:
        """The column of a map where models stand beside each other."""
        model = str(item.coordinates.get('model', ''))
        if not self.compared:
            return column
        return _joined(column, model) if len(columns) > 1 else model


class _Cam(_Arranger):
    """Methods across (and layers, where each has a map of its own), classes down."""

    def __init__(self, result: Heatmaps) -> None:
        super().__init__(result)
        several = len(result.layers) > 1
        self.apart = {name for name in result.layers if several and name in self.values.get('layer', ())}
        self.alone = bool(self.apart) and len(result.titles) == 1
        self.columns = list(dict.fromkeys(self.column(item) for item in result.maps))

    def column(self, item: Heatmap) -> str:
        method, layer = item.coordinates.get('method', ''), item.coordinates.get('layer')
        title = self.result.titles.get(str(method), str(method))
        return _joined('' if self.alone else title, str(layer) if layer in self.apart else '')

    def facet(self, item: Heatmap) -> Facet:
        method, target = str(item.coordinates.get('method', '')), item.coordinates.get('target')
        # A map that shows no class stands in the first row.
        shown = str(target) if target is not None else self.result.targets[0].name if self.result.targets else ''
        explained = item.target or self.targets.get(shown)
        # A prediction changes with the weights, and a paper's figure includes its panels by their names.
        word = explained.word if explained is not None else ''
        name = method if target is None else f'{method}/{word or target}'
        scored = self.scored(item, shown) if shown else ''
        against = explained is not None and explained.against
        column = self.beside(item, self.column(item), self.columns)
        return Facet(
            row=shown if self.compared else scored,
            column=column,
            method=column if self.compared or self.alone else self.result.titles.get(method, method),
            name=f'{item.coordinates["model"]}/{name}' if self.compared else name,
            group=self.group(item, self.own_layer(item)),
            footer='' if not self.compared else self.score(item, shown) if item.target is None else scored,
            part=self.column(item) if self.compared else '',
            model=str(item.coordinates.get('model', '')) if self.compared else '',
            metrics=metrics_text(self.result, item),
            note=_missing_evidence(item, against) or _drift(item),
        )

    def caption(self) -> str:
        if self.compared:
            return '' if len(self.columns) > 1 else self.columns[0]
        if self.apart:
            return _joined(self.result.model, next(iter(self.result.titles.values())) if self.alone else '')
        return _joined(self.result.model, '+'.join(self.result.layers))


class _Attention(_Arranger):
    """Heads across; layers, queries, classes and models down."""

    def __init__(self, result: Heatmaps) -> None:
        super().__init__(result)
        self.stacked = self.compared and self.varies('head')
        self.columns = list(dict.fromkeys(self.column(item) for item in result.maps))

    def column(self, item: Heatmap) -> str:
        head = item.coordinates.get('head')
        if head is None:
            return str(item.coordinates.get('method', ''))
        return f'head {head}' if isinstance(head, int) else str(head)

    def row(self, item: Heatmap) -> str:
        """Layer and query, or the class, and the share of the attention that is highlighted."""
        place = item.coordinates
        first = self.first_layers.get(place.get('layer'))
        parts = [f'layer {first.number}' if self.varies('layer') and first is not None else '']
        if 'target' in place:
            parts.append(str(place['target']) if self.compared else self.scored(item, str(place['target'])))
        elif self.varies('query'):
            parts.append(str(place.get('query', '')))
        return _joined(*parts, f'{place["share"]:.0%} of the attention' if 'share' in place else '')

    def name(self, item: Heatmap) -> str:
        place = item.coordinates
        parts = [str(place['query'])] if self.varies('query') and 'target' not in place else []
        if 'head' in place:
            parts.append(self.column(item))
        else:
            parts.insert(0, str(place.get('method', '')))
        if 'target' in place:
            parts.append(self.scored(item, str(place['target'])).replace('<', 'under '))
        if 'share' in place:
            parts.append(f'{place["share"]:.0%}')
        return '/'.join(parts)

    def facet(self, item: Heatmap) -> Facet:
        place, name, row = item.coordinates, self.name(item), self.row(item)
        model = str(place.get('model', ''))
        scored = self.compared and not self.stacked and 'target' in place
        column = self.column(item) if self.stacked else self.beside(item, self.column(item), self.columns)
        return Facet(
            row=_joined(row, model) if self.stacked else row,
            column=column,
            method=column,
            name=f'{model}/{name}' if self.compared else name,
            group=self.group(item, self.own_layer(item) if 'head' in place else str(place.get('method', ''))),
            footer=self.scored(item, str(place['target'])) if scored else '',
            metrics=metrics_text(self.result, item),
            query=str(place.get('query', '')),
        )

    def caption(self) -> str:
        if self.compared:
            return '' if self.stacked or len(self.columns) > 1 else self.columns[0]
        queries = self.values.get('query', ())
        query = str(queries[0]) if len(queries) == 1 else ''
        if 'head' not in self.values:
            method = next(iter(self.result.titles.values()), '')
            count = len(self.result.layers)
            return _joined(self.result.model, method, counted(count, 'layer'), query)
        layers = self.values.get('layer', ())
        return _joined(
            self.result.model,
            str(layers[0]) if len(layers) == 1 else '',
            query,
            self.shares() if len(self.result.mass) == 1 else '',
            'softmaxes mixed before the values' if any(item.layer and item.layer.mixed for item in self.result) else '',
            SAMPLED if any(item.sampled is not None for item in self.result) else '',
        )

    def shares(self) -> str:
        """How much of the query's attention goes where the maps do not show it."""
        (mass,) = self.result.mass
        parts = []
        if mass.prefix:
            share = sum(mass.prefix)
            name = 'the class token' if len(mass.prefix) == 1 else 'prefix tokens'
            parts.append(f'{name} {"<1%" if share < 0.005 else f"{share:.0%}"}')
        if mass.padding >= 0.005:
            parts.append(f'padding {mass.padding:.0%}')
        return f'attention to {", ".join(parts)} (mean over heads)' if parts else ''


class _Features(_Arranger):
    """Stages across, or channels across and layers down; queries and models down."""

    _HOW: Mapping[Coordinate | None, str] = {
        'mean': 'mean over channels',
        'sum': 'sum over channels',
        'max': 'maximum over channels',
        'norm': 'norm over channels',
        'select_max': 'channel of the largest mean',
        'pca': 'principal components 1–3 as red, green, blue',
    }

    def title(self, item: Heatmap) -> str:
        """``'stage 3 · 14×14×320'``, or the layer's own name with its size; of the first model where several are."""
        layer = self.first_layers.get(item.coordinates.get('layer')) or item.layer
        if layer is None or layer.number is None:
            return _joined(str(item.coordinates.get('layer', '')), size_text(layer))
        return _joined(f'stage {layer.number} {layer.place}'.rstrip(), size_text(layer))

    def what(self, item: Heatmap) -> str:
        """What of its layer a map shows: ``'mean'``, ``'channel 17'``, ``'(250, 100)'``."""
        place = item.coordinates
        if 'query' in place:
            return str(place['query'])
        return f'channel {place["channel"]}' if 'channel' in place else str(place.get('reduction', ''))

    def facet(self, item: Heatmap) -> Facet:
        place, layer = item.coordinates, str(item.coordinates.get('layer', ''))
        what, model = self.what(item), self.model_row(item)
        by_channel = 'channel' in place and 'reduction' not in place
        row = what if 'query' in place else self.title(item) if by_channel and self.varies('layer') else ''
        name = f'{layer}/{what}' if layer else what
        group = layer if 'minus' in place else self.own_layer(item)
        other = self.compared and ('minus' in place or place.get('model') != self.models[0])
        return Facet(
            row=_joined(row, model) if self.compared else row,
            column=what if by_channel else self.title(item),
            method=what,
            name=f'{model}/{name}' if other else name,
            group=f'{model}: {group}' if other else group,
            footer=self.footer(item, by_channel),
            note='from {}×{}'.format(*item.resampled_from) if item.resampled_from else '',
            query=str(place.get('query', '')),
        )

    def model_row(self, item: Heatmap) -> str:
        """The model, or which difference this is."""
        place = item.coordinates
        if 'minus' not in place:
            return str(place.get('model', ''))
        return f'{place["model"]} − {place["minus"]}'

    def footer(self, item: Heatmap, by_channel: bool) -> str:
        """Which channel is the strongest, or how similar two models are."""
        place = item.coordinates
        similarity = _joined(
            *(
                f'{short} {_two_digits(item.metrics[name])}'
                for name, short in (('cka', 'CKA'), ('cosine', 'cos'))
                if not math.isnan(item.metrics.get(name, math.nan))
            )
        )
        if 'minus' in place:
            return similarity
        if not item.comparable:  # the size in the column's title is the first model's
            return _joined('' if by_channel else size_text(item.layer), similarity)
        return self.what(item) if place.get('reduction') == 'select_max' else ''

    def caption(self) -> str:
        first = self.result.maps[0]
        by_channel = 'channel' in first.coordinates and 'reduction' not in first.coordinates
        if 'query' in first.coordinates:
            how = f'{COSINE} to the position ringed'
        elif by_channel:
            top = self.result.top
            how = f'top {top.count} channels by {top.criterion}' if top else ''
        else:
            how = self._HOW.get(first.coordinates.get('reduction'), '')
        alone = self.title(first) if by_channel and not self.varies('layer') else ''
        return _joined(self.result.model, alone, how)


def _two_digits(value: float) -> str:
    text = f'{value:.2f}'.replace('-', '−')
    return '0.00' if text == '−0.00' else text
