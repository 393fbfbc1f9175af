"""Image files and arrays of any kind → upright arrays of bands: PIL for photos, tifffile and NumPy for measurements."""

from __future__ import annotations

import codecs
import logging
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vistool.data.decoders import decoding
from vistool.data.display import strips
from vistool.errors import InputError, close_matches, counted, message_of, on_one_line, param, without_name
from vistool.records import shown_path

log = logging.getLogger('vistool')
logging.getLogger('PIL').addHandler(logging.NullHandler())  # else Python prints what it says of damaged files

SUFFIXES = frozenset({
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.pgm', '.pbm',
    '.pnm', '.jp2', '.tga', '.avif',
})  # fmt: skip
"""Suffixes that a folder is searched for."""
ARRAY_SUFFIXES = frozenset({'.npy', '.npz'})
"""Files of arrays; a folder is searched for them where it holds no images."""

ImageLike = str | PathLike[str] | Image.Image | NDArray[Any]
"""An image as users give it: a path, a PIL image, or an array: ``(H, W, 3)`` RGB, ``(H, W)`` gray, or other bands."""

_UNKNOWN = 'not an image, or in an unknown format'
_ACCEPTED = 'an image file (JPEG, PNG, TIFF, WebP, BMP, GIF) or an array (.npy, .npz)'
AGAIN = 'copy or download it again'

_SIGNATURES = (b'\xff\xd8\xff', b'\x89PNG\r\n', b'GIF8', b'RIFF', b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
"""How files of images begin: JPEG, PNG, GIF, WebP, TIFF."""
_PRINTED = (_SIGNATURES[1], *_SIGNATURES[-4:])
"""Those of them whose decoders print what they find: PNG (OpenCV, for 16 bits) and TIFF."""
_MOST_BANDS = 32
"""An axis of an array without a declared number of bands holds bands if it is no longer than this and the other is."""

_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""EXIF orientation → the stored array upright."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded image, upright.

    Attributes:
        values: ``(H, W, C)`` as stored: uint8 RGB for photos, any real type and number of bands for measurements.
        name: What to call it in messages.
        orientation: The EXIF orientation that the file had.
        ordinary: Whether it is a photo of 8 bits, which every loader reads as RGB.
    """

    values: NDArray[Any]
    name: str = 'the image'
    orientation: int = 1
    ordinary: bool = True

    def eight_bit(self) -> tuple[NDArray[np.uint8], float, float]:
        """What a loader of 8-bit color makes of it: uint8 ``(H, W, 3)`` RGB, and the gain and bias back to the file.

        Bands after the third are dropped, as by OpenCV. The range follows from the type, or else from the values; it
        does not depend on how the image is shown.

        Raises:
            InputError: It has more bands than such a loader reads.
        """
        count = self.values.shape[2]
        if self.ordinary and count == 3:
            return self.values, 1.0, 0.0
        if count > 4:
            raise InputError(
                f'{self.name} has {counted(count, "band")}, which loaders of color images do not read',
                accepted='1 to 4 bands',
                hint="use a loader that keeps them, such as LoadImageFromFile with imdecode_backend='tifffile'",
            )
        if count == 4:
            log.warning('the loader of the pipeline keeps bands 1–3 of 4: the network does not get band 4')
        levels, gain, bias = _to_bytes(self.values[..., : 3 if count > 2 else 1], self.name)
        if levels.shape[2] == 1:
            levels = np.repeat(levels, 3, axis=2)
        return levels, gain, bias


def read_photo(source: ImageLike, channels: int | None = None, axes: str | None = None) -> Photo:
    """Any image as bands.

    Args:
        source: A path, a PIL image, or an array.
        channels: How many bands the pipeline or the network declares; tells the axes of an array.
        axes: ``HWC`` or ``CHW``, as the user says; None: as declared, else by the sizes of the axes.

    Raises:
        InputError: It is not a readable image, or the axes cannot be told apart.
    """
    if isinstance(source, Image.Image):
        return Photo(*_pil_values(source, 'the image'))
    if not isinstance(source, (str, PathLike)):
        return _of_array(np.asarray(source), 'the array', channels, axes)
    path = Path(source)
    _check(path)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _of_array(_load_array(path), on_one_line(path), channels, axes)
    prints = _head(path).startswith(_PRINTED)
    with decoding(on_one_line(path)) if prints else nullcontext():
        return _decoded(path, channels, axes)


def _decoded(path: Path, channels: int | None, axes: str | None) -> Photo:
    if _is_tiff(path):
        found = _read_tiff(path, channels, axes)
        if found is not None:
            return found
    image = open_image(path)
    if image.format == 'PNG' and image.mode in ('RGB', 'RGBA') and _png_depth(path) == 16:
        return _read_png16(path, _orientation(image))
    return Photo(*_pil_values(image, on_one_line(path)))


def read_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """A file as loaders of 8-bit color read it: uint8 ``(H, W, 3)`` RGB, with its EXIF orientation applied.

    Transparency is laid over white, 16-bit and float images are scaled to 0-255, an animation gives its first frame.

    Raises:
        InputError: The file is missing, empty, truncated, a folder, or not an image.
    """
    return read_photo(path).eight_bit()[0]


def photo_size(source: ImageLike) -> tuple[int, int]:
    """Height and width of an image, upright, from the head of its file where that says them."""
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        _check(path)
        if path.suffix.lower() not in ARRAY_SUFFIXES and not _is_tiff(path):
            image = _opened(path)
            turned = _orientation(image) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    values = read_photo(source).values
    return values.shape[0], values.shape[1]


def declared_size(path: str | PathLike[str]) -> tuple[int, int]:
    """How many pixels and how many values a file says that it holds; nothing is decoded.

    Raises:
        InputError: The file is missing, empty or not an image, or its head is damaged.
    """
    path = Path(path)
    _check(path)
    try:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            return _declared_by_arrays(path)
        if _is_tiff(path):
            return _declared_by_tiff(path)
    except InputError:
        raise
    except Exception as error:  # damaged files can raise anything
        raise _damaged(path, error) from error
    image = _opened(path)
    pixels = image.width * image.height
    return pixels, pixels * len(image.getbands())


def _declared_by_arrays(path: Path) -> tuple[int, int]:
    """The sizes of the arrays in a ``.npy`` or ``.npz`` file, by their headers."""
    if path.suffix.lower() == '.npy':
        with path.open('rb') as file:
            return _declared_by_header(file)
    with zipfile.ZipFile(path) as archive:
        found = []
        for entry in archive.infolist():
            with archive.open(entry) as file:
                found.append(_declared_by_header(file))
    return max((pixels for pixels, _ in found), default=0), sum(values for _, values in found)


def _declared_by_header(file: IO[bytes]) -> tuple[int, int]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.kind not in 'biufc':
        raise ValueError(f'values of type {kind}')
    return math.prod(sorted(shape)[-2:]), math.prod(shape) * -(-kind.itemsize // 4)


def _declared_by_tiff(path: Path) -> tuple[int, int]:
    import tifffile

    logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # it logs each damaged tag
    with tifffile.TiffFile(path) as file:
        page, series = file.pages.first, file.series[0]
        pixels = int(page.imagewidth) * int(page.imagelength)
        values = pixels * int(page.samplesperpixel)
        return pixels, max(values, math.prod(series.shape)) if len(series.axes) <= 3 else values


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array ``(H, W[, C])`` as a file stores it, turned as its EXIF orientation says."""
    return _UPRIGHT.get(orientation, lambda a: a)(array)


def exif_orientation(path: str | PathLike[str]) -> int:
    """The EXIF orientation of a file, 1 where it has none; raises as :func:`read_image`."""
    path = Path(path)
    return 1 if path.suffix.lower() in ARRAY_SUFFIXES else _orientation(_opened(path))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data can raise anything
        return 1


def _opened(path: Path) -> Image.Image:
    """A file as a PIL image that is not yet decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            return Image.open(path)
    except UnidentifiedImageError as error:
        if _head(path).startswith(_SIGNATURES):
            raise _damaged(path, EOFError('its structure cannot be read')) from error
        raise InputError(f'{on_one_line(path)} is {_kind(path)}', accepted=_ACCEPTED) from None
    except Image.DecompressionBombError as error:
        raise InputError(f'{on_one_line(path)} is too large: {error}', hint='make it smaller first') from None
    except Exception as error:  # damaged files can raise anything
        raise InputError(f'{on_one_line(path)} cannot be read: {message_of(error)}', hint=AGAIN) from error


def open_image(path: str | PathLike[str]) -> Image.Image:
    """A file as a decoded PIL image in its own mode, its EXIF orientation not applied; raises as :func:`read_image`."""
    path = Path(path)
    _check(path)
    image = _opened(path)
    try:
        several = image.format != 'MPO' and getattr(image, 'is_animated', False)  # a phone's second picture is no page
        if several:
            log.info('%s: picture 1 of %d', on_one_line(path), getattr(image, 'n_frames', 2))
        image.load()
    except Exception as error:  # damaged files can raise anything
        raise _damaged(path, error) from error
    return image


def _damaged(path: Path, error: Exception) -> InputError:
    text = without_name(message_of(error), path)
    return InputError(f'{on_one_line(path)} is damaged or cut off ({text})', hint=AGAIN)


def _pil_values(image: Image.Image, name: str) -> tuple[NDArray[Any], str, int, bool]:
    """The fields of a :class:`Photo` for a PIL image."""
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data can raise anything
        log.warning('%s has unreadable EXIF data; its orientation is ignored', name)
        orientation = 1
    if image.mode.startswith('I') or image.mode == 'F':
        return upright(np.asarray(image)[:, :, None], orientation), name, orientation, False
    try:
        if image.mode in ('RGBA', 'RGBa', 'LA', 'La', 'PA') or 'transparency' in image.info:
            image = image.convert('RGBA')
            white = Image.new('RGBA', image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return np.ascontiguousarray(upright(_rgb(image), orientation)), name, orientation, True
    except ValueError as error:
        problem = f'{name} has the color mode {image.mode}, which cannot be shown'
        raise InputError(problem, accepted='RGB, gray, palette, CMYK, 16-bit or float gray') from error


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A PIL image as uint8 ``(H, W, 3)``, strip by strip: PIL's own conversions hold several copies of a photo."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows in strips(image.height, image.width):
        pixels[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert('RGB'))
    return pixels


def to_rgb(image: Image.Image, name: str = 'the image') -> NDArray[np.uint8]:
    """A PIL image as uint8 ``(H, W, 3)`` RGB, upright."""
    return Photo(*_pil_values(image, name)).eight_bit()[0]


def _of_array(array: NDArray[Any], name: str, channels: int | None, axes: str | None) -> Photo:
    """An array as bands, channels last.

    Raises:
        InputError: It is not one image of real numbers, or its axes cannot be told apart.
    """
    if array.dtype.kind not in 'buif' or array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f'{name} of type {array.dtype} and shape {array.shape} is not an image',
            accepted='numbers of shape (H, W, 3), RGB, (H, W), gray, or (H, W, bands)',
            hint='give one image; take it out of its batch' if array.ndim == 4 else '',
        )
    values = channels_last(array, name, channels, axes)
    if values.dtype == np.uint8 and values.shape[2] == 1:
        return Photo(np.repeat(values, 3, axis=2), name)
    return Photo(np.ascontiguousarray(values), name, 1, values.dtype == np.uint8 and values.shape[2] == 3)


def channels_last(array: NDArray[Any], name: str, channels: int | None = None, axes: str | None = None) -> NDArray[Any]:
    """An array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` as ``(H, W, C)``.

    The user's word counts first, then the number of channels that the pipeline or the network declares, then that bytes
    with three channels last are a photo, that an axis of three (or one) holds the channels, and that an axis of at most
    32 holds bands and a longer one pixels.

    Raises:
        InputError: Both readings fit.
    """
    if array.ndim == 2:
        return array[:, :, None]
    first, last = array.shape[0], array.shape[2]
    if axes is not None:
        return array if axes == 'HWC' else array.transpose(1, 2, 0)
    if channels is not None and (first == channels) != (last == channels):
        return array if last == channels else array.transpose(1, 2, 0)
    if array.dtype == np.uint8 and last == 3:
        return array  # an RGB photo, as arrays from Python are promised to be
    clear = channels is None or first != channels
    if clear and (last in (1, 3)) != (first in (1, 3)) and (last <= _MOST_BANDS or first <= _MOST_BANDS):
        return array if last in (1, 3) else array.transpose(1, 2, 0)
    if clear and (last <= _MOST_BANDS) != (first <= _MOST_BANDS):
        return array if last <= _MOST_BANDS else array.transpose(1, 2, 0)
    raise InputError(
        f'{name} of shape {array.shape} can be {last} bands of {first}×{array.shape[1]} pixels '
        f'or {first} bands of {array.shape[1]}×{last} pixels',
        hint=f'say it with {param("axes", "HWC")} or {param("axes", "CHW")}',
    )


def _load_array(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, or the only one (or the one called like an image) of a ``.npz``."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            known = [name for name in ('img', 'image', 'inputs', 'data', 'arr_0') if name in names]
            if len(names) != 1 and not known:
                raise InputError(
                    f'{on_one_line(path)} holds {len(names)} arrays: {", ".join(names)}', accepted='one called img'
                )
            return np.asarray(loaded[names[0] if len(names) == 1 else known[0]])
    except InputError:
        raise
    except Exception as error:  # damaged files can raise anything
        raise InputError(f'{on_one_line(path)} cannot be read as an array ({message_of(error)})', hint=AGAIN) from error


def _is_tiff(path: Path) -> bool:
    return _head(path).startswith(_SIGNATURES[-4:])


def _read_tiff(path: Path, channels: int | None, axes: str | None) -> Photo | None:
    """A TIFF of measurements; None where it is an ordinary photo of 8 bits, or too damaged to tell."""
    import tifffile

    logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # it logs each damaged tag
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if _is_ordinary(page):
                return None
            orientation = int(page.tags.valueof('Orientation', 1) or 1)
            series = file.series[0]
            values = _tiff_values(path, file, series, channels, axes)
    except InputError:
        raise
    except Exception as error:  # damaged files can raise anything
        if 'imagecodecs' in str(error):
            return _other_reader(path, error)
        try:
            open_image(path)
        except InputError as damaged:
            raise damaged from error
        return None
    values = upright(values, orientation)
    return Photo(np.ascontiguousarray(values), on_one_line(path), orientation, False)


def _is_ordinary(page: Any) -> bool:
    """Whether a page is a photo of at most 8 bits: bilevel, gray, palette, RGB, CMYK, YCbCr, with declared alpha."""
    samples, extra = int(page.samplesperpixel), tuple(int(each) for each in page.extrasamples)
    if int(page.bitspersample) > 8 or int(page.sampleformat) not in (1, 4):
        return False
    photometric = int(page.photometric)
    colors = {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric, 1)
    # An extra sample is alpha where the file says so: 1 associated, 2 unassociated. Near infrared is not alpha.
    return samples == colors or (samples == colors + 1 and extra in ((1,), (2,)))


def _tiff_values(path: Path, file: Any, series: Any, channels: int | None, axes: str | None) -> NDArray[Any]:
    """The bands of a TIFF's first image, channels last."""
    order = series.axes
    if order in ('YXS', 'YX'):
        values = np.asarray(series.asarray())
        return values if values.ndim == 3 else values[:, :, None]
    if order in ('SYX', 'CYX'):
        return np.moveaxis(np.asarray(series.asarray()), 0, 2)
    if len(order) == 3 and (axes is not None or channels in (series.shape[0], series.shape[2]) or file.is_shaped):
        return channels_last(np.asarray(series.asarray()), on_one_line(path), channels, axes)
    log.info('%s: picture 1 of %d', on_one_line(path), len(file.pages))
    page = np.asarray(file.pages.first.asarray())
    return channels_last(page, on_one_line(path), file.pages.first.samplesperpixel, axes)


def _other_reader(path: Path, error: Exception) -> Photo:
    """A TIFF in a compression that tifffile needs a package for: PIL or OpenCV read some of them."""
    import cv2

    try:
        image = open_image(path)
    except InputError:
        image = None
    if image is not None and (image.mode.startswith('I') or image.mode == 'F'):
        return Photo(*_pil_values(image, on_one_line(path)))
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is not None and found.ndim == 3 and found.shape[2] == 3 and found.dtype != np.uint8:
        return Photo(np.ascontiguousarray(found[:, :, ::-1]), on_one_line(path), 1, False)
    raise InputError(
        f'{on_one_line(path)} is compressed: {message_of(error)}', hint='pip install imagecodecs'
    ) from error


def _png_depth(path: Path) -> int:
    with path.open('rb') as file:
        return file.read(25)[24]


def _read_png16(path: Path, orientation: int) -> Photo:
    """A color PNG of 16 bits, which PIL reduces to 8; transparency is laid over white."""
    import cv2

    found = np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED))
    if found.shape[2] == 4:
        alpha = found[..., 3:].astype(np.float32) / 65535
        found = np.rint(found[..., :3] * alpha + 65535 * (1 - alpha)).astype(np.uint16)
    values = upright(found[:, :, ::-1], orientation)
    return Photo(np.ascontiguousarray(values), on_one_line(path), orientation, False)


def _check(path: Path) -> None:
    if not os.path.exists(path):  # which takes any path, also one that is too long
        if os.path.islink(path):
            raise InputError(f'{on_one_line(path)} is a link to {os.readlink(path)}, which does not exist')
        names = [p.name for p in path.parent.iterdir() if p.exists()] if os.path.isdir(path.parent) else []
        raise InputError(
            f'no such file: {shown_path(path)[1:-1]}', hint=close_matches(path.name, map(on_one_line, names))
        )
    if path.is_dir():
        raise InputError(f'{on_one_line(path)} is a folder', accepted='an image file')
    if not path.is_file():
        raise InputError(f'{on_one_line(path)} is not a regular file', accepted=_ACCEPTED)
    if path.stat().st_size == 0:
        raise InputError(f'{on_one_line(path)} is empty (0 bytes)', hint=AGAIN)
    if not os.access(path, os.R_OK):
        raise InputError(f'{on_one_line(path)} cannot be read: you have no permission', hint='change its permissions')


def _head(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(512)


def _kind(path: Path) -> str:
    """What a file that is not an image seems to be."""
    head = _head(path)
    try:
        codecs.getincrementaldecoder('utf-8')().decode(head)  # a character cut in two at the end is fine
    except UnicodeDecodeError:
        return _UNKNOWN
    return _UNKNOWN if b'\0' in head else 'a text file, not an image'


def _to_bytes(values: NDArray[Any], name: str) -> tuple[NDArray[np.uint8], float, float]:
    """Values as bytes, with gain and bias back; the range follows from their type, or else from the values."""
    if values.dtype == np.uint8:
        return values, 1.0, 0.0
    if values.dtype == np.uint16:
        levels = np.empty(values.shape, np.uint8)
        for rows in strips(*values.shape[:2]):
            levels[rows] = (values[rows].astype(np.uint32) * 255 + 32767) // 65535
        return levels, 257.0, 0.0
    floats = values.dtype.kind == 'f'
    if floats and (missing := int(values.size - np.count_nonzero(np.isfinite(values)))):
        log.warning('%s: %d of %d values are not finite; the network gets 0 for them', name, missing, values.size)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    tops = [1.0, 255.0, 65535.0] if floats or values.dtype == np.bool_ else [255.0, 65535.0]
    if (top := next((top for top in tops if low >= 0 and high <= top), None)) is not None:
        return np.rint(finite * (255 / top)).astype(np.uint8), top / 255, 0.0
    log.warning('%s has values from %g to %g; for the network they are scaled to 0–255', name, low, high)
    span = max(high - low, 1e-12)
    return np.rint((finite - low) * (255 / span)).astype(np.uint8), span / 255, low
