"""How stored values became network values, so that the image can be shown as it was before normalization.

Only what is undone is tracked here: channel order, value range, mean and standard deviation. Color augmentations are
part of what the network saw, so they stay. How stored values become a picture is :mod:`vistool.data.display`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vistool.data.display import PHOTO, Shown, strips
from vistool.data.geometry import Geometry, crop, resize
from vistool.data.images import Photo


@dataclass(frozen=True, eq=False)
class Photometry:
    """``stored = value * gain + bias`` with stored values in the file's own units, per channel in the current order.

    Attributes:
        bgr: Whether the first of three channels is blue.
        gain: ``(C,)`` or a scalar.
        bias: ``(C,)`` or a scalar.
        shown: How stored values are shown; by default 0 as black and 255 as white.
        channels: How many channels the values have, where that is known: it tells their axis.
        bands: The file's band, from 1, in each channel before any reversal; None: all of them in their order.
    """

    bgr: bool = False
    gain: NDArray[np.float64] | float = 1.0
    bias: NDArray[np.float64] | float = 0.0
    shown: Shown = PHOTO
    channels: int | None = None
    bands: tuple[int, ...] | None = None

    def reversed(self) -> Photometry:
        """After the order of the channels was reversed."""
        gain, bias = (np.flip(np.atleast_1d(each)) for each in (self.gain, self.bias))
        return replace(self, bgr=not self.bgr, gain=gain, bias=bias)

    def normalized(self, mean: ArrayLike, std: ArrayLike) -> Photometry:
        """After ``(value - mean) / std``."""
        mean, std = (np.asarray(v, np.float64).reshape(-1) for v in (mean, std))
        return replace(self, gain=self.gain * std, bias=self.bias + self.gain * mean)

    def scaled(self, factor: float) -> Photometry:
        """After the values were divided by ``factor``."""
        return replace(self, gain=self.gain * factor)

    def inverse(self, stored: float) -> float:
        """The value that stands for one of the file's, in the first channel."""
        gain, bias = (float(np.atleast_1d(each)[0]) for each in (self.gain, self.bias))
        return (stored - bias) / gain

    def image(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values ``(C, H, W)`` as uint8 ``(H, W, 3)`` RGB; gray becomes three channels, other bands are dropped."""
        values = np.asarray(values)
        chosen = self.shown.planes(len(values), self.bgr, self.bands)
        gain, bias = (np.broadcast_to(np.atleast_1d(each), len(values)) for each in self._to_bytes(len(values)))
        image = np.empty((*values.shape[1:], 3), np.uint8)
        exact = values.dtype == np.uint8 and np.all(gain == 1) and np.all(bias == 0)
        for place, plane in enumerate(chosen):
            for rows in strips(*values.shape[1:]):
                part = values[plane, rows]
                if not exact:
                    level = np.rint(part * gain[plane] + bias[plane])
                    part = np.clip(np.nan_to_num(level, nan=0.0, posinf=255.0, neginf=0.0), 0, 255).astype(np.uint8)
                image[rows, :, place] = part
        if len(chosen) == 1:
            image[..., 1:] = image[..., :1]
        return image

    def stored(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values ``(C, H, W)`` in the units of the file; three channels in the order red, green, blue."""
        gain, bias = (np.resize(each, len(values)).reshape(-1, 1, 1) for each in (self.gain, self.bias))
        found = values * gain + bias
        return found[::-1] if self.bgr and len(values) == 3 else found

    def _to_bytes(self, count: int) -> tuple[NDArray[np.float64] | float, NDArray[np.float64] | float]:
        """Gain and bias from values to levels of a byte."""
        gain, bias = (
            each if np.size(each) in (1, count) else np.resize(np.atleast_1d(each), count)
            for each in (self.gain, self.bias)
        )
        if (self.shown.low, self.shown.high) == (0, 255):
            return gain, bias
        return gain * self.shown.scale, (bias - self.shown.low) * self.shown.scale


def pixels_of(photo: Photo, shown: Shown) -> NDArray[np.uint8]:
    """A file as a person sees it, uint8 ``(H, W, 3)`` RGB."""
    if photo.ordinary and (shown.low, shown.high, shown.bands) == (PHOTO.low, PHOTO.high, PHOTO.bands):
        return photo.values
    return Photometry(shown=shown).image(photo.values.transpose(2, 0, 1))


def compared(values: NDArray[Any], stored: NDArray[Any], bgr: bool = False) -> Photometry | None:
    """What a loader did to the values of a file, found by comparing the two.

    Each band that it returned is sought among the file's: equal up to a factor and an offset, and up to rounding where
    it returned integers.

    Args:
        values: ``(H, W, C)`` that the loader returned.
        stored: ``(H, W, C')`` of the file.
        bgr: Whether three bands are taken for blue, green, red where the values do not tell.

    Returns:
        The photometry; None where a band has no counterpart in the file.
    """
    if values.shape[:2] != stored.shape[:2]:
        return None
    count, step = values.shape[2], max(1, math.isqrt(values.shape[0] * values.shape[1] // 10_000))
    values, stored = values[::step, ::step], stored[::step, ::step]
    places, lines = [], []
    for channel in range(count):
        natural = 2 - channel if bgr and channel < 3 else channel
        order = sorted(range(stored.shape[2]), key=lambda band, first=natural: (band != first, band in places))  # type: ignore[misc]
        found = next(((band, line) for band in order if (line := _line(values[..., channel], stored[..., band]))), None)
        if found is None:
            return None
        places.append(found[0])
        lines.append(found[1])
    gain, bias = np.array(lines).T
    plain = bool(np.all(gain == 1) and np.all(bias == 0))
    photometry = Photometry(gain=1.0 if plain else gain, bias=0.0 if plain else bias, channels=count)
    if places[:3] == [2, 1, 0]:
        places = [0, 1, 2, *places[3:]]
        photometry = replace(photometry, bgr=True)
    if places == list(range(stored.shape[2])):
        return photometry
    return replace(photometry, bands=tuple(band + 1 for band in places))


def _line(values: NDArray[Any], stored: NDArray[Any]) -> tuple[float, float] | None:
    """Factor and offset from a loader's band to the file's, or None where no two numbers lead from one to the other."""
    x, y = values.astype(np.float64).ravel(), stored.astype(np.float64).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not x.size or np.array_equal(x, y):
        return 1.0, 0.0
    spread = float(x.std())
    if spread == 0:
        return None
    gain = float(((x - x.mean()) * (y - y.mean())).mean()) / spread**2
    bias = float(y.mean() - gain * x.mean())
    rounding = 1.01 * abs(gain) if values.dtype.kind in 'ui' else 0.0
    error = float(np.abs(gain * x + bias - y).max())
    return (gain, bias) if gain > 0 and error <= max(0.01 * float(y.std()), rounding) else None


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
        paint = np.resize(paint[::-1] if self.swaps else paint, len(values))
        padded = np.empty((*size, 3), np.uint8)
        padded[:] = photometry.image(paint.reshape(-1, 1, 1))[0, 0]
        padded[:h, :w] = image
        return padded, geometry.then(crop((h, w), size, 0, 0))

    def resized(self, geometry: Geometry, size: tuple[int, int]) -> Geometry:
        """For a preprocessor of unknown kind that changed the size: the geometry is not exact."""
        step = resize(geometry.network_size, size)
        return replace(geometry.then(step), exact=False)


_KNOWN = {
    'ClsDataPreprocessor', 'SelfSupDataPreprocessor', 'ImgDataPreprocessor', 'BaseDataPreprocessor',
    'DetDataPreprocessor', 'TwoNormDataPreprocessor', 'MultiModalDataPreprocessor',
}  # fmt: skip
"""Data preprocessors that the attributes above describe in full."""
_NEVER_PAD = {'SelfSupDataPreprocessor', 'TwoNormDataPreprocessor', 'BaseDataPreprocessor'}


def float_array(values: Any) -> NDArray[np.float64]:
    """A tensor, array or list as a float64 vector."""
    values = values.detach().double().cpu().numpy() if hasattr(values, 'detach') else values
    return np.asarray(values, np.float64).reshape(-1)
