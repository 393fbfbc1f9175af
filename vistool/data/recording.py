"""Reading a dataset's samples as training does, with each image that its pipeline makes on the way."""

from __future__ import annotations

import copy
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.data.annotation_checks import Fault, check
from vistool.data.annotation_trail import Trail
from vistool.data.annotations import Annotations, annotations_of, classes_in, is_label_map
from vistool.data.coco_files import CocoFile
from vistool.data.datasets import (
    Label,
    base_of,
    bases,
    class_names,
    info_of,
    label_of,
    open_dataset,
    palette_of,
    path_of,
    sample_name,
    skeleton_of,
    wrappers,
)
from vistool.data.decoders import decoding
from vistool.data.display import Display, Shown
from vistool.data.geometry import GeometricStep, Geometry, Size, resize
from vistool.data.images import AGAIN, read_photo
from vistool.data.photometry import Photometry, Preprocessing, compared
from vistool.data.pipelines import is_loader, seed_inner
from vistool.data.samples import Pair, channel_axis, image_keys, planes_of, size_of
from vistool.data.transforms import Tracer, applied, attribute, name_of, seeded
from vistool.data.truth import KEYS
from vistool.errors import InputError, message_of, on_one_line, without_name

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

NOT_APPLIED = 'not applied'

_MAGNITUDES = {
    'Rotate': 'angle', 'Posterize': 'bits', 'Solarize': 'threshold', 'SolarizeAdd': 'amount', 'GaussianBlur': 'radius',
}  # fmt: skip
"""The name of an augmentation's magnitude, by the transform's name."""
_OF_BOXES = {'valid', 'labels', 'is_within_crop_area'}
_JITTER = ('brightness', 'contrast', 'saturation', 'hue')


def described(transform: Any, drawn: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """The parameters that a transform drew in its last call, one line each; empty if it drew none.

    Args:
        transform: The transform.
        drawn: Return values of its random methods, by name.
    """
    if drawn.get('random_disable') and drawn['random_disable'][-1]:
        return (NOT_APPLIED,)
    if hasattr(transform, 'aug'):
        return _albumentations(transform.aug)
    if 'transform' in drawn and not drawn['transform'] and hasattr(transform, 'p'):
        return (NOT_APPLIED,)
    lines: list[str] = []
    for name, values in drawn.items():
        if not values or name in ('random_disable', 'transform') or (name == 'random_magnitude' and _turned(drawn)):
            continue
        rule = _DESCRIPTIONS.get(name)
        lines += rule(transform, values[-1]) if rule else _generic({name.strip('_'): values[-1]})
    if drawn.get('transform') and isinstance(drawn['transform'][-1], Mapping):
        lines += _generic(drawn['transform'][-1])
    return tuple(lines)


def _turned(drawn: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the magnitude got a random sign, in which case the signed value is shown."""
    return bool(drawn.get('random_negative'))


def _direction(transform: Any, value: Any) -> list[str]:
    return [str(value) if value is not None else 'no flip']


def _box(transform: Any, value: Any) -> list[str]:
    top, left, height, width = (int(each) for each in value[:4])
    return [f'{width}×{height} at ({left}, {top})']


def _magnitude(transform: Any, value: Any) -> list[str]:
    return [f'{_MAGNITUDES.get(type(transform).__name__, "magnitude")} {_text(value)}']


def _jittered(transform: Any, value: Any) -> list[str]:
    parts = [f'{name} {_text(each)}' for name, each in zip(_JITTER, value[1:], strict=True) if each is not None]
    return parts or ['nothing to change']


def _gray(transform: Any, value: Any) -> list[str]:
    return ['gray' if value < transform.prob else NOT_APPLIED]


def _scale(transform: Any, value: Any) -> list[str]:
    value = value[0] if isinstance(value, (tuple, list)) and isinstance(value[0], (tuple, list)) else value
    return [f'scale {_text(value)}']


def _place(transform: Any, value: Any) -> list[str]:
    return [f'at ({value[1]}, {value[0]})']


def _params(transform: Any, value: Any) -> list[str]:
    """The return value of ``get_params``, of torchvision's first generation and mmpretrain's subclasses of it."""
    name, values = type(transform).__name__, value if isinstance(value, (tuple, list)) else (value,)
    if name == 'ColorJitter':
        return _jittered(transform, values)
    if name == 'RandomAffine':
        return _generic(dict(zip(('angle', 'shift', 'scale', 'shear'), values, strict=True)))
    if len(values) >= 4 and all(isinstance(each, (int, np.integer)) for each in values[:4]):
        return _box(transform, values)
    if len(values) == 1:
        return [f'{"angle" if "Rotation" in name else "sigma" if "Blur" in name else "drawn"} {_text(values[0])}']
    return []


_DESCRIPTIONS: dict[str, Callable[[Any, Any], list[str]]] = {
    '_choose_direction': _direction,
    'rand_crop_params': _box,
    'random_patch': _box,
    'random_magnitude': _magnitude,
    'random_negative': _magnitude,
    '_rand_params': _jittered,
    '_random_prob': _gray,
    '_random_select': _scale,
    '_random_scale': _scale,
    'rand_translate_params': _place,
    'get_params': _params,
}


def _albumentations(aug: Any) -> tuple[str, ...]:
    """The augmentations of an albumentations pipeline that ran; each keeps the parameters of its last call."""
    ran = [type(each).__name__ for each in _leaves(aug) if getattr(each, 'params', None)]
    return tuple(ran) or (NOT_APPLIED,)


def _leaves(aug: Any) -> list[Any]:
    inner = getattr(aug, 'transforms', None)
    return [leaf for each in inner for leaf in _leaves(each)] if inner else [aug]


def _generic(values: Mapping[str, Any]) -> list[str]:
    """Numbers with their names; anything else is omitted, and what is said of each box."""
    shown = {name: value for name, value in values.items() if name not in _OF_BOXES}
    return [f'{name.replace("_", " ")} {text}' for name, value in shown.items() if (text := _text(value))]


def _text(value: Any) -> str:
    """One number or a few, in short form; ``''`` for anything else."""
    if hasattr(value, 'detach'):
        value = value.detach().cpu().numpy()
    if isinstance(value, (bool, np.bool_, str)):
        return str(value)
    if isinstance(value, (int, float, np.integer, np.floating)):
        return f'{value:.3g}' if isinstance(value, (float, np.floating)) else str(value)
    if isinstance(value, (tuple, list, np.ndarray)):
        flat = np.asarray(value, dtype=object).reshape(-1) if not isinstance(value, np.ndarray) else value.reshape(-1)
        parts = [_text(each) for each in flat.tolist()] if 0 < flat.size <= 4 else []
        return f'({", ".join(parts)})' if parts and all(parts) and len(parts) > 1 else ''.join(parts)
    return ''


Detail = Literal['original', 'ends', 'steps']

_UNSEEN = {
    'PackInputs', 'PackMultiTaskInputs', 'PackDetInputs', 'PackSegInputs', 'Collect', 'ToTensor', 'ImageToTensor',
    'LoadAnnotations', 'FilterAnnotations', 'CleanCaption', 'OFAAddObjects', 'Transpose', 'NumpyToPIL', 'PILToNumpy',
    'ClampBoundingBoxes', 'SanitizeBoundingBoxes', 'ConvertBoundingBoxFormat', 'ClampKeyPoints', 'SanitizeKeyPoints',
    'SetClampingMode', 'ToImage', 'ToPureTensor',
}  # fmt: skip
"""Steps that neither load nor change an image: they have no picture."""
_BRANCHING = {'MultiView': 'transforms', 'ApplyToList': 'transforms', 'TestTimeAug': 'subroutines'}
"""Containers that run each of their children on an image of its own, and the attribute that holds them."""
_CHOOSING = {'RandomApply', 'RandomChoice', 'RandomOrder', 'AutoAugment', 'RandAugment', 'OneOf', 'SomeOf'}
"""Containers that may skip a child or draw which they run; a child that did nothing inside them is not shown."""


NOTHING = 'nothing'
"""The step of a container that ran none of its children."""


@dataclass(frozen=True, eq=False)
class StepImage:
    """The image after one step of a pipeline.

    Attributes:
        step: The transform's name; ``original`` for the loaded image.
        pixels: uint8 ``(h, w, 3)`` RGB, with normalization undone and any mask drawn.
        parameters: What the transform drew, one line each.
        view: Which of several images of the sample; None before they are split.
        annotations: Its boxes, masks, keypoints and label map; None without any.
        within: The container that drew this step, ``RandAugment``; ``''`` for a step of every draw.
        choice: Which of the pipeline's containers that is, since several may have one name.
    """

    step: str
    pixels: NDArray[np.uint8] = field(repr=False)
    parameters: tuple[str, ...] = ()
    view: int | None = None
    annotations: Annotations | None = None
    within: str = ''
    choice: int | None = None


class Recorder(Tracer):
    """One run of a pipeline over one sample.

    Args:
        preprocessing: What the data preprocessor does afterwards; it gives the channel order of images that no step
            loads.
        bgr: Whether loaded images are BGR, as given by the user; None: as the loader returns them.
        display: How images that are not photos of 8 bits are shown.
        detail: ``steps`` keeps the images after all steps, ``ends`` the first and last, ``original`` only the loaded
            one (the other steps do not run).
    """

    def __init__(
        self, preprocessing: Preprocessing, bgr: bool | None, detail: Detail, display: Display | None = None
    ) -> None:
        super().__init__(None, Photometry())
        self._display = display or Display()
        self.images: list[StepImage] = []
        self.mask: NDArray[Any] | None = None
        self._preprocessing, self._bgr, self._detail = preprocessing, bgr, detail
        self._view: int | None = None
        self._container: Any = None  # the outermost that is drawing what to run
        self._choices = itertools.count()
        self._choice: int | None = None
        self._made: list[NDArray[Any]] = []
        self.trail = Trail()
        self._views: dict[int, Trail] = {}

    @property
    def trails(self) -> list[Trail]:
        """The annotations on their way, of each view where there are several."""
        return list(self._views.values()) or [self.trail]

    def record(self, transforms: list[Any], results: Any) -> Any:
        """Applies the transforms; None as soon as one returns None, as mmengine's Compose does."""
        if images_of(results):
            swaps = self._preprocessing.swaps if self._bgr is None else self._bgr
            self.photometry = self._shown(images_of(results)[0], swaps)
            self._track(results)
            self._keep('original', results)
        for transform in transforms:
            if self._detail == 'original' and self.images and not _loads_annotations(name_of(transform)):
                continue
            results = self.apply(transform, results)
            if results is None:
                return None
        self._made = self._copied(results)
        return results

    def go_on(self, transform: Any, value: Any) -> Any:
        """Applies one more transform, of a wrapper around the dataset whose pipeline was recorded.

        A wrapper may also send other samples through its transforms, to mix them in: those are not recorded.
        """
        if not self._follows(self._copied(value)):
            return transform(value)
        out = self.apply(transform, value)
        if out is not None:
            self._made = self._copied(out)
        return out

    def finish(self, data: Any, source: str) -> bool:
        """Keeps the images that the dataset really returned, where the recorded steps do not end with them.

        Args:
            data: What the dataset returned.
            source: The class of the dataset.

        Returns:
            Whether the recorded steps made them. Else unrecorded code came in between, and how values became
            network values is unknown: they are shown as the images of a file would be.

        Raises:
            InputError: There is no image in the data.
        """
        images = returned_images(data)
        if not images:
            raise InputError(
                f'the pipeline returns a {type(data).__name__} without an image', hint='end it with PackInputs'
            )
        known = self._follows(self._copied(data))
        if not known:
            self.photometry, self.mask = self._shown(images[0], self.photometry.bgr), None
            self.trail, self._views = Trail(), {}
            if len(images) == 1:
                self.trail.take('', data, self._size(images[0]))
        if self._detail == 'ends':
            self._keep('transformed', images if len(images) > 1 else images[0])
        elif not known:
            unrecorded = ('steps before it are not recorded',) if self.images else ()
            self._keep(f'returned by {source}', images if len(images) > 1 else images[0], unrecorded)
        return known

    def _copied(self, data: Any) -> list[NDArray[Any]]:
        """Copies of the returned images, since later code may change them in place."""
        return [self._planes(image, self.photometry.channels).copy() for image in returned_images(data)]

    def _follows(self, images: Sequence[NDArray[Any]]) -> bool:
        """Whether these are the images that the last recorded step returned."""
        pairs = zip(images, self._made, strict=False)
        return bool(images) and len(images) == len(self._made) and all(np.array_equal(*pair) for pair in pairs)

    def apply(self, transform: Any, value: Any) -> Any:
        """Applies one transform, following those that run others on several images."""
        name = type(transform).__name__
        inner = _BRANCHING.get(name, '')
        if hasattr(transform, inner):
            with self._branching(transform, inner):
                return applied(transform, value)
        if name not in _CHOOSING or self._container is not None:
            return super().apply(transform, value)
        self._container, self._choice = transform, next(self._choices)
        before = len(self.images)
        try:
            out = super().apply(transform, value)
            if before and len(self.images) == before and self._detail == 'steps' and images_of(out):
                self._keep(NOTHING, out)
            return out
        finally:
            self._container = self._choice = None

    @contextmanager
    def _branching(self, container: Any, attribute_name: str) -> Iterator[None]:
        entry, number = (self.photometry, self.geometry, self.trail), itertools.count()

        def branch(child: Any) -> Callable[[Any], Any]:
            def traced(value: Any) -> Any:
                self._view = view = next(number)
                self.photometry = entry[0]
                self.geometry, self.trail = entry[1], entry[2].fork()
                try:
                    return self.apply(child, value)
                finally:
                    self._views[view] = self.trail
                    self._view = None

            return traced

        inner = getattr(container, attribute_name)
        children = [branch(child) for child in inner] if isinstance(inner, (list, tuple)) else branch(inner)
        with attribute(container, attribute_name, children):
            yield

    def _leaf(self, transform: Any, value: Any) -> Any:
        fresh, mixes = not images_of(value), _mixes(transform, value)
        tracked, self.geometry = self.geometry, None if mixes else self.geometry
        out = super()._leaf(transform, value)
        name = name_of(transform)
        if out is None or not images_of(out):
            return out
        if isinstance(out, Mapping) and out.get('mask') is not None:
            self.mask = np.asarray(out['mask'])
        if fresh:
            self.photometry = self._loaded(transform, out)
            self._track(out)
            self._keep('original', out)
            return out
        if mixes and tracked is not None:
            self.geometry = Geometry.identity(self._size(images_of(out)[0]))
        dropped = self._take(name, out, mixes)
        if self._detail == 'steps' and (dropped or not (name in _UNSEEN or _loads_annotations(name))):
            parameters = described(transform, self.drawn)
            if self._container in (None, transform) or parameters != (NOT_APPLIED,):
                self._keep(name, out, parameters, transform)
        return out

    def _track(self, value: Any) -> None:
        """Starts to follow the pixel grid where there are annotations to follow it."""
        images = images_of(value)
        if len(images) > 1:
            return
        size = self._size(images[0])
        geometry = Geometry.identity(size)
        self.trail.take('', value, size, geometry=geometry)
        known = isinstance(value, Mapping) and any(value.get(key) is not None for key in KEYS)
        self.geometry = geometry if known or self.trail.now is not None else None

    def _take(self, name: str, value: Any, mixes: bool) -> bool:
        """Reads the annotations after a step; whether a step that leaves the image as it is took some of them away."""
        images = images_of(value)
        if len(images) > 1:  # whose annotations are lists
            self.trail.now = None
            return False
        before = self.trail.now
        appear = self.trail.take(name, value, self._size(images[0]), self.step, self.geometry, mixes)
        if self.geometry is None and self.trail.now is not None and not mixes:
            self.geometry = Geometry.identity(self._size(images[0]))
        if appear and self.images and self.images[-1].view == self._view:
            self.images[-1] = replace(self.images[-1], annotations=self.trail.now)
            if self.trail.original is not None:
                self.images[0] = replace(self.images[0], annotations=self.trail.original)
        counts = [None if each is None else len(each.objects) for each in (before, self.trail.now)]
        return not appear and None not in counts and counts[0] != counts[1]

    def _unknown(self, transform: Any, before: Size, after: Size, several: bool) -> GeometricStep:
        """A step after which annotations cannot be checked."""
        return replace(resize(before, after), exact=False)

    def _of_frame(self, value: Any, place: int, count: int) -> Annotations | None:
        """The annotations of one of several frames: MMDetection's tracking keeps lists with a part for each."""
        if not isinstance(value, Mapping):
            return None
        parts = {key: each[place] for key, each in value.items() if isinstance(each, list) and len(each) == count}
        try:
            return annotations_of(parts, self._size(images_of(value)[place]))
        except Exception:  # frames may hold anything
            return None

    def _size(self, image: Any) -> Size:
        height, width = self._planes(image, self.photometry.channels).shape[-2:]
        return height, width

    def _loaded(self, loader: Any, results: Any) -> Photometry:
        """Channel order and range of an image that was just loaded; mmcv's loaders return BGR, but for tifffile's."""
        image = images_of(results)[0]
        if self._bgr is not None:
            return self._shown(image, self._bgr)
        bgr = not getattr(loader, 'to_rgb', False) and getattr(loader, 'imdecode_backend', None) != 'tifffile'
        path = results.get('img_path') if isinstance(results, Mapping) else None
        if not is_loader(loader) and isinstance(path, (str, Path)):
            bgr = _order_in_file(self._shown(image, bgr), image, str(path))
        return self._shown(image, bgr)

    def _shown(self, image: Any, bgr: bool) -> Photometry:
        """The photometry of an image as it was loaded."""
        channels = None
        if isinstance(image, np.ndarray) and image.ndim == 3:
            shape, axes = image.shape, self._display.axes
            channels = shape[channel_axis(image, self._channels)] if axes is None else shape[axes.index('C')]
        values = np.moveaxis(self._planes(image, channels), 0, 2)
        shown = self._display.shown(values) if channels not in (None, 4) or values.dtype != np.uint8 else Shown()
        return Photometry(bgr=bgr and values.shape[2] >= 3, shown=shown, channels=channels)

    def _planes(self, image: Any, channels: int | None) -> NDArray[Any]:
        """An image as ``(C, H, W)``; where both outer axes may be that of the channels, the user's word counts."""
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] == image.shape[2] == channels:
            return image if self._display.axes == 'CHW' else np.moveaxis(image, 2, 0)
        return planes_of(image, channels)

    @property
    def _channels(self) -> int | None:
        mean = self._preprocessing.mean
        return None if mean is None or len(mean) == 1 else len(mean)

    def _keep(self, step: str, value: Any, parameters: tuple[str, ...] = (), transform: Any = None) -> None:
        images = images_of(value)
        inside = self._container is not None and self._container is not transform
        within, choice = (name_of(self._container), self._choice) if inside else ('', None)
        for place, image in enumerate(images):
            view = self._view if len(images) == 1 else place
            pixels = as_pixels(self._planes(image, self.photometry.channels), image, self.photometry)
            if self.mask is not None and place == 0:
                pixels = with_mask(pixels, self.mask)
            annotations = self.trail.now if len(images) == 1 else self._of_frame(value, place, len(images))
            self.images.append(StepImage(step, pixels, parameters, view, annotations, within, choice))


def _loads_annotations(name: str) -> bool:
    return name.startswith('Load') and name.endswith('Annotations')


def _mixes(transform: Any, value: Any) -> bool:
    """Whether a transform adds parts of other images: it says which it wants, or keeps some of its own."""
    asks = any(hasattr(transform, name) for name in ('get_indices', 'get_indexes', 'results_cache'))
    return asks or (isinstance(value, Mapping) and 'mix_results' in value)


def _order_in_file(assumed: Photometry, image: Any, path: str) -> bool:
    """Whether a loader of the user's own returned blue first, found by comparing it with the file; else as assumed."""
    try:
        stored = read_photo(path, assumed.channels).values
    except InputError:
        return assumed.bgr
    found = compared(np.moveaxis(planes_of(image, assumed.channels), 0, 2), stored, assumed.bgr)
    return assumed.bgr if found is None else found.bgr


def images_of(value: Any) -> list[Any]:
    """The images in a results dict or value: none, one, or several views."""
    if isinstance(value, Mapping):
        value = value.get('img')
    elif isinstance(value, Pair):
        value = value[0]
    several = value if isinstance(value, (list, tuple)) else [value]
    return list(several) if several and all(size_of(each) is not None for each in several) else []


def returned_images(data: Any) -> list[Any]:
    """The images in what a dataset returned: packed under a known key, first in a tuple, or as they are.

    Several images (views) are those of one tuple or list that are all images with channels.
    """
    if isinstance(data, Mapping):
        return next((found for key in image_keys(data) if (found := returned_images(data[key]))), [])
    if isinstance(data, (tuple, list)):
        several = [] if len(data) == 2 and is_label_map(data[1]) else images_of(data)
        if several and all(getattr(each, 'ndim', 3) == 3 for each in several):
            return several
        return returned_images(data[0]) if data else []
    return images_of(data)


def as_pixels(planes: NDArray[Any], image: Any, photometry: Photometry) -> NDArray[np.uint8]:
    """A copy of an image with the planes ``(C, H, W)`` as uint8 ``(h, w, 3)`` RGB, with normalization undone."""
    pixels = photometry.image(planes)
    return pixels.copy() if np.shares_memory(pixels, _memory(image)) else pixels


def _memory(image: Any) -> NDArray[Any]:
    return image.detach().cpu().numpy() if hasattr(image, 'detach') else np.asarray(image)


def with_mask(pixels: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """An image with the masked (non-zero) patches grayed out; the mask may have any resolution."""
    mask = np.squeeze(np.asarray(mask))
    if mask.ndim != 2:
        return pixels
    rows = (np.arange(pixels.shape[0]) * mask.shape[0]) // pixels.shape[0]
    columns = (np.arange(pixels.shape[1]) * mask.shape[1]) // pixels.shape[1]
    hidden = mask[rows][:, columns] != 0
    drawn = pixels.copy()
    drawn[hidden] = (0.25 * drawn[hidden] + 0.75 * 128).astype(np.uint8)
    return drawn


def rows_of(images: list[StepImage]) -> list[list[StepImage]]:
    """Step images in rows: one row for each view, with the common beginning repeated."""
    views = sorted({image.view for image in images if image.view is not None})
    if not views:
        return [images]
    return [[replace(image, view=view) for image in images if image.view in (None, view)] for view in views]


@dataclass(frozen=True, eq=False)
class Record:
    """One sample, read, with the images of its pipeline's steps.

    Attributes:
        index: Its index in the dataset.
        name: Output stem.
        path: Its file, or None.
        label: Its ground truth.
        images: Its images: the original first, if it is known, then steps or the end.
        data: What the dataset returned.
        photometry: How the values in ``data`` are shown.
        refetched: The index, in the innermost dataset, of the sample that replaced one that the pipeline discarded;
            else None.
        faults: What is wrong with its annotations, as loaded and after each step.
    """

    index: int
    name: str
    path: Path | None
    label: Label
    images: list[StepImage]
    data: Any = field(repr=False)
    photometry: Photometry = field(repr=False)
    refetched: int | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def original(self) -> NDArray[np.uint8] | None:
        """The loaded image; None where the dataset returns images ready made, with no step that could be watched."""
        return self.images[0].pixels if self.images[0].step == 'original' else None

    @property
    def shown(self) -> Shown:
        """How the values of its file are shown."""
        return self.photometry.shown


class Samples:
    """A dataset whose samples are read with the images of every step.

    Args:
        dataset: Built, wrappers included; of any kind. Its pipelines, the transforms of wrappers, and the
            ``transform`` of torchvision's datasets are replaced with recording ones.
        data_preprocessor: The model's, built, as a config, or None.
        seed: Seeds, with a sample's index, whatever its transforms draw.
        channel_order: ``BGR`` or ``RGB``, of loaded images; None: as their loader returns them.
        display: How images that are not photos of 8 bits are shown.
    """

    def __init__(
        self,
        dataset: Any,
        data_preprocessor: Any = None,
        seed: int = 0,
        channel_order: str | None = None,
        display: Display | None = None,
    ) -> None:
        if channel_order not in (None, 'BGR', 'RGB'):
            raise InputError(f'unknown channel order {channel_order!r}', accepted='BGR, RGB', parameter='channel_order')
        self.dataset, self.seed = dataset, seed
        self.display = display or Display()
        self.classes, self.palette = class_names(dataset), palette_of(dataset)
        self.skeleton = skeleton_of(dataset)
        self.preprocessing = Preprocessing.of(data_preprocessor)
        self._bgr = None if channel_order is None else channel_order == 'BGR'
        self._watch = _Watch()
        self._watched = [_watch_base(base, self._watch) for base in bases(dataset)]
        continued = [_watch_wrapper(wrapper, self._watch) for wrapper in wrappers(dataset)]
        self._mixes = any(continued)
        self._remarked: set[str] = set()
        self._files: dict[int, CocoFile | None] = {}

    @classmethod
    def of(
        cls,
        config: Config,
        phase: str = 'train',
        seed: int = 0,
        channel_order: str | None = None,
        display: Display | None = None,
    ) -> Samples:
        """The samples of a config's dataset.

        Raises:
            InputError: The config has no such phase, or the dataset or its files are not there.
        """
        display = (display or Display()).over(Display.from_config(config))
        return cls(open_dataset(config, phase), preprocessor_config(config), seed, channel_order, display)

    def __len__(self) -> int:
        return len(self.dataset)

    def info(self, index: int) -> dict[str, Any]:
        """A sample's annotations; its pipeline does not run."""
        return info_of(self.dataset, index)

    def label(self, index: int) -> Label:
        """A sample's label; its pipeline does not run."""
        return label_of(self.info(index))

    def left_out(self, index: int) -> tuple[Fault, ...]:
        """What is wrong with the objects that a sample has in a COCO file, but not in the dataset.

        The file is read again at the first call.
        """
        base, place = base_of(self.dataset, index)
        if id(base) not in self._files:
            self._files[id(base)] = CocoFile.of(base)
        file = self._files[id(base)]
        return () if file is None else file.left_out(info_of(base, place), type(base).__name__)

    def read(self, index: int, repeat: int = 0, detail: Detail = 'steps') -> Record:
        """Runs the dataset's own pipeline for one sample.

        Args:
            index: Index in the dataset.
            repeat: The number of the draw, which is seeded with seed + ``repeat``.
            detail: Which images are kept; see :class:`Recorder`.

        Raises:
            InputError: The image is not readable, or a transform fails on it.
        """
        watch = self._watch
        if self._mixes and detail == 'original':
            detail = 'ends'  # a wrapper's transforms need what the pipeline makes
        watch.start(lambda: Recorder(self.preprocessing, self._bgr, detail, self.display))
        try:
            with seeded(self.seed + repeat, index) as own:
                for each in self._watched:
                    seed_inner(each.transforms, own)
                self._refuse_pipe(index)
                with decoding(f'sample {index}'):
                    data = self.dataset[index]
            recorder = watch.done or Recorder(self.preprocessing, self._bgr, detail, self.display)
            if detail != 'original' or not recorder.images:
                self._finish(recorder, data)
        except Exception as error:
            where = path_of(watch.info) or f'sample {index}'
            with suppress(OSError):
                if os.path.getsize(where) == 0:
                    raise InputError(f'{on_one_line(where)} is empty (0 bytes)', hint=AGAIN) from error
            text = error.problem if isinstance(error, InputError) else message_of(error)
            problem = f'{on_one_line(where)}: {without_name(text, where)}'
            if not isinstance(error, InputError):
                raise InputError(problem) from error
            raise InputError(problem, accepted=error.accepted, hint=error.hint, parameter=error.parameter) from error
        info = watch.info or self.info(index)
        label, path = label_of(info), path_of(info)
        refetched = info.get('sample_idx', index) if watch.discarded else None
        label = label if label is not None else classes_in(recorder.images[0].annotations) or None
        name = sample_name(index, label, path, self.classes)
        count = None if self.classes is None else len(self.classes)
        faults = dict.fromkeys(fault for trail in recorder.trails for fault in check(trail, count))
        return Record(index, name, path, label, recorder.images, data, recorder.photometry, refetched, tuple(faults))

    def _refuse_pipe(self, index: int) -> None:
        """Raises for a sample whose file is a pipe or a device, which its loader would read for ever."""
        path = None
        with suppress(Exception):  # not every dataset says where its samples lie
            path = path_of(self.info(index))
        if path is not None and os.path.exists(path) and not os.path.isfile(path):
            raise InputError('it is not a regular file', accepted='an image file')

    def _finish(self, recorder: Recorder, data: Any) -> None:
        """Compares what was recorded with the truth; logs once for each kind of dataset where they differ."""
        source, there = type(self.dataset).__name__, bool(recorder.images)
        if recorder.finish(data, source) or source in self._remarked:
            return
        self._remarked.add(source)
        what = 'images that no recorded step made: its own are not shown' if there else 'images ready made'
        log.warning('%s returns %s; they are drawn as they are, and how they were normalized is unknown', source, what)


def preprocessor_config(config: Config) -> Any:
    """The data preprocessor's config, with the model's batch augmentations, as the model would build it; or None."""
    model = config.get('model') or {}
    own = model.get('data_preprocessor') or config.get('data_preprocessor')
    if own is None:
        return None
    own = dict(own)
    augments = (model.get('train_cfg') or {}).get('augments')
    if augments:
        own.setdefault('batch_augments', dict(model['train_cfg']))
    return own


class _Watch:
    """What the pipelines of a dataset did since the last start; the first run with a result counts."""

    def __init__(self) -> None:
        self.start(None)

    def start(self, make: Any) -> None:
        self.make, self.done, self.discarded = make, None, 0
        self.info: dict[str, Any] = {}
        self._found = False

    def run(self, transforms: list[Any], results: Any) -> Any:
        recorder = self.make()
        if not self._found:
            self.info = (
                {k: copy.copy(v) for k, v in results.items() if k != 'img'} if isinstance(results, Mapping) else {}
            )
        out = recorder.record(transforms, results)
        if self._found:
            return out  # a wrapper that mixes samples asks for more of them
        if out is None:
            self.discarded += 1
        else:
            self._found, self.done = True, recorder
        return out


class _Watched:
    """Takes the place of a dataset's pipeline."""

    def __init__(self, pipeline: Any, watch: _Watch) -> None:
        own = pipeline.transforms if hasattr(pipeline, 'transforms') else pipeline
        self.transforms: list[Any] = [] if own is None else list(own) if isinstance(own, (list, tuple)) else [own]
        self._watch = watch

    def __call__(self, results: Any, *target: Any) -> Any:
        out = self._watch.run(self.transforms, Pair((results, *target)) if target else results)
        return tuple(out) if isinstance(out, Pair) else out


def _watch_base(base: Any, watch: _Watch) -> _Watched:
    """Replaces the pipeline of a dataset, or what torchvision's datasets have in its place.

    That is ``transform``, for the image, or ``transforms``, for the image and its target.
    """
    names = [name for name in ('transform', 'transforms') if callable(getattr(base, name, None))]
    name = 'pipeline' if hasattr(base, 'pipeline') or not names else names[0]
    watched = _Watched(getattr(base, name, None), watch)
    setattr(base, name, watched)
    return watched


def _watch_wrapper(wrapper: Any, watch: _Watch) -> bool:
    """Replaces the transforms of a wrapper, if it has any, such as the mosaic of MMDetection's MultiImageMixDataset."""
    found = False
    for name in ('pipeline', 'transforms', 'transform'):
        own = getattr(wrapper, name, None)
        steps = own if isinstance(own, (list, tuple)) else getattr(own, 'transforms', None)
        if isinstance(steps, (list, tuple)):
            continued = type(steps)(_Continued(step, watch) for step in steps)
            setattr(*((wrapper, name) if own is steps else (own, 'transforms')), continued)
            found = True
        elif callable(own):
            setattr(wrapper, name, _Continued(own, watch))
            found = True
    return found


class _Continued:
    """Takes the place of a wrapper's transform, whose attributes it keeps (MMDetection asks for ``get_indices``)."""

    def __init__(self, transform: Any, watch: _Watch) -> None:
        self.__dict__.update(own=transform, watch=watch)

    def __call__(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or self.watch.done is None:
            return self.own(value, *args, **kwargs)
        return self.watch.done.go_on(self.own, value)

    def __getattr__(self, name: str) -> Any:
        if name in ('own', 'watch') or name.startswith('__'):  # while a copy is made
            raise AttributeError(name)
        return getattr(self.own, name)
