"""How stored values became network values, so that the image can be shown as it was before normalization.

Only what is undone is tracked here: channel order, value range, mean and standard deviation. Color augmentations are
part of what the network saw, so they stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vistool.data.geometry import Geometry, crop, resize


@dataclass(frozen=True, eq=False)
class Photometry:
    """``stored = value * gain + bias`` with stored values in 0-255, per channel in the current order.

    Attributes:
        bgr: Whether the first of three channels is blue.
        gain: ``(C,)`` or a scalar.
        bias: ``(C,)`` or a scalar.
    """

    bgr: bool = False
    gain: NDArray[np.float64] | float = 1.0
    bias: NDArray[np.float64] | float = 0.0

    def reversed(self) -> Photometry:
        """After the order of the channels was reversed."""
        return Photometry(not self.bgr, np.flip(np.atleast_1d(self.gain)), np.flip(np.atleast_1d(self.bias)))

    def normalized(self, mean: ArrayLike, std: ArrayLike) -> Photometry:
        """After ``(value - mean) / std``."""
        mean, std = (np.asarray(v, np.float64).reshape(-1) for v in (mean, std))
        return replace(self, gain=self.gain * std, bias=self.bias + self.gain * mean)

    def scaled(self, factor: float) -> Photometry:
        """After the values were divided by ``factor``."""
        return replace(self, gain=self.gain * factor)

    def image(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values ``(C, H, W)`` as uint8 ``(H, W, 3)`` RGB; gray becomes three equal channels, alpha is dropped."""
        values = np.asarray(values)[:3]
        if len(values) == 2:  # gray with alpha
            values = values[:1]
        if values.dtype != np.uint8 or np.any(self.gain != 1) or np.any(self.bias != 0):
            gain, bias = (np.atleast_1d(v)[: len(values)].reshape(-1, 1, 1) for v in (self.gain, self.bias))
            values = np.clip(np.rint(values * gain + bias), 0, 255).astype(np.uint8)
        if len(values) == 1:
            values = np.repeat(values, 3, axis=0)
        elif self.bgr:
            values = values[::-1]
        return np.ascontiguousarray(values.transpose(1, 2, 0))


def followed(photometry: Photometry, transform: Any, before: Any, after: Any, known: bool) -> Photometry:
    """The photometry after one transform.

    Args:
        photometry: The photometry before it.
        transform: The transform.
        before: The image that went in (array, tensor or PIL image).
        after: The image that came out.
        known: Whether the transform is in the tables; for others a change of range is inferred from the values.
    """
    name, package = type(transform).__name__, type(transform).__module__.split('.')[0]
    if name == 'Normalize' and known:
        if getattr(transform, 'to_rgb', False) and _channels(before) == 3:
            photometry = photometry.reversed()
        return photometry.normalized(transform.mean, transform.std)
    if name in ('NumpyToPIL', 'PILToNumpy') and any(getattr(transform, to, False) for to in ('to_rgb', 'to_bgr')):
        return photometry.reversed()
    if (name == 'ToDtype' and not transform.scale) or (name == 'ToTensor' and package == 'timm'):
        return photometry
    if name in ('ToTensor', 'MaybeToTensor', 'ConvertImageDtype', 'ToDtype', 'ToPILImage', 'ToTensorV2') and known:
        return _rescaled(photometry, before, after)
    return photometry if known or before is None else _guessed(photometry, before, after)


def _rescaled(photometry: Photometry, before: Any, after: Any) -> Photometry:
    """To torchvision's conversions, integer images are 0-255 and float images 0-1."""
    if _is_float(after) and not _is_float(before):
        return photometry.scaled(_top(before))
    if _is_float(before) and not _is_float(after):
        return photometry.scaled(1 / _top(after))
    return photometry


def _guessed(photometry: Photometry, before: Any, after: Any) -> Photometry:
    """An unknown transform that turns an integer image into floats up to 1 divided it by the largest integer."""
    if after is None or _is_float(before) or not _is_float(after):
        return photometry
    high = float(np.max(np.asarray(after), initial=0))
    return photometry.scaled(_top(before)) if high <= 1 < np.max(np.asarray(before), initial=0) else photometry


def _dtype(image: Any) -> str:
    return 'float32' if getattr(image, 'mode', '') == 'F' else str(getattr(image, 'dtype', 'uint8')).split('.')[-1]


def _is_float(image: Any) -> bool:
    return 'float' in _dtype(image)


def _top(image: Any) -> float:
    return {'uint16': 65535.0, 'int16': 32767.0}.get(_dtype(image), 255.0)


def _channels(image: Any) -> int:
    return image.shape[2] if getattr(image, 'ndim', 0) == 3 else 1


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What a data preprocessor does to an image after the pipeline.

    Attributes:
        swaps: Whether it reverses the channels.
        mean: ``(C,)``, or None if it does not normalize.
        std: ``(C,)``.
        divisor: It pads at the right and below to a multiple of this.
        pad_value: The value of the padding, after normalizing.
        known: Whether the behavior of its class is known.
        name: Its class.
    """

    swaps: bool = False
    mean: NDArray[np.float64] | None = None
    std: NDArray[np.float64] | None = None
    divisor: int = 1
    pad_value: float = 0.0
    known: bool = True
    name: str = ''

    @classmethod
    def of(cls, preprocessor: Any) -> Preprocessing:
        """Reads it from a built data preprocessor or its config; None does nothing."""
        if preprocessor is None:
            return cls()
        if isinstance(preprocessor, Mapping):
            name = preprocessor.get('type', 'ClsDataPreprocessor')
            name = name.rsplit('.', 1)[-1] if isinstance(name, str) else name.__name__
            read = preprocessor.get
        else:
            name, read = type(preprocessor).__name__, lambda key, default=None: getattr(preprocessor, key, default)
        swaps = any(bool(read(key, False)) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr', '_channel_conversion'))
        mean, std = ((None if (v := read(key)) is None else float_array(v)) for key in ('mean', 'std'))
        pads = name not in _NEVER_PAD
        return cls(
            swaps, mean, std, int(read('pad_size_divisor', 1) or 1) if pads else 1, float(read('pad_value', 0) or 0),
            name in _KNOWN, name,
        )  # fmt: skip

    def pad(
        self, values: NDArray[Any], photometry: Photometry, geometry: Geometry
    ) -> tuple[NDArray[np.uint8], Geometry]:
        """The final image and geometry for the values ``(C, H, W)`` that the pipeline gave."""
        image, (h, w) = photometry.image(values), values.shape[-2:]
        size = tuple(-(-n // self.divisor) * self.divisor for n in (h, w))
        if size == (h, w):
            return image, geometry
        paint = np.full(3 if self.mean is None else len(self.mean), self.pad_value)
        if self.mean is not None and self.std is not None:
            paint = paint * self.std + self.mean
        paint = np.broadcast_to(paint[::-1] if self.swaps else paint, (3,)) if len(values) >= 3 else paint[:1]
        padded = np.empty((*size, 3), np.uint8)
        padded[:] = photometry.image(paint.reshape(-1, 1, 1))[0, 0]
        padded[:h, :w] = image
        return padded, geometry.then(crop((h, w), size, 0, 0))

    def resized(self, geometry: Geometry, size: tuple[int, int]) -> Geometry:
        """For a preprocessor of unknown kind that changed the size: the geometry is not exact."""
        step = resize(geometry.network_size, size)
        return replace(geometry.then(step), exact=False)


#: Data preprocessors that the attributes above describe in full.
_KNOWN = {
    'ClsDataPreprocessor', 'SelfSupDataPreprocessor', 'ImgDataPreprocessor', 'BaseDataPreprocessor',
    'DetDataPreprocessor', 'TwoNormDataPreprocessor', 'MultiModalDataPreprocessor',
}  # fmt: skip
_NEVER_PAD = {'SelfSupDataPreprocessor', 'TwoNormDataPreprocessor', 'BaseDataPreprocessor'}


def float_array(values: Any) -> NDArray[np.float64]:
    """A tensor, array or list as a float64 vector."""
    values = values.detach().cpu().numpy() if hasattr(values, 'detach') else values
    return np.asarray(values, np.float64).reshape(-1)
