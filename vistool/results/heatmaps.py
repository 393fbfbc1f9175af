"""Heat maps of one image: values with coordinates, and how to select among them.

Maps are tidy data: a flat tuple in which each map says what it is by its coordinates. Which coordinate becomes a row of
a figure, which a column, and how a title reads is decided in :mod:`vistool.visualization.facets`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.data.display import PHOTO, Shown
from vistool.data.geometry import Geometry
from vistool.errors import InputError, close_matches, counted
from vistool.results.base import Coordinate, Coordinates, Result

if TYPE_CHECKING:
    from pandas import DataFrame

Kind = Literal['cam', 'attention', 'feature']
Array = NDArray[np.float32]
Wanted = Coordinate | Sequence[Coordinate] | None


OWN_PREDICTION = 'own prediction'
"""The coordinate ``target`` of compared maps that explain what each model itself predicts."""


@dataclass(frozen=True)
class Target:
    """What maps explain, or what a model predicted: a class, an instance, a similarity.

    Attributes:
        name: Its name.
        id: The class id; None where it is not a class.
        score: The model's score for it (a probability, where there are classes); None where it was not asked.
        against: Whether the maps show the evidence against it.
        truth: Of a value, what the dataset says that it is; None where that is unknown.
        word: How a class was asked for that depends on the image or the weights: ``'top1'``, ``'label'``; else ``''``.
    """

    name: str
    id: int | None = None
    score: float | None = None
    against: bool = False
    truth: float | None = None
    word: str = field(default='', compare=False)

    def entry(self) -> dict[str, Any]:
        """As plain JSON values, for provenance and manifests; what is unknown is left out."""
        found = {
            'id': self.id,
            'name': self.name,
            'score': self.score,
            'against': self.against or None,
            'truth': self.truth,
        }
        return {key: value for key, value in found.items() if value is not None}

    @property
    def choice(self) -> int | str | None:
        """The class as analyses take it as a target: its id, ``'-id:7'`` for the evidence against; None for others."""
        return f'-id:{self.id}' if self.against and self.id is not None else self.id


@dataclass(frozen=True, eq=False)
class Instance:
    """Something that a detector or segmenter finds in an image: an object, or the region of a class.

    Attributes:
        number: Its place among those of the image, the surest (of regions the largest) first.
        name: Its class.
        id: The class id.
        score: How sure the network is.
        box: Left, top, right and bottom in pixels of the original (without a geometry: of the network); None for
            regions.
        seen: The same in pixels of the network's input.
        mask: bool ``(H, W)`` on the network's input, where there is one.
        iou: The largest IoU with an object of its class in the dataset; None where the dataset knows none.
        kind: ``'true positive'``, ``'false positive'``, or for an object that no prediction is ``'miss'``; ``''``
            where that is unknown.
    """

    number: int
    name: str
    id: int | None
    score: float
    box: tuple[float, float, float, float] | None = None
    seen: tuple[float, float, float, float] | None = None
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)
    iou: float | None = None
    kind: str = ''

    @property
    def is_background(self) -> bool:
        """Whether the class is what is left of an image beside its objects."""
        return self.name.lower().strip('_') == 'background'

    def entry(self) -> dict[str, Any]:
        """As plain JSON values, for provenance."""
        score = None if self.kind == 'miss' else self.score
        found = {'number': self.number, 'id': self.id, 'name': self.name, 'score': score, 'box': self.box}
        return found | ({'iou': self.iou} if self.iou is not None else {}) | ({'kind': self.kind} if self.kind else {})


@dataclass(frozen=True)
class Measure:
    """What a figure says of a metric.

    Attributes:
        short: Its short name.
        better: Whether ``'higher'`` or ``'lower'`` is better.
    """

    short: str
    better: Literal['higher', 'lower']


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """A score while more and more of an image is removed or comes in.

    Attributes:
        fractions: float64 ``(n,)``, the share of the pixels that really was removed or is in.
        scores: float64 ``(n,)``.
    """

    fractions: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NetworkView:
    """What one network saw of the photo: needed where models are compared whose preprocessing differs.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB, before normalization.
        geometry: Network pixels to original pixels; None where there is no original.
        instances: What it finds in the image; those that its maps explain have the first network's numbers.
    """

    image: NDArray[np.uint8]
    geometry: Geometry | None
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True)
class Layer:
    """The layer that a map was taken from, in its own network.

    Attributes:
        name: Its dotted name.
        number: Its number among the attention layers, from 0, or among the stages of the backbone, from 1; None where
            it was named by the user.
        size: Channels, height and width of its output; None where that does not apply.
        place: Where in what a stage returned the map is (``'[aux][0]'``), if it returned several.
        mixed: Whether attention heads were mixed after the softmax, so that weights may be negative.
        unchecked: Whether the order of its tokens is assumed to be row by row, because it could not be checked.
    """

    name: str
    number: int | None = None
    size: tuple[int, int, int] | None = None
    place: str = ''
    mixed: bool = False
    unchecked: bool = False


@dataclass(frozen=True)
class Mass:
    """Where the attention of one query goes, as shares of 1 averaged over the heads.

    Attributes:
        layer: The layer's name.
        query: The query.
        image: Share on the tokens of the image.
        prefix: Share on each token before them (the class token, registers).
        padding: Share on padding.
    """

    layer: str
    query: str
    image: float
    prefix: tuple[float, ...]
    padding: float


@dataclass(frozen=True)
class Top:
    """How channels were chosen: the ``count`` strongest by ``criterion`` over positions."""

    count: int
    criterion: str


@dataclass(frozen=True, eq=False)
class SampledPoints:
    """Where a query of deformable attention looks, in one head or in several.

    Attributes:
        points: float32 ``(n, 2)``, ``(x, y)`` in pixels of the network's input; some may lie outside, where zeros are
            read.
        weights: float32 ``(n,)``; those of a head sum to 1.
        levels: int ``(n,)``, the level that each point reads.
        heads: int ``(n,)``, its head.
        sizes: Height and width of the map of each level.
        reference: Where the query looks from, ``(x, y)`` likewise; None where that is not known.
    """

    points: NDArray[np.float32]
    weights: NDArray[np.float32]
    levels: NDArray[np.int64]
    heads: NDArray[np.int64]
    sizes: tuple[tuple[int, int], ...]
    reference: tuple[float, float] | None = None

    def of(self, head: int | str) -> SampledPoints | None:
        """Those of one head, or of ``'mean'``, whose weights sum to 1; None for ``'max'``, which has none."""
        if head == 'mean':
            return replace(self, weights=self.weights / np.float32(len(np.unique(self.heads))))
        if isinstance(head, str):
            return None
        own = self.heads == head
        return replace(
            self, points=self.points[own], weights=self.weights[own], levels=self.levels[own], heads=self.heads[own]
        )


@dataclass(frozen=True, eq=False, repr=False)
class Heatmap:
    """One map.

    Attributes:
        values: float32 ``(h, w)``, or ``(h, w, 3)`` in [0, 1] for maps that are colors by themselves (PCA).
        coordinates: What the map is, as :data:`~vistool.results.COORDINATES` lists. Maps of compared models that belong
            together differ in ``model`` alone: their ``layer`` is that of the first model.
        layer: The layer of the map's own network; None where the map is not of one layer of that name.
        target: What the map's own network was asked for, where compared networks were asked for different classes; else
            None: the result's target of the map's coordinate.
        range: The raw values mapped to 0 and 1, where ``values`` were scaled to [0, 1]; else None.
        score: The model's score for the target. A map that shows no class has that of the target it is listed with.
        metrics: Numbers about the map, such as ``insertion``, or ``cka`` and ``cosine`` of compared features. NaN where
            one is not defined.
        chance: What a map that knows nothing gets in a metric, for those where that is known.
        curves: Name → the curve that a metric was computed from.
        signed: float32, the map before ReLU and scaling, ``(h, w)`` at the layer's own size (for PCA features the first
            component); None where there is no single such map (layers or augmented views were averaged).
        mask: bool ``(h, w)``, the fewest positions that hold a share of the map's sum; else None.
        truth: bool ``(H, W)`` like the network's input, where the object is that the map was compared with; else None.
        view: What the map's own network saw, where it differs from the result's; else None.
        diverging: Whether zero is the natural middle of the values: a difference, a cosine, mixed heads.
        comparable: Whether the values are on the scale of the first model's.
        resampled_from: Height and width of the compared map before it was resampled to this size; else None.
        limits: The raw values at the ends of the color scale, where maps of other figures share it; else None.
        sampled: For deformable attention, the points that the map's query looks at, which are drawn; else None.
    """

    values: Array
    coordinates: Coordinates = field(default_factory=Coordinates)
    layer: Layer | None = None
    target: Target | None = None
    range: tuple[float, float] | None = None
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, ScoreCurve] = field(default_factory=dict)
    signed: Array | None = None
    mask: NDArray[np.bool_] | None = None
    truth: NDArray[np.bool_] | None = None
    view: NetworkView | None = None
    diverging: bool = False
    comparable: bool = True
    resampled_from: tuple[int, int] | None = None
    limits: tuple[float, float] | None = None
    sampled: SampledPoints | None = None

    def __post_init__(self) -> None:
        """Accepts any mapping as coordinates."""
        if not isinstance(self.coordinates, Coordinates):
            object.__setattr__(self, 'coordinates', Coordinates(self.coordinates))

    def at(self, **more: Coordinate) -> Heatmap:
        """The same map with more coordinates, or other values of them."""
        return replace(self, coordinates=Coordinates({**self.coordinates, **more}))

    @property
    def extent(self) -> tuple[float, float] | None:
        """The lowest and the highest raw value; None for a map that is colors by itself, or has no finite value."""
        finite = self.values[np.isfinite(self.values)]
        if self.values.ndim != 2 or not finite.size:
            return None
        low, high = self.range or (0.0, 1.0)
        return low + float(finite.min()) * (high - low), low + float(finite.max()) * (high - low)

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics, each with its chance level behind it, where that is known: ``energy``, ``energy chance``."""
        found: dict[str, float] = {}
        for name, value in self.metrics.items():
            found[name] = value
            if name in self.chance:
                found[f'{name} chance'] = self.chance[name]
        return found

    def __repr__(self) -> str:
        size = '×'.join(map(str, self.values.shape))
        return f'Heatmap {size} ({self.coordinates!r})'


@dataclass(frozen=True, eq=False, repr=False)
class Heatmaps(Result):
    """Heat maps over one image, from a CAM, attention heads or channels.

    ``result['gradcam', 'cup']`` is the one map with these coordinate values; :meth:`sel` and :meth:`isel` give a result
    with fewer maps. Iterating gives the maps.

    Attributes:
        kind: ``cam``, ``attention`` or ``feature``; decides the default look.
        image: uint8 ``(H, W, 3)`` RGB, exactly what the network saw, before normalization.
        maps: The maps, in the order in which they are drawn. Each covers the whole network input.
        original: uint8 ``(H0, W0, 3)`` RGB, the file as a person sees it (EXIF applied); None where there is none.
        geometry: Network pixels to original pixels; None where there is no original.
        model: Name of the model; ``''`` where models of several names are compared.
        label: The image's own class, where it is known.
        prediction: The most likely class, whatever is explained; None where there are no classes.
        compared: The same of each compared model that has classes, by its name.
        targets: What the maps explain, with the model's score for each.
        titles: The methods that made the maps: id → title (``{'gradcam': 'GradCAM'}``).
        layers: Names of the layers that were looked at.
        queries: Query → ``(x, y)`` in original pixels, for queries that are points (without a geometry: network
            pixels).
        mass: For attention, where each query's attention goes.
        top: For features, how channels were chosen, where the strongest were.
        measures: The metrics that were asked for, by name.
        shown: Which of the file's values and bands the photo shows.
        instances: What a detector or segmenter finds in the image; maps that explain one say its number.
        missed: The dataset's objects that a detector does not find.
        predictions: Of a result that follows a training, the most likely class at each epoch (or iteration).
        reference: uint8 ``(H, W, 3)`` RGB, the photo to which the maps explain the similarity; else None.
    """

    kind: Kind
    image: NDArray[np.uint8]
    maps: tuple[Heatmap, ...]
    original: NDArray[np.uint8] | None = None
    geometry: Geometry | None = None
    model: str = ''
    label: Target | None = None
    prediction: Target | None = None
    compared: Mapping[str, Target] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    queries: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mass: tuple[Mass, ...] = ()
    top: Top | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    shown: Shown = PHOTO
    instances: tuple[Instance, ...] = ()
    missed: tuple[Instance, ...] = ()
    predictions: Mapping[int, Target] = field(default_factory=dict)
    reference: NDArray[np.uint8] | None = None

    def found(self, item: Heatmap | None) -> tuple[Instance, ...]:
        """What the network of a map finds in the image; for None the first network."""
        return self.instances if item is None or item.view is None else item.view.instances

    def instance(self, item: Heatmap) -> Instance | None:
        """The object that a map explains; None where it explains none."""
        number = item.coordinates.get('instance')
        return next((each for each in self.found(item) if each.number == number), None)

    @property
    def not_finite(self) -> tuple[int, int]:
        """How many values of the maps are NaN or infinite, and how many there are, at the layers' own sizes."""
        raw = [item.values if item.signed is None else item.signed for item in self.maps]
        return sum(int(np.count_nonzero(~np.isfinite(each))) for each in raw), sum(each.size for each in raw)

    def check_finite(self) -> None:
        """Refuses a map that cannot be drawn.

        Raises:
            InputError: None of its values is finite.
        """
        for item in self.maps:
            if item.values.size and not np.isfinite(item.values).any():
                raise InputError(
                    f'no value of the map is finite ({item.coordinates!r})',
                    hint='look for NaN or infinity in the weights, the input, or the precision of the run',
                )

    @property
    def methods(self) -> tuple[str, ...]:
        """Titles of the methods that made the maps."""
        return tuple(self.titles.values())

    @cached_property
    def coordinates(self) -> Mapping[str, tuple[Coordinate, ...]]:
        """The values of each coordinate, in order of first appearance."""
        found: dict[str, dict[Coordinate, None]] = {}
        for name in Coordinates({name: 0 for item in self.maps for name in item.coordinates}):
            found[name] = {item.coordinates[name]: None for item in self.maps if name in item.coordinates}
        return {name: tuple(values) for name, values in found.items()}

    def __iter__(self) -> Iterator[Heatmap]:
        return iter(self.maps)

    def __getitem__(self, key: Coordinate | tuple[Coordinate, ...]) -> Heatmap:
        """The one map that has all these coordinate values, in any order.

        Raises:
            InputError: No map has them, or more than one.
        """
        wanted = key if isinstance(key, tuple) else (key,)
        for each in wanted:
            if not any(self._matches(item, name, each) for item in self.maps for name in item.coordinates):
                raise self._absent(each, self.coordinates)
        found = [
            item
            for item in self.maps
            if all(any(self._matches(item, name, each) for name in item.coordinates) for each in wanted)
        ]
        if len(found) != 1:
            said = ', '.join(map(repr, wanted))
            listed = '; '.join(repr(item.coordinates) for item in (found or self.maps)[:6])
            count = f'{len(found)} maps have' if found else 'no map has'
            raise InputError(
                f'{count} {said}: {listed}{" …" if len(found or self.maps) > 6 else ""}',
                hint='name more coordinates, or use sel' if found else '',
            )
        return found[0]

    def sel(self, **wanted: Wanted) -> Heatmaps:
        """The maps with these coordinates, as a result of its own.

        Args:
            wanted: For each coordinate a value, several values, or None for the maps that do not have it. The end of a
                dotted layer name is enough (``layer='layer4'``), and a method's title.

        Raises:
            InputError: A coordinate or value does not exist.
        """
        maps = self.maps
        for name, value in wanted.items():
            self._check_name(name)
            if value is None:
                maps = tuple(item for item in maps if name not in item.coordinates)
                continue
            values = [value] if isinstance(value, (str, int, float)) else list(value)
            for each in values:
                if not any(self._matches(item, name, each) for item in self.maps):
                    raise self._absent(each, {name: self.coordinates[name]})
            maps = tuple(item for item in maps if any(self._matches(item, name, each) for each in values))
        return self._with(maps)

    def isel(self, **wanted: int | Sequence[int]) -> Heatmaps:
        """The maps at these positions along coordinates, as a result of its own.

        Args:
            wanted: For each coordinate a position among its values, or several; negative ones count from the end.

        Raises:
            InputError: A coordinate or position does not exist.
        """
        chosen: dict[str, Wanted] = {}
        for name, value in wanted.items():
            self._check_name(name)
            known = self.coordinates[name]
            places = [value] if isinstance(value, int) else list(value)
            for place in places:
                if not -len(known) <= place < len(known):
                    raise InputError(
                        f'no {name} at position {place}', accepted=f'0 to {len(known) - 1}', parameter=name
                    )
            chosen[name] = [known[place] for place in places]
        maps = tuple(item for item in self.maps if all(_has(item, name, chosen[name]) for name in chosen))
        return self._with(maps)

    def to_array(self) -> Array:
        """All values as one float32 array ``(K, h, w)``, in the order of ``maps``.

        Raises:
            InputError: The maps differ in size.
        """
        sizes = {item.values.shape for item in self.maps}
        if len(sizes) > 1:
            listed = ', '.join('×'.join(map(str, size)) for size in sorted(sizes))
            raise InputError(f'the maps have several sizes: {listed}', hint='select a layer or a model with sel')
        return np.stack([item.values for item in self.maps]) if self.maps else np.empty((0, 0, 0), np.float32)

    def to_frame(self) -> DataFrame:
        """One row per map: its coordinates, ``score``, ``low`` and ``high`` of its range, its metrics, its size.

        A column ``energy chance`` beside ``energy`` has what a map that knows nothing gets.
        """
        from pandas import DataFrame

        rows = []
        for item in self.maps:
            low, high = item.range or (None, None)
            numbers = {'score': item.score, 'low': low, 'high': high, **item.numbers}
            rows.append({**item.coordinates, **numbers, 'height': item.values.shape[0], 'width': item.values.shape[1]})
        return DataFrame(
            rows, columns=list(dict.fromkeys([*self.coordinates, *(name for row in rows for name in row)]))
        )

    def __repr__(self) -> str:
        told = [f'{name}: {_listed(values)}' for name, values in self.coordinates.items()]
        return '; '.join([f'Heatmaps of kind {self.kind}, {counted(len(self.maps), "map")}', *told])

    def _matches(self, item: Heatmap, name: str, wanted: Coordinate) -> bool:
        """Whether a coordinate has a value, by its title or the end of its dotted name too."""
        value = item.coordinates.get(name)
        if value is None or isinstance(value, str) != isinstance(wanted, str):
            return False
        if value == wanted:
            return True
        if not isinstance(wanted, str) or not isinstance(value, str):
            return False
        if any(value == other for each in self.maps if (other := each.coordinates.get(name)) == wanted):
            return False
        return (name == 'layer' and value.endswith(f'.{wanted}')) or (
            name == 'method' and self.titles.get(value) == wanted
        )

    def _check_name(self, name: str) -> None:
        known = self.coordinates
        if name not in known:
            raise InputError(
                f'the maps have no coordinate {name!r}', accepted=', '.join(known), hint=close_matches(name, known)
            )

    def _absent(self, value: Coordinate, known: Mapping[str, Sequence[Coordinate]]) -> InputError:
        every = [str(each) for values in known.values() for each in values]
        listed = '; '.join(f'{name}: {_listed(values, 12)}' for name, values in known.items())
        return InputError(f'no map has {value!r}', accepted=listed, hint=close_matches(str(value), every))

    def _with(self, maps: tuple[Heatmap, ...]) -> Heatmaps:
        """The same result with fewer maps, and only what belongs to them."""
        kept = replace(self, maps=maps)
        known = kept.coordinates
        free = any('target' not in item.coordinates for item in maps)
        targets = known.get('target', ())
        return replace(
            kept,
            targets=tuple(t for n, t in enumerate(self.targets) if t.name in targets or (free and not n)),
            titles={key: title for key, title in self.titles.items() if key in known.get('method', ())},
            layers=tuple(name for name in self.layers if name in known.get('layer', ())) or self.layers,
            queries={query: point for query, point in self.queries.items() if query in known.get('query', ())},
            mass=tuple(
                each
                for each in self.mass
                if each.layer in known.get('layer', ()) and each.query in known.get('query', ())
            ),
        )


def _has(item: Heatmap, name: str, values: Wanted) -> bool:
    return isinstance(values, list) and name in item.coordinates and item.coordinates[name] in values


def _listed(values: Sequence[Coordinate], most: int = 6) -> str:
    more = [f'… {len(values) - most} more'] if len(values) > most else []
    return ', '.join([*map(str, values[:most]), *more])


def side_by_side(results: Sequence[Heatmaps], names: Sequence[str]) -> Heatmaps:
    """Results of one image from several models as one, along the coordinate ``model``.

    Args:
        results: One per model. The first one's image, label, targets and queries stand for all; its maps decide what
            is compared. Layers and targets of the others correspond by position, everything else by value.
        names: What tells the models apart; equal names are numbered.

    Returns:
        One result. Each map of another network keeps what that network saw, and its own layer and target.
    """
    results = _with_own_targets(results)
    names, base = distinct(names), results[0]
    order = {key: place for place, key in enumerate(dict.fromkeys(key for key, _ in _keyed(base)))}
    homes = {key: item.coordinates for key, item in _keyed(base)}
    found: list[tuple[tuple[int, int, int], Heatmap]] = []
    rows = {_row(key): None for key in order}
    place_of_row = {row: place for place, row in enumerate(rows)}
    stacked = any(len(result.coordinates.get('head', ())) > 1 for result in results)
    for number, (result, name) in enumerate(zip(results, names, strict=True)):
        view = None if number == 0 else NetworkView(result.image, result.geometry, result.instances)
        for place, (key, item) in enumerate(_keyed(result)):
            if _row(key) not in place_of_row or (not stacked and key not in order):
                continue
            like = homes.get(key) or next(home for other, home in homes.items() if _row(other) == _row(key))
            shared = {each: like[each] for each in ('layer', 'target') if each in like and each in item.coordinates}
            rank = (place_of_row[_row(key)], number, place) if stacked else (order[key], number, place)
            found.append((rank, replace(item.at(**shared, model=name), view=view)))
    maps = tuple(item for _, item in sorted(found, key=lambda pair: pair[0]))
    compared = [{'model': n, **r.provenance} for n, r in zip(names[1:], results[1:], strict=True)]
    provenance = {**base.provenance, 'compare': compared}
    predicted = {name: each.prediction for name, each in zip(names[1:], results[1:], strict=True) if each.prediction}
    return replace(base, maps=maps, model='', compared=predicted, provenance=provenance)


def over_training(
    results: Mapping[int, Heatmaps], unit: Literal['epoch', 'iteration'], limits: Sequence[tuple[float, float] | None]
) -> Heatmaps:
    """Results of one image at several moments of a training as one, along the coordinate ``epoch`` or ``iteration``.

    Args:
        results: Completed epochs or iterations → the result then, in order. The last one's prediction and the first
            one's image stand for all; each has as many maps, in the same order.
        unit: What is counted.
        limits: For each map of a result, the raw values at the ends of its color scale; None leaves it its own.
    """
    first, last = next(iter(results.values())), list(results.values())[-1]
    maps = [
        replace(item.at(**{unit: when}), limits=ends)
        for when, result in results.items()
        for item, ends in zip(result.maps, limits, strict=True)
    ]
    targets = {target.name: target for result in results.values() for target in result.targets}
    return replace(
        first,
        maps=tuple(maps),
        targets=tuple(targets.values()),
        prediction=last.prediction,
        predictions={when: each.prediction for when, each in results.items() if each.prediction is not None},
    )


_CHOICE, _NAME = operator.attrgetter('choice'), operator.attrgetter('name')
"""Either tells that targets of two models are one class: ids where names differ in their synonyms, names in others."""


def _with_own_targets(results: Sequence[Heatmaps]) -> list[Heatmaps]:
    """The results; where each model was asked for its own prediction, under one coordinate for all of them."""
    single = all(len(result.targets) == 1 for result in results)
    if not single or any(len({tell(result.targets[0]) for result in results}) == 1 for tell in (_CHOICE, _NAME)):
        return list(results)
    told = []
    for result in results:
        (target,) = result.targets
        maps = tuple(
            replace(item.at(target=OWN_PREDICTION), target=target) if 'target' in item.coordinates else item
            for item in result.maps
        )
        told.append(replace(result, maps=maps))
    return told


def distinct(names: Sequence[str]) -> list[str]:
    """Names with a number after those that were there before: ``none``, ``none (2)``."""
    return [
        f'{name} ({names[: place + 1].count(name)})' if name in names[:place] else name
        for place, name in enumerate(names)
    ]


def _keyed(result: Heatmaps) -> list[tuple[tuple[tuple[str, Coordinate], ...], Heatmap]]:
    """Each map with what corresponds between models: layers and targets by position, the rest by value."""
    places = {
        name: {value: place for place, value in enumerate(result.coordinates.get(name, ()))}
        for name in ('layer', 'target')
    }
    return [
        (
            tuple(
                (name, places[name][value] if name in places else value)
                for name, value in item.coordinates.items()
                if name != 'model' and not (name == 'target' and 'instance' in item.coordinates)  # it says which
            ),
            item,
        )
        for item in result.maps
    ]


def _row(key: tuple[tuple[str, Coordinate], ...]) -> tuple[tuple[str, Coordinate], ...]:
    """The part of a key that is the same for all heads of a layer and query."""
    return tuple(pair for pair in key if pair[0] != 'head')
