"""Reading one image through a pipeline, step by step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError
from vistool.geometry import Geometry
from vistool.inputs.imread import as_rgb, open_image, to_rgb
from vistool.inputs.loaders import is_custom_loader, is_label_loader, is_loader, loaded, unloaded
from vistool.inputs.samples import Sample
from vistool.transforms.images import image_of, planes_of, size_of
from vistool.transforms.photometry import Photometry, Preprocessing
from vistool.transforms.randomness import seeded
from vistool.transforms.tracing import Tracer, name_of

_logger = logging.getLogger('vistool')


class Pipeline:
    """Transforms and what follows them, ready to read images.

    Args:
        transforms: Built transforms in order.
        data_preprocessor: The model's, built or as a config; its padding belongs to the picture.
        takes_images: Whether the transforms take a PIL image (torchvision, timm), not OpenMMLab's results dict.
    """

    def __init__(
        self,
        transforms: Sequence[Callable[[Any], Any]],
        data_preprocessor: Any = None,
        takes_images: bool = False,
    ) -> None:
        self.transforms, self.takes_images = list(transforms), takes_images
        self.preprocessing = Preprocessing.of(data_preprocessor)
        self._preprocessor = data_preprocessor if callable(data_preprocessor) else None
        self._warned: set[str] = set()
        if not self.preprocessing.known:
            _logger.warning('%s is not a known data preprocessor; its padding is measured', self.preprocessing.name)

    def read(
        self,
        source: Any,
        seed: int = 0,
        index: int = 0,
        name: str | None = None,
        info: Mapping[str, Any] | None = None,
        observe: Callable[[Any, Any], None] | None = None,
    ) -> Sample:
        """Read one image and run it through the pipeline.

        Args:
            source: A path, a PIL image, or a uint8 RGB array ``(H, W, 3)``.
            seed: With ``index`` decides whatever the transforms draw; the global random states stay as they are.
            index: Position of the image in the run.
            name: Output stem; default: the file's.
            info: What a dataset knows of the image besides (``gt_label``, annotations); without it, steps that load
                annotations are left out.
            observe: Called with ``(transform, value)`` after each step.

        Raises:
            InputError: The file is no readable image, or a transform fails on it.
        """
        path = Path(source) if isinstance(source, (str, Path)) else None
        original, orientation = original_of(source)
        try:
            with seeded(seed, index) as own:
                seed_inner(self.transforms, own)
                data, tracer = self._run(original, orientation, path, {**(info or {}), 'sample_idx': index}, observe)
        except InputError as error:
            problem = f'{path or "the image"}: {error.problem}'
            raise InputError(problem, accepted=error.accepted, hint=error.hint) from error
        image, geometry = self._finish(data, tracer, original)
        return Sample(
            data, image, original, geometry, path, name or (path.stem if path else 'image'), _label(data), index
        )

    def _run(
        self, original: NDArray[np.uint8], orientation: int, path: Path | None, results: dict[str, Any], observe: Any
    ) -> tuple[Any, Tracer]:
        """Start where the pipeline's own loader would have left off, and apply the rest."""
        if self.takes_images:
            tracer = Tracer(Geometry.identity(original.shape[:2]), Photometry(), self._warned, observe)
            return tracer.run(self.transforms, _pil(original)), tracer
        labelled = len(results) > 1
        steps = [t for t in self.transforms if labelled or not is_label_loader(t)]
        first, rest = (steps[0], steps[1:]) if steps else (None, [])
        results.setdefault('img_id', results['sample_idx'])
        if path is not None:
            results['img_path'] = str(path)
        if is_loader(first) and not (getattr(first, 'color_type', '') == 'unchanged' and path is not None):
            image, photometry, geometry = loaded(first, original, orientation)
        elif path is not None and (is_custom_loader(first) or is_loader(first)):
            return self._run_own_loader(first, rest, results, original, observe)
        else:
            rest = rest if is_custom_loader(first) or is_loader(first) else steps
            if path is not None:
                _logger.warning('the pipeline loads no images (its dataset holds them): a file goes in at its own size')
            image, photometry = unloaded(rest, self.preprocessing, original)
            geometry = Geometry.identity(original.shape[:2])
        results |= {'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}
        tracer = Tracer(geometry, photometry, self._warned, observe)
        return tracer.run(rest, results), tracer

    def _run_own_loader(
        self, loader: Any, rest: list[Any], results: dict[str, Any], original: NDArray[np.uint8], observe: Any
    ) -> tuple[Any, Tracer]:
        """Let a loader of the user's own (or one that keeps the file's raw values) read the file."""
        geometry = Geometry.identity(original.shape[:2])
        results = Tracer(None, Photometry(), self._warned, observe).run([loader], results)
        image = image_of(results)
        if size_of(image) != geometry.network_size:
            _logger.warning('%s gives another size than the file has: no geometry', name_of(loader))
            size = size_of(image) or geometry.network_size
            geometry = replace(Geometry.identity(size), original_size=geometry.original_size, exact=False)
        top = 65535 if getattr(image, 'dtype', None) == np.uint16 else 255
        photometry = Photometry(bgr=not getattr(loader, 'to_rgb', False)).scaled(255 / top)
        tracer = Tracer(geometry, photometry, self._warned, observe)
        return tracer.run(rest, results), tracer

    def _finish(self, data: Any, tracer: Tracer, original: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Geometry]:
        """The picture and geometry of the network's final input, the data preprocessor's padding included."""
        values = planes_of(network_input(data))
        geometry = tracer.geometry or Geometry.identity(original.shape[:2])
        if values.shape[-2:] != geometry.network_size:
            geometry = replace(
                Geometry.identity(values.shape[-2:]), original_size=geometry.original_size, exact=False
            )  # fmt: skip
        image, geometry = self.preprocessing.pad(values, tracer.photometry, geometry)
        if self.preprocessing.known or self._preprocessor is None:
            return image, geometry
        return self._measured(data, image, geometry)

    def _measured(self, data: Any, image: NDArray[np.uint8], geometry: Geometry) -> tuple[NDArray[np.uint8], Geometry]:
        """For a data preprocessor of unknown kind: run it, and take any growth as padding to the right and below."""
        from vistool.geometry import crop
        from vistool.inputs.samples import preprocess

        sample = Sample(data, image)
        batch = preprocess([sample], self._preprocessor, getattr(self._preprocessor, 'device', 'cpu'))
        size = size_of(batch)
        if size is None or size == geometry.network_size:
            return image, geometry
        h, w = image.shape[:2]
        if size[0] < h or size[1] < w:
            _logger.warning('%s changes the image size; maps are not laid over the original', self.preprocessing.name)
            import cv2

            image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
            return image, self.preprocessing.resized(geometry, size)
        padded = np.zeros((*size, 3), np.uint8)
        padded[:h, :w] = image
        return padded, geometry.then(crop((h, w), size, 0, 0))


def network_input(data: Any) -> Any:
    """The image tensor in what a pipeline returned: ``inputs`` or ``img``, the first where there are several."""
    while not (is_image := size_of(data) is not None):
        if isinstance(data, Mapping) and data:
            key = next((key for key in ('inputs', 'img', 'pixel_values') if key in data), next(iter(data)))
            data = data[key]
        elif isinstance(data, (tuple, list)) and data:
            data = data[0]
        else:
            break
    if not is_image:
        raise InputError(f'the pipeline returns {type(data).__name__}, not an image', hint='end it with PackInputs')
    return data


def original_of(source: Any) -> tuple[NDArray[np.uint8], int]:
    """uint8 RGB, upright, and the EXIF orientation of the file it came from."""
    if isinstance(source, (str, Path)):
        image = open_image(source)
        return to_rgb(image, str(source)), _orientation(image)
    if hasattr(source, 'getbands'):
        return to_rgb(source), _orientation(source)
    return as_rgb(source), 1


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data raise all sorts of things
        return 1


def _pil(image: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def _label(data: Any) -> int | None:
    """The ground-truth class that the pipeline packed, if there is exactly one."""
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    label = getattr(samples, 'gt_label', None)
    try:
        return int(label) if label is not None else None
    except (TypeError, ValueError, RuntimeError):
        return None


def seed_inner(transforms: Sequence[Any], seed: int) -> None:
    """Seed the generators that transforms keep for themselves: albumentations has one."""
    for transform in transforms:
        inner = getattr(transform, 'aug', transform)
        if hasattr(inner, 'set_random_seed'):
            inner.set_random_seed(seed)
