"""Models, photos and what is kept of them; the requests of a page, answered. Model work belongs in one thread."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from vistool.data.samples import Item
from vistool.errors import InputError
from vistool.explore.answers import encode_maps
from vistool.explore.photos import NotAnImage, Photo, Photos, UnknownPhoto, check_size
from vistool.explore.reading import Reading
from vistool.explore.view import Drawing, View
from vistool.models.model import Model
from vistool.network.detection import find_detector
from vistool.network.outputs import output_count
from vistool.network.segmentation import find_segmenter
from vistool.runs.patches import PatchesSpec, draw_patches
from vistool.runs.run import execute
from vistool.runs.spec import Images, Models, ModelSpec, RunSpec, read_views
from vistool.visualization.files import encode_pixels, file_name

MOST_MEMORY = 1 << 30
"""Bytes of all readings together, beside the one in use; the least recently used are dropped."""
_LARGE = 4_000_000
FORMATS = ('png', 'pdf', 'npz', 'zip')


class Commands(Protocol):
    """The command lines that draw views, which only commands know."""

    def words(self, drawing: Drawing, photo: Photo, model: int | None, out: str) -> list[str]:
        """A command line.

        Args:
            drawing: What it draws.
            photo: Of which photo.
            model: Of which model; None: of all beside each other.
            out: The file that it writes.
        """

    def spec(self, words: Sequence[str]) -> RunSpec | PatchesSpec:
        """What a command line asks for."""

    def line(self, words: Sequence[str]) -> str:
        """A command line as a user types it."""


@dataclass(eq=False)
class Session:
    """One start of the page's server.

    Attributes:
        models: The models, the first and those beside it.
        names: What tells them apart.
        photos: The photos.
        commands: Their command lines.
        folder: For files of this session; removed when it ends.
        seed: Of random transforms.
        layers: Layers of CAM that are shown first; none: the default.
    """

    models: Sequence[Model]
    names: Sequence[str]
    photos: Photos
    commands: Commands
    folder: Path
    seed: int = 0
    layers: tuple[str, ...] = ()
    _readings: OrderedDict[tuple[str, int], Reading] = field(default_factory=OrderedDict)

    def told(self) -> list[dict[str, Any]]:
        """The models, as a page is told of them."""
        return [
            {
                'number': number,
                'name': name,
                'device': str(model.device),
                'checkpoint': model.weights_name,
                'classes': None if model.classes is None else list(model.classes),
                'kind': kind_of(model),
            }
            for number, (model, name) in enumerate(zip(self.models, self.names, strict=True))
        ]

    def upload(self, key: str, path: Path, name: str) -> dict[str, Any]:
        """Checks and reads an upload that lies in a file.

        Raises:
            TooLarge: It has too many pixels.
            NotAnImage: It cannot be read.
        """
        check_size(path, name)
        photo = self.photos.add(key, path, name)
        try:
            reading = self.reading(photo, 0)
        except InputError as error:
            self.forget(key)
            problem = error.problem.replace(str(path), photo.name)
            raise NotAnImage(problem, accepted=error.accepted, hint=error.hint) from None
        except BaseException:
            self.forget(key)
            raise
        height, width = reading.seen.size
        return {'id': key, 'name': photo.name, 'width': width, 'height': height}

    def forget(self, key: str) -> None:
        """Removes an upload with everything that is kept of it."""
        self.photos.forget(key)
        for place in [place for place in self._readings if place[0] == key]:
            del self._readings[place]

    def drop(self, key: str) -> None:
        """Removes an upload that nobody was told of, if it is held."""
        with contextlib.suppress(UnknownPhoto):
            self.forget(key)

    def reading(self, photo: Photo, model: int) -> Reading:
        """What is kept of a photo; it is read at the first call."""
        place = photo.id, model
        if place not in self._readings:
            sample = read_views([self.models[model]], photo.item, self.seed)[0]
            self._readings[place] = Reading(self.models[model], sample, self.layers)
        self._readings.move_to_end(place)
        return self._readings[place]

    def picture(self, photo: Photo, model: int) -> tuple[bytes, str]:
        """The picture of a photo as a file, and its media type."""
        pixels = self.reading(photo, model).seen.picture
        small = pixels.shape[0] * pixels.shape[1] <= _LARGE
        self._trim()
        return encode_pixels(pixels, '.png' if small else '.jpg'), 'image/png' if small else 'image/jpeg'

    def describe(self, photo: Photo, model: int) -> dict[str, Any]:
        """What a page is told of a photo and a model."""
        told = self.reading(photo, model).describe()
        self._trim()
        return {'photo': photo.id, 'model': model, **told}

    def map(self, photo: Photo, model: int, view: View) -> bytes:
        """The maps of a view, with the command that draws them."""
        answer = self.reading(photo, model).answer(view)
        self._trim()
        words = self._words(photo, model, view, answer.drawing, 'png')
        header = {
            'view': view.kind,
            'photo': photo.id,
            'model': model,
            'maps': answer.entries,
            'token': answer.token,
            'note': answer.note,
            'command': self.commands.line(words),
            'python': python_of(self.commands.spec(words)),
        }
        return encode_maps([item.values for item in answer.result.maps] if answer.result else [], header)

    def figure(self, photo: Photo, model: int, view: View, kind: str) -> tuple[str, bytes]:
        """The files that the command of a view writes: a name and the bytes of one, or of all as an archive.

        Raises:
            InputError: There is no such kind of file.
        """
        if kind not in FORMATS:
            raise InputError(f'unknown format {kind!r}', accepted=', '.join(FORMATS), parameter='format')
        drawing = self.reading(photo, model).answer(view).drawing
        self._trim()
        files: dict[str, bytes] = {}
        for suffix in ('png', 'pdf') if kind == 'zip' else ('png' if kind == 'npz' else kind,):
            words = self._words(photo, model, view, drawing, suffix)
            files = self._files(words, photo, model) | files  # the numbers name the first command
        if kind == 'zip':
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, 'w', zipfile.ZIP_STORED) as file:
                for name, data in files.items():
                    file.writestr(zipfile.ZipInfo(name), data)
            return f'{Path(next(iter(files))).stem}.zip', archive.getvalue()
        for name, data in files.items():
            if name.endswith(f'.{kind}'):
                return name, data
        raise InputError(f'{drawing.tool} writes no .{kind} file', accepted='png, pdf, zip', parameter='format')

    def _words(self, photo: Photo, model: int, view: View, drawing: Drawing, suffix: str) -> list[str]:
        beside = view.beside and len(self.models) > 1 and drawing.tool != 'vis_patches'
        name = f'{file_name(photo.stem, drawing.tool.removeprefix("vis_"))}.{suffix}'
        out = f'./{name}' if name.startswith('-') else name
        return self.commands.words(drawing, photo, None if beside else model, out)

    def _files(self, words: Sequence[str], photo: Photo, model: int) -> dict[str, bytes]:
        """What a command line writes, by the run that the command makes, with the models that are loaded."""
        spec = self.commands.spec(words)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            output = replace(spec.output, out=Path(folder) / Path(str(spec.output.out)).name)
            uploaded = photo.folder is not None and isinstance(photo.item, Item)
            images: Images = [photo.item] if uploaded else spec.images  # type: ignore[list-item]
            if isinstance(spec, PatchesSpec):
                draw_patches(replace(spec, output=output, images=images))
            else:
                chosen = self.models if spec.models.compare else [self.models[model]]
                first, *others = (ModelSpec(each) for each in chosen)
                # All else that the words say of models has been done to those that are loaded.
                loaded = Models(first, tuple(others), device=spec.models.device, names=spec.models.names)
                summary = execute(replace(spec, models=loaded, output=output, images=images))
                if summary.failures:
                    raise summary.failures[0].error
            return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir(), key=_order)}

    def _trim(self) -> None:
        """Drops what was kept of the photos that were not looked at the longest, where it is too much."""
        sizes = {place: reading.nbytes for place, reading in self._readings.items()}
        for place in list(self._readings)[:-1]:
            if sum(sizes.values()) <= MOST_MEMORY:
                return
            del self._readings[place]
            del sizes[place]


def kind_of(model: Model) -> str:
    """What a network finds: ``'detector'``, ``'segmenter'``, ``'classifier'`` or ``'backbone'``."""
    if find_detector(model.module) is not None:
        return 'detector'
    if find_segmenter(model.module) is not None:
        return 'segmenter'
    return 'classifier' if output_count(model.module) is not None else 'backbone'


def python_of(spec: RunSpec | PatchesSpec) -> str:
    """The Python lines that draw what a command draws."""
    analysis = f'vt.{type(spec.analysis).__name__}({_arguments(spec.analysis)})'
    lines = ['import vistool as vt', '']
    if isinstance(spec, PatchesSpec):
        options = f', options={dict(spec.options)!r}' if spec.options else ''
        lines.append(f"model = vt.load({spec.config!r}, 'none'{options})")
        lines.append(f'result = {analysis}(model, model.read({spec.images!r}))')
        lines.append(f'vt.save(result, {spec.output.out!r}, save_raw={spec.output.save_raw})')
        return '\n'.join(lines)
    models = spec.models
    given = _changed(models, without=('first', 'compare')) | _changed(spec.selection) | _changed(spec.execution)
    if models.compare:
        given['compare'] = [
            each.model if each.checkpoint is None else (each.model, each.checkpoint) for each in models.compare
        ]
    given = {'checkpoint': models.first.checkpoint} | given if models.first.checkpoint else given
    given |= {'seed': spec.seed} if spec.seed else {}
    given |= {'out': spec.output.out, 'save_raw': spec.output.save_raw}
    words = [f'    {name}={_plain(value)!r},' for name, value in given.items()]
    lines += ['vt.run(', f'    {models.first.model!r},', f'    {spec.images!r},', f'    {analysis},', *words, ')']
    return '\n'.join(lines)


def _arguments(analysis: Any) -> str:
    return ', '.join(f'{name}={_plain(value)!r}' for name, value in _changed(analysis, without=('copies',)).items())


def _changed(given: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    found = {}
    for each in dataclasses.fields(given):
        if each.name in without:
            continue
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        value = getattr(given, each.name)
        if _plain(value) != _plain(default):
            found[each.name] = value
    return found


def _plain(value: Any) -> Any:
    """A value whose ``repr`` is Python: paths as text, sequences as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _order(path: Path) -> tuple[bool, str]:
    return path.suffix == '.npz', path.name
