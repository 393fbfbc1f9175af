"""Pipelines: which one a config means, building it, and running it from the file to the network's input.

Photos are read here and not by a pipeline's own loader: mmcv's drops transparency and reads CMYK wrongly. They are read
as a person sees them and handed over in the channel order and type that the loader's options promise. A loader that
keeps the file's own values, or the user's own, reads the file itself; what it returns is compared with the file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistool.data.dataloaders import read_loader
from vistool.data.datasets import values_of
from vistool.data.decoders import decoding
from vistool.data.display import PHOTO, Display, Shown
from vistool.data.geometry import GeometricStep, Geometry, crop
from vistool.data.images import ARRAY_SUFFIXES, SUFFIXES, ImageLike, Photo, read_photo
from vistool.data.inputs import NamedInputs, PositionalInputs
from vistool.data.photometry import Photometry, Preprocessing, compared, pixels_of
from vistool.data.samples import Sample, channel_axis, image_keys, image_of, planes_of, preprocess, size_of
from vistool.data.transforms import Tracer, name_of, seeded
from vistool.environment import without_import_notices
from vistool.errors import InputError, counted, message_of, on_one_line
from vistool.records import find_path, shown_path

if TYPE_CHECKING:
    from mmengine.config import Config

_STORED = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Orientation → whether the stored image is the upright one transposed, then mirrored horizontally and vertically."""


def is_loader(transform: Any) -> bool:
    """Whether it is mmcv's image loader, or a subclass of OpenMMLab's or vistool's that reads files in the same way."""
    return any(
        cls.__name__ == 'LoadImageFromFile' and cls.__module__.startswith('mmcv.') for cls in type(transform).__mro__
    ) and type(transform).__module__.split('.')[0].startswith(('mm', 'vistool'))


def is_custom_loader(transform: Any) -> bool:
    """Whether it seems to load an image in another way."""
    return type(transform).__name__.startswith('Load') and not is_label_loader(transform)


def is_label_loader(transform: Any) -> bool:
    """Whether it loads what only a dataset has: annotations, proposals, labels."""
    name = type(transform).__name__
    return name.startswith('Load') and any(word in name for word in ('Annotation', 'Proposal', 'Label', 'Semantic'))


def keeps_values(loader: Any) -> bool:
    """Whether mmcv's loader returns the file's own values, of any type and number of bands."""
    return getattr(loader, 'color_type', '') == 'unchanged' or getattr(loader, 'imdecode_backend', None) == 'tifffile'


def loaded(loader: Any, photo: Photo, shown: Shown = PHOTO) -> tuple[NDArray[Any], Photometry, Geometry]:
    """The image as the loader would pass it on, with its photometry and geometry.

    Args:
        loader: mmcv's ``LoadImageFromFile``, reading 8-bit color or gray.
        photo: The file; its EXIF orientation matters to loaders that are set to ignore it.
        shown: How the file's values are shown.
    """
    flag = str(getattr(loader, 'color_type', 'color'))
    levels, gain, bias = photo.eight_bit()
    image, geometry = levels, Geometry.identity(levels.shape[:2])
    if flag.endswith('ignore_orientation') and photo.orientation != 1:
        image, geometry = _stored(levels, photo.orientation)
    photometry = Photometry(gain=gain, bias=bias, shown=shown)
    if flag.startswith('grayscale'):
        image, photometry = as_gray(image), replace(photometry, channels=1)
    else:
        import cv2  # 20 times as fast as a view of NumPy that is copied

        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
        photometry = replace(photometry, bgr=True, channels=3)
    return image.astype(np.float32) if getattr(loader, 'to_float32', False) else image, photometry, geometry


def unloaded(
    transforms: list[Any], preprocessing: Preprocessing, photo: Photo, shown: Shown, bgr: bool = False
) -> tuple[NDArray[Any], Photometry]:
    """The image for a pipeline without a loader, whose dataset holds arrays: in the form that the later steps expect.

    Measurements keep their type and bands. Photos are BGR if a later step converts them to RGB (or with ``bgr``), gray
    if there is a single mean, else RGB.
    """
    photometry = Photometry(shown=shown, channels=photo.values.shape[2])
    values = photo.values
    if not photo.ordinary and values.shape[2] != 3:
        return _as_opencv(values), photometry
    if photo.ordinary and preprocessing.mean is not None and len(preprocessing.mean) == 1:
        return as_gray(values), replace(photometry, channels=1)
    swaps = (
        bgr
        or preprocessing.swaps
        or any(getattr(t, 'to_rgb', False) and type(t).__name__ in ('Normalize', 'NumpyToPIL') for t in transforms)
    )
    image = values[:, :, ::-1] if swaps else values
    return _as_opencv(image), replace(photometry, bgr=swaps)


_OPENCV_TYPES = ('uint8', 'uint16', 'int16', 'float32', 'float64')
"""Types that OpenCV resizes; transforms of OpenMMLab are built on it."""


def _as_opencv(values: NDArray[Any]) -> NDArray[Any]:
    """A copy of values in their own type, or as fractions where OpenCV does not take that type."""
    if values.dtype in _OPENCV_TYPES:
        return np.array(values, order='C')
    return np.array(values, np.float32 if np.can_cast(values.dtype, np.float32) else np.float64, order='C')


def as_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma ``(H, W)`` of an RGB image."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _stored(upright: NDArray[np.uint8], orientation: int) -> tuple[NDArray[np.uint8], Geometry]:
    """An image as its file stores it, without the EXIF orientation, and its geometry to the upright image."""
    transposed, across, down = _STORED.get(orientation, _STORED[1])
    image = upright.transpose(1, 0, 2) if transposed else upright
    h, w = image.shape[:2]
    image = image[:, ::-1] if across else image
    image = image[::-1] if down else image
    mirror = np.array([[-1 if across else 1, 0, w * across], [0, -1 if down else 1, h * down], [0, 0, 1.0]])
    exchange = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]) if transposed else np.eye(3)
    size = (upright.shape[0], upright.shape[1])
    return np.ascontiguousarray(image), Geometry.identity(size).then(GeometricStep(exchange @ mirror, size, (h, w)))


log = logging.getLogger('vistool')


class Pipeline:
    """Transforms and the data preprocessor behind them, ready to read images.

    Args:
        transforms: Built transforms in order.
        data_preprocessor: The model's, built or as a config; its padding is part of the image.
        takes_images: Whether the transforms take a PIL image (torchvision, timm) instead of OpenMMLab's results dict.
        display: How images that are not photos of 8 bits are shown; networks get the same whatever it says.
        channels: How many bands the network takes, if that is known beside the data preprocessor: it tells the axes of
            arrays.
    """

    def __init__(
        self,
        transforms: Sequence[Callable[[Any], Any]],
        data_preprocessor: Any = None,
        takes_images: bool = False,
        display: Display | None = None,
        channels: int | None = None,
    ) -> None:
        self.transforms, self.takes_images = list(transforms), takes_images
        self.display = display or Display()
        self.preprocessing = Preprocessing.of(data_preprocessor)
        mean = self.preprocessing.mean
        self.channels = channels if mean is None or len(mean) == 1 else len(mean)
        self._preprocessor = data_preprocessor if callable(data_preprocessor) else None
        self._warned: set[str] = set()
        if not self.preprocessing.known:
            log.warning('%s is not a known data preprocessor; its padding is measured', self.preprocessing.name)

    def with_transforms(self, transforms: Sequence[Callable[[Any], Any]]) -> Pipeline:
        """Other transforms before the same data preprocessor."""
        other = Pipeline(transforms, None, self.takes_images, self.display, self.channels)
        other.preprocessing, other._preprocessor = self.preprocessing, self._preprocessor
        return other

    def read(
        self,
        source: ImageLike,
        seed: int = 0,
        index: int = 0,
        name: str | None = None,
        info: Mapping[str, Any] | None = None,
        observe: Callable[[Any, Any], None] | None = None,
    ) -> Sample:
        """Reads one image and runs it through the pipeline.

        Args:
            source: A path, a PIL image, or an array: uint8 RGB ``(H, W, 3)``, or any type and number of bands, whose
                axes are told by the number of bands that the network takes.
            seed: Seeds, with ``index``, whatever the transforms draw; the global random states are not changed.
            index: Position of the image in the run.
            name: Output stem; default: the file's.
            info: What a dataset knows about the image (``gt_label``, annotations); without it, steps that load
                annotations are skipped.
            observe: Called with ``(transform, value)`` after each step.

        Raises:
            InputError: The file is not a readable image, or a transform fails on it.
        """
        path = Path(source) if isinstance(source, (str, PathLike)) else None
        photo = self._photo(source)
        try:
            with seeded(seed, index) as own:
                seed_inner(self.transforms, own)
                reading = _Reading(path, photo, {**(info or {}), 'sample_idx': index}, observe)
                data, tracer = self._run(reading)
        except InputError as error:
            named = on_one_line(path or 'the image')
            problem = error.problem if named in error.problem else f'{named}: {error.problem}'
            raise InputError(problem, accepted=error.accepted, hint=error.hint) from error
        image, geometry = self._finish(data, tracer)
        if said := reading.shown.describe():
            log.info('%s', said)
        return Sample(
            data,
            image,
            reading.original(),
            geometry,
            path,
            name or (path.stem if path else 'image'),
            _label(data),
            index,
            reading.shown,
            values=values_of(info or {}),
        )

    def _photo(self, source: ImageLike) -> Photo | None:
        """The image as the file has it; None where only the pipeline's own loader can read the file."""
        try:
            return read_photo(source, self.channels, self.display.axes)
        except InputError:
            own = self.transforms[0] if self.transforms and not self.takes_images else None
            path = Path(source) if isinstance(source, (str, PathLike)) else None
            if path is None or not os.path.isfile(path) or not is_custom_loader(own) or is_loader(own):
                raise
            return None

    def _run(self, reading: _Reading) -> tuple[Any, Tracer]:
        """Starts where the pipeline's own loader would have ended, and applies the remaining transforms."""
        photo, path, results = reading.photo, reading.path, reading.results
        if self.takes_images:
            assert photo is not None
            levels, gain, bias = photo.eight_bit()
            reading.shown = self.display.shown(photo.values)
            photometry = Photometry(gain=gain, bias=bias, shown=reading.shown, channels=3)
            tracer = Tracer(Geometry.identity(levels.shape[:2]), photometry, self._warned, reading.observe)
            return tracer.run(self.transforms, Image.fromarray(levels)), tracer
        labeled = len(results) > 1
        steps = [t for t in self.transforms if labeled or not is_label_loader(t)]
        first, rest = (steps[0], steps[1:]) if steps else (None, [])
        results.setdefault('img_id', results['sample_idx'])
        if path is not None:
            results['img_path'] = str(path)
        loads = is_loader(first) or is_custom_loader(first)
        own = path is not None and loads and not (is_loader(first) and (_is_array(path) or not keeps_values(first)))
        if own:
            return self._run_own_loader(first, rest, reading)
        assert photo is not None
        reading.shown = self.display.shown(photo.values)
        if is_loader(first) and not keeps_values(first) and (photo.ordinary or not (path is None or _is_array(path))):
            image, photometry, geometry = loaded(first, photo, reading.shown)
            _warn_of_reduction(first, photo, photometry)
        else:
            if path is not None and not loads:
                log.warning('the pipeline loads no images (its dataset holds them): a file is used at its own size')
            image, photometry = unloaded(
                rest if loads else steps, self.preprocessing, photo, reading.shown, is_loader(first)
            )
            image = image.astype(np.float32) if getattr(first, 'to_float32', False) and loads else image
            geometry = Geometry.identity(photo.values.shape[:2])
            rest = rest if loads else steps
        results |= {'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}
        tracer = Tracer(geometry, photometry, self._warned, reading.observe)
        return tracer.run(rest, results), tracer

    def _run_own_loader(self, loader: Any, rest: list[Any], reading: _Reading) -> tuple[Any, Tracer]:
        """Lets a loader of the user's own, or one that keeps the file's raw values, read the file."""
        tracer = Tracer(None, Photometry(), self._warned, reading.observe)
        with decoding(on_one_line(reading.path)):
            results = tracer.run([loader], reading.results)
        image = image_of(results)
        if image is None:
            raise InputError(f'the transform {name_of(loader)} loads no image', accepted="an array under the key 'img'")
        channels = _channels_of(image, results, self.channels)
        values = np.moveaxis(planes_of(image, channels), 0, 2)
        if reading.photo is None:  # of a kind that only the loader reads
            reading.photo = Photo(values, str(reading.path), 1, False)
        size, stored = values.shape[:2], reading.photo.values
        geometry = Geometry.identity(stored.shape[:2])
        if size != geometry.network_size:
            log.warning('%s changes the size of the file: maps cannot be laid over the original image', name_of(loader))
            geometry = replace(Geometry.identity(size), original_size=geometry.original_size, exact=False)
        photometry = self._loaded_photometry(loader, values, reading)
        tracer = Tracer(geometry, photometry, self._warned, reading.observe)
        return tracer.run(rest, results), tracer

    def _loaded_photometry(self, loader: Any, values: NDArray[Any], reading: _Reading) -> Photometry:
        """How what a loader returned is shown: as the file, where its values can be traced back to the file's."""
        assert reading.photo is not None
        stored, count = reading.photo.values, values.shape[2]
        bgr = not getattr(loader, 'to_rgb', False) and count >= 3 and is_loader(loader)
        photometry = compared(values, stored, bgr)
        usual = photometry.bands[:3] if photometry is not None and photometry.bands is not None else ()
        reading.shown = self.display.shown(stored, usual if len(usual) in (1, 3) and not reading.photo.ordinary else ())
        if photometry is not None:
            return replace(photometry, shown=reading.shown)
        photometry = Photometry(bgr=not getattr(loader, 'to_rgb', False) and count >= 3, channels=count)
        if values.dtype == np.uint8 or (reading.photo.ordinary and count == 4):  # 8 bits, perhaps with alpha
            return photometry
        shown = (self.display if self.display.percent else Display()).shown(values)
        log.info(
            'the values that %s returns cannot be traced back to the file: what the network saw is drawn by itself%s',
            name_of(loader),
            f' ({shown.describe()})' if shown.describe() else '',
        )
        return replace(photometry, shown=shown)

    def _finish(self, data: Any, tracer: Tracer) -> tuple[NDArray[np.uint8], Geometry]:
        """The image and geometry of the network's input, including the padding of the data preprocessor."""
        values = planes_of(network_input(data), tracer.photometry.channels)
        geometry = tracer.geometry
        assert geometry is not None, 'the tracer knew the geometry from the start'
        if values.shape[-2:] != geometry.network_size:
            geometry = replace(
                Geometry.identity(values.shape[-2:]), original_size=geometry.original_size, exact=False
            )  # fmt: skip
        image, geometry = self.preprocessing.pad(values, tracer.photometry, geometry)
        if self.preprocessing.known or self._preprocessor is None:
            return image, geometry
        return self._measured(data, image, geometry)

    def _measured(self, data: Any, image: NDArray[np.uint8], geometry: Geometry) -> tuple[NDArray[np.uint8], Geometry]:
        """Runs a data preprocessor of unknown kind and takes any growth as padding at the right and below."""
        sample = Sample(data, image)
        batch = preprocess([sample], self._preprocessor, getattr(self._preprocessor, 'device', 'cpu'))
        size = size_of(batch)
        if size is None or size == geometry.network_size:
            return image, geometry
        h, w = image.shape[:2]
        if size[0] < h or size[1] < w:
            log.warning('%s changes the image size; maps are not laid over the original', self.preprocessing.name)
            import cv2

            image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
            return image, self.preprocessing.resized(geometry, size)
        padded = np.zeros((*size, 3), np.uint8)
        padded[:h, :w] = image
        return padded, geometry.then(crop((h, w), size, 0, 0))


@dataclass
class _Reading:
    """One image on its way through a pipeline.

    Attributes:
        path: Its file, if it has one.
        photo: It as the file has it; None until the pipeline's own loader has read it.
        results: What the pipeline starts with.
        observe: See :meth:`Pipeline.read`.
        shown: How it is shown, once that is known.
    """

    path: Path | None
    photo: Photo | None
    results: dict[str, Any]
    observe: Callable[[Any, Any], None] | None
    shown: Shown = PHOTO

    def original(self) -> NDArray[np.uint8]:
        """The file as a person sees it, uint8 ``(H, W, 3)``."""
        assert self.photo is not None, 'the image was read'
        return pixels_of(self.photo, self.shown)


def _warn_of_reduction(loader: Any, photo: Photo, photometry: Photometry) -> None:
    """Says that a loader of 8-bit color leaves a network few levels of a file that has more."""
    low, high = (int(photometry.inverse(end)) for end in (photometry.shown.low, photometry.shown.high))
    if not photo.ordinary and photo.values.dtype.kind in 'ui' and high - low < 128:
        log.warning(
            "%s gives the network 8 bits: these values reach it as %d to %d of 255; color_type='unchanged' keeps all",
            name_of(loader),
            max(low, 0),
            min(high, 255),
        )


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in ARRAY_SUFFIXES


def _channels_of(image: Any, results: Any, declared: int | None) -> int | None:
    """How many channels a loaded array has: told by what the network takes, else by the size that the loader noted."""
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        return None
    if declared is not None and declared in (image.shape[0], image.shape[2]):
        return declared
    shape = results.get('img_shape') if isinstance(results, Mapping) else None
    if shape is not None and tuple(shape[:2]) == image.shape[:2] != image.shape[1:]:
        return image.shape[2]
    if shape is not None and tuple(shape[-2:]) == image.shape[1:] != image.shape[:2]:
        return image.shape[0]
    return image.shape[channel_axis(image, declared)]


def network_input(data: Any) -> Any:
    """The image tensor in what a pipeline returned: ``inputs`` or ``img``, the first if there are several."""
    while not (is_image := size_of(data) is not None):
        if isinstance(data, Mapping) and data:
            data = data[image_keys(data)[0]]
        elif isinstance(data, (tuple, list)) and data:
            data = data[0]
        else:
            break
    if not is_image:
        raise InputError(f'the pipeline returns a {type(data).__name__}, not an image', hint='end it with PackInputs')
    return data


def _label(data: Any) -> int | None:
    """The ground-truth class that the pipeline packed, if there is exactly one."""
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    label = getattr(samples, 'gt_label', None)
    try:
        return int(label) if label is not None else None
    except (TypeError, ValueError, RuntimeError):
        return None


def seed_inner(transforms: Sequence[Any], seed: int) -> None:
    """Seeds the generators that transforms own, as albumentations' do."""
    for transform in transforms:
        inner = getattr(transform, 'aug', transform)
        if hasattr(inner, 'set_random_seed'):
            inner.set_random_seed(seed)


@dataclass(frozen=True)
class Preprocessor:
    """What normalizes one of several inputs after its pipeline.

    Attributes:
        stated: Whether the config states one; None, for none, is a statement too.
        of_model: Whether it is the model's own, which runs when samples become a batch.
        own: One for this input alone, built; it runs when the input is read.
        preprocessing: What it does.
    """

    stated: bool = False
    of_model: bool = False
    own: Any = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def applied(self, name: str, sample: Sample) -> Any:
        """The input's tensor ``(C, H, W)`` after its own preprocessor.

        Raises:
            InputError: If nothing normalizes it, or the means are those of another number of channels.
        """
        tensor = network_input(sample.data)
        channels, mean = planes_of(tensor).shape[0], self.preprocessing.mean
        if not self.stated and str(tensor.dtype).endswith('uint8'):
            raise InputError(
                f'the input {name!r} would reach the network as bytes from 0 to 255: its pipeline does not normalize, '
                'and the config has no data_preprocessor',
                accepted='data_preprocessor=dict(mean=[…], std=[…], to_rgb=True) in the config; dict() passes bytes on',
                parameter='config',
            )
        if mean is not None and len(mean) not in (1, channels):
            raise InputError(
                f'the input {name!r} has {counted(channels, "channel")}, '
                f'and its data_preprocessor has {counted(len(mean), "mean")}',
                accepted=f'{name}=dict(pipeline=[…], data_preprocessor=dict(mean=[…], std=[…])), or None for none',
                parameter='config',
            )
        if self.own is None:
            return tensor
        batch: Any = preprocess([sample], self.own)
        return batch[0]


@dataclass
class MultiPipeline:
    """Several inputs from one main image and, if given, from files of their own.

    Attributes:
        pipelines: Input name → pipeline; the order is that of positional arguments.
        positional: Whether the network takes its inputs by position; else by name.
        files: Input name → a file, or a folder with a file of the main image's name.
        drawn: The input on which maps are drawn; default: the first with an exact geometry.
        preprocessors: Input name → what normalizes it after its pipeline.
    """

    pipelines: Mapping[str, Pipeline]
    positional: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)
    drawn: str | None = None
    preprocessors: Mapping[str, Preprocessor] = field(default_factory=dict)

    def with_files(self, files: Mapping[str, Path], drawn: str | None = None) -> MultiPipeline:
        """The same pipeline with these files, and maps drawn on this input.

        Raises:
            InputError: There is no such input.
        """
        for argument, names in (('files', list(files)), ('draw_on', [drawn] if drawn else [])):
            for name in names:
                if name not in self.pipelines:
                    known = ', '.join(self.pipelines)
                    raise InputError(f'the network has no input {name!r}', accepted=known, parameter=argument)
        return replace(self, files=files, drawn=drawn)

    def read(
        self,
        source: ImageLike,
        seed: int = 0,
        index: int = 0,
        name: str | None = None,
        info: Mapping[str, Any] | None = None,
        observe: Callable[[Any, Any], None] | None = None,
    ) -> Sample:
        """Reads the main image and the other files; see :meth:`Pipeline.read`.

        All pipelines draw from the same ``(seed, index)``, so equal random transforms treat all inputs alike.
        """
        samples = {
            key: pipeline.read(self._file(key, source), seed, index, name, info, observe)
            for key, pipeline in self.pipelines.items()
        }
        main = next(iter(samples.values()))
        path = Path(source) if isinstance(source, (str, PathLike)) else None
        drawn = self.drawn or self._default(samples)
        return replace(
            samples[drawn],
            data=self._inputs(samples, drawn),
            name=name or (path.stem if path else main.name),
            path=path,
        )

    def _inputs(self, samples: Mapping[str, Sample], drawn: str) -> NamedInputs | PositionalInputs:
        """What the network takes, apart from what the model's data preprocessor has yet to do."""
        tensors: dict[str, Any] = {}
        raw: list[str] = []
        for key, sample in samples.items():
            preprocessing = self.preprocessors.get(key, Preprocessor())
            tensors[key] = preprocessing.applied(key, sample)
            if preprocessing.of_model and isinstance(sample.data, Mapping) and 'inputs' in sample.data:
                raw.append(key)
        if not self.positional:
            return NamedInputs(tensors, drawn=drawn, shared=(), raw=raw)
        names = list(tensors)
        places = [names.index(key) for key in raw]
        return PositionalInputs(list(tensors.values()), drawn=names.index(drawn), shared=(), raw=places)

    def _default(self, samples: Mapping[str, Sample]) -> str:
        own = (key for key, sample in samples.items() if key not in self.files and _in_place(sample))
        return next(own, next(iter(samples)))

    def _file(self, key: str, source: ImageLike) -> ImageLike:
        given = self.files.get(key)
        if given is None or not given.is_dir():
            return given or source
        if not isinstance(source, (str, PathLike)):
            raise InputError(f'{key}={given} is a folder, but the main image is not a file', parameter='files')
        stem = Path(source).stem
        found = [path for path in sorted(given.iterdir()) if path.stem == stem and path.suffix.lower() in SUFFIXES]
        if not found:
            raise InputError(f'{key}: no image called {stem!r} in {given}', parameter='files')
        return found[0]


def _in_place(sample: Sample) -> bool:
    return sample.geometry is not None and sample.geometry.exact


def parse_files(pairs: list[str]) -> dict[str, Path]:
    """Reads ``NAME=PATH`` pairs.

    Raises:
        InputError: One is not a pair, or the file does not exist.
    """
    files = {}
    for pair in pairs:
        key, equals, path = pair.partition('=')
        if not (key and equals and path):
            raise InputError(f'{pair!r} is not a pair NAME=PATH', parameter='files')
        files[key] = find_path(path, 'files')
        if not files[key].exists():
            raise InputError(f'no file or folder {shown_path(path)} for {key!r}', parameter='files')
    return files


def build_pipeline(config: Config, phase: str = 'test', data_preprocessor: Any = None) -> Pipeline | MultiPipeline:
    """The pipeline that a config runs its images through.

    Args:
        config: An mmengine Config.
        phase: ``test`` falls back to ``val`` and to ``test_pipeline``, then, with a warning, to a resize and center
            crop to the model's input size; ``val`` and ``train`` are used as named.
        data_preprocessor: The model's, built; default: the one that the config describes.

    Raises:
        InputError: A transform cannot be built.
    """
    from vistool.registry import is_data, registered_only

    scope = config.get('default_scope')
    if data_preprocessor is None:
        data_preprocessor = (config.get('model') or {}).get('data_preprocessor') or config.get('data_preprocessor')
    display = Display.from_config(config)
    with registered_only(is_data(config)):
        if config.get('inputs'):
            described = [part.get('data_preprocessor') for part in (config.get('model') or {}, config)]
            stated = any(each is not None for each in described) or Preprocessing.of(data_preprocessor).mean is not None
            return _several(config['inputs'], scope, display, data_preprocessor if stated else None)
        steps = find_pipeline(config, phase)
        if steps is None:
            steps = _fallback(config, phase)
        return Pipeline(build_transforms(steps, scope), data_preprocessor, False, display, _input_channels(config))


def _input_channels(config: Config) -> int | None:
    """How many bands the backbone of a config takes, where the config says so."""
    backbone = (config.get('model') or {}).get('backbone') or {}
    found = next((backbone.get(key) for key in ('in_channels', 'in_chans', 'input_channels') if key in backbone), None)
    return found if isinstance(found, int) else None


def _several(inputs: Any, scope: str | None, display: Display, data_preprocessor: Any) -> MultiPipeline:
    """The pipelines of a network with several inputs: ``inputs = dict(NAME=dict(pipeline=[…]))``, or a list of such.

    The model's data preprocessor normalizes every input that has none of its own.
    """
    named = dict(inputs) if isinstance(inputs, Mapping) else {str(number): each for number, each in enumerate(inputs)}
    pipelines, preprocessors = {}, {}
    for name, each in named.items():
        if not isinstance(each, Mapping) or not each.get('pipeline'):
            raise InputError(
                f'the input {name!r} has no pipeline', accepted=f'{name}=dict(pipeline=[…])', parameter='config'
            )
        used = data_preprocessor
        if 'data_preprocessor' in each:
            used = _own_preprocessor(name, each['data_preprocessor'], scope)
            preprocessors[name] = Preprocessor(True, False, used, Preprocessing.of(used))
        elif used is not None:
            preprocessors[name] = Preprocessor(True, True, None, Preprocessing.of(used))
        pipelines[name] = Pipeline(build_transforms(each['pipeline'], scope), used, display=display)
    return MultiPipeline(pipelines, positional=not isinstance(inputs, Mapping), preprocessors=preprocessors)


def _own_preprocessor(name: str, described: Any, scope: str | None) -> Any:
    if described is None or callable(described):
        return described
    import mmpretrain.models  # noqa: F401  registers its data preprocessors
    from mmengine.registry import MODELS, DefaultScope

    try:
        with DefaultScope.overwrite_default_scope(scope) if scope else nullcontext():
            return MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **described})
    except Exception as error:
        raise InputError(
            f'the data_preprocessor of the input {name!r} cannot be built: {message_of(error)}', parameter='config'
        ) from error


def find_pipeline(config: Config, phase: str = 'test') -> Sequence[Any] | None:
    """The config of a phase's pipeline, through any dataset wrappers; None if the config has none."""
    for name in ('test', 'val') if phase == 'test' else (phase,):
        loader = read_loader(config, name, _pipeline_of)
        if (found := _pipeline_of(loader)) is not None:
            return found
    for name in ('test', 'val') if phase == 'test' else (phase,):
        if config.get(f'{name}_pipeline'):
            return config[f'{name}_pipeline']
    return None


def build_transforms(steps: Sequence[Any], scope: str | None) -> list[Any]:
    """Builds transforms from their configs in a scope; callables are used unchanged."""
    from mmengine.registry import TRANSFORMS, DefaultScope

    from vistool.registry import near_names, scope_hint

    scope = 'mmpretrain' if scope == 'mmcls' else scope
    if scope == 'mmpretrain':
        with without_import_notices():
            import mmpretrain.datasets.transforms  # noqa: F401  registers its transforms
    else:
        import mmcv.transforms  # noqa: F401  registers its transforms
    built = []
    with DefaultScope.overwrite_default_scope(scope) if scope else nullcontext():
        for step in steps:
            if not isinstance(step, Mapping):
                built.append(step)
                continue
            try:
                built.append(TRANSFORMS.build(dict(step)))
            except Exception as error:
                near = near_names(message_of(error))
                hint = f'{near}{" " * bool(near)}a transform of your own needs custom_imports in the config'
                raise InputError(
                    f'the pipeline step {step.get("type")} cannot be built: {message_of(error)}',
                    hint=scope_hint(str(step.get('type')), scope) or hint,
                ) from error
    return built


def _pipeline_of(loader: Mapping[str, Any]) -> Sequence[Any] | None:
    """The pipeline of a dataloader's dataset; wrappers hold one dataset or several."""
    dataset = loader.get('dataset')
    while isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            return dataset['pipeline']
        inner = dataset.get('dataset') or dataset.get('datasets')
        dataset = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
    return None


def _fallback(config: Config, phase: str) -> list[Any]:
    """Resizes the short side to the model's input size, then crops the center."""
    backbone = (config.get('model') or {}).get('backbone') or {}
    size = backbone.get('img_size') or 224
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    normalized = config.get('data_preprocessor') or (config.get('model') or {}).get('data_preprocessor')
    raw = (
        ''
        if normalized
        else '; it has no data_preprocessor either, so the network gets values from 0 to 255, blue first'
    )
    resized = f'images are resized and center-cropped to {height}x{width}'
    log.warning('the config has no %s pipeline: %s%s', phase, resized, raw)
    return [
        {'type': 'LoadImageFromFile'},
        Cover((height, width)),
        {'type': 'CenterCrop', 'crop_size': (width, height)},
        Pack(),
    ]


class Cover:
    """Resizes so that the image just covers a size, keeping its aspect ratio."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces ``img``, ``(H, W[, C])``."""
        import mmcv

        h, w = results['img'].shape[:2]
        scale = max(self.size[0] / h, self.size[1] / w)
        new = max(self.size[1], round(w * scale)), max(self.size[0], round(h * scale))
        results['img'] = mmcv.imresize(results['img'], new)
        return results


class Pack:
    """The image as the tensor ``inputs``."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``inputs``, ``(C, H, W)``, without data samples."""
        import torch

        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return {'inputs': torch.from_numpy(image), 'data_samples': None}
