"""Paths and records that others wrote: found without surprises, read whole but bounded, checked against a schema.

A schema is a ``TypedDict``; pydantic checks values against it and is imported only then. A damaged record is an
:class:`~vistool.errors.InputError` that names the file and the field.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vistool.errors import InputError, cause_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar('T')

LARGEST_TEXT = 256 << 20
"""Bytes of the largest text file that is read."""

RUN, LINES = 'run.json', 'manifest.jsonl'
"""What a run over many images leaves in its folder: its own record, and a line for each image."""

PNG_MARK = b'Software\0vistool'
"""The text that vistool writes into a PNG, right behind the header: a folder of photos may hold pictures of them."""

MOST_DEPTH = 100
"""How deep the values of a JSON file may be nested."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_SHOWN = 60
_LONGEST_PATH = 500
"""Characters of a path that an error quotes: one that is cut cannot be copied."""


def find_path(spec: str | os.PathLike[str], parameter: str) -> Path:
    """The path that a user typed, with ``~`` expanded; nothing needs to be there.

    Raises:
        InputError: It cannot be a path here: an unknown user, a name that is too long, a NUL, a folder that may not be
            entered.
    """
    text = os.fspath(spec)
    try:
        path = Path(text).expanduser()
        path.stat()
    except RuntimeError as error:  # what pathlib raises for an unknown user
        raise InputError(
            f'{shown_path(text)} is in the home of a user who does not exist', parameter=parameter
        ) from error
    except ValueError as error:
        raise InputError(f'{shown_path(text)} is not a path: {error}', parameter=parameter) from error
    except OSError as error:
        if error.errno not in _ABSENT:
            raise InputError(f'{shown_path(text)} cannot be opened: {error.strerror}', parameter=parameter) from error
    return path


def shown(text: object, most: int = _SHOWN) -> str:
    """A value as an error quotes it: its repr, cut where it is long."""
    try:
        quoted = repr(text)
    except (ValueError, RecursionError):  # a number of thousands of digits, or endless nesting
        return f'a {type(text).__name__}'
    return quoted if len(quoted) <= most + 20 else f'{quoted[:most]}… ({len(quoted)} characters)'


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path as an error quotes it: whole, so that it can be copied, unless it is absurdly long."""
    return shown(os.fspath(path), _LONGEST_PATH)


def read_bytes(path: Path, parameter: str, largest: int = LARGEST_TEXT, hint: str = '') -> bytes:
    """The content of a regular file; a pipe or a device, which could block for ever, is refused.

    Raises:
        InputError: It cannot be read, is not a regular file, or is larger than ``largest`` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_CLOEXEC', 0))
        with open(descriptor, 'rb') as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = 'a folder' if stat.S_ISDIR(status.st_mode) else 'a pipe or a device'
                raise InputError(f'{path} is {kind}', accepted='a regular file', hint=hint, parameter=parameter)
            if status.st_size > largest:
                problem = f'{path} has {status.st_size:,} bytes'
                raise InputError(problem, accepted=f'at most {largest:,}', hint=hint, parameter=parameter)
            return file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, 'strerror', None) or error
        raise InputError(f'{shown_path(path)} cannot be read: {reason}', hint=hint, parameter=parameter) from error


def read_text(path: Path, parameter: str, largest: int = LARGEST_TEXT, hint: str = '') -> str:
    """The content of a regular UTF-8 file; raises as :func:`read_bytes`."""
    try:
        return read_bytes(path, parameter, largest, hint).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not UTF-8 text ({error})', hint=hint, parameter=parameter) from error


_BEFORE_TEXT = 8 + 25 + 4
"""Bytes of a PNG before the kind of its second chunk: the signature, the header chunk, a length."""


def is_own_png(path: Path) -> bool:
    """Whether vistool drew a PNG; a file that cannot be read was not."""
    marked = b'tEXt' + PNG_MARK
    try:
        with path.open('rb') as file:
            return file.read(_BEFORE_TEXT + len(marked))[_BEFORE_TEXT:] == marked
    except OSError:
        return False


LARGEST_ARRAYS = 256 << 20
"""Bytes of the largest archive of arrays that is read, and of each array in it."""


def read_arrays(path: Path, parameter: str, accepted: str, what: str = 'arrays') -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; nothing is unpickled, and no memory is taken for what is not there.

    Args:
        path: The file.
        parameter: The parameter that named it.
        accepted: Which files are wanted.
        what: What they hold.

    Raises:
        InputError: It cannot be read, or is damaged.
    """
    content = read_bytes(path, parameter, LARGEST_ARRAYS)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {entry.filename.removesuffix('.npy'): _array(archive, entry) for entry in archive.infolist()}
    except Exception as error:  # zipfile and NumPy raise all kinds on damaged and encrypted files
        problem = error.problem if isinstance(error, InputError) else cause_of(error)
        raise InputError(
            f'{shown_path(path)} does not hold {what}: {problem}', accepted=accepted, parameter=parameter
        ) from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """An array whose header is compared with the size of its data before memory is taken for it."""
    from numpy.lib import format as npy

    if entry.file_size > LARGEST_ARRAYS:
        raise InputError(f'{entry.filename} unpacks to {entry.file_size:,} bytes')
    with archive.open(entry) as file:
        data = io.BytesIO(file.read(LARGEST_ARRAYS + 1))
    version = npy.read_magic(data)
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(data)
    claimed, held = math.prod(shape) * dtype.itemsize, len(data.getvalue()) - data.tell()
    if dtype.hasobject or claimed != held:
        raise InputError(f'the header of {entry.filename} claims {claimed:,} bytes, and {held:,} follow')
    data.seek(0)
    found: NDArray[Any] = npy.read_array(data, allow_pickle=False)
    return found


def read_json(path: Path, schema: type[T], parameter: str, hint: str = '') -> T:
    """A JSON file of one object; raises as :func:`parse_json`."""
    return parse_json(read_text(path, parameter, hint=hint), schema, str(path), parameter, hint)


def parse_json(text: str, schema: type[T], where: str, parameter: str, hint: str = '') -> T:
    """A JSON object that fits a schema.

    Args:
        text: The JSON.
        schema: A ``TypedDict``; keys that it does not name are kept unchecked.
        where: The file, and the line in it.
        parameter: The parameter that named the file.
        hint: The next step if it is damaged.

    Raises:
        InputError: It is not JSON, or a field is missing or of another type; the error names the field.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise InputError(f'{where} is nested too deeply', hint=hint, parameter=parameter) from error
    except ValueError as error:
        raise InputError(f'{where} is not valid JSON: {error}', hint=hint, parameter=parameter) from error
    if problem := _unusable(value):
        raise InputError(f'{where} {problem}', hint=hint, parameter=parameter)
    return checked(value, schema, where, parameter, hint)


def _unusable(value: object) -> str:
    """What keeps a JSON value from being worked with whatever its fields mean, or ``''``."""
    level = [value]
    for _ in range(MOST_DEPTH):
        texts = [each for each in level if isinstance(each, str)]
        texts += [key for each in level if isinstance(each, dict) for key in each]
        if any('\ud800' <= character <= '\udc7f' for text in texts for character in text if not text.isascii()):
            return 'holds half of a character'  # from U+DC80 on they stand for the bytes of a name that is not UTF-8
        level = [
            item
            for each in level
            if isinstance(each, (dict, list))
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return ''
    return 'is nested too deeply'


def checked(value: object, schema: type[T], where: str, parameter: str, hint: str = '') -> T:
    """``value`` if it fits a schema; raises as :func:`parse_json`."""
    from pydantic import ValidationError

    try:
        return cast(T, _adapter(cast(Hashable, schema)).validate_python(value))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        field = _field(errors[0], value)
        if not field:
            raise InputError(f'{where} is not a JSON object', hint=hint, parameter=parameter) from error
        same = [each for each in errors if _field(each, value) == field]
        if all(each['type'] == 'missing' for each in same):
            raise InputError(f'{where}: the field {field!r} is missing', hint=hint, parameter=parameter) from error
        accepted = dict.fromkeys(each['msg'].removeprefix('Input should be ') for each in same)
        raise InputError(
            f'{where}: the field {field!r} is {shown(same[0]["input"])}',
            accepted=' or '.join(accepted),
            hint=hint,
            parameter=parameter,
        ) from error


@functools.cache
def _adapter(schema: Hashable) -> TypeAdapter[Any]:
    """Strict: no text for a number; no NaN or infinity; what the schema does not name passes."""
    from pydantic import ConfigDict, TypeAdapter, with_config

    settings = ConfigDict(strict=True, allow_inf_nan=False, extra='allow')
    return TypeAdapter(with_config(settings)(cast(type, schema)))


def _field(error: ErrorDetails, value: object) -> str:
    """Where an error is, as ``tiles[0].file``; pydantic's names of the members of a union are left out."""
    text = ''
    for place, part in enumerate(error['loc']):
        here = isinstance(part, int) and isinstance(value, list) and part < len(value)
        here = here or (isinstance(value, dict) and part in value)
        if here:
            value = value[part]  # type: ignore[index]
        elif error['type'] != 'missing' or place + 1 < len(error['loc']):
            continue
        text += f'[{part}]' if isinstance(part, int) else f'.{part}' if text else part
    return text if len(text) <= 2 * _SHOWN else f'{text[:_SHOWN]}…'
