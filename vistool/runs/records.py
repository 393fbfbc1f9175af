"""What the record of a run says: of the run as a whole, and of each image."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistool.data.samples import Sample
from vistool.environment import versions
from vistool.models.configs import Source
from vistool.models.model import Model
from vistool.results import Heatmaps
from vistool.runs.manifest import file_entry, stamp
from vistool.visualization.style import Style

_NEUTRAL = {
    'command', 'out', 'resume', 'overwrite', 'gallery', 'launcher', 'local_rank', 'workers', 'log_level', 'debug',
    'not_show', 'show', 'preview_model', 'trust_checkpoint', 'sheet',
}  # fmt: skip
"""Options that change how a run is carried out, not what it writes."""
CARRIED_OUT = {
    '-o': 1, '--out': 1, '--save-path': 1, '--out-dir': 1, '--output-dir': 1, '--resume': 0, '--overwrite': 0,
    '--gallery': None, '--launcher': 1, '--local-rank': 1, '--workers': 1, '--log-level': 1, '--debug': 0,
    '--not-show': 0, '--show': 0, '--vis-backend': None, '--panels': 1, '--trust-checkpoint': 0,
}  # fmt: skip
"""The same as they are typed, with the number of words that follow."""
_NEUTRAL_UNLESS_EXACT = {'device', 'batch_size'}
"""… and those that change no more than the last digits."""


@dataclass(frozen=True)
class Written:
    """The files of one image, and its line in the record (None where there is no record)."""

    paths: list[Path]
    line: dict[str, Any] | None


def about_run(args: argparse.Namespace, command: str, source: Source, models: Sequence[Model]) -> dict[str, Any]:
    """What ``run.json`` says; two runs with equal ``settings`` write the same files."""
    neutral = _NEUTRAL if args.deterministic else _NEUTRAL | _NEUTRAL_UNLESS_EXACT
    settings = {key: value for key, value in vars(args).items() if key not in neutral}
    configs = '\n'.join(model.config.pretty_text for model in models if model.config is not None)
    weights = [model.provenance()['sha256'] for model in models]
    digest = hashlib.sha256(configs.encode()).hexdigest()
    return {
        'tool': command,
        'command': args.command,
        **models[0].provenance(),
        'settings': _plain({**settings, 'config contents': digest[:16], 'checkpoint contents': weights}),
        'versions': versions(),
    }


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def line_of(
    run: argparse.Namespace, out: Path, item: Any, sample: Sample, result: Heatmaps, written: list[Path], style: Style,
    model: Model, seconds: float,
) -> Written:  # fmt: skip
    """An image's line, its tiles for the gallery written if they are wanted."""
    start = time.perf_counter()
    index = sample.index or 0
    line = {
        **stamp(item, index),
        'index': index,
        'label': None if sample.label is None else {'id': sample.label, 'name': model.class_name(sample.label)},
        'prediction': result.prediction and result.prediction.entry(),
        'targets': [target.entry() for target in result.targets],
        'methods': list(result.methods),
        'layers': list(result.layers),
        'files': [file_entry(out, path) for path in written],
    }
    if run.gallery is not None:
        from vistool.gallery.tiles import write_tiles

        line['tiles'] = write_tiles(result, out, style, item.name)
        line['files'] += [file_entry(out, out / tile['file']) for tile in line['tiles']]
    # what a clock says would differ from run to run
    line['seconds'] = None if run.deterministic else round(seconds + time.perf_counter() - start, 4)
    return Written(written, {**line, 'error': None})
