"""A dataset as its pipeline passes it to the network: sample by sample, and as a whole in numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vistool.data.annotation_checks import Fault
from vistool.data.annotations import Annotations
from vistool.data.batching import Batcher, replace_mean
from vistool.data.datasets import Mode, class_ids, class_name, label_lines, label_text
from vistool.data.near_duplicates import BITS, HashedImage, NearDuplicate, hashed
from vistool.data.pipelines import network_input
from vistool.data.recording import NOTHING, Detail, Record, Samples, StepImage, rows_of
from vistool.data.samples import planes_of
from vistool.errors import InputError, close_matches
from vistool.registry import ANALYSES
from vistool.results import (
    Coordinate,
    Coordinates,
    DatasetSummary,
    GridImage,
    ImageGrid,
    ObjectStatistics,
    channel_names,
)

_DETAILS: dict[str, Detail] = {'original': 'original', 'pipeline': 'steps'}
Tiles = list[list[GridImage]]
MOST_REPEATS, MOST_TILES = 100, 10_000
"""How often a sample is drawn at most, and how many tiles a sheet holds at most."""


@ANALYSES.register_module()
@dataclass(frozen=True)
class BrowseDataset:
    """Samples of a dataset as pictures.

    Attributes:
        mode: ``original`` (as loaded), ``transformed`` (as the network sees it), ``concat`` (both), ``pipeline`` (after
            each step) or ``batch`` (after collating, the data preprocessor and batch augmentations).
        repeats: How many times each sample goes through its pipeline; draw k is seeded with seed + k.
        sheet: Rows and columns of a sheet of many samples; None: as many as needed.
        batcher: For ``batch``: turns samples into a batch.
    """

    mode: Mode = 'transformed'
    repeats: int = 1
    sheet: tuple[int, int] | None = None
    batcher: Batcher | None = None

    def __post_init__(self) -> None:
        """Checks the parameters.

        Raises:
            InputError: The mode is unknown, or a number is below 1.
        """
        modes = get_args(Mode)
        if self.mode not in modes:
            hint = close_matches(self.mode, modes)
            raise InputError(f'unknown mode {self.mode!r}', accepted=', '.join(modes), hint=hint, parameter='mode')
        if not 1 <= self.repeats <= MOST_REPEATS:
            problem = f'{self.repeats} is not a number of repeats'
            raise InputError(problem, accepted=f'1 or more, at most {MOST_REPEATS}', parameter='repeats')
        if self.repeats > 1 and self.mode in ('original', 'batch'):
            raise InputError(
                f'nothing to repeat in {self.mode} mode',
                accepted='transformed, concat or pipeline',
                parameter='repeats',
            )
        if self.sheet is not None and not (min(self.sheet) >= 1 and math.prod(self.sheet) <= MOST_TILES):
            rows, columns = self.sheet
            raise InputError(
                f'a sheet cannot have {rows} rows and {columns} columns',
                accepted=f'1 or more of each, at most {MOST_TILES:,} tiles',
                parameter='sheet',
            )

    @property
    def per_picture(self) -> int:
        """The number of samples that one picture shows."""
        if self.mode == 'batch':
            return self.batcher.size if self.batcher else 1
        if self.sheet is None:
            return 1
        rows, columns = self.sheet
        if self.mode == 'pipeline' or self.repeats > 1:
            return rows
        return rows * max(1, columns // 2 if self.mode == 'concat' else columns)

    def __call__(self, samples: Samples, indices: Sequence[int], number: int = 0) -> ImageGrid:
        """Reads and arranges samples.

        Args:
            samples: The dataset.
            indices: The samples that the picture shows.
            number: The number of the batch; it seeds batch augmentations.

        Returns:
            The pictures; no rows if no sample could be read. ``samples`` has a row of numbers for each draw, ``failed``
            the index and the reason for each sample that could not be read.
        """
        records, failed = [], []
        for index in indices:
            try:
                detail = _DETAILS.get(self.mode, 'ends')
                records.append([samples.read(index, repeat, detail) for repeat in range(self.repeats)])
            except InputError as error:
                failed.append((index, _unnumbered(index, error)))
        batched = self.mode == 'batch' and bool(records)
        blocks = self._batch(samples, [draws[0] for draws in records], number) if batched else []
        if not batched:
            blocks = [self._block(samples, draws) for draws in records]
        table = [_facts(samples, record, draw) for draws in records for draw, record in enumerate(draws)]
        name = records[0][0].name if records else ''
        return ImageGrid(
            self._arranged(blocks),
            mode=self.mode,
            name=name,
            samples=tuple(table),
            failed=tuple(failed),
            shown=tuple(dict.fromkeys(record.shown for draws in records for record in draws)),
            classes=samples.classes,
            palette=samples.palette,
            skeleton=samples.skeleton,
            faults=_faults(records),
            provenance={'mode': self.mode, 'seed': samples.seed},
        )

    def _block(self, samples: Samples, draws: list[Record]) -> Tiles:
        """The tiles of one sample, in rows."""
        rows = [row for draw, record in enumerate(draws) for row in self._rows(record, draw)]
        if self.mode == 'transformed':
            flat = [tile for row in rows for tile in row]
            rows = _wrapped(flat, len(flat) if len(flat) <= 6 else math.ceil(math.sqrt(len(flat))))
        first = rows[-1][0]  # the label is below the sample's last row
        rows[-1][0] = _labeled(first, draws[0], label_lines(draws[0].label, samples.classes), draws[0].refetched)
        return rows

    def _rows(self, record: Record, draw: int) -> Tiles:
        views = rows_of(record.images)
        if self.mode == 'original':
            if record.original is None:
                raise InputError(
                    'the dataset returns its samples ready made, so their original images are unknown',
                    accepted='transformed, pipeline or batch',
                    parameter='mode',
                )
            loaded = [fault for fault in record.faults if not fault.step]
            return [[_remarked(_tile(image, {}), loaded) for image in row[:1]] for row in views]
        if self.mode == 'pipeline':
            return [
                [
                    _remarked(
                        _tile(image, {**self._which(draw, number, len(views)), **_step(image)}),
                        [fault for fault in record.faults if (fault.step or row[0].step) == image.step],
                    )
                    for image in row
                ]
                for number, row in enumerate(views)
            ]
        last = [row[-1] for row in views]
        ends = [_tile(image, self._which(draw, image.view, len(views))) for image in last]
        if self.mode == 'transformed':
            return [[_remarked(ends[0], record.faults), *ends[1:]]]
        original = []
        if record.original is not None:
            loaded = [fault for fault in record.faults if not fault.step]
            original = [_remarked(_tile(record.images[0], {'step': 'original'}), loaded)]
            ends[0] = _remarked(ends[0], [fault for fault in record.faults if fault.step])
        return [
            [*original, *[replace(e, coordinates=Coordinates({**e.coordinates, 'step': 'transformed'})) for e in ends]]
        ]

    def _which(self, draw: int, view: int | None, views: int) -> dict[str, Coordinate]:
        """The draw and the view, where there are several."""
        found: dict[str, Coordinate] = {'draw': draw} if self.repeats > 1 else {}
        return {**found, 'view': view} if views > 1 and view is not None else found

    def _batch(self, samples: Samples, records: list[Record], number: int) -> list[Tiles]:
        if self.batcher is None:
            raise InputError('needed in batch mode', accepted='a vistool.data.batching.Batcher', parameter='batcher')
        blocks = []
        for record, batched in zip(records, self.batcher(records, number), strict=True):
            several = len(batched.views) > 1
            tiles = [
                GridImage(
                    view,
                    coordinates=Coordinates({'view': k} if several else {}),
                    annotations=batched.annotations if k == 0 else None,
                )
                for k, view in enumerate(batched.views)
            ]
            first = _labeled(tiles[0], record, label_lines(batched.label, samples.classes), None)
            blocks.append([[first, *tiles[1:]]])
        return blocks

    def _arranged(self, blocks: list[Tiles]) -> tuple[tuple[GridImage, ...], ...]:
        """Blocks of one row side by side; others one below the other."""
        if self.mode == 'pipeline':
            return tuple(map(tuple, _aligned([row for block in blocks for row in block])))
        if any(len(block) > 1 for block in blocks):
            return tuple(tuple(row) for block in blocks for row in block)
        tiles = [tile for block in blocks for tile in block[0]]
        each = len(blocks[0][0]) if blocks else 1
        if self.sheet is not None and self.mode != 'batch':
            columns = max(self.sheet[1], each)
        else:
            columns = min(max(4, math.ceil(math.sqrt(len(tiles)))), 16)
        return tuple(tuple(row) for row in _wrapped(tiles, max(each, columns // each * each)))


def _unnumbered(index: int, error: InputError) -> InputError:
    """Why a sample could not be read, without its number, which those who list failures add."""
    problem = error.problem.removeprefix(f'sample {index}: ')
    return InputError(problem, accepted=error.accepted, hint=error.hint, parameter=error.parameter)


def _wrapped(tiles: list[GridImage], columns: int) -> Tiles:
    return [tiles[place : place + columns] for place in range(0, len(tiles), columns)]


def _tile(image: StepImage, place: Mapping[str, Coordinate]) -> GridImage:
    return GridImage(
        image.pixels,
        coordinates=Coordinates(place),
        parameters=tuple(image.parameters),
        annotations=image.annotations,
    )


def _step(image: StepImage) -> dict[str, Coordinate]:
    """The step of a pipeline, and the container that drew it."""
    drawn: dict[str, Coordinate] = {} if image.choice is None else {'within': image.within, 'choice': image.choice}
    return {'step': image.step, **drawn}


def _aligned(rows: Tiles) -> Tiles:
    """Rows of one pipeline with a column for each step, however many steps its containers drew.

    What a container did not draw in a row is shown as its picture with the step ``nothing``.
    """
    runs = [[list(run) for _, run in itertools.groupby(row, _column)] for row in rows]
    kinds: dict[tuple[object, ...], list[list[list[GridImage]]]] = {}
    for row in runs:
        kinds.setdefault(tuple(_column(run[0]) for run in row), []).append(row)
    for alike in kinds.values():
        for column in zip(*alike, strict=True):
            most = max(map(len, column))
            for run in column:
                nothing = Coordinates({**run[-1].coordinates, 'step': NOTHING})
                run += [replace(run[-1], coordinates=nothing, parameters=(), remark='')] * (most - len(run))
    return [[tile for run in row for tile in run] for row in runs]


def _column(tile: GridImage) -> object:
    """What the columns of a step have in common: the step, or the container that draws steps."""
    return tile.coordinates.get('choice', tile.coordinates.get('step'))


def _remarked(tile: GridImage, faults: Sequence[Fault]) -> GridImage:
    """The tile with what is wrong with its annotations."""
    if not faults:
        return tile
    more = f' · {len(faults) - 1} more' if len(faults) > 1 else ''
    return replace(tile, remark=f'{faults[0].text}{more}')


def _faults(records: Sequence[Sequence[Record]]) -> tuple[tuple[int, str, str], ...]:
    """Index, file and text of all faults, each once."""
    found = (
        (record.index, '' if record.path is None else str(record.path), str(fault))
        for draws in records
        for record in draws
        for fault in record.faults
    )
    return tuple(dict.fromkeys(found))


def _labeled(tile: GridImage, record: Record, label: Sequence[str], refetched: int | None) -> GridImage:
    """The tile that bears the sample's label and index."""
    place = Coordinates({**tile.coordinates, 'sample': record.index})
    return replace(tile, coordinates=place, label=tuple(label), refetched=refetched)


def _facts(samples: Samples, record: Record, draw: int) -> dict[str, Any]:
    """One draw of a sample as a row of numbers."""
    parameters = '; '.join(
        f'{image.step}{"" if image.view is None else f" (view {image.view + 1})"}: {", ".join(image.parameters)}'
        for image in record.images
        if image.parameters
    )
    final = record.images[-1].pixels.shape
    return {
        'index': record.index,
        'draw': draw,
        'path': '' if record.path is None else str(record.path),
        'label': label_text(record.label, samples.classes),
        'original_width': '' if record.original is None else record.original.shape[1],
        'original_height': '' if record.original is None else record.original.shape[0],
        'width': final[1],
        'height': final[0],
        'parameters': parameters,
    }


@dataclass(frozen=True, eq=False)
class Objects:
    """The numbers of one image's annotations.

    Attributes:
        names: The class of each object.
        sizes: float64 ``(n, 2)`` width and height of each object with a box or mask.
        area: Pixels of the image.
        pixels: Pixels per class of its label map.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.float64]
    area: int
    pixels: Mapping[str, int]

    @classmethod
    def of(cls, annotations: Annotations, classes: tuple[str, ...] | None) -> Objects:
        """The numbers of annotations.

        Args:
            annotations: Of an image as it was loaded.
            classes: Names by id; None without names.
        """
        names = tuple(_object_name(each.label, classes) for each in annotations.objects)
        extents = [each.extent for each in annotations.objects]
        known = [
            each for each in extents if each is not None and np.isfinite(each).all() and (each[2:] > each[:2]).all()
        ]
        sizes = np.array([each[2:] - each[:2] for each in known]).reshape(-1, 2)
        pixels: dict[str, int] = {}
        if annotations.label_map is not None:
            for label, count in zip(*np.unique(annotations.label_map, return_counts=True), strict=True):
                if label != annotations.ignore_index:
                    pixels[class_name(int(label), classes)] = int(count)
        return cls(names, sizes, math.prod(annotations.size), pixels)

    @property
    def count(self) -> int:
        """Objects, or classes of a label map without objects."""
        return len(self.names) or len(self.pixels)


def _object_name(label: int | str | None, classes: tuple[str, ...] | None) -> str:
    return class_name(label, classes) if isinstance(label, int) else label or 'no label'


def statistics_of(images: Sequence[Objects], classes: tuple[str, ...] | None) -> ObjectStatistics | None:
    """The annotations of all images in numbers; None where there is no image with any.

    Args:
        images: The numbers of each image.
        classes: Names by id, which give the order; None without names.
    """
    if not images:
        return None
    order = {class_name(place, classes): place for place in range(len(classes or ()))}
    counts: Counter[str] = Counter()
    pixels: Counter[str] = Counter()
    for each in images:
        counts.update(each.names or each.pixels.keys())
        pixels.update(each.pixels)
    ranked = sorted(counts, key=lambda name: (order.get(name, len(order)), name))
    total = max(1, sum(pixels.values()))
    return ObjectStatistics(
        counts={name: counts[name] for name in ranked},
        per_image=np.array([each.count for each in images], np.int64),
        sizes=np.concatenate([each.sizes for each in images]),
        shares=np.concatenate([each.sizes.prod(1) / each.area for each in images]),
        pixels={name: pixels[name] / total for name in ranked if name in pixels},
    )


_SHIFT, _SPREAD = 0.25, 1.33
"""A mean off by more than this share of the standard deviation, or a spread off by this factor, is reported."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of one sample.

    Attributes:
        index: Its index in the dataset.
        classes: Its class ids.
        size: ``(height, width)`` as loaded.
        moments: ``(C, 2)`` mean and mean square of each channel (R, G, B where there are three) of the image that the
            network sees, in the units of the file.
        expected: ``(C, 2)`` mean and standard deviation of the normalization; None without one.
        error: Why it could not be read, or None.
        objects: The numbers of its annotations; None without any.
        faults: What is wrong with them.
        hashed: The image in short, to find its near-duplicates; None where nobody asked.
        path: Its file, if it has one.
    """

    index: int
    classes: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    moments: NDArray[np.float64] | None = None
    expected: NDArray[np.float64] | None = None
    error: InputError | None = None
    objects: Objects | None = None
    faults: tuple[tuple[int, str, str], ...] = ()
    hashed: HashedImage | None = None
    path: Path | None = None

    @property
    def problem(self) -> InputError | None:
        """Why it has no numbers; None where it has."""
        return self.error or (InputError('it has no values') if self.moments is None else None)

    def row(self, names: Sequence[str]) -> dict[str, Any]:
        """As a row of the table; ``names`` are those of the channels."""
        found: dict[str, Any] = {f'{name}_{what}': '' for name in names for what in ('mean', 'std')}
        if self.moments is not None and len(self.moments) == len(names):
            means = self.moments[:, 0]
            spreads = np.sqrt(np.maximum(self.moments[:, 1] - means**2, 0))
            for place, name in enumerate(names):
                found |= {f'{name}_mean': round(means[place], 3), f'{name}_std': round(spreads[place], 3)}
        classes, (height, width) = ' '.join(map(str, self.classes)), self.size
        return {
            'index': self.index,
            'classes': classes,
            'height': height,
            'width': width,
            **found,
            **({} if self.objects is None else {'objects': self.objects.count}),
            'error': str(self.error or ''),
        }


@ANALYSES.register_module()
@dataclass(frozen=True)
class DatasetReport:
    """A whole dataset in numbers: classes, image sizes, colors, annotations, and the images that cannot be read.

    Attributes:
        phase: Which dataset it is; it names images among those of other phases.
        hashes: Whether images are hashed, to find near-duplicates.
    """

    phase: str = 'train'
    hashes: bool = False

    def __call__(self, samples: Samples, indices: Sequence[int]) -> DatasetSummary:
        """Measures samples and summarizes them.

        Raises:
            InputError: No sample could be read.
        """
        return self.summed(samples, (self.measured(samples, index) for index in indices))

    def measured(self, samples: Samples, index: int) -> Measured:
        """The numbers of one sample, whose pipeline runs once."""
        try:
            record = samples.read(index, detail='ends')
            values = planes_of(network_input(record.data))
        except InputError as error:
            return Measured(index, error=_unnumbered(index, error))
        # A photo held as fractions is reported like one held as bytes.
        unit = 255.0 if len(values) == 3 and (record.shown.low, record.shown.high) == (0, 1) else 1.0
        pixels = unit * record.photometry.stored(values).reshape(len(values), -1)
        moments = np.stack([pixels.mean(1), (pixels**2).mean(1)], axis=1)
        photometry = replace_mean(record.photometry, samples.preprocessing, None, 0)
        expected = np.stack([np.resize(each, len(values)) for each in (photometry.bias, photometry.gain)], axis=1)
        expected = expected[::-1] if photometry.bgr and len(values) == 3 else expected
        plain = bool(np.all(expected == [0, 1]))
        expected = unit * expected
        loaded = record.images[0]
        annotated = record.original is not None and loaded.annotations is not None
        annotations = loaded.annotations if annotated else record.images[-1].annotations
        return Measured(
            index,
            class_ids(record.label),
            (loaded.pixels.shape[0], loaded.pixels.shape[1]),
            moments,
            None if plain else np.array(expected),
            objects=None if annotations is None else Objects.of(annotations, samples.classes),
            faults=_faults([[replace(record, faults=(*record.faults, *samples.left_out(index)))]]),
            hashed=hashed_record(record, self.phase) if self.hashes else None,
            path=record.path,
        )

    def summed(self, samples: Samples, measured: Iterable[Measured]) -> DatasetSummary:
        """Summarizes the numbers of all samples.

        Raises:
            InputError: No sample could be read.
        """
        read = list(measured)
        failed = tuple((each.index, each.problem) for each in read if each.problem is not None)
        known = [each for each in read if each.problem is None]
        if not known:
            raise _none_read(failed)
        moments = [each.moments for each in known if each.moments is not None]
        count = len(moments[0])
        first, second = np.mean([each for each in moments if len(each) == count], axis=0).T
        found = np.stack([first, np.sqrt(np.maximum(second - first**2, 0))], axis=1)
        counts = Counter(label for each in known for label in each.classes)
        objects = [each.objects for each in known if each.objects is not None]
        expected = known[-1].expected
        provenance: dict[str, Any] = {'samples': len(known), 'of': len(samples), 'seed': samples.seed}
        return DatasetSummary(
            counts={class_name(label, samples.classes): counts[label] for label in sorted(counts)},
            sizes=np.array([each.size for each in known]),
            found=found,
            expected=expected,
            verdict=verdict(found, expected),
            failed=failed,
            rows=tuple(each.row(channel_names(count)) for each in read),
            provenance=provenance,
            objects=statistics_of(objects, samples.classes),
            faults=tuple(fault for each in known for fault in each.faults),
        )


def _none_read(failed: Sequence[tuple[int, InputError]]) -> InputError:
    """The error of a dataset of which no sample can be read, with the first one's reason."""
    error = failed[0][1] if failed else InputError('there is none')
    problem = f'no sample can be read; the first: {error.problem}'
    return InputError(problem, accepted=error.accepted, hint=error.hint, parameter=error.parameter)


def hashed_record(record: Record, phase: str) -> HashedImage:
    """A sample's image as it was loaded, in short."""
    return hashed(record.images[0].pixels, record.index, phase, '' if record.path is None else str(record.path))


def hashed_sample(samples: Samples, phase: str, index: int) -> HashedImage | None:
    """The same of a sample that is read for it; None where it cannot be read."""
    try:
        return hashed_record(samples.read(index, detail='original'), phase)
    except InputError:
        return None


def duplicate_grid(pairs: Sequence[NearDuplicate], samples: Mapping[str, Samples]) -> ImageGrid:
    """Pairs of near-duplicates side by side, those between phases in red.

    Args:
        pairs: What to show.
        samples: The datasets by phase.
    """
    tiles = []
    for pair in pairs:
        apart = 'equal hashes' if not pair.distance else f'{pair.distance} of {BITS} bits differ'
        about = f'{apart}, mirrored' if pair.mirrored else apart
        for each in (pair.first, pair.second):
            pixels = samples[each.phase].read(each.index, detail='original').images[0].pixels
            title = (
                (f'{each.phase} #{each.index}', Path(each.path).name) if each.path else (f'{each.phase} #{each.index}',)
            )
            tiles.append(GridImage(pixels, title=title, footer=(about,), wrong=pair.leaks))
    return ImageGrid(
        tuple(map(tuple, _wrapped(tiles, 4))), caption='nearly equal images, two by two', mode='duplicates'
    )


def verdict(found: NDArray[np.float64], expected: NDArray[np.float64] | None) -> str:
    """Whether the data fit the normalization, in words.

    Args:
        found: ``(C, 2)`` mean and standard deviation of each channel.
        expected: The same of the config; None if it does not normalize.
    """
    if expected is None:
        return 'the config does not normalize'
    shift = np.abs(found[:, 0] - expected[:, 0]) / expected[:, 1]
    spread = found[:, 1] / expected[:, 1]
    if shift.max() <= _SHIFT and max(spread.max(), 1 / spread.min()) <= _SPREAD:
        return 'the data fit the normalization of the config'
    words, names = [], channel_names(len(found))
    swapped = np.abs(found[::-1, 0] - expected[:, 0]) / expected[:, 1]
    if shift.max() > _SHIFT:
        worst = int(shift.argmax())
        side = 'above' if found[worst, 0] > expected[worst, 0] else 'below'
        words.append(f'the mean of {names[worst]} is {shift[worst]:.2f} standard deviations {side}')
    if spread.max() > _SPREAD or spread.min() < 1 / _SPREAD:
        worst = int(np.abs(np.log(spread)).argmax())
        words.append(f'the standard deviation of {names[worst]} is {spread[worst]:.2f} times')
    hint = '; red and blue look exchanged' if len(found) == 3 and swapped.max() < 0.5 * shift.max() else ''
    return f'mismatch: {" and ".join(words)} the config’s{hint}'
