"""What a batch run has done so far, in its output folder: ``run.json``, and one line per image in ``manifest.jsonl``.

While a run goes on, each process appends to a file of its own (``manifest-0.jsonl`` …), a line only when its files are
written; at the end they are merged. So a run may be killed at any moment: what has no whole line is done again.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistool.errors import InputError, param
from vistool.gallery.runs import LINES, RUN
from vistool.runs.launch import Place
from vistool.visualization.files import unwritable, write_file

_OF_RANK = re.compile(r'manifest-\d+\.jsonl')
_HALF_WRITTEN = re.compile(r'\..+\.\d+\.\d+\.tmp')
_STAMP = ('index', 'input', 'bytes', 'mtime')


@dataclass
class Manifest:
    """The record of a run, as one of its processes keeps it.

    Attributes:
        folder: The run's output folder.
        place: This process.
        done: Lines of images that were done before, by name.
    """

    folder: Path
    place: Place = field(default_factory=Place)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, folder: Path, about: Mapping[str, Any], place: Place, resume: bool = False, overwrite: bool = False
    ) -> Manifest:
        """Opens the record of a run; all its processes have to call this.

        Args:
            folder: The run's output folder.
            about: What ``run.json`` is to say; its ``settings`` are compared with those of an earlier run.
            place: This process.
            resume: Whether to go on with the run that is there; without one it starts from the beginning.
            overwrite: Whether to start again whatever is there.

        Raises:
            InputError: The run that is there had other settings, or is unfinished and neither option is given.
        """
        problem = None
        if place.first:
            try:
                _prepare(folder, about, resume, overwrite)
            except InputError as error:
                problem = error
        problem = next((each for each in place.gather(problem) if each), None)
        if problem:
            raise problem
        return cls(folder, place, {line['name']: line for line in read_lines(folder)} if resume else {})

    def has(self, stamp: Mapping[str, Any]) -> bool:
        """Whether an image is done: its line is there, it is the same file as then, and what was written is intact.

        Args:
            stamp: Its :func:`stamp`.
        """
        line = self.done.get(stamp['name'])
        if line is None or line.get('error') or any(line.get(key) != stamp[key] for key in _STAMP if key in stamp):
            return False
        return all(intact(self.folder, file) for file in line['files'])

    def failed(self, name: str) -> bool:
        """Whether an image could not be read or explained before."""
        return bool(self.done.get(name, {}).get('error'))

    def add(self, line: Mapping[str, Any]) -> None:
        """Appends an image's line, in one write."""
        path = self.folder / f'manifest-{self.place.rank}.jsonl'
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('a', encoding='utf-8') as file:
                file.write(json.dumps(line, ensure_ascii=False) + '\n')
        except OSError as error:
            raise unwritable(path, error) from error

    def finish(self) -> Path:
        """Merges the processes' files into ``manifest.jsonl``; all processes have to call this."""
        self.place.wait()
        if self.place.first:
            merge(self.folder)
        self.place.wait()
        return self.folder / LINES


def _prepare(folder: Path, about: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """What one process does before all of them begin."""
    before = _read_run(folder)
    unfinished = any(_OF_RANK.fullmatch(path.name) for path in folder.glob('manifest-*.jsonl'))
    if before is not None and not overwrite:
        if resume:
            _check_same(folder, before, about)
        elif unfinished:
            count = sum(1 for line in read_lines(folder) if not line.get('error'))
            raise InputError(
                f'{str(folder)!r} holds an unfinished run ({count} images done)',
                accepted=f'{param("resume")} to go on with it, {param("overwrite")} to start again, or another folder',
                parameter='out',
            )
    if resume and before is not None and not overwrite:
        merge(folder)
        remove_half_written(folder)
    else:
        for path in (folder / LINES, *folder.glob('manifest-*.jsonl')):
            path.unlink(missing_ok=True)
    write_file(folder / RUN, (json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True) + '\n').encode())


def _read_run(folder: Path) -> dict[str, Any] | None:
    path = folder / RUN
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise InputError(
            f'{str(path)!r} cannot be read: {error}', hint=f'{param("overwrite")} starts again', parameter='resume'
        ) from error
    return found if isinstance(found, dict) else None


def _check_same(folder: Path, before: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    old, new = before.get('settings', {}), about['settings']
    changed = [
        f'{key}: {old.get(key)!r} → {new.get(key)!r}' for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    ]
    if changed:
        raise InputError(
            f'the run in {str(folder)!r} had other settings: {"; ".join(changed[:4])}',
            hint=f'use another folder, or {param("overwrite")} to start again',
            parameter='resume',
        )


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """All whole lines of a run's record, merged or not; a later line of the same image comes later."""
    for path in (folder / LINES, *sorted(folder.glob('manifest-*.jsonl'))):
        if not path.exists():
            continue
        with path.open(encoding='utf-8', errors='replace') as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:  # the process was killed while it wrote this
                    continue
                if isinstance(line, dict) and 'name' in line and text.endswith('\n'):
                    yield line


def merge(folder: Path) -> None:
    """All lines into ``manifest.jsonl``, one per image, in the order of the run; the processes' files go."""
    lines = {line['name']: line for line in read_lines(folder)}
    ordered = sorted(lines.values(), key=lambda line: (line['index'], line['name']))
    text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in ordered)
    write_file(folder / LINES, text.encode())
    for path in folder.glob('manifest-*.jsonl'):
        if _OF_RANK.fullmatch(path.name):
            path.unlink()


def remove_half_written(folder: Path) -> None:
    """Removes what killed processes left of files that they were writing."""
    for path in folder.rglob('.*.tmp'):
        if _HALF_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def stamp(item: Any, index: int) -> dict[str, Any]:
    """What an image is known by: its name, and its file's path, size and time, or its index where there is no file.

    Args:
        item: Has a ``name``, a ``path`` (or None) and, in a dataset, an ``index``.
        index: Position in the run.
    """
    path = item.path
    found: dict[str, Any] = {'name': item.name, 'input': None if path is None else str(path)}
    if path is None or hasattr(item, 'index'):
        found['index'] = index
    if path is not None:
        try:
            status = os.stat(path)
        except OSError:
            return {**found, 'bytes': None, 'mtime': None}
        found |= {'bytes': status.st_size, 'mtime': status.st_mtime}
    return found


def file_entry(folder: Path, path: Path) -> dict[str, Any]:
    """A written file as the record names it: relative to the folder where it lies in it, with size and CRC-32."""
    data = path.read_bytes()
    inside = path.is_relative_to(folder)
    name = (path.relative_to(folder) if inside else path.absolute()).as_posix()
    return {'name': name, 'bytes': len(data), 'crc32': f'{zlib.crc32(data):08x}'}


def intact(folder: Path, file: Mapping[str, Any]) -> bool:
    """Whether a file is still what was written."""
    try:
        data = (folder / file['name']).read_bytes()
    except OSError:
        return False
    return len(data) == file['bytes'] and f'{zlib.crc32(data):08x}' == file['crc32']


def with_their_batches(order: Sequence[int], pending: Iterable[int], failed: Iterable[int], size: int) -> list[int]:
    """Pending images, and for those that failed before also the others of their batch, which were explained without.

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
    order: Sequence[int], pending: Iterable[int], place: Place, batch_size: int, fixed: bool
) -> list[list[int]]:
    """Which images this process takes, as groups that no batch reaches over.

    Args:
        order: Positions of all images of the run.
        pending: Those that are not done.
        place: This process.
        batch_size: Images per batch.
        fixed: Whether batches are cut from ``order``, so that each image always has the same ones beside it, whatever
            was done before and however many processes there are.
    """
    left = set(pending)
    if not fixed:
        return [place.share([index for index in order if index in left])]
    windows = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    return place.share([window for window in windows if left.intersection(window)])
