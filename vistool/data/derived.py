"""Transforms of vistool's own: inputs computed from the photo (its spectrum, its local texture), and a resize."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistool.data.geometry import GeometricStep, resize
from vistool.data.transforms import TransformCall
from vistool.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FFTMagnitude:
    """The magnitude of the image's spectrum, as an image.

    log(1 + |F|) of the gray image's two-dimensional Fourier transform, low frequencies in the middle, stretched to 0 to
    255. Its axes are frequencies, so maps over it have no position in the photo and are drawn on the spectrum itself.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces ``img``, ``(H, W, C)``, with the spectrum, uint8 ``(H, W, 3)``."""
        spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(gray(results['img'])))))
        spectrum -= spectrum.min()
        results['img'] = _three(spectrum * (255 / max(float(spectrum.max()), 1e-12)))
        return results

    def geometry_rule(self, call: TransformCall) -> GeometricStep:
        """No position of the photo is kept."""
        return replace(resize(call.before, call.after), exact=False)


@TRANSFORMS.register_module()
class ResizeWithin:
    """Resizes to a short side, and less where the long one would become too long, as transformers' detectors do.

    Args:
        shortest: The short side in pixels.
        longest: The most that the long side may have, or None.
        interpolation: Its name in pillow.
    """

    def __init__(self, shortest: int, longest: int | None = None, interpolation: str = 'bilinear') -> None:
        self.shortest, self.longest = shortest, longest
        self.interpolation = Image.Resampling[interpolation.upper()]

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resizes ``img``, uint8 ``(H, W, C)``, with pillow."""
        height, width = results['img'].shape[:2]
        short, raw = self.shortest, None
        if self.longest is not None and max(height, width) / min(height, width) * short > self.longest:
            raw = self.longest * min(height, width) / max(height, width)
            short = round(raw)
        if min(height, width) != short:
            side = short if raw is None else raw
            size = (int(side * height / width), short) if width < height else (short, int(side * width / height))
            results['img'] = np.array(Image.fromarray(results['img']).resize(size[::-1], self.interpolation))
        results['img_shape'] = results['img'].shape[:2]
        return results

    def geometry_rule(self, call: TransformCall) -> GeometricStep:
        """Edges map to edges."""
        return resize(call.before, call.after)


@TRANSFORMS.register_module()
class LocalBinaryPattern:
    """Local binary patterns of the gray image, as an image (Ojala, Pietikäinen and Mäenpää, IEEE TPAMI 2002).

    Each pixel becomes Σ 2^i·[n_i ≥ c] over its eight neighbors n_i, clockwise from the upper left; at the border the
    outermost pixels are repeated.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces ``img``, ``(H, W, C)``, with the codes, uint8 ``(H, W, 3)``."""
        center = gray(results['img'])
        height, width = center.shape
        padded = np.pad(center, 1, mode='edge')
        offsets = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
        codes = np.zeros((height, width), np.float64)
        for bit, (y, x) in enumerate(offsets):
            codes += (padded[y : y + height, x : x + width] >= center) * float(1 << bit)
        results['img'] = _three(codes)
        return results

    def geometry_rule(self, call: TransformCall) -> GeometricStep:
        """Every pixel stays in place."""
        return resize(call.before, call.after)


def gray(image: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the channels, ``(H, W)``; it does not depend on their order."""
    values = np.asarray(image, np.float64)
    return values if values.ndim == 2 else values.mean(2)


def _three(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)
