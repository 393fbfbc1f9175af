"""The photos of a session: those that the command named, and uploads, which are checked before they are decoded."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from vistool.data.images import ARRAY_SUFFIXES, SUFFIXES, declared_size
from vistool.data.samples import Item
from vistool.errors import InputError, on_one_line
from vistool.runs.spec import AnyItem
from vistool.visualization.files import safe_name

MOST_BYTES = 50 << 20
MOST_PIXELS = 100_000_000
MOST_VALUES = 4 * MOST_PIXELS
"""Pixels times bands: what a file may become in memory."""
MOST_UPLOADS = 64
MOST_UPLOADED = 512 << 20
"""Bytes of all uploads together; the least recently used are forgotten."""
_THUMBNAIL = 160
_SHOWN = 500
"""As many of the command's photos are listed."""


class TooLarge(InputError):
    """An upload has more bytes, pixels or values than are taken."""


class NotAnImage(InputError):
    """An upload cannot be read as an image."""


class UnknownPhoto(LookupError):
    """A photo is not held, or no longer."""


@dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        id: What a page calls it.
        name: The file's name, for people.
        item: What is read.
        images: What a command takes as images.
        index: The place among those images, where they are a dataset; None: they are this photo alone.
        folder: Where an upload lies; None for the command's own photos.
        nbytes: Bytes of an upload.
    """

    id: str
    name: str
    item: AnyItem = field(repr=False)
    images: str = ''
    index: int | None = None
    folder: Path | None = None
    nbytes: int = 0

    @property
    def stem(self) -> str:
        """The name without its suffix, for names of figures."""
        return Path(self.name).stem


class Photos:
    """Photos by their ids. May be used from several threads."""

    def __init__(self, own: Sequence[Photo], folder: Path) -> None:
        self._own = {photo.id: photo for photo in own}
        self._uploads: OrderedDict[str, Photo] = OrderedDict()
        self._folder, self._numbers, self._lock = folder, itertools.count(1), threading.Lock()

    def listed(self, uploads: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The command's own photos, and those uploads that are still held, as a page lists them.

        Args:
            uploads: Ids that the page names; it is told of no others.
        """
        with self._lock:
            held = [self._uploads[key] for key in dict.fromkeys(uploads) if key in self._uploads]
        own = itertools.islice(self._own.values(), _SHOWN)
        return [{'id': photo.id, 'name': photo.name} for photo in itertools.chain(own, held)]

    def __getitem__(self, key: str) -> Photo:
        """A photo.

        Raises:
            UnknownPhoto: It is not held.
        """
        with self._lock:
            if key in self._own:
                return self._own[key]
            if key not in self._uploads:
                raise UnknownPhoto(key)
            self._uploads.move_to_end(key)
            return self._uploads[key]

    def new_file(self, name: str) -> tuple[str, Path]:
        """An id for an upload, and the file to write it to.

        Args:
            name: What its user calls it.

        Raises:
            NotAnImage: The name does not have the suffix of an image.
        """
        name = base_name(name)
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES | ARRAY_SUFFIXES:
            accepted = ' '.join(sorted(SUFFIXES | ARRAY_SUFFIXES))
            raise NotAnImage(f'{on_one_line(name)} does not have the suffix of an image', accepted=accepted)
        with self._lock:
            key = f'u{next(self._numbers)}'
        folder = self._folder / key
        folder.mkdir()
        return key, folder / safe_name(name)

    def add(self, key: str, path: Path, name: str) -> Photo:
        """Takes an upload that is written and checked; of too many, the least recently used are forgotten."""
        name = base_name(name)
        shown = Path(name)
        words = name if re.match(r'[\w.(]', name) else f'./{name}'
        item = Item(path, shown.stem, known_as=shown)
        photo = Photo(key, name, item, words, None, path.parent, path.stat().st_size)
        with self._lock:
            self._uploads[key] = photo
            dropped = []
            while len(self._uploads) > MOST_UPLOADS or self._uploaded > MOST_UPLOADED:
                dropped.append(self._uploads.popitem(last=False)[1])
        for each in dropped:
            _remove(each)
        return photo

    def forget(self, key: str) -> None:
        """Removes an upload.

        Raises:
            UnknownPhoto: There is no such upload.
        """
        with self._lock:
            photo = self._uploads.pop(key, None)
        if photo is None:
            raise UnknownPhoto(key)
        _remove(photo)

    @property
    def _uploaded(self) -> int:
        return sum(photo.nbytes for photo in self._uploads.values())


def _remove(photo: Photo) -> None:
    if photo.folder is not None:
        shutil.rmtree(photo.folder, ignore_errors=True)


def base_name(name: str) -> str:
    """The last part of a name that a user's machine gives, on one line; ``'photo'`` where nothing is left."""
    last = re.split(r'[/\\]', name)[-1]
    printable = ''.join(each for each in last if each.isprintable()).strip()
    return printable[-120:] if printable.strip('.') else 'photo'


def check_size(path: Path, name: str) -> None:
    """Refuses a file that is too large for what it would become in memory, before anything is decoded.

    Raises:
        TooLarge: It is.
        NotAnImage: Its head cannot be read.
    """
    try:
        pixels, values = declared_size(path)
    except InputError as error:
        if isinstance(error.__context__, Image.DecompressionBombError):
            raise _too_large(name, 'more than 100') from None
        raise NotAnImage(error.problem.replace(str(path), name), hint=error.hint) from None
    if pixels > MOST_PIXELS:
        raise _too_large(name, f'{pixels / 1e6:.0f}')
    if values > MOST_VALUES:
        problem = f'{name} holds {values / 1e6:.0f} million values'
        raise TooLarge(problem, accepted=f'at most {MOST_VALUES // 1_000_000} million')


def _too_large(name: str, megapixels: str) -> TooLarge:
    most = f'at most {MOST_PIXELS // 1_000_000} megapixels'
    return TooLarge(f'{name} has {megapixels} megapixels', accepted=most, hint='make it smaller first')


def thumbnail_of(photo: Photo) -> bytes | None:
    """A JPEG file of at most 160 × 160 pixels; None where the photo is not a file of 8 bits that Pillow reads."""
    path = getattr(photo.item, 'path', None)
    if path is None or Path(path).suffix.lower() in ARRAY_SUFFIXES:
        return None
    try:
        with Image.open(path) as image:
            image.draft('RGB', (2 * _THUMBNAIL, 2 * _THUMBNAIL))
            # Pillow opens 16 bits of color as 8: what is left of 12 bits is black
            deep = any(';16' in str(tile) for tile in getattr(image, 'tile', ()))
            if deep or image.mode not in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr'):
                return None
            small = ImageOps.exif_transpose(image).convert('RGB')
    except Exception:  # damaged files can raise anything; the full picture says what is wrong
        return None
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, 'JPEG', quality=85)
    return file.getvalue()
