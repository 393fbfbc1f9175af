"""Film strips: what a network showed of each probe at every moment of a training, on disk and as pictures."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import NotRequired, TypedDict

from vistool.errors import InputError
from vistool.records import checked, parse_json, read_arrays
from vistool.results import Coordinates, Heatmap, Heatmaps, Layer, Target, over_training
from vistool.visualization.files import check_folder, flat_name, write_file
from vistool.visualization.kinds import picture_pixels
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')

Unit = Literal['epoch', 'iteration']
Limits = tuple[float, float] | None

MOST_COLUMNS = 12
"""A strip shows no more moments than this: every one, every second, every fourth, … and the latest."""
_TILE = 190  # pixels across


class MapEntry(TypedDict):
    """What is told of one map."""

    coordinates: dict[str, str | int | float]
    range: list[float] | None
    score: float | None
    layer: dict[str, Any] | None
    limits: list[float] | None


class TargetEntry(TypedDict):
    """A class or a value with its score."""

    name: str
    id: NotRequired[int]
    score: NotRequired[float]
    against: NotRequired[bool]
    truth: NotRequired[float]
    word: NotRequired[str]


class ProbeEntry(TypedDict):
    """What is told of one probe."""

    name: str
    prediction: TargetEntry | None
    targets: list[TargetEntry]
    maps: list[MapEntry]


class MomentEntry(TypedDict):
    """What is told of a moment beside its arrays."""

    analysis: str
    probes: list[ProbeEntry]


class Strips:
    """The record of a run: a file of numbers for each moment, and a picture for each probe.

    Attributes:
        out: The folder.
        unit: What the training counts.
        analysis: What the maps are, in words; a resumed run goes on only with the same.
        style: How they are drawn.
        moments: The moments that the strips show → the results of all probes.
    """

    def __init__(self, out: Path, unit: Unit, analysis: str, style: Style) -> None:
        """Checks that the folder can be written in.

        Raises:
            InputError: It cannot.
        """
        self.out, self.unit, self.analysis, self.style = out, unit, analysis, style
        self.moments: dict[int, list[Heatmaps]] = {}
        self._recorded: list[int] = []
        self._limits: list[list[Limits]] = []
        check_folder(out)
        self._visualizer = Visualizer(out, style)

    def start(self, completed: int, results: Sequence[Heatmaps], names: Sequence[str]) -> None:
        """Begins the record with the state before the first step, or goes on with that of an interrupted run.

        Args:
            completed: Epochs or iterations that are behind the network; above 0 the run is resumed.
            results: The maps now.
            names: The probes' names.

        Raises:
            InputError: A file cannot be written.
        """
        self.names = list(names)
        files = self._files()
        if completed:
            self._resume({when: path for when, path in files.items() if when <= completed}, results)
        for when, path in files.items():
            if when not in self._recorded:
                path.unlink(missing_ok=True)  # of a run before, which went another way or drew something else
        if completed not in self._recorded:
            self.add(completed, results)

    def add(self, when: int, results: Sequence[Heatmaps]) -> None:
        """Records a moment and draws the strips anew.

        Raises:
            InputError: A file cannot be written, or the maps are not those of the moments before.
        """
        results = [_light(result) for result in results]
        counts = [len(result.maps) for result in results]
        if self._limits and counts != [len(each) for each in self._limits]:
            raise InputError(f'{counts} maps of the probes, where there were {[len(each) for each in self._limits]}')
        before = self._limits or [[None] * count for count in counts]
        self._limits = [
            [_joined(ends, item.extent) for ends, item in zip(limits, result.maps, strict=True)]
            for limits, result in zip(before, results, strict=True)
        ]
        self._recorded.append(when)
        write_file(self._path(when), self._content(results))
        self.moments[when] = results
        kept = shown(self._recorded)
        self.moments = {each: found for each, found in self.moments.items() if each in kept}
        for place, name in enumerate(self.names):
            strip = self.strip(place)
            visualizer = replace(self._visualizer, style=strip_style(self.style, strip))
            visualizer.write(strip, name)

    def strip(self, place: int) -> Heatmaps:
        """The film strip of one probe."""
        return over_training(
            {when: results[place] for when, results in self.moments.items()}, self.unit, self._limits[place]
        )

    def latest(self) -> dict[str, Pixels]:
        """The newest moment as one picture a probe, on the scale of all moments so far; by name."""
        when, style = self._recorded[-1], replace(self.style, view=self.style.view or 'network')
        found = {}
        for name, result, limits in zip(self.names, self.moments[when], self._limits, strict=True):
            now = over_training({when: result}, self.unit, limits)
            found[flat_name(f'explain_{name}')] = picture_pixels(now, style)
        return found

    def _path(self, when: int) -> Path:
        return self.out / f'{self.unit}_{when}.npz'

    def _files(self) -> dict[int, Path]:
        """The files of moments in the folder, in order."""
        pattern = re.compile(rf'{self.unit}_(\d+)\.npz')
        found = {int(match[1]): path for path in self.out.glob('*.npz') if (match := pattern.fullmatch(path.name))}
        return dict(sorted(found.items()))

    def _content(self, results: Sequence[Heatmaps]) -> bytes:
        """A moment as an ``.npz``: ``names`` (N,), ``maps_i_k`` for map k of probe i, ``scores_i``, and ``moment``."""
        told = MomentEntry(
            analysis=self.analysis,
            probes=[
                ProbeEntry(
                    name=name,
                    prediction=None if result.prediction is None else _entry(result.prediction),
                    targets=[_entry(each) for each in result.targets],
                    maps=[_map_entry(item, ends) for item, ends in zip(result.maps, limits, strict=True)],
                )
                for name, result, limits in zip(self.names, results, self._limits, strict=True)
            ],
        )
        arrays: dict[str, NDArray[Any]] = {
            'names': np.array(self.names, np.str_),
            'moment': np.array(json.dumps(told, ensure_ascii=False)),
        }
        for place, result in enumerate(results):
            scores = [np.nan if item.score is None else item.score for item in result.maps]
            arrays[f'scores_{place}'] = np.array(scores, np.float64)
            for number, item in enumerate(result.maps):
                arrays[f'maps_{place}_{number}'] = item.values
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        return content.getvalue()

    def _resume(self, files: Mapping[int, Path], like: Sequence[Heatmaps]) -> None:
        """Reads the moments that the strips show; begins anew where they were made in another way."""
        try:
            self.moments = {when: self._read(files[when], like) for when in shown(list(files))}
        except InputError as error:
            log.warning('the film strips begin anew: %s', error)
            self.moments, self._limits = {}, []
            return
        self._recorded = list(files)

    def _read(self, path: Path, like: Sequence[Heatmaps]) -> list[Heatmaps]:
        arrays = read_arrays(path, 'out', 'files that this hook wrote')
        told = parse_json(str(arrays.get('moment', '')), MomentEntry, str(path), 'out')
        if told['analysis'] != self.analysis or [each['name'] for each in told['probes']] != self.names:
            raise InputError(f'{path} is of other probes or of another analysis')
        self._limits = [[_pair(each['limits']) for each in probe['maps']] for probe in told['probes']]
        try:
            return [
                _restored(result, probe, [arrays[f'maps_{place}_{number}'] for number in range(len(probe['maps']))])
                for place, (result, probe) in enumerate(zip(like, told['probes'], strict=True))
            ]
        except (KeyError, TypeError) as error:
            raise InputError(f'{path} is damaged: {error}') from error


def shown(recorded: Sequence[int], most: int = MOST_COLUMNS) -> list[int]:
    """The moments that a strip has room for: every one, every second, every fourth, …, and the latest.

    What is left out once is never needed again.
    """
    step = 1
    while len(recorded[::step]) > most - 1:
        step *= 2
    kept = list(recorded[::step])
    return [*kept, recorded[-1]] if kept and kept[-1] != recorded[-1] else kept


def strip_style(style: Style, strip: Heatmaps) -> Style:
    """One line for all moments, in tiles that show what the network saw; a line for all maps of a single moment."""
    found = strip.coordinates
    moments = len(found.get('epoch') or found.get('iteration') or ())
    across = 1 + (moments if moments > 1 else len(strip.maps))
    width = style.width or min(max(_TILE * across, 4 * _TILE), 16384)
    return replace(style, arrangement=(1, across), width=width, view=style.view or 'network')


def _light(result: Heatmaps) -> Heatmaps:
    """A result without what strips do not show."""
    maps = tuple(replace(item, values=np.asarray(item.values, np.float32), signed=None) for item in result.maps)
    return replace(result, maps=maps, companions={}, provenance={})


def _joined(one: Limits, other: Limits) -> Limits:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _pair(ends: Sequence[float] | None) -> Limits:
    return None if ends is None else (float(ends[0]), float(ends[1]))


def _entry(target: Target) -> TargetEntry:
    word = {'word': target.word} if target.word else {}
    return checked({**target.entry(), **word}, TargetEntry, 'a target', 'out')


def _map_entry(item: Heatmap, limits: Limits) -> MapEntry:
    return MapEntry(
        coordinates=dict(item.coordinates),
        range=None if item.range is None else list(item.range),
        score=item.score,
        layer=None if item.layer is None else asdict(item.layer),
        limits=None if limits is None else list(limits),
    )


def _restored(like: Heatmaps, told: ProbeEntry, values: Sequence[NDArray[Any]]) -> Heatmaps:
    """A result of an earlier moment; what does not change over a training is that of the result now."""
    maps = tuple(
        Heatmap(
            np.asarray(each, np.float32),
            Coordinates(entry['coordinates']),
            layer=None if entry['layer'] is None else Layer(**entry['layer']),
            range=_pair(entry['range']),
            score=entry['score'],
        )
        for each, entry in zip(values, told['maps'], strict=True)
    )
    prediction = told['prediction']
    targets = tuple(Target(**each) for each in told['targets'])
    return replace(
        _light(like), maps=maps, targets=targets, prediction=None if prediction is None else Target(**prediction)
    )
