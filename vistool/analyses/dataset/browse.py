"""What a data pipeline really feeds the network: a dataset's samples, and every step on their way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from vistool.data.datasets.annotations import label_lines, label_text
from vistool.data.datasets.batching import Batcher
from vistool.data.datasets.reading import Record, Samples
from vistool.data.datasets.recording import Detail, Shot, rows_of
from vistool.data.datasets.selection import Mode
from vistool.errors import InputError, close_matches
from vistool.registry import ANALYSES
from vistool.results import GridImage, ImageGrid

_DETAILS: dict[str, Detail] = {'original': 'original', 'pipeline': 'steps'}
Tiles = list[list[GridImage]]


@ANALYSES.register_module()
@dataclass
class BrowseDataset:
    """Samples of a dataset as pictures.

    Attributes:
        mode: ``original`` (as loaded), ``transformed`` (as the network sees it), ``concat`` (both), ``pipeline`` (after
            each step) or ``batch`` (after collating, the data preprocessor and batch augmentations).
        repeats: How many times each sample goes through its pipeline; draw k is the one that seed + k gives.
        sheet: Rows and columns of a sheet of many samples; None: as the samples need.
        batcher: For ``batch``: what makes samples a batch.
    """

    mode: Mode = 'transformed'
    repeats: int = 1
    sheet: tuple[int, int] | None = None
    batcher: Batcher | None = None

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InputError: The mode is unknown, or a number is below 1.
        """
        modes = get_args(Mode)
        if self.mode not in modes:
            hint = close_matches(self.mode, modes)
            raise InputError(f'unknown mode {self.mode!r}', accepted=', '.join(modes), hint=hint, parameter='mode')
        if self.repeats < 1:
            raise InputError(f'{self.repeats} is no number of repeats', accepted='1 or more', parameter='repeats')
        if self.repeats > 1 and self.mode in ('original', 'batch'):
            raise InputError(
                f'nothing to repeat in {self.mode} mode',
                accepted='transformed, concat or pipeline',
                parameter='repeats',
            )
        if self.sheet is not None and min(self.sheet) < 1:
            rows, columns = self.sheet
            raise InputError(f'no sheet of {rows} by {columns}', accepted='1 or more of each', parameter='sheet')

    @property
    def per_picture(self) -> int:
        """How many samples one picture shows."""
        if self.mode == 'batch':
            return self.batcher.size if self.batcher else 1
        if self.sheet is None:
            return 1
        rows, columns = self.sheet
        if self.mode == 'pipeline' or self.repeats > 1:
            return rows
        return rows * max(1, columns // 2 if self.mode == 'concat' else columns)

    def __call__(self, samples: Samples, indices: Sequence[int], number: int = 0) -> ImageGrid:
        """Read and arrange samples.

        Args:
            samples: The dataset.
            indices: Which samples the picture shows.
            number: Of the batch, for what batch augmentations draw.

        Returns:
            The pictures; without rows where no sample could be read. ``samples`` has a row of numbers for each draw,
            ``failed`` the index of and the reason for each sample that could not be read.
        """
        records, failed = [], []
        for index in indices:
            try:
                detail = _DETAILS.get(self.mode, 'ends')
                records.append([samples.read(index, repeat, detail) for repeat in range(self.repeats)])
            except InputError as error:
                failed.append((index, str(error)))
        batched = self.mode == 'batch' and bool(records)
        blocks = self._batch(samples, [draws[0] for draws in records], number) if batched else []
        if not batched:
            blocks = [self._block(samples, draws) for draws in records]
        table = [_facts(samples, record, draw) for draws in records for draw, record in enumerate(draws)]
        name = records[0][0].name if records else ''
        return ImageGrid(
            self._arranged(blocks),
            name=name,
            samples=tuple(table),
            failed=tuple(failed),
            provenance={'mode': self.mode, 'seed': samples.seed},
        )

    def _block(self, samples: Samples, draws: list[Record]) -> Tiles:
        """The tiles of one sample, in rows."""
        rows = [row for draw, record in enumerate(draws) for row in self._rows(record, draw)]
        if self.mode == 'transformed':
            flat = [tile for row in rows for tile in row]
            rows = _wrapped(flat, len(flat) if len(flat) <= 6 else math.ceil(math.sqrt(len(flat))))
        first = rows[-1][0]  # the label closes the sample's rows
        rows[-1][0] = GridImage(first.pixels, first.title, _footer(samples, draws[0], self.mode))
        return rows

    def _rows(self, record: Record, draw: int) -> Tiles:
        views = rows_of(record.shots)
        if self.mode == 'original':
            return [[GridImage(shot.pixels) for shot in row[:1]] for row in views]
        if self.mode == 'pipeline':
            rows = [[_step_tile(shot) for shot in row] for row in views]
            for number, row in enumerate(rows):
                which = [f'draw {draw + 1}'] * (self.repeats > 1) + [f'view {number + 1}'] * (len(rows) > 1)
                row[0] = GridImage(row[0].pixels, (' · '.join(['original', *which]), *row[0].title[1:]))
            return rows
        ends = [_named(row[-1], draw if self.repeats > 1 else None, len(views) > 1) for row in views]
        if self.mode == 'transformed':
            return [ends]
        original = GridImage(record.original, ('original', _size(record.original)))
        return [[original, *[GridImage(e.pixels, (*(e.title or ('transformed',)), _size(e.pixels))) for e in ends]]]

    def _batch(self, samples: Samples, records: list[Record], number: int) -> list[Tiles]:
        assert self.batcher is not None, 'batch mode needs a batcher'
        blocks = []
        for record, fed in zip(records, self.batcher(records, number), strict=True):
            footer = (*label_lines(fed.label, samples.classes), f'#{record.index}')
            several = len(fed.views) > 1
            tiles = [GridImage(view, (f'view {k + 1}',) if several else ()) for k, view in enumerate(fed.views)]
            blocks.append([[GridImage(tiles[0].pixels, tiles[0].title, footer), *tiles[1:]]])
        return blocks

    def _arranged(self, blocks: list[Tiles]) -> tuple[tuple[GridImage, ...], ...]:
        """Blocks of one row side by side, the others one below the other."""
        if self.mode == 'pipeline' or any(len(block) > 1 for block in blocks):
            return tuple(tuple(row) for block in blocks for row in block)
        tiles = [tile for block in blocks for tile in block[0]]
        each = len(blocks[0][0]) if blocks else 1
        if self.sheet is not None and self.mode != 'batch':
            columns = max(self.sheet[1], each)
        else:
            columns = min(max(4, math.ceil(math.sqrt(len(tiles)))), 16)
        return tuple(tuple(row) for row in _wrapped(tiles, max(each, columns // each * each)))


def _wrapped(tiles: list[GridImage], columns: int) -> Tiles:
    return [tiles[place : place + columns] for place in range(0, len(tiles), columns)]


def _step_tile(shot: Shot) -> GridImage:
    return GridImage(shot.pixels, (shot.step, _size(shot.pixels), *shot.parameters))


def _named(shot: Shot, draw: int | None, several: bool) -> GridImage:
    """A finished image, titled with what varies: the draw, the view."""
    parts = [] if draw is None else [f'draw {draw + 1}']
    parts += [f'view {shot.view + 1}'] if several and shot.view is not None else []
    return GridImage(shot.pixels, (' · '.join(parts),) if parts else ())


def _footer(samples: Samples, record: Record, mode: str) -> tuple[str, ...]:
    place = [f'#{record.index}'] + ([_size(record.original)] if mode == 'original' else [])
    if record.refetched is not None:
        place.append(f'replaced by #{record.refetched}')
    return (*label_lines(record.label, samples.classes), ' · '.join(place))


def _size(pixels: Any) -> str:
    return f'{pixels.shape[1]}×{pixels.shape[0]}'


def _facts(samples: Samples, record: Record, draw: int) -> dict[str, Any]:
    """A line of the table that ``--save-raw`` writes."""
    parameters = '; '.join(
        f'{shot.step}{"" if shot.view is None else f" (view {shot.view + 1})"}: {", ".join(shot.parameters)}'
        for shot in record.shots
        if shot.parameters
    )
    final = record.shots[-1].pixels.shape
    return {
        'index': record.index,
        'draw': draw,
        'path': '' if record.path is None else str(record.path),
        'label': label_text(record.label, samples.classes),
        'original_width': record.original.shape[1],
        'original_height': record.original.shape[0],
        'width': final[1],
        'height': final[0],
        'parameters': parameters,
    }
