"""What a run has done so far, in its output folder: ``run.json``, and one entry per image in ``manifest.jsonl``.

During a run each process appends to a file of its own (``manifest-0.jsonl`` …), an entry only after its files are
written; at the end they are merged. So a run may be killed at any moment: an image without a whole entry is done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import NotRequired, Required

from vistool.data.datasets import DatasetItem, class_name
from vistool.data.samples import Sample
from vistool.environment import as_typed, is_anonymous, shareable, versions
from vistool.errors import InputError, counted, param
from vistool.gallery.runs import Entry, Facts, File, is_relative
from vistool.metrics.aggregation import is_whole, sampled
from vistool.models.model import Model
from vistool.records import LINES, RUN, parse_json, read_bytes, read_json, shown
from vistool.results import Heatmap, Heatmaps
from vistool.runs.distributed import DistInfo
from vistool.runs.spec import AnyItem, Images, ModelSpec, RunSpec
from vistool.visualization.files import unwritable, write_file

LARGEST = 1 << 30
"""Bytes of the largest manifest that is read: some 100,000 images with the metrics of ten methods."""

FORMAT = 2
"""The version of these files. Files without a version were written by earlier code."""

_OF_RANK = re.compile(r'manifest-\d+\.jsonl')
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_NONBLOCK', 0)
"""How a manifest is opened: a link or a pipe in its place is an error."""

_HALF_WRITTEN = re.compile(r'\..+\.\d+\.\d+\.tmp')
_IDENTITY = ('index', 'input', 'bytes', 'mtime')
_MANY = 20
"""A list of more paths than this is known by a digest."""


@dataclass
class Manifest:
    """The manifest of a run, as one of its processes keeps it.

    Attributes:
        folder: The run's output folder.
        dist: This process.
        done: Entries of images that were done before, by name.
        roots: Other folders that the run writes into, by parameter (``panels``).
        record: What ``run.json`` is to say.
        fresh: Whether the run starts from the beginning.
    """

    folder: Path
    dist: DistInfo = field(default_factory=DistInfo)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    roots: Mapping[str, Path] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    fresh: bool = True
    _waiting: list[Mapping[str, Any]] | None = field(default=None, init=False, repr=False)

    @classmethod
    def open(
        cls,
        folder: Path,
        record: Mapping[str, Any],
        dist: DistInfo,
        resume: bool = False,
        overwrite: bool = False,
        roots: Mapping[str, Path] | None = None,
    ) -> Manifest:
        """Finds out whether a run may write here; nothing is written before :meth:`start`.

        So a run whose parameters turn out to be wrong with the first image leaves nothing behind.

        Args:
            folder: The run's output folder.
            record: What ``run.json`` is to say; its ``settings`` are compared with those of an earlier run.
            dist: This process.
            resume: Whether to continue the run that is there; without one the run starts from the beginning.
            overwrite: Whether to start again, whatever is there.
            roots: Other folders that the run writes into, by parameter.

        Raises:
            InputError: The run that is there had other settings, is of another version, or is unfinished and neither
                option is given.
        """
        before = _check(folder, record, resume, overwrite)
        done = {entry['name']: dict(entry) for entry in read_entries(folder)} if resume else {}
        manifest = cls(folder, dist, done, roots or {}, record, not resume or overwrite or before is None)
        manifest._waiting = []
        return manifest

    @classmethod
    def begin(
        cls,
        folder: Path,
        record: Mapping[str, Any],
        dist: DistInfo,
        resume: bool = False,
        overwrite: bool = False,
        roots: Mapping[str, Path] | None = None,
    ) -> Manifest:
        """Opens and starts the manifest of a run; every process has to call this. Arguments as in :meth:`open`."""
        problem = None
        if dist.is_main:
            try:
                cls.open(folder, record, dist, resume, overwrite).start()
            except InputError as error:
                problem = error
        problem = next((each for each in dist.gather(problem) if each), None)
        if problem:
            raise problem
        done = {entry['name']: dict(entry) for entry in read_entries(folder)} if resume else {}
        return cls(folder, dist, done, roots or {}, record)

    def start(self) -> None:
        """Writes ``run.json``, and the entries that were added before; once started it does nothing."""
        if self._waiting is None:
            return
        if self.fresh:
            for path in (self.folder / LINES, *_of_ranks(self.folder)):
                path.unlink(missing_ok=True)
        else:
            merge(self.folder)
            remove_half_written(self.folder)
        text = json.dumps(self.record, ensure_ascii=False, indent=1, sort_keys=True)
        write_file(self.folder / RUN, f'{text}\n'.encode())
        entries, self._waiting = self._waiting, None
        for entry in entries:
            self.add(entry)

    def has(self, fingerprint: Mapping[str, Any]) -> bool:
        """Whether an image is done: it has an entry, it is the same file as then, and what was written is intact.

        Args:
            fingerprint: What the image is known by; its ``name`` finds the entry.
        """
        entry = self.done.get(fingerprint['name'])
        if entry is None or entry.get('error'):
            return False
        if any(entry.get(key) != fingerprint[key] for key in _IDENTITY if key in fingerprint):
            return False
        return all(intact(self.folder, file, self.roots) for file in entry['files'])

    def failed(self, name: str) -> bool:
        """Whether an image could not be read or explained before."""
        return bool(self.done.get(name, {}).get('error'))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Appends an image's entry, in one write; before :meth:`start` it waits."""
        if self._waiting is not None:
            self._waiting.append(entry)
            return
        path = self.folder / f'manifest-{self.dist.rank}.jsonl'
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, _APPEND, 0o666)
            with open(descriptor, 'a', encoding='utf-8') as file:
                file.write(_line(entry))
        except OSError as error:
            raise unwritable(path, error) from error

    def finish(self) -> Path:
        """Merges the processes' files into ``manifest.jsonl``; every process has to call this."""
        self.start()
        self.dist.wait()
        if self.dist.is_main:
            merge(self.folder)
        self.dist.wait()
        return self.folder / LINES


def _check(folder: Path, record: Mapping[str, Any], resume: bool, overwrite: bool) -> Facts | None:
    """The run that a folder holds, if it may be continued or replaced; None where there is none."""
    before = None if overwrite else _read_run(folder)
    unfinished = bool(_of_ranks(folder))
    if before is not None and not overwrite and (resume or unfinished):
        _check_format(folder, before)
        if resume:
            _check_same(folder, before, record)
        else:
            count = sum(1 for entry in read_entries(folder) if not entry.get('error'))
            options = f'{param("resume", True)} to continue it, {param("overwrite", True)} to start again'
            raise InputError(
                f'{str(folder)!r} holds an unfinished run ({counted(count, "image")} done)',
                accepted=f'{options}, or another folder',
                parameter='out',
            )
    return before


def _of_ranks(folder: Path) -> list[Path]:
    """The files of single processes, in order."""
    return sorted(path for path in folder.glob('manifest-*.jsonl') if _OF_RANK.fullmatch(path.name))


def _read_run(folder: Path) -> Facts | None:
    if not (folder / RUN).exists():
        return None
    return read_json(folder / RUN, Facts, 'resume', f'{param("overwrite", True)} starts again')


def _check_format(folder: Path, before: Mapping[str, Any]) -> None:
    if before.get('format') != FORMAT:
        raise InputError(
            f'the run in {str(folder)!r} was written by another version of vistool and cannot be continued',
            hint=f'use another folder, or {param("overwrite", True)} to start again',
            parameter='out',
        )


def _check_same(folder: Path, before: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    old, new = before.get('settings') or {}, record['settings']
    changed = [
        f'{param(key) if key.isidentifier() else key}: {shown(old.get(key))} → {shown(new.get(key))}'
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise InputError(
            f'the run in {str(folder)!r} had other settings: {"; ".join(changed[:4])}',
            hint=f'use another folder, or {param("overwrite", True)} to start again',
            parameter='resume',
        )


class DoneEntry(Entry):
    """An entry as this code writes it: with the image's place in the run, and its files."""

    index: Required[int]  # type: ignore[misc]
    files: Required[list[File]]  # type: ignore[misc]
    metrics: NotRequired[list[dict[str, Any]]]


def read_entries(folder: Path) -> Iterator[DoneEntry]:
    """All whole entries of a run's manifest, merged or not; a later entry of the same image comes later.

    Raises:
        InputError: An entry is not as vistool writes it.
    """
    hint = f'{param("overwrite", True)} starts again'
    for path in (folder / LINES, *_of_ranks(folder)):
        if not path.exists():
            continue
        lines = read_bytes(path, 'resume', LARGEST, hint).decode(errors='replace').split('\n')
        for number, text in enumerate(lines[:-1], 1):  # what follows the last line's end was not finished
            try:
                json.loads(text)
            except RecursionError:
                pass
            except ValueError:  # the process was killed while it wrote this
                continue
            yield parse_json(text, DoneEntry, f'{path}, line {number}', 'resume', hint)


def merge(folder: Path) -> None:
    """Merges all entries into ``manifest.jsonl``, one per image, in the order of the run; removes the others' files."""
    entries = {entry['name']: entry for entry in read_entries(folder)}
    ordered = sorted(entries.values(), key=lambda entry: (entry['index'], entry['name']))
    write_file(folder / LINES, ''.join(map(_line, ordered)).encode())
    for path in _of_ranks(folder):
        path.unlink()


def _line(entry: Mapping[str, Any]) -> str:
    """An entry as one line of JSON; a file name that is not UTF-8 keeps its bytes, escaped."""
    text = json.dumps(entry, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(entry)) + '\n'


def remove_half_written(folder: Path) -> None:
    """Removes the files that killed processes were writing."""
    for path in folder.rglob('.*.tmp'):
        if _HALF_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def file_entry(folder: Path, path: Path, roots: Mapping[str, Path] | None = None) -> File:
    """A written file as the manifest names it, with size and CRC-32: relative to the folder that it lies in.

    Args:
        folder: The run directory.
        path: The file.
        roots: Other folders that the run writes into, by parameter; the entry's ``within`` is that parameter.
    """
    data = path.read_bytes()
    found: File = {'name': path.name, 'bytes': len(data), 'crc32': f'{zlib.crc32(data):08x}'}
    for within, root in {'': folder, **(roots or {})}.items():
        if path.absolute().is_relative_to(root.absolute()):
            name = path.absolute().relative_to(root.absolute()).as_posix()
            return {**found, 'name': name, 'within': within} if within else {**found, 'name': name}
    return {**found, 'within': 'elsewhere'}


def intact(folder: Path, file: Mapping[str, Any], roots: Mapping[str, Path] | None = None) -> bool:
    """Whether a file is still what was written; one that its entry does not place in a folder of the run is not."""
    root = (roots or {}).get(file['within']) if 'within' in file else folder
    if root is None or not is_relative(file['name']):
        return False
    try:
        data = read_bytes(root / file['name'], 'resume', sys.maxsize)
    except InputError:
        return False
    return bool(len(data) == file.get('bytes') and f'{zlib.crc32(data):08x}' == file.get('crc32'))


def with_their_batches(order: Sequence[int], pending: Iterable[int], failed: Iterable[int], size: int) -> list[int]:
    """Pending images, and for those that failed before also the others of their batch, whose batch was smaller then.

    Args:
        order: Positions of all images of the run.
        pending: Those that are not done.
        failed: Those of them that failed before.
        size: Images per batch.
    """
    wanted, again = set(pending), set(failed)
    for start in range(0, len(order), size):
        window = order[start : start + size]
        if again.intersection(window):
            wanted.update(window)
    return [index for index in order if index in wanted]


def groups_of(
    order: Sequence[int], pending: Iterable[int], dist: DistInfo, batch_size: int, fixed: bool
) -> list[list[int]]:
    """Which images this process takes, as groups; no batch spans two groups.

    Args:
        order: Positions of all images of the run.
        pending: Those that are not done.
        dist: This process.
        batch_size: Images per batch.
        fixed: Whether batches are cut from ``order``, so that each image is always in the same batch, whatever was done
            before and however many processes there are.
    """
    left = set(pending)
    if not fixed:
        return [dist.share([index for index in order if index in left])]
    windows = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    return dist.share([window for window in windows if left.intersection(window)])


def run_record(spec: RunSpec, models: Sequence[Model]) -> dict[str, Any]:
    """What ``run.json`` says; two runs with equal ``settings`` write the same files."""
    record: dict[str, Any] = {
        'format': FORMAT,
        'tool': spec.tool,
        'command': spec.command,
        **models[0].provenance(),
        'settings': settings_of(spec, models),
        'versions': versions(),
    }
    shared: dict[str, Any] = shareable(record)
    return shared


def settings_of(spec: RunSpec, models: Sequence[Model]) -> dict[str, Any]:
    """The fingerprint of a run: everything that decides what it writes, by parameter, as JSON gives it back.

    Device and batch size change no more than the last digits, so they count only in a deterministic run.
    """
    execution, output = spec.execution, spec.output
    exact = {'device': spec.models.device, 'batch_size': execution.batch_size} if execution.deterministic else {}
    configs = '\n'.join(model.config.pretty_text for model in models if model.config is not None)
    found = {
        **({'anonymous': True} if output.anonymous else {}),
        'images': _images(spec.images),
        **vars(spec.selection),
        'config': _named(spec.models.first),
        'checkpoint': spec.models.first.checkpoint,
        'compare': [[_named(each), each.checkpoint] for each in spec.models.compare],
        **({'names': spec.models.names} if spec.models.names else {}),
        'options': spec.models.options,
        'files': spec.models.files,
        'draw_on': spec.models.draw_on,
        'img_size': spec.models.img_size,
        'fit': spec.models.fit,
        **spec.models.said,
        'seed': spec.seed,
        'masks': spec.masks,
        'amp': execution.amp,
        'deterministic': execution.deterministic,
        **exact,
        **vars(output.style),
        'save_raw': output.save_raw,
        'panels': output.panels,
        'all_channels': output.all_channels,
        'backends': output.backends,
        'config contents': hashlib.sha256(configs.encode()).hexdigest()[:16],
        'checkpoint contents': [_weights(model) for model in models],
    }
    skipped = {each.name for each in getattr(spec.analysis, '__dataclass_fields__', {}).values() if not each.compare}
    counted = {name: value for name, value in vars(spec.analysis).items() if name not in skipped}
    own = {'analysis': type(spec.analysis).__name__, **counted}
    found |= {f'analysis.{key}' if key in found and found[key] != own[key] else key: own[key] for key in own}
    return {key: plain(value) for key, value in found.items()}


def _images(images: object) -> object:
    if isinstance(images, (str, os.PathLike)):
        return os.fspath(images)
    paths = [str(each) for each in images]  # type: ignore[attr-defined]
    if len(paths) <= _MANY:
        return paths
    joined = os.fsencode('\n'.join(paths))
    return f'{len(paths)} paths, {hashlib.sha256(joined).hexdigest()[:16]}'


def _named(spec: ModelSpec) -> str:
    model = spec.model
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    return model.name if isinstance(model, Model) else type(model).__name__


def _weights(model: Model) -> str:
    if model.checkpoint is not None:
        return model.checkpoint.sha256
    digest = hashlib.sha256()
    for name, tensor in model.module.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON gives it back; what is not JSON is described, the same way in every process."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, torch.Tensor):
        return plain(value.detach().cpu().float().numpy())
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f'{value.dtype} {value.shape} {digest[:16]}'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.compare}
        return {'type': type(value).__name__, **plain(fields)}
    if callable(value):
        return getattr(value, '__qualname__', type(value).__qualname__)
    return type(value).__qualname__


def fingerprint(item: AnyItem, index: int) -> dict[str, Any]:
    """What an image is known by: its name, and its file's path, size and time, or its index where there is no file.

    Args:
        item: The image.
        index: Position in the run.
    """
    path = item.path
    found: dict[str, Any] = {'name': item.name, 'input': None if path is None else _told_path(item, str(path))}
    if path is None or isinstance(item, DatasetItem):
        found['index'] = index
    if path is not None:
        try:
            status = os.stat(path)
        except OSError:
            return {**found, 'bytes': None, 'mtime': None}
        found |= {'bytes': status.st_size, 'mtime': status.st_mtime}
    return found


def _told_path(item: AnyItem, path: str) -> str:
    """An image's path as files may tell it; two of anonymous files may end alike, so the image's name is told."""
    elsewhere = is_anonymous() and os.path.isabs(as_typed(path))
    return str(shareable(f'{item.name}{Path(path).suffix}' if elsewhere else path))


def entry_of(
    spec: RunSpec,
    folder: Path,
    model: Model,
    item: AnyItem,
    sample: Sample,
    result: Heatmaps,
    written: Sequence[Path],
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """An image's entry in the manifest, the time it took left out; writes its tiles for the gallery if there is one.

    Args:
        spec: The run.
        folder: Its output folder.
        model: The model that is explained.
        item: The image.
        sample: The same as the model read it.
        result: What the analysis gave.
        written: Its files.
        classes: The names of the dataset's classes.
    """
    index = sample.index or 0
    value = result.prediction is not None and result.prediction.id is None  # the label is not a class then
    entry = {
        **fingerprint(item, index),
        'index': index,
        'label': None if value else label_entry(sample.label, model.classes, classes),
        'prediction': result.prediction and result.prediction.entry(),
        'targets': [target.entry() for target in result.targets],
        'methods': list(result.methods),
        'layers': list(result.layers),
        'files': [file_entry(folder, path, other_roots(spec)) for path in written],
    }
    if objects := [each for each in (*result.instances, *result.missed) if each.box is not None]:
        entry['instances'] = [each.entry() for each in objects]
    if result.compared:
        entry['compared'] = [{'name': name, 'prediction': each.entry()} for name, each in result.compared.items()]
    if result.measures:
        entry['metrics'] = [measured_entry(result, item) for item in result.maps]
    if spec.output.gallery is not None:
        from vistool.gallery.tiles import write_tiles

        entry['tiles'] = write_tiles(result, folder, spec.output.style, item.name)
        entry['files'] += [file_entry(folder, folder / tile['file']) for tile in entry['tiles']]
    return entry


def label_entry(label: int | None, known: Sequence[str] | None, classes: Sequence[str] | None) -> dict[str, Any] | None:
    """A label: its id and its name, as the dataset calls it.

    Args:
        label: The class id; None where there is no label.
        known: The names of the model's classes.
        classes: The names of the dataset's classes. If the model has another number of them, its ids are of other
            classes: the label has a name only, and no prediction is right or wrong.
    """
    if label is None:
        return None
    strange = known is not None and classes is not None and len(known) != len(classes)
    names = classes if strange or known is None else known
    return {'id': None if strange else label, 'name': class_name(label, tuple(names) if names else None)}


def again_of(words: Sequence[str | None], images: Images, out: Path, fixed: bool) -> dict[str, Any]:
    """How other images are given to the command of a run, for ``run.json``.

    Args:
        words: The words of the command, None where the images stand.
        images: What stood there.
        out: The run directory.
        fixed: Whether the record must not depend on where the folder lies.
    """
    if not words or not isinstance(images, (str, os.PathLike)):
        return {}
    here, there = os.getcwd(), os.path.abspath(out)
    below = not fixed and os.path.commonpath([here, there]) == here
    home = Path(os.path.relpath(here, there)).as_posix() if below else None
    return {'again': {'words': shareable(list(words)), 'images': shareable(str(images)), 'home': home}}


def measured_entry(result: Heatmaps, item: Heatmap) -> dict[str, Any]:
    """The metrics of one map: its coordinates, the method's title, numbers with chance levels, and whole curves."""
    title = result.titles.get(str(item.coordinates.get('method')), '')
    found = {**item.coordinates, 'title': title, **_finite(item.numbers)}
    curves = {name: sampled(curve) for name, curve in item.curves.items() if is_whole(curve)}
    return {**found, 'curves': curves} if curves else found


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them: null where one is not defined."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def other_roots(spec: RunSpec) -> dict[str, Path]:
    """The folders besides its own that a run writes an image's files into, by parameter."""
    output = spec.output
    given = {'panels': output.panels, 'all_channels': output.all_channels}
    return {name: Path(folder) for name, folder in given.items() if folder}


def failed_entry(item: AnyItem, index: int, reason: str) -> dict[str, Any]:
    """The entry of an image that could not be read or explained."""
    return {**fingerprint(item, index), 'index': index, 'files': [], 'error': shareable(reason)}
