"""Image files of every kind as uint8 RGB, the way a person sees them."""

from __future__ import annotations

import codecs
import copy
import logging
import struct
import warnings
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vistool.data.geometry import Size
from vistool.errors import InputError, close_matches

log = logging.getLogger('vistool')

#: Suffixes that a folder is searched for.
SUFFIXES = frozenset({
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.pgm', '.pbm',
    '.pnm', '.jp2', '.tga', '.avif',
})  # fmt: skip

ImageLike = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image as users give it: a path, a PIL image, or an array ``(H, W, 3)`` RGB or ``(H, W)`` gray."""

_UNKNOWN = 'not an image, or in an unknown format'

#: What PIL's decoders raise on damaged files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def read_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """A file as uint8 ``(H, W, 3)`` RGB, with its EXIF orientation applied.

    Transparency is laid over white, 16-bit and float images are scaled to 0-255, an animation gives its first frame.

    Raises:
        InputError: The file is missing, empty, truncated, a folder, or not an image.
    """
    return to_rgb(open_image(path), str(path))


def original_of(source: ImageLike) -> tuple[NDArray[np.uint8], int]:
    """uint8 RGB, upright, and the EXIF orientation of the file it came from."""
    if isinstance(source, (str, PathLike)):
        image = open_image(source)
        return to_rgb(image, str(source)), _orientation(image)
    if isinstance(source, Image.Image):
        return to_rgb(source), _orientation(source)
    return as_rgb(source), 1


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data can raise anything
        return 1


def open_image(path: str | PathLike[str]) -> Image.Image:
    """A file as a decoded PIL image in its own mode, its EXIF orientation not applied; raises as :func:`read_image`."""
    path = Path(path)
    _check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(path)
    except UnidentifiedImageError:
        accepted = 'an image file (JPEG, PNG, TIFF, WebP, BMP, GIF)'
        raise InputError(f'{path} is {_kind(path)}', accepted=accepted) from None
    except Image.DecompressionBombError as error:
        raise InputError(f'{path} is too large: {error}', hint='make it smaller first') from None
    except _BROKEN as error:
        raise InputError(f'cannot read {path}: {error}') from error
    try:
        image.load()
    except _BROKEN as error:
        raise InputError(f'{path} is damaged or cut off ({error})', hint='copy or download it again') from error
    return image


def to_rgb(image: Image.Image, name: str = 'the image') -> NDArray[np.uint8]:
    """A PIL image as uint8 ``(H, W, 3)`` RGB, upright."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data can raise anything
        log.warning('%s has unreadable EXIF data; its orientation is ignored', name)
    if image.mode.startswith('I') or image.mode == 'F':
        gray = _to_bytes(np.asarray(image), name)
        return np.repeat(gray[:, :, None], 3, axis=2)
    try:
        if image.mode in ('RGBA', 'RGBa', 'LA', 'La', 'PA') or 'transparency' in image.info:
            image = image.convert('RGBA')
            white = Image.new('RGBA', image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return np.array(image.convert('RGB'))
    except ValueError as error:
        problem = f'{name} has the color mode {image.mode}, which cannot be shown'
        raise InputError(problem, accepted='RGB, gray, palette, CMYK, 16-bit or float gray') from error


def as_rgb(array: Any) -> NDArray[np.uint8]:
    """Checks a user's array: uint8 ``(H, W, 3)`` RGB, or gray ``(H, W)``, which is spread over three channels."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise InputError(
            f'an array of type {array.dtype} and shape {array.shape} is not an image',
            accepted='uint8 of shape (H, W, 3), RGB, or (H, W)',
            hint='scale to 0-255 and use .astype("uint8"), channels last',
        )
    array = array if array.ndim == 3 else array[:, :, None]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _check(path: Path) -> None:
    if not path.exists():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f'no such file: {path}', hint=close_matches(path.name, names))
    if path.is_dir():
        raise InputError(f'{path} is a folder', accepted='an image file')
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f'{path} is empty (0 bytes)', hint='copy or download it again')


def _kind(path: Path) -> str:
    """What a file that is not an image seems to be."""
    with path.open('rb') as file:
        head = file.read(512)
    try:
        codecs.getincrementaldecoder('utf-8')().decode(head)  # a character cut in two at the end is fine
    except UnicodeDecodeError:
        return _UNKNOWN
    return _UNKNOWN if b'\0' in head else 'a text file, not an image'


def _to_bytes(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Gray values of more than 8 bits as bytes; their range follows from the type, or else from the values."""
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    floats = values.dtype.kind == 'f'
    values = np.nan_to_num(values.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if floats and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    for top in (255, 65535):
        if low >= 0 and high <= top:
            return np.rint(values * (255 / top)).astype(np.uint8)
    log.warning('%s has values from %g to %g; they are stretched from black to white', name, low, high)
    return np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def is_tensor(image: Any) -> bool:
    """Whether it is a torch tensor; torch is not imported for the answer."""
    return hasattr(image, 'detach') and hasattr(image, 'dim')


def size_of(image: Any) -> Size | None:
    """``(h, w)`` of an image of any kind: PIL, ``(H, W[, C])`` array, ``(C, H, W)`` tensor or array; else None."""
    if is_tensor(image):
        return (int(image.shape[-2]), int(image.shape[-1])) if image.dim() >= 2 else None
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4) and image.shape[0] in (1, 2, 3, 4):
            return image.shape[1], image.shape[2]
        return (image.shape[0], image.shape[1]) if image.ndim in (2, 3) else None
    if hasattr(image, 'getbands'):
        return image.height, image.width
    return None


def image_of(value: Any) -> Any:
    """The image in a results dict, or the value itself if the pipeline passes images; None if there is no image."""
    if isinstance(value, dict):
        value = value['img'] if value.get('img') is not None else value.get('inputs')
    return value if size_of(value) is not None else None


def with_image(value: Any, image: Any) -> Any:
    """A deep copy of the value with another image in it."""
    if not isinstance(value, dict):
        return image
    key = 'img' if value.get('img') is not None else 'inputs'
    return {**copy.deepcopy({k: v for k, v in value.items() if k != key}), key: image}


def planes_of(image: Any) -> NDArray[Any]:
    """Any image as an array ``(C, H, W)``."""
    if is_tensor(image):
        array = image.detach().cpu().numpy()
        return array.reshape(-1, *array.shape[-2:]) if array.ndim != 3 else array
    array = np.asarray(image)
    if array.ndim == 2:
        return array[None]
    first = size_of(image) == array.shape[1:] and size_of(image) != array.shape[:2]
    return array if first else array.transpose(2, 0, 1)
