"""Pixels and figures to the bytes of a file. Files hold the picture and nothing else."""

from __future__ import annotations

import cv2

from vistool.errors import InputError
from vistool.visualization.scene import Pixels

RASTER_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')
VECTOR_SUFFIXES = ('.pdf', '.svg')
SUFFIXES = RASTER_SUFFIXES + VECTOR_SUFFIXES

_OPTIONS = {
    # Level 1 with one fixed filter: a third of the time of the default, for files a tenth larger.
    '.png': (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
    # Colours are the message: keep them at full resolution (4:4:4).
    '.jpg': (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    '.webp': (),
}
_QUALITY = 95
_QUALITY_OPTION = {'.jpg': cv2.IMWRITE_JPEG_QUALITY, '.webp': cv2.IMWRITE_WEBP_QUALITY}
_LARGEST_SIDE = {'.webp': 16383}


def encode_pixels(pixels: Pixels, suffix: str, quality: int = _QUALITY) -> bytes:
    """RGB pixels as the bytes of an image file.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        suffix: One of ``RASTER_SUFFIXES``.
        quality: Of JPEG and WebP, 1 to 100.

    Raises:
        InputError: The format cannot hold a picture of this size.
    """
    limit = _LARGEST_SIDE.get(suffix, 65500)
    if max(pixels.shape[:2]) > limit:
        raise InputError(
            f'a {suffix} file cannot hold {pixels.shape[1]} x {pixels.shape[0]} pixels',
            hint='choose .png, or a smaller --width or --dpi',
        )
    kind = '.jpg' if suffix == '.jpeg' else suffix
    options = (*_OPTIONS[kind], *((_QUALITY_OPTION[kind], quality) if kind in _QUALITY_OPTION else ()))
    done, data = cv2.imencode(kind, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f'OpenCV cannot write {suffix}')
    return data.tobytes()
