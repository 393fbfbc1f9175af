"""What changed between two finished runs: predictions, scores and maps of the same images, and rules that judge it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry
from vistool.errors import InputError, naming, param
from vistool.gallery.runs import FinishedRun, Named, matched, own_path, read_finished
from vistool.records import find_path, read_arrays
from vistool.results import NetworkView

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float32]
Line = Mapping[str, Any]

TOP = 0.2
"""The share of positions whose overlap ``iou`` compares."""

_STEPS = 1000
"""Maps are compared on a scale of this many steps, so that rounding errors do not reorder a flat background."""


@dataclass(frozen=True, eq=False)
class MapPair:
    """One map in both runs.

    Attributes:
        coordinates: What it is: method, layer, target.
        before: float32 ``(h, w)``, of the first run; None where it has no such map.
        after: The same of the second run.
        views: What the network saw in each run.
        rank: Spearman's rank correlation over positions, in [-1, 1]; NaN where a map is constant or there is no pair.
        iou: Intersection over union of the highest 20 % of positions, in [0, 1].
        mass: How much of the map has moved: half the sum of absolute differences after each was scaled to a sum of 1
            (total variation distance), in [0, 1].
        score_before: The model's score for its target in the first run; None where it is not known.
        score_after: The same of the second run.
    """

    coordinates: Mapping[str, Any]
    before: Array | None
    after: Array | None
    views: tuple[NetworkView, NetworkView] = field(repr=False)
    rank: float = math.nan
    iou: float = math.nan
    mass: float = math.nan
    score_before: float | None = None
    score_after: float | None = None

    @property
    def paired(self) -> bool:
        """Whether both runs have this map."""
        return self.before is not None and self.after is not None

    @property
    def name(self) -> str:
        """What it is, in words."""
        return ' · '.join(str(value) for value in self.coordinates.values())


@dataclass(frozen=True, eq=False)
class ImageDifference:
    """One image in both runs.

    Attributes:
        name: Its name.
        input: Its file; None where there is none.
        before: The prediction of the first run.
        after: The prediction of the second run.
        score: Largest absolute change of the score of one class that both runs have; NaN where there is none.
        maps: Its maps.
        errors: Why it could not be explained, in the first and in the second run; ``''`` where it was.
    """

    name: str
    input: str | None
    before: Named | None
    after: Named | None
    score: float
    maps: tuple[MapPair, ...]
    errors: tuple[str, str] = ('', '')

    @property
    def same_part(self) -> bool:
        """Whether the networks saw the same part of the image, as far as the runs tell."""
        return all(same_part(*item.views) for item in self.maps)

    @property
    def flipped(self) -> bool:
        """Whether the runs predict different classes."""
        return bool(self.before and self.after) and _identity(self.before) != _identity(self.after)

    @property
    def mass(self) -> float:
        """The most that has moved in one of its maps; 0 without maps."""
        return max((item.mass for item in self.maps if math.isfinite(item.mass)), default=0.0)


@dataclass(frozen=True, eq=False)
class RunDifference:
    """What changed between two runs.

    Attributes:
        names: What tells the runs apart.
        images: The images that both have, the most changed first.
        only_before: Names of images that only the first run has.
        only_after: Names of images that only the second run has.
    """

    names: tuple[str, str]
    images: tuple[ImageDifference, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    @property
    def maps(self) -> Iterator[MapPair]:
        """The maps of all images."""
        return (item for image in self.images for item in image.maps)

    def to_frame(self) -> DataFrame:
        """One row per image and map; images without maps have one row."""
        from pandas import DataFrame

        return DataFrame([row for image in self.images for row in _rows(image)])


def compare_runs(
    before: Path | str, after: Path | str, progress: Callable[[int, int], None] | None = None
) -> RunDifference:
    """Compares two finished runs, image by image; matched by input path, else by name.

    Maps are compared where both runs wrote their numbers (``save_raw``) and explain the same target. Where the networks
    saw different parts of the photo, maps are laid over the original first and compared where both saw it.

    Args:
        before: Output folder of the first run.
        after: Output folder of the second.
        progress: Called with the number of finished images and their total.

    Raises:
        InputError: A folder does not hold a finished run, a record or an array file is damaged, or the runs have no
            image in common.
    """
    runs = read_finished(find_path(before, 'before'), 'before'), read_finished(find_path(after, 'after'), 'after')
    for run, parameter in zip(runs, ('before', 'after'), strict=True):
        if not run.images:
            raise InputError(f'the run in {str(run.folder)!r} has no images', parameter=parameter)
    with naming('after', 'gallery'):
        rows = matched(runs)
    pairs = [(first, second) for first, second in rows if first is not None and second is not None]
    images = []
    for number, (first, second) in enumerate(pairs, 1):
        images.append(_image(runs, first, second))
        if progress is not None:
            progress(number, len(pairs))
    ordered = sorted(images, key=lambda each: (not each.flipped, -each.mass, -np.nan_to_num(each.score), each.name))
    return RunDifference(
        _names(runs),
        tuple(ordered),
        tuple(first['name'] for first, second in rows if first is not None and second is None),
        tuple(second['name'] for first, second in rows if second is not None and first is None),
    )


def _names(runs: tuple[FinishedRun, FinishedRun]) -> tuple[str, str]:
    """Folders where they differ, else their paths."""
    short = tuple(run.folder.resolve().name for run in runs)
    return (short[0], short[1]) if short[0] != short[1] else (str(runs[0].folder), str(runs[1].folder))


def _image(runs: tuple[FinishedRun, FinishedRun], first: Line, second: Line) -> ImageDifference:
    errors = str(first.get('error') or ''), str(second.get('error') or '')
    maps = () if any(errors) else tuple(_pairs(runs, first, second))
    return ImageDifference(
        second['name'],
        second.get('input') or first.get('input'),
        first.get('prediction'),
        second.get('prediction'),
        _score_change(first, second),
        maps,
        errors,
    )


def _identity(entry: Named | None) -> object:
    """The class of a prediction or target: its id, else its name."""
    return None if entry is None else entry['id'] if entry.get('id') is not None else entry.get('name')


def _scores(line: Line) -> dict[tuple[object, int], float]:
    """The scores of an image: of a class, or of the n-th object of a class that a detector found."""
    found, seen = dict[tuple[object, int], float](), Counter[object]()
    for each in line.get('targets') or ():
        if each.get('score') is not None:
            found[_identity(each), seen[_identity(each)]] = each['score']
            seen[_identity(each)] += 1
    prediction = line.get('prediction')
    if prediction and prediction.get('score') is not None:
        found.setdefault((_identity(prediction), 0), prediction['score'])
    return found


def _score_change(first: Line, second: Line) -> float:
    before, after = _scores(first), _scores(second)
    return max((abs(after[key] - before[key]) for key in before.keys() & after.keys()), default=math.nan)


@dataclass(frozen=True, eq=False)
class _Maps:
    """The maps of one image of one run.

    Attributes:
        values: The maps, each by its coordinates.
        views: What the network of each map saw, and where that lies on the original.
        view: What the first network saw.
    """

    values: dict[tuple[tuple[str, Any], ...], Array]
    views: dict[tuple[tuple[str, Any], ...], NetworkView]
    view: NetworkView


def _pairs(runs: tuple[FinishedRun, FinishedRun], first: Line, second: Line) -> Iterator[MapPair]:
    found = [
        _read_maps(run, line, name) for run, line, name in zip(runs, (first, second), ('before', 'after'), strict=True)
    ]
    if found[0] is None or found[1] is None:
        return
    before, after = found[0], found[1]
    scores = [{each.get('name'): each.get('score') for each in line.get('targets') or ()} for line in (first, second)]
    for key in dict.fromkeys([*before.values, *after.values]):
        one, other = before.values.get(key), after.values.get(key)
        views = before.views.get(key, before.view), after.views.get(key, after.view)
        measured = _measured(one, other, *views) if one is not None and other is not None else {}
        target = dict(key).get('target')
        yield MapPair(
            dict(key), one, other, views,
            score_before=scores[0].get(target), score_after=scores[1].get(target), **measured,
        )  # fmt: skip


def _read_maps(run: FinishedRun, line: Line, parameter: str) -> _Maps | None:
    """The maps whose numbers an image's run has written; None where it has not."""
    names = [file['name'] for file in line.get('files') or () if 'within' not in file]
    accepted = f'a file written with {param("save_raw", True)}'
    for name in (each for each in names if each.endswith('.npz')):
        with naming(parameter, 'gallery'):
            path = own_path(run.folder, name)
        arrays = read_arrays(path, parameter, accepted)
        if 'groups' in arrays and 'image' in arrays:
            try:
                return _maps_of(arrays)
            except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
                raise InputError(
                    f'{str(path)!r} does not hold the maps of a run: {error}', accepted=accepted, parameter=parameter
                ) from error
    return None


def _maps_of(arrays: Mapping[str, NDArray[Any]]) -> _Maps:
    values: dict[tuple[tuple[str, Any], ...], Array] = {}
    views: dict[tuple[tuple[str, Any], ...], NetworkView] = {}
    places: list[int] = []
    told: list[dict[str, Any]] = []
    stacks: list[Array] = []
    for index, group in enumerate(arrays['groups'].tolist()):
        maps = np.asarray(arrays[f'maps_{index}'], np.float32)
        names = [{'layer': group, 'map': name} for name in arrays[f'names_{index}'].tolist()]
        written = arrays.get(f'coordinates_{index}')  # files of earlier versions have names only
        told += names if written is None else [dict(json.loads(text)) for text in written.tolist()]
        stacks += list(maps)
        seen = arrays.get(f'view_{index}')  # only where compared networks saw the photo otherwise
        places += [0] * len(maps) if seen is None else seen.tolist()
    for name in ('model', 'layer'):  # what is the same for all maps says nothing, and may be called otherwise there
        if len({json.dumps(each.get(name)) for each in told}) == 1:
            told = [{key: value for key, value in each.items() if key != name} for each in told]
    known = {place: _view_of(arrays, place) for place in {0, *places}}
    for coordinates, item, place in zip(told, stacks, places, strict=True):
        key = tuple(coordinates.items())
        values[key], views[key] = item, known[place]
    return _Maps(values, views, known[0])


def _view_of(arrays: Mapping[str, NDArray[Any]], place: int) -> NetworkView:
    """One of the views of a file; 0 is that of its first network."""
    own = f'_{place}' if place else ''
    photo = np.asarray(arrays[f'image{own}'], np.uint8)
    if f'geometry{own}' not in arrays:
        return NetworkView(photo, None)
    height, width = arrays[f'original_size{own}'].tolist()
    matrix = np.asarray(arrays[f'geometry{own}'], np.float64).reshape(3, 3)
    return NetworkView(photo, Geometry(matrix, (photo.shape[0], photo.shape[1]), (height, width)))


def _measured(one: Array, other: Array, before: NetworkView, after: NetworkView) -> dict[str, float]:
    """How far two maps agree: as they are where the networks saw the same pixels, else laid over the original."""
    if np.array_equal(before.image, after.image):
        return measure(one, other)
    if before.geometry is None or after.geometry is None:
        return dict.fromkeys(('rank', 'iou', 'mass'), math.nan)
    return measure(one, other, before.geometry, after.geometry)


def measure(
    before: Array, after: Array, seen_before: Geometry | None = None, seen_after: Geometry | None = None
) -> dict[str, float]:
    """How far two maps of one image agree: ``rank``, ``iou`` and ``mass``, as :class:`MapPair` has them.

    Args:
        before: float ``(h, w)``, or ``(h, w, C)`` for maps that are colors.
        after: The same, at any size.
        seen_before: Where the first network's view lies on the original; None: both saw the same.
        seen_after: The same for the second.

    Returns:
        The three numbers; all NaN where the maps cannot be laid over each other.
    """
    nothing = dict.fromkeys(('rank', 'iou', 'mass'), math.nan)
    if before.ndim != after.ndim or min(before.size, after.size) == 0:
        return nothing
    pair = _aligned(before, after, seen_before, seen_after)
    if pair is None or not pair[0].size:
        return nothing
    one, other = (each[np.isfinite(pair[0]) & np.isfinite(pair[1])].astype(np.float64) for each in pair)
    if not one.size:
        return nothing
    return {'rank': _rank(one, other), 'iou': _overlap(one, other), 'mass': _moved(one, other)}


def _aligned(
    before: Array, after: Array, seen_before: Geometry | None, seen_after: Geometry | None
) -> tuple[Array, Array] | None:
    """Both maps at the same positions of the photo; None where that is not known."""
    same = seen_before is None or seen_after is None or _same_view(seen_before, seen_after)
    if same:
        if before.shape == after.shape:
            return before, after
        return before, Geometry.identity(before.shape[:2]).warp(after)[0]
    if (size := common_size(seen_before, seen_after)) is None:
        return None
    assert seen_before is not None and seen_after is not None
    (one, covered), (other, also) = seen_before.warp(before, size), seen_after.warp(after, size)
    both = covered & also
    return one[both], other[both]


def _same_view(one: Geometry, other: Geometry) -> bool:
    if one.original_size != other.original_size:
        return False
    return bool(np.allclose(one.crop(), other.crop(), atol=0.5))


def same_part(one: NetworkView, other: NetworkView) -> bool:
    """Whether two networks saw the same part of a photo; without a geometry only equal pixels show that."""
    if np.array_equal(one.image, other.image):
        return True
    if one.geometry is None or other.geometry is None:
        return False
    return _same_view(one.geometry, other.geometry)


def common_size(one: Geometry | None, other: Geometry | None) -> tuple[int, int] | None:
    """Height and width of a grid over the whole photo that both views can be laid over; None where there is none."""
    if one is None or other is None or not (one.exact and other.exact) or one.original_size != other.original_size:
        return None
    return _bounded(one.original_size)


def _bounded(size: tuple[int, int], most: int = 512) -> tuple[int, int]:
    factor = min(1.0, most / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _stepped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in whole steps of their range."""
    low, high = float(values.min()), float(values.max())
    return np.zeros_like(values) if high <= low else np.rint((values - low) * (_STEPS / (high - low)))


def _rank(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's rank correlation, ties with their mean rank; 1 for equal maps, NaN where one is constant."""
    from scipy.stats import rankdata

    if np.array_equal(one, other):
        return 1.0
    first, second = (rankdata(_stepped(each)) for each in (one, other))
    first, second = first - first.mean(), second - second.mean()
    size = math.sqrt(float((first**2).sum()) * float((second**2).sum()))
    return float((first * second).sum()) / size if size else math.nan


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection over union of the highest positions; of no positions in both, 1."""
    first, second = _highest(one), _highest(other)
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _highest(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The highest 20 % of positions, without those that only tie with what lies below."""
    stepped = _stepped(values)
    return np.asarray(stepped > np.quantile(stepped, 1 - TOP, method='lower'), np.bool_)


def _moved(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Total variation distance between maps scaled to a sum of 1; of a map of zeros to another one it is 1."""
    sums = float(np.abs(one).sum()), float(np.abs(other).sum())
    if not all(sums):
        return float(any(sums))
    return float(np.abs(one / sums[0] - other / sums[1]).sum()) / 2


def _rows(image: ImageDifference) -> Iterator[dict[str, Any]]:
    """The table's rows of one image."""
    told = {
        'image': image.name,
        'input': image.input,
        'prediction_before': (image.before or {}).get('name'),
        'prediction_after': (image.after or {}).get('name'),
        'flipped': image.flipped,
        'prediction_score_before': (image.before or {}).get('score'),
        'prediction_score_after': (image.after or {}).get('score'),
    }
    end = {'error_before': image.errors[0], 'error_after': image.errors[1]}
    if not image.maps:
        yield {**told, 'score_change': image.score, **end}
    for item in image.maps:
        change = None
        if item.score_before is not None and item.score_after is not None:
            change = item.score_after - item.score_before
        numbers = {'rank': item.rank, 'iou': item.iou, 'mass': item.mass}
        scores = {'score_before': item.score_before, 'score_after': item.score_after, 'score_change': change}
        yield {**told, **item.coordinates, **scores, **numbers, **end}
