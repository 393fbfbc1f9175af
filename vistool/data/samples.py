"""Images named by the user → samples → the batch that a network takes."""

from __future__ import annotations

import contextlib
import copy
import csv
import glob
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.display import PHOTO, Shown
from vistool.data.geometry import Geometry, Mask, Size
from vistool.data.images import ARRAY_SUFFIXES, SUFFIXES
from vistool.data.inputs import NamedInputs, PositionalInputs, entries, several, shared_of
from vistool.data.truth import Region, Truth
from vistool.errors import InputError, close_matches, counted, on_one_line
from vistool.records import LINES, RUN, find_path, is_own_png, read_text

if TYPE_CHECKING:
    import torch

log = logging.getLogger('vistool')

_FORMS = 'a file, a folder, a quoted pattern, a .txt or .csv list, or - for a list on standard input'


def is_tensor(image: Any) -> bool:
    """Whether it is a torch tensor; torch is not imported for the answer."""
    return hasattr(image, 'detach') and hasattr(image, 'dim')


def channel_axis(array: NDArray[Any], channels: int | None = None) -> int:
    """The axis of the channels of an array ``(H, W, C)`` or ``(C, H, W)``: 2 or 0.

    Arrays in OpenMMLab's pipelines keep channels last. First they are where the declared number of channels fits the
    first axis only, or, where none is declared, where only the first axis is as short as 1 to 4.

    Args:
        array: Three axes.
        channels: How many channels it has, if that is known.
    """
    first, last = array.shape[0], array.shape[2]
    if channels is not None and channels in (first, last):
        return 2 if last == channels else 0
    return 0 if last not in (1, 2, 3, 4) and first in (1, 2, 3, 4) else 2


def size_of(image: Any, channels: int | None = None) -> Size | None:
    """``(h, w)`` of an image of any kind: PIL, ``(H, W[, C])`` array, ``(C, H, W)`` tensor or array; else None.

    Args:
        image: Anything.
        channels: How many channels it has, if that is known; it tells the axes of an array.
    """
    if is_tensor(image):
        return (int(image.shape[-2]), int(image.shape[-1])) if image.dim() >= 2 else None
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and channel_axis(image, channels) == 0:
            return image.shape[1], image.shape[2]
        return (image.shape[0], image.shape[1]) if image.ndim in (2, 3) else None
    if hasattr(image, 'getbands'):
        return image.height, image.width
    return None


class Pair(tuple[Any, ...]):
    """An image and its target on their way through transforms that take both."""


_IMAGE_KEYS = ('inputs', 'img', 'image', 'images', 'pixel_values')


def image_keys(data: Mapping[Any, Any]) -> list[Any]:
    """The keys of what a pipeline or dataset returned: those that name images first, the others in their order."""
    return [*(key for key in _IMAGE_KEYS if key in data), *(key for key in data if key not in _IMAGE_KEYS)]


def image_of(value: Any) -> Any:
    """The image in a results dict, or the value itself if the pipeline passes images; None if there is no image."""
    if isinstance(value, dict):
        value = value['img'] if value.get('img') is not None else value.get('inputs')
    elif isinstance(value, Pair):
        value = value[0]
    return value if size_of(value) is not None else None


def with_image(value: Any, image: Any) -> Any:
    """A deep copy of the value with another image in it."""
    if isinstance(value, Pair):
        return Pair((image, *copy.deepcopy(value[1:])))
    if not isinstance(value, dict):
        return image
    key = 'img' if value.get('img') is not None else 'inputs'
    return {**copy.deepcopy({k: v for k, v in value.items() if k != key}), key: image}


def planes_of(image: Any, channels: int | None = None) -> NDArray[Any]:
    """Any image as an array ``(C, H, W)``; ``channels`` as in :func:`size_of`."""
    if is_tensor(image):
        array = image.detach().cpu().numpy()
        return array.reshape(-1, *array.shape[-2:]) if array.ndim != 3 else array
    array = np.asarray(image)
    if array.ndim == 2:
        return array[None]
    return array if channel_axis(array, channels) == 0 else array.transpose(2, 0, 1)


@dataclass(frozen=True)
class Item:
    """One image of a run.

    Attributes:
        path: The file.
        name: Output stem, including the subfolders below the input folder; unique in the run.
        label: Its class: as a list of paths writes it, or the id once class names are known; None where nothing says.
        known_as: What records call the file, where that is not its path: an uploaded file has its user's name for it.
    """

    path: Path
    name: str
    label: str | int | None = None
    known_as: Path | None = None

    def named(self, sample: Sample) -> Sample:
        """A sample that was read from the file, as records are to call it."""
        return sample if self.known_as is None else replace(sample, path=self.known_as)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, ready for a network.

    Attributes:
        data: What the pipeline returned, not collated: a dict with the tensor ``inputs`` and ``data_samples``, or for
            plain modules a tensor ``(C, H, W)``, a tuple or a dict of tensors.
        image: uint8 ``(H, W, 3)`` RGB, exactly as the network saw it, before normalization; the data preprocessor's
            padding included.
        original: uint8 ``(H0, W0, 3)`` RGB, the file as a person sees it; None if there is no file.
        geometry: Network pixels to original pixels; None if there is no original.
        path: The file, if there is one.
        name: Output stem.
        label: The class that is the ground truth, if it is known.
        values: The ground truth of a regression: the numbers that the dataset has for the image; none if unknown.
        index: Position in the run or dataset.
        shown: Which of the file's values and bands ``image`` and ``original`` show.
        truth: Where the objects are in ``original``; None if nobody asked.
    """

    data: Any = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    original: NDArray[np.uint8] | None = field(default=None, repr=False)
    geometry: Geometry | None = field(default=None, repr=False)
    path: Path | None = None
    name: str = 'image'
    label: int | None = None
    index: int | None = None
    shown: Shown = PHOTO
    truth: Truth | None = None
    values: tuple[float, ...] = ()

    def inside(self, label: int | None = None, regions: Sequence[Region] | None = None) -> Mask:
        """Where the objects of a class are, as the network sees them: bool ``(H, W)`` like ``image``.

        Args:
            label: The class; None: all objects.
            regions: These objects instead.

        Raises:
            InputError: It is not known where the network sees the pixels of the original.
        """
        assert self.truth is not None
        geometry = self.geometry
        if geometry is None or not geometry.exact:
            raise InputError(
                f'{self.name}: it is not known where the network sees the pixels of the original image, so the objects '
                'cannot be found there',
                hint='leave out the transform that was warned of, or the metrics of localization',
            )
        return geometry.seen(self.truth.mask(label) if regions is None else self.truth.drawn(regions))

    def provenance(self) -> dict[str, Any]:
        """The file, the label, and the way from network pixels to the file's own, as plain JSON values."""
        geometry = self.geometry
        return {
            'image': None if self.path is None else str(self.path),
            'label': self.label,
            'shown': self.shown.describe(),
            'geometry': None
            if geometry is None
            else {
                'matrix': geometry.matrix.tolist(),
                'network_size': list(geometry.network_size),
                'original_size': list(geometry.original_size),
                'exact': geometry.exact,
            },
            **({} if self.truth is None else {'truth': self.truth.source}),
        }


def find_inputs(spec: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Item]) -> list[Item]:
    """The images that ``spec`` names, in a fixed order, with unique output names.

    Args:
        spec: A file, a folder (searched recursively, without hidden files), a glob (``**`` too), a ``.txt`` list of
            paths (one a line, relative to the list's folder, else to the current one, with the image's class after a
            comma if it is known; ``#`` starts a comment), a ``.csv`` table of paths and classes (see :func:`_rows`),
            ``-`` for a list on standard input (there a NUL may end each path, as of ``find -print0``), or a sequence
            of paths, or of images that were found before.

    Raises:
        InputError: Nothing is found, or nothing found is an image.
    """
    if not isinstance(spec, (str, os.PathLike)):
        if spec and all(isinstance(each, Item) for each in spec):
            return [each for each in spec if isinstance(each, Item)]
        given = [each.path if isinstance(each, Item) else Path(each) for each in spec]
        paths = list({os.path.abspath(each): each for each in given}.values())
        if not paths:
            raise InputError('no image given', accepted='one path or more', parameter='images')
        return _named(paths, _common(paths))
    if os.fspath(spec) == '-':
        return _piped()
    text, path = os.fspath(spec), find_path(spec, 'images')
    if not text.strip():
        raise InputError('an empty path', accepted=_FORMS, parameter='images')
    if path.is_dir():
        return _named(_walk(path), path)
    if path.is_file():
        return _listed(path) if path.suffix.lower() in _LISTS else [Item(path, path.stem)]
    if glob.has_magic(text):
        matches = map(Path, glob.glob(os.path.expanduser(text), recursive=True))
        found = sorted(each for each in matches if _is_image(each, SUFFIXES | ARRAY_SUFFIXES))
        if not found:
            hint = 'patterns need quotes: "photos/*.jpg"'
            raise InputError(f'no image matches the pattern {on_one_line(text)}', hint=hint, parameter='images')
        return _named(found, _common(found))
    if path.is_symlink():
        raise InputError(
            f'{on_one_line(text)} is a link to {os.readlink(path)}, which does not exist', parameter='images'
        )
    names = [p.name for p in path.parent.iterdir() if p.exists()] if path.parent.is_dir() else []
    hint = close_matches(path.name, map(on_one_line, names)) or ('' if names else f'the folder {path.parent} is empty')
    raise InputError(f'no such file or folder: {on_one_line(text)}', accepted=_FORMS, hint=hint, parameter='images')


def _is_image(path: Path, suffixes: Collection[str] = SUFFIXES) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith('.') and path.is_file()


def images_below(folder: Path, *kinds: Collection[str]) -> list[Path]:
    """All images in a folder and below it, sorted; links to folders are followed, each folder once.

    What is hidden is left out: names that start with a dot (``.git``, ``.ipynb_checkpoints``) and ``__MACOSX``. So are
    results, which is printed: what the manifest of a run lists, folders below that such a run wrote, and PNGs that
    vistool drew, which is what all commands write into folders. (Other formats are not opened: it would take minutes to
    look into a million photos.) A warning names links that lead nowhere.

    Args:
        folder: The folder.
        kinds: Suffixes; of several sets the first is taken of which there are images. Default: those of photos.
    """
    kinds = kinds or (SUFFIXES,)
    suffixes = frozenset[str]().union(*kinds)
    found, results, dead, seen = list[Path](), list[Path](), list[Path](), set[str]()
    written = _written_by_run(folder)
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        of_run = Path(root) != folder and _is_run(Path(root))
        if real in seen or of_run:
            results += [Path(root)] if of_run else []
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not (name.startswith('.') or name == '__MACOSX'))
        for path in (Path(root, name) for name in files):
            if _is_image(path, suffixes):
                (results if _is_result(path, folder, written) else found).append(path)
            elif path.suffix.lower() in suffixes and path.is_symlink() and not path.exists():
                dead.append(path)
    if dead:
        told = counted(len(dead), 'link leads', 'links lead')
        log.warning('%s: %s to nothing, such as %s', folder, told, on_one_line(min(dead)))
    if results:
        log.info('results of earlier runs in %s are left out, such as %s', folder, on_one_line(min(results)))
    alike = ([path for path in found if path.suffix.lower() in kind] for kind in kinds)
    return sorted(next(filter(None, alike), []))


def _is_run(folder: Path) -> bool:
    """Whether a run over many images wrote a folder."""
    return (folder / RUN).is_file() and (folder / LINES).is_file()


def _is_result(path: Path, folder: Path, written: Collection[str]) -> bool:
    """Whether vistool wrote a file of ``folder``: a run lists it as ``written``, it is a PNG of ours, or beside one."""
    if written and path.relative_to(folder).as_posix() in written:
        return True
    suffix = path.suffix.lower()
    return is_own_png(path if suffix == '.png' else path.with_suffix('.png')) if suffix in ('.png', '.npz') else False


def _written_by_run(folder: Path) -> set[str]:
    """Names of the files that a run recorded in its folder; a damaged line names none."""
    if not _is_run(folder):
        return set()
    found: set[str] = set()
    for line in read_text(folder / LINES, 'images').splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            found.update(str(file['name']) for file in json.loads(line)['files'])
    return found


def _walk(folder: Path) -> list[Path]:
    """All images below a folder, or arrays where there are none."""
    found = images_below(folder, SUFFIXES, ARRAY_SUFFIXES)
    if not found:
        accepted = f'files ending in {" ".join(sorted(SUFFIXES))}'
        raise InputError(f'no image in the folder {folder}', accepted=accepted, parameter='images')
    return found


_LISTS = ('.txt', '.csv')
_PATHS = ('path', 'file', 'image', 'filename', 'file_name', 'filepath', 'file_path', 'image_path', 'img', 'img_path')
_CLASSES = ('label', 'class', 'class_name', 'category', 'target')


def _listed(path: Path) -> list[Item]:
    """The images of a ``.txt`` or ``.csv`` list. A missing one is kept, so that the run can report it and continue."""
    text = read_text(path, 'images')
    if path.suffix.lower() == '.csv':
        items = _items(_rows(text, path), path.parent, f'in {path}')
    else:
        items = _items_of(text.splitlines(), path.parent, f'in {path}')
    if not items:
        raise InputError(f'the list {path} names no image', accepted='one path a line', parameter='images')
    return items


def _piped() -> list[Item]:
    """The images that standard input lists."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(
            '- reads a list of paths from standard input, and nothing is piped into it',
            hint='pipe one path a line into the command: find photos -name "*.jpg" | …',
            parameter='images',
        )
    if os.environ.get('WORLD_SIZE', '') not in ('', '0', '1'):  # each process would read a part of it
        raise InputError(
            f'- is one list, and {os.environ["WORLD_SIZE"]} processes share the standard input',
            accepted='a .txt list',
            hint='write the list to a .txt file and give that; a single process needs WORLD_SIZE unset',
            parameter='images',
        )
    buffer = getattr(sys.stdin, 'buffer', None)  # text that replaces the standard input, as StringIO, has none
    text = sys.stdin.read() if buffer is None else os.fsdecode(buffer.read())
    items = _items_of(text.split('\0') if '\0' in text else text.splitlines(), Path(), 'on standard input')
    if not items:
        raise InputError('the list on standard input names no image', accepted='one path a line', parameter='images')
    return items


def _rows(text: str, path: Path) -> list[tuple[Path, str | None]]:
    """The paths and classes of a table whose values are separated by commas, semicolons or tabs.

    A first row that names a column of paths (``path``, ``file``, ``image``, …) is a header: that column and the one
    of classes (``label``, ``class``, …), if there is one, are read and others are left out. Without a header the
    first column has the paths, and the second one, if there is one, the classes.

    Raises:
        InputError: There are more than two columns and no header, or a row has no path.
    """
    lines = text.splitlines()
    separator = max(',;\t', key=(lines[0] if lines else '').count)
    rows = [(number, row) for number, row in enumerate(csv.reader(lines, delimiter=separator), 1) if any(row)]
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    file, label = (next((names.index(each) for each in known if each in names), None) for known in (_PATHS, _CLASSES))
    if file is not None:
        del rows[0]
    elif len(names) > 2:
        raise InputError(
            f'{path} has {len(names)} columns, and its first row does not say which of them has the paths',
            accepted=f'a header that has {" or ".join(_PATHS[:3])}, and {" or ".join(_CLASSES[:2])} for the classes',
            parameter='images',
        )
    else:
        file, label = 0, 1
    found = []
    for number, row in rows:
        words = [word.strip() for word in row]
        if len(words) <= file or not words[file]:
            raise InputError(f'{path}, row {number}: no path', parameter='images')
        known = words[label] if label is not None and label < len(words) else ''
        found.append((_place(words[file], path.parent), known or None))
    return found


def _items_of(lines: Iterable[str], folder: Path, where: str) -> list[Item]:
    """The images that the lines of a list name, relative to a folder, else to the current one."""
    entries = [line for raw in lines if (line := raw.strip()) and not line.startswith('#')]
    return _items([_entry(entry, folder) for entry in entries], folder, where)


def _items(entries: Iterable[tuple[Path, str | None]], folder: Path, where: str) -> list[Item]:
    """The images of a list with their classes, each file once."""
    found = {os.path.abspath(file): (file, label) for file, label in entries}
    files = [file for file, _ in found.values()]
    if files and not any(map(os.path.exists, files)):
        raise InputError(
            f'none of the files listed {where} exists; the first is {on_one_line(files[0])}',
            hint=f'paths are relative to {folder.absolute()} or to the current folder',
            parameter='images',
        )
    items = _named(files, _common(files)) if files else []
    return [replace(item, label=label) for item, (_, label) in zip(items, found.values(), strict=True)]


def _entry(entry: str, folder: Path) -> tuple[Path, str | None]:
    """A line of a list: the file, and the class after a comma. A file whose own name has the comma goes first."""
    stem, comma, label = entry.rpartition(',')
    words = [(entry, None), (stem.strip(), label.strip() or None)] if comma else [(entry, None)]
    places = [(_place(text, folder), known) for text, known in words]
    return next((place for place in places if os.path.exists(place[0])), places[-1])


def _place(text: str, folder: Path) -> Path:
    """A path relative to the folder of its list, else to the current folder."""
    here = Path(os.path.expanduser(text))
    near = folder / here
    return here if os.path.exists(here) and not os.path.exists(near) else near


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([os.path.abspath(p.parent) for p in paths]))


def _named(paths: Iterable[Path], root: Path) -> list[Item]:
    """Names relative to ``root``, without the suffix if that is unique (ignoring case), else with it."""
    absolute = os.path.abspath(root)
    relative = {path: Path(os.path.relpath(os.path.abspath(path), absolute)) for path in paths}
    stems = [rel.with_suffix('').as_posix().lower() for rel in relative.values()]
    clashing = {stem for stem, count in Counter(stems).items() if count > 1}
    taken: set[str] = set()
    items = []
    for path, rel in relative.items():
        stem = rel.with_suffix('').as_posix()
        name = base = on_one_line(rel.as_posix() if stem.lower() in clashing else stem)
        count = 1
        while name.lower() in taken:
            count += 1
            name = f'{base}-{count}'
        taken.add(name.lower())
        items.append(Item(path, name))
    return items


def preprocess(
    samples: Sequence[Sample], data_preprocessor: torch.nn.Module | None, device: Any = 'cpu'
) -> torch.Tensor | tuple[Any, ...] | dict[str, Any]:
    """Collates samples into what the network takes, normalized, on the device.

    Args:
        samples: Samples whose inputs have the same size.
        data_preprocessor: The model's, run as in testing; None stacks the tensors unchanged (integers as floats).
        device: Where the batch goes; the data preprocessor is moved there too.

    Returns:
        The batch ``(B, C, H, W)``; for plain samples a tensor, tuple or dict like their ``data``.

    Raises:
        InputError: The samples differ in size.
    """
    import torch

    device = torch.device(device)
    datas = [sample.data for sample in samples]
    if isinstance(datas[0], (NamedInputs, PositionalInputs)):
        batch: Any = _stack(datas, device)
        for key in batch.raw:
            batch[key] = _preprocessed(batch[key], data_preprocessor, device)
        return batch
    packed = isinstance(datas[0], Mapping) and 'inputs' in datas[0]
    if data_preprocessor is None or not packed:
        plain = [data['inputs'] if packed and 'data_samples' in data else data for data in datas]
        return _stack(plain, device)
    return _preprocessed(_stack([data['inputs'] for data in datas], device, floats=False), data_preprocessor, device)


def _preprocessed(inputs: Any, data_preprocessor: Any, device: torch.device) -> Any:
    """Inputs, stacked, after the data preprocessor, which runs as in testing."""
    import torch

    if getattr(data_preprocessor, 'device', device) != device:
        data_preprocessor.to(device)
    training = data_preprocessor.training
    data_preprocessor.train(False)
    try:
        with torch.no_grad():
            batch = data_preprocessor({'inputs': inputs, 'data_samples': None}, False)
    finally:
        data_preprocessor.train(training)
    if isinstance(batch, Mapping):
        batch = batch['inputs'] if 'inputs' in batch else batch['images']
    return _as_floats(batch)


def _stack(datas: Sequence[Any], device: torch.device, floats: bool = True) -> Any:
    """Stacks tensors, or tuples, lists and dicts of them, position by position; shared inputs stay as they are."""
    import torch

    first = datas[0]
    if isinstance(first, torch.Tensor):
        shapes = {tuple(data.shape) for data in datas}
        if len(shapes) > 1:
            sizes = ', '.join('x'.join(map(str, shape)) for shape in sorted(shapes))
            raise InputError(
                f'images of different sizes in one batch: {sizes}',
                hint='use a batch size of 1, or a pipeline that crops or resizes to one size',
            )
        batch = _sent(torch.stack(list(datas)), device)
        return batch if batch.is_floating_point() or not floats or batch.dtype != torch.uint8 else batch.float()
    if isinstance(first, (NamedInputs, PositionalInputs)):
        together: Any = several(first)
        for key, value in entries(first):
            if key in shared_of(first):
                together[key] = _moved(value, device)
            else:
                together[key] = _stack([data[key] for data in datas], device, floats and key not in first.raw)
        return together
    if isinstance(first, Mapping):
        return {key: _stack([data[key] for data in datas], device, floats) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)(_stack(list(parts), device, floats) for parts in zip(*datas, strict=True))
    if isinstance(first, np.ndarray):
        return _stack([torch.from_numpy(data) for data in datas], device, floats)
    raise InputError(f'a sample contains a {type(first).__name__}', accepted='tensors, or tuples or dicts of tensors')


def _sent(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch on the device; from pinned memory its copy to a GPU overlaps with what the CPU does next."""
    if device.type == 'cuda' and batch.device.type == 'cpu':
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def _moved(value: Any, device: torch.device) -> Any:
    """An input that all images share, on the device."""
    import torch

    if isinstance(value, torch.Tensor):
        return (value.clone() if value.is_inference() else value).to(device)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    return type(value)(_moved(each, device) for each in value) if isinstance(value, (tuple, list)) else value


def _as_floats(batch: Any) -> Any:
    """Base data preprocessors leave integers unchanged; a network takes floats."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch if batch.is_floating_point() else batch.float()
    return [_as_floats(part) for part in batch] if isinstance(batch, (list, tuple)) else batch
