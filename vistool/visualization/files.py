"""Where pictures go: names fit for file systems, and writing that leaves nothing half done."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import tempfile
from pathlib import Path

import cv2

from vistool.errors import InputError, param
from vistool.visualization.scene import Pixels

RASTER_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')
VECTOR_SUFFIXES = ('.pdf', '.svg')
SUFFIXES = RASTER_SUFFIXES + VECTOR_SUFFIXES

_OPTIONS = {
    # Level 1 with one fixed filter: a third of the time of the default, for files a tenth larger.
    '.png': (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
    # Colors are the message: keep them at full resolution (4:4:4).
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
            hint=f'choose .png, or a smaller {param("width")} or {param("dpi")}',
        )
    kind = '.jpg' if suffix == '.jpeg' else suffix
    options = (*_OPTIONS[kind], *((_QUALITY_OPTION[kind], quality) if kind in _QUALITY_OPTION else ()))
    done, data = cv2.imencode(kind, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f'OpenCV cannot write {suffix}')
    return data.tobytes()


_ACCEPTED = 'a folder, or a file ending in ' + ', '.join(suffix[1:] for suffix in SUFFIXES)
# Endings that people may take for picture files, as against folders called 'run.v2'.
_OTHER_SUFFIXES = {
    '.tif', '.tiff', '.bmp', '.gif', '.eps', '.ps', '.avif', '.heic', '.ico', '.jp2', '.jfif', '.ppm', '.svgz', '.pgf',
    '.npz', '.npy', '.csv', '.json', '.txt', '.html', '.mp4', '.zip', '.py', '.pth', '.exr', '.tga', '.xcf', '.psd',
}  # fmt: skip
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_RESERVED = re.compile(r'(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?$')
_LONGEST_NAME = 200  # bytes; file systems allow 255, and suffixes come on top
_FULL = (errno.ENOSPC, errno.EDQUOT)
_counter = itertools.count()


def is_file(out: Path) -> bool:
    """Whether ``out`` names one picture rather than a folder.

    Raises:
        InputError: It ends like a file of a kind that cannot be written.
    """
    if out.is_dir():
        return False
    suffix = out.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        raise InputError(f'cannot write {suffix} files ({str(out)!r})', accepted=_ACCEPTED, parameter='out')
    return suffix in SUFFIXES


def safe_name(name: str) -> str:
    """``name`` as a relative path that every file system takes; sub-folders stay.

    What has to change gets a few digits of a checksum, so that names that differ stay different.
    """
    parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
    return '/'.join(_safe_part(part) for part in parts) or _marked('', name)


def flat_name(name: str) -> str:
    """``name`` as one part of a path, without slashes and spaces."""
    return safe_name(name.replace('/', '-').replace('\\', '-').replace(' ', '_'))


def _safe_part(part: str) -> str:
    safe = _FORBIDDEN.sub('_', part).rstrip('. ').lstrip()
    if _RESERVED.match(safe):
        safe = f'_{safe}'
    while len(safe.encode()) > _LONGEST_NAME:
        safe = safe[: max(1, len(safe) * 9 // 10)]
    return safe if safe == part else _marked(safe, part)


def _marked(safe: str, name: str) -> str:
    return f'{safe}-{hashlib.sha256(name.encode(errors="replace")).hexdigest()[:6]}'.lstrip('-')


def file_name(item: str, *choices: object) -> str:
    """A picture's name: the image's, then whatever was chosen for this run (method, class, layer, checkpoint).

    So another choice never overwrites the pictures of the last.

    Args:
        item: The image's name.
        choices: Words, or lists of them, which are joined by ``-``; empty ones are left out.
    """
    parts = [item]
    for choice in choices:
        text = '-'.join(map(str, choice)) if isinstance(choice, (list, tuple)) else str(choice or '')
        if text:
            parts.append(re.sub(r'[^\w.+=-]+', '-', text).strip('-')[:80])
    return '_'.join(parts)


def check_folder(folder: Path, argument: str = 'out') -> None:
    """Make sure that files can be written in ``folder``, which need not exist; nothing is left behind.

    Raises:
        InputError: They cannot.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f'cannot write in {str(folder)!r}: {str(existing)!r} is not a folder', parameter=argument)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise unwritable(folder, error, argument) from error


def write_file(path: Path, data: bytes, argument: str = 'out') -> None:
    """Put ``data`` into ``path``, replacing it in one step; on any failure the old file stays and nothing else does.

    Raises:
        InputError: The folder cannot be written in.
    """
    beside = path.with_name(f'.{path.name[:80]}.{os.getpid()}.{next(_counter)}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        raise unwritable(path, error, argument) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def unwritable(path: Path, error: OSError, argument: str = 'out') -> InputError:
    """What to say of a file or folder that cannot be written."""
    return InputError(
        f'cannot write {str(path)!r}: {error.strerror or error}',
        hint='make room' if error.errno in _FULL else 'choose a folder that you may write in',
        parameter=argument,
    )
