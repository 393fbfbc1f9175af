"""A dataset's own pipeline, run step by step, each image that it makes on the way kept as a person sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.datasets.parameters import NOT_APPLIED, described
from vistool.errors import InputError
from vistool.transforms.images import planes_of, size_of
from vistool.transforms.photometry import Photometry, Preprocessing
from vistool.transforms.tracing import Tracer, applied, attribute, name_of

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
