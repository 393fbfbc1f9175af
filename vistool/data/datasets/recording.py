"""A dataset's own pipeline, run step by step, each image that it makes on the way kept as a person sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.data.images import planes_of, size_of
from vistool.data.transforms.photometry import Photometry, Preprocessing
from vistool.data.transforms.tracing import Tracer, applied, attribute, name_of
from vistool.errors import InputError

NOT_APPLIED = 'not applied'

#: What the magnitude of an augmentation is called, by the transform's name.
_MAGNITUDES = {
    'Rotate': 'angle', 'Posterize': 'bits', 'Solarize': 'threshold', 'SolarizeAdd': 'amount', 'GaussianBlur': 'radius',
}  # fmt: skip
_JITTER = ('brightness', 'contrast', 'saturation', 'hue')


def described(transform: Any, drawn: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """The parameters that a transform drew in its last call, each a line; empty for one that drew none.

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
        rule = _RULES.get(name)
        lines += rule(transform, values[-1]) if rule else _generic({name.strip('_'): values[-1]})
    if drawn.get('transform') and isinstance(drawn['transform'][-1], Mapping):
        lines += _generic(drawn['transform'][-1])
    return tuple(lines)


def _turned(drawn: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the magnitude was given a random sign, which is then what counts."""
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


def _grey(transform: Any, value: Any) -> list[str]:
    return ['grey' if value < transform.prob else NOT_APPLIED]


def _scale(transform: Any, value: Any) -> list[str]:
    value = value[0] if isinstance(value, (tuple, list)) and isinstance(value[0], (tuple, list)) else value
    return [f'scale {_text(value)}']


def _place(transform: Any, value: Any) -> list[str]:
    return [f'at ({value[1]}, {value[0]})']


def _params(transform: Any, value: Any) -> list[str]:
    """What torchvision's first generation (and mmpretrain's children of it) returns from ``get_params``."""
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


_RULES: dict[str, Callable[[Any, Any], list[str]]] = {
    '_choose_direction': _direction,
    'rand_crop_params': _box,
    'random_patch': _box,
    'random_magnitude': _magnitude,
    'random_negative': _magnitude,
    '_rand_params': _jittered,
    '_random_prob': _grey,
    '_random_select': _scale,
    '_random_scale': _scale,
    'rand_translate_params': _place,
    'get_params': _params,
}


def _albumentations(aug: Any) -> tuple[str, ...]:
    """The augmentations of an albumentations pipeline that ran: each keeps the parameters of its last call."""
    ran = [type(each).__name__ for each in _leaves(aug) if getattr(each, 'params', None)]
    return tuple(ran) or (NOT_APPLIED,)


def _leaves(aug: Any) -> list[Any]:
    inner = getattr(aug, 'transforms', None)
    return [leaf for each in inner for leaf in _leaves(each)] if inner else [aug]


def _generic(values: Mapping[str, Any]) -> list[str]:
    """Named numbers; what is no small number is left out."""
    return [f'{name.replace("_", " ")} {text}' for name, value in values.items() if (text := _text(value))]


def _text(value: Any) -> str:
    """A number or a few, short; ``''`` for anything else."""
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

#: Steps that load no image and change none: they have no picture of their own.
_UNSEEN = {
    'PackInputs', 'PackMultiTaskInputs', 'PackDetInputs', 'PackSegInputs', 'Collect', 'ToTensor', 'ImageToTensor',
    'LoadAnnotations', 'FilterAnnotations', 'CleanCaption', 'OFAAddObjects', 'Transpose', 'NumpyToPIL', 'PILToNumpy',
}  # fmt: skip
#: Containers that run each of their children on an image of its own.
_BRANCHING = {'MultiView', 'ApplyToList'}
#: Containers that may leave a child out: a child that then does nothing did not run.
_CHOOSING = {'RandomApply', 'RandomChoice', 'RandomOrder', 'AutoAugment', 'RandAugment', 'OneOf', 'SomeOf'}


@dataclass(frozen=True, eq=False)
class Shot:
    """The image after one step.

    Attributes:
        step: The transform's name; ``original`` for the image as it was loaded.
        pixels: uint8 ``(h, w, 3)`` RGB, normalisation undone; a mask drawn in.
        parameters: What the transform drew, in lines.
        view: Which of several images of the sample; None before they part.
    """

    step: str
    pixels: NDArray[np.uint8]
    parameters: tuple[str, ...] = ()
    view: int | None = None


class Recorder(Tracer):
    """One run of a pipeline over one sample.

    Args:
        preprocessing: What the data preprocessor does afterwards; tells the channel order of images that no step loads.
        bgr: Whether loaded images are BGR, where the user says so; None: as the loader does it.
        detail: Whether all steps are kept, the ends alone, or only the original (the rest is then not run).
    """

    def __init__(self, preprocessing: Preprocessing, bgr: bool | None, detail: Detail) -> None:
        super().__init__(None, Photometry())
        self.shots: list[Shot] = []
        self.mask: NDArray[Any] | None = None
        self._preprocessing, self._bgr, self._detail = preprocessing, bgr, detail
        self._view: int | None = None
        self._choosing = 0

    def record(self, transforms: list[Any], results: Any) -> Any:
        """Apply the transforms; None as soon as one gives None, as mmengine's Compose does."""
        if images_of(results):
            swaps = self._preprocessing.swaps if self._bgr is None else self._bgr
            self.photometry = Photometry(bgr=swaps)
            self._keep('original', results)
        for transform in transforms:
            if self._detail == 'original' and self.shots:
                break
            results = self.apply(transform, results)
            if results is None:
                return None
        if self._detail == 'ends':
            self._finish(results)
        return results

    def apply(self, transform: Any, value: Any) -> Any:
        """Apply one transform, following those that run others on several images."""
        name = type(transform).__name__
        if name in _BRANCHING and hasattr(transform, 'transforms'):
            with self._branching(transform):
                return applied(transform, value)
        chooses = name in _CHOOSING
        self._choosing += chooses
        try:
            return super().apply(transform, value)
        finally:
            self._choosing -= chooses

    @contextmanager
    def _branching(self, container: Any) -> Iterator[None]:
        entry, number = self.photometry, itertools.count()

        def branch(child: Any) -> Callable[[Any], Any]:
            def traced(value: Any) -> Any:
                self._view, self.photometry = next(number), entry
                try:
                    return self.apply(child, value)
                finally:
                    self._view = None

            return traced

        inner = container.transforms
        children = [branch(child) for child in inner] if isinstance(inner, (list, tuple)) else branch(inner)
        with attribute(container, 'transforms', children):
            yield

    def _leaf(self, transform: Any, value: Any) -> Any:
        fresh = not images_of(value)
        out = super()._leaf(transform, value)
        name = name_of(transform)
        if out is None or name in _UNSEEN or not images_of(out):
            return out
        if isinstance(out, Mapping) and out.get('mask') is not None:
            self.mask = np.asarray(out['mask'])
        if fresh:
            self.photometry = self._loaded(transform, out)
            self._keep('original', out)
        elif self._detail == 'steps':
            parameters = described(transform, self.drawn)
            if not (self._choosing and parameters == (NOT_APPLIED,)):
                self._keep(name, out, parameters)
        return out

    def _loaded(self, loader: Any, results: Any) -> Photometry:
        """Channel order and range of an image that has just been loaded: mmcv's loaders give BGR."""
        image = images_of(results)[0]
        bgr = not getattr(loader, 'to_rgb', False) if self._bgr is None else self._bgr
        top = 65535 / 255 if getattr(image, 'dtype', None) == np.uint16 else 1.0
        colour = np.ndim(image) == 3 and np.shape(image)[2] >= 3
        return Photometry(bgr=bgr and colour).scaled(1 / top)

    def _keep(self, step: str, value: Any, parameters: tuple[str, ...] = ()) -> None:
        images = images_of(value)
        for place, image in enumerate(images):
            view = self._view if len(images) == 1 else place
            pixels = as_pixels(image, self.photometry)
            if self.mask is not None and place == 0:
                pixels = with_mask(pixels, self.mask)
            self.shots.append(Shot(step, pixels, parameters, view))

    def _finish(self, results: Any) -> None:
        """The network's images, from what the pipeline returned."""
        packed = results.get('inputs', results) if isinstance(results, Mapping) else results
        images = images_of(packed) or images_of(results)
        if not images:
            raise InputError(
                f'the pipeline returns {type(results).__name__} without an image', hint='end it with PackInputs'
            )
        self._keep('transformed', images if len(images) > 1 else images[0])


def images_of(value: Any) -> list[Any]:
    """The images in a results dict or value: none, one, or several views."""
    if isinstance(value, Mapping):
        value = value.get('img')
    several = value if isinstance(value, (list, tuple)) else [value]
    return list(several) if several and all(size_of(each) is not None for each in several) else []


def as_pixels(image: Any, photometry: Photometry) -> NDArray[np.uint8]:
    """A copy of an image of any kind as uint8 ``(h, w, 3)`` RGB, normalisation undone."""
    pixels = photometry.image(planes_of(image))
    return pixels.copy() if np.shares_memory(pixels, _memory(image)) else pixels


def _memory(image: Any) -> NDArray[Any]:
    return image.detach().cpu().numpy() if hasattr(image, 'detach') else np.asarray(image)


def with_mask(pixels: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """An image with the patches greyed out that a mask hides (non-zero), whatever the mask's own resolution."""
    mask = np.squeeze(np.asarray(mask))
    if mask.ndim != 2:
        return pixels
    rows = (np.arange(pixels.shape[0]) * mask.shape[0]) // pixels.shape[0]
    columns = (np.arange(pixels.shape[1]) * mask.shape[1]) // pixels.shape[1]
    hidden = mask[rows][:, columns] != 0
    drawn = pixels.copy()
    drawn[hidden] = (0.25 * drawn[hidden] + 0.75 * 128).astype(np.uint8)
    return drawn


def rows_of(shots: list[Shot]) -> list[list[Shot]]:
    """Shots in rows: one for each view, the common beginning repeated."""
    views = sorted({shot.view for shot in shots if shot.view is not None})
    if not views:
        return [shots]
    return [[replace(shot, view=view) for shot in shots if shot.view in (None, view)] for view in views]
