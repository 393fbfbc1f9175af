"""Files: pictures and numbers as bytes, names fit for file systems, and writing that leaves nothing half done."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import re
import struct
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from isal import isal_zlib as deflate
from numpy.typing import NDArray

from vistool.data.display import strips
from vistool.environment import anonymized, shareable
from vistool.errors import InputError, param
from vistool.records import PNG_MARK, shown, shown_path
from vistool.results import CheckReport, Curves, Heatmap, Heatmaps, ImageGrid, NetworkView, Result, SampledPoints
from vistool.visualization.facets import facets
from vistool.visualization.scene import Pixels

RASTER_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')
VECTOR_SUFFIXES = ('.pdf', '.svg')
SUFFIXES = RASTER_SUFFIXES + VECTOR_SUFFIXES

_OPTIONS = {
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
    if suffix == '.png':
        return _png(pixels)
    kind = '.jpg' if suffix == '.jpeg' else suffix
    options = (*_OPTIONS[kind], _QUALITY_OPTION[kind], quality)
    done, data = cv2.imencode(kind, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f'OpenCV cannot write {suffix}')
    return data.tobytes()


def _png(pixels: Pixels) -> bytes:
    """A PNG, made strip by strip, so that a large picture needs no second copy of its pixels.

    ISA-L packs five times as fast as zlib at the same size, which makes encoding a small part of a run over a folder.
    """
    height, width = pixels.shape[:2]
    data = io.BytesIO()
    data.write(b'\x89PNG\r\n\x1a\n')
    data.write(_png_chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)))
    data.write(_png_chunk(b'tEXt', PNG_MARK))
    packer = deflate.compressobj(1)
    for rows in strips(height, width):
        data.write(_png_chunk(b'IDAT', packer.compress(_less_above(pixels, rows))))
    data.write(_png_chunk(b'IDAT', packer.flush()))
    data.write(_png_chunk(b'IEND', b''))
    return data.getvalue()


def _less_above(pixels: Pixels, rows: slice) -> NDArray[np.uint8]:
    """Rows of a PNG: the filter's number (2, Up), then each byte minus the one above it."""
    strip = pixels[rows]
    count = len(strip)
    strip = strip.reshape(count, -1)
    filtered = np.empty((count, 1 + strip.shape[1]), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = strip[0] - pixels[rows.start - 1].reshape(-1) if rows.start else strip[0]
    np.subtract(strip[1:], strip[:-1], out=filtered[1:, 1:])
    return filtered


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', deflate.crc32(data, deflate.crc32(kind)))


_ACCEPTED = 'a folder, or a file ending in ' + ', '.join(suffix[1:] for suffix in SUFFIXES)
# Endings that people may take for picture files, as against folders called 'run.v2'.
_OTHER_SUFFIXES = {
    '.tif', '.tiff', '.bmp', '.gif', '.eps', '.ps', '.avif', '.heic', '.ico', '.jp2', '.jfif', '.ppm', '.svgz', '.pgf',
    '.npz', '.npy', '.csv', '.json', '.txt', '.html', '.mp4', '.zip', '.py', '.pth', '.exr', '.tga', '.xcf', '.psd',
}  # fmt: skip
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f\ud800-\udfff]')  # the last are the bytes of names that are not UTF-8
_RESERVED = re.compile(r'(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?$')
_MOST_BYTES = 255  # of a name, in usual file systems
_LONGEST_NAME = 200  # bytes of names made here; suffixes come on top
_FULL = (errno.ENOSPC, errno.EDQUOT)
_counter = itertools.count()


def is_file(out: Path) -> bool:
    """Whether ``out`` names one picture rather than a folder.

    Raises:
        InputError: It ends like a file of a kind that cannot be written.
    """
    if os.path.isdir(out):
        return False
    suffix = out.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        raise InputError(f'cannot write {suffix} files ({shown(str(out))})', accepted=_ACCEPTED, parameter='out')
    return suffix in SUFFIXES


def check_file(path: Path, argument: str, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Make sure that a file can be written; nothing is left behind.

    Args:
        path: The file.
        argument: The parameter that names it.
        suffixes: What its name may end in.

    Raises:
        InputError: It cannot, is a folder, or ends in something else.
    """
    accepted = f'a file ending in {", ".join(suffix[1:] for suffix in suffixes)}'
    if os.path.isdir(path):
        raise InputError(f'{shown(str(path))} is a folder', accepted=accepted, parameter=argument)
    if path.suffix.lower() not in suffixes:
        raise InputError(f'{shown(str(path))} has another suffix', accepted=accepted, parameter=argument)
    _check_writable_name(path, argument)
    check_folder(path.parent, argument)


def _check_writable_name(path: Path, argument: str) -> None:
    """Refuses names with control characters, which would break the lines of stdout, and names that are too long."""
    if not all(character.isprintable() or '\udc80' <= character <= '\udcff' for character in str(path)):
        problem = f'{shown(str(path))} holds characters that cannot be printed'
        raise InputError(problem, accepted='a path on one line', parameter=argument)
    if any(len(os.fsencode(part)) > _MOST_BYTES for part in path.parts):
        problem = f'{shown(str(path))} is too long'
        raise InputError(problem, accepted=f'names of at most {_MOST_BYTES} bytes', parameter=argument)


def safe_name(name: str) -> str:
    """``name`` as a relative path that every file system takes; sub-folders stay.

    What has to change gets a few digits of a checksum, so that names that differ stay different.
    """
    parts = [part for part in name.split('/') if part not in ('', '.', '..')]
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
    return f'{safe}-{hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:6]}'.lstrip('-')


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
        InputError: They cannot, or a folder that does not exist yet is called like a file.
    """
    _check_writable_name(folder, argument)
    if folder.suffix.lower() in {*SUFFIXES, *_OTHER_SUFFIXES} and not os.path.lexists(folder):
        problem = f'{shown(str(folder))} ends like a {folder.suffix.lower()} file'
        raise InputError(problem, accepted='a folder', parameter=argument)
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        problem = f'cannot write in {shown(str(folder))}: {shown(str(existing))} is not a folder'
        raise InputError(problem, parameter=argument)
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


class ProtectedFiles:
    """Files from which results are made, which no picture may replace. May be used from several threads.

    Args:
        paths: The files; None is passed over, for an image that has none.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str] | None] = ()) -> None:
        self._waiting: list[str] = []
        self._known: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self.add(paths)

    def add(self, paths: Iterable[str | os.PathLike[str] | None]) -> None:
        """Adds files, as above."""
        found = [os.fspath(each) for each in paths if each is not None]
        with self._lock:
            self._waiting += found

    def refuse(self, path: Path, parameter: str = 'out') -> None:
        """Refuses to write where one of them lies, under whatever name and through whatever link.

        Raises:
            InputError: One of them lies there.
        """
        here = _identity(path)
        if here is None:
            return
        with self._lock:  # the disk is asked for them only where a file is in the way
            self._known.update(filter(None, map(_identity, self._waiting)))
            self._waiting.clear()
            is_photo = here in self._known
        if is_photo:
            raise InputError(
                f'{shown_path(path)} is an image of this run, which would be overwritten',
                hint='choose another name or folder',
                parameter=parameter,
            )


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What tells a file from all others on this machine, whatever it is called; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def unwritable(path: Path, error: OSError, argument: str = 'out') -> InputError:
    """What to say of a file or folder that cannot be written."""
    return InputError(
        f'cannot write {str(path)!r}: {error.strerror or error}',
        hint='make room' if error.errno in _FULL else 'choose a folder that you may write in',
        parameter=argument,
    )


# zlib's fastest level: float maps hardly get smaller with more.
_COMPRESSION = 1
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def heatmaps_npz(result: Heatmaps) -> bytes:
    """Heat maps as an ``.npz`` that loads with ``allow_pickle=False``.

    ``groups`` (G,) strings; for each group i ``maps_i`` float32 ``(K, h, w)``, ``names_i`` (K,) strings,
    ``coordinates_i`` (K,) JSON strings (what each map is: its method, layer, target …) and, where maps were scaled,
    ``range_i`` float32 ``(K, 2)`` (NaN for those that were not); ``image`` uint8 ``(H, W, 3)``; where metrics were
    asked for, ``metric_names`` (M,) strings, ``metrics_i`` float64 ``(K, M)``, ``chance_i`` likewise, what a map that
    knows nothing gets (NaN where that is not known), and ``curve_i_k_NAME`` float64 ``(2, n)``, the fractions and
    scores of a curve of map k; of deformable attention ``sampled_i_k`` float32 ``(n, 5)``: x and y in pixels of
    ``image``, weight, level and head of each point that the query of map k looks at; where pixels of ``image`` lie in
    the original, ``geometry`` float64 ``(3, 3)``, affine, and ``original_size`` ``(2,)``, its height and width; where
    compared networks saw the photo otherwise, ``view_i`` int64 ``(K,)``, 0 for maps over ``image``, and for each other
    number v ``image_v``, ``geometry_v`` and ``original_size_v``;
    ``recipe``, the provenance as a JSON string.
    """
    return _npz({**_heatmap_arrays(result), 'recipe': _provenance(result)})


def grid_npz(result: ImageGrid) -> bytes:
    """Pictures in rows as an ``.npz``: ``image_ROW_COLUMN`` uint8 ``(h, w, 3)`` and ``recipe``."""
    return _npz({**_grid_arrays(result), 'recipe': _provenance(result)})


def check_npz(result: CheckReport) -> bytes:
    """The report of a check as an ``.npz`` that loads with ``allow_pickle=False``.

    ``methods`` (M,), ``checks`` (C,), ``verdicts`` and ``texts`` ``(M, C)`` strings and ``values`` float64 ``(M, C)``;
    every number as ``row_method``, ``row_check``, ``row_image``, ``row_name`` strings and ``row_value`` float64, all
    ``(R,)``; of the cascade ``stages`` (S,), ``cascade_i`` float32 ``(S + 1, H, W)`` and ``similarity_i`` float64
    ``(S + 1, 3)`` for method i: rank correlation, SSIM, same cell; ``image`` uint8 ``(H, W, 3)``; and ``recipe``.
    """
    methods, checks = list(result.titles), result.checks
    found = [[result[method, check] for check in checks] for method in methods]
    arrays: dict[str, NDArray[Any]] = {
        'methods': np.array(methods, np.str_),
        'checks': np.array(checks, np.str_),
        'verdicts': np.array([[each.verdict for each in row] for row in found], np.str_),
        'texts': np.array([[each.text for each in row] for row in found], np.str_),
        'values': np.array([[np.nan if each.value is None else each.value for each in row] for row in found]),
        'stages': np.array(result.stages, np.str_),
        'image': result.image,
        'recipe': _provenance(result),
    }
    for name in ('method', 'check', 'image', 'name'):
        arrays[f'row_{name}'] = np.array([str(row[name]) for row in result.rows], np.str_)
    arrays['row_value'] = np.array([row['value'] for row in result.rows], np.float64)
    for index, method in enumerate(methods):
        if method in result.cascades:
            arrays[f'cascade_{index}'] = result.cascades[method].maps
            arrays[f'similarity_{index}'] = result.cascades[method].similarity
    return _npz(arrays)


def _provenance(result: Result) -> NDArray[Any]:
    told = json.dumps(result.provenance, ensure_ascii=False, sort_keys=True, default=_plain)
    return np.array(json.dumps(shareable(json.loads(told)), ensure_ascii=False, sort_keys=True))


def _heatmap_arrays(result: Heatmaps) -> dict[str, NDArray[Any]]:
    views = _views(result)
    groups: dict[str, list[tuple[str, Heatmap]]] = {}
    for facet, item in zip(facets(result).tiles, result.maps, strict=True):
        groups.setdefault(facet.group, []).append((facet.name, item))
    arrays: dict[str, NDArray[Any]] = {'groups': np.array(list(groups), dtype=np.str_)}
    for index, maps in enumerate(groups.values()):
        arrays[f'maps_{index}'] = np.stack([np.asarray(item.values, np.float32) for _, item in maps])
        arrays[f'names_{index}'] = np.array([name for name, _ in maps], dtype=np.str_)
        told = [json.dumps(dict(item.coordinates), ensure_ascii=False) for _, item in maps]
        arrays[f'coordinates_{index}'] = np.array(told, dtype=np.str_)
        if len(views) > 1:
            arrays[f'view_{index}'] = np.array([_number(views, item.view) for _, item in maps], np.int64)
        if any(item.range is not None for _, item in maps):
            nothing = (np.nan, np.nan)
            arrays[f'range_{index}'] = np.array([item.range or nothing for _, item in maps], np.float32)
        if result.measures:
            rows = [[item.metrics.get(name, np.nan) for name in result.measures] for _, item in maps]
            arrays[f'metrics_{index}'] = np.array(rows, np.float64)
            if any(item.chance for _, item in maps):
                rows = [[item.chance.get(name, np.nan) for name in result.measures] for _, item in maps]
                arrays[f'chance_{index}'] = np.array(rows, np.float64)
        for number, (_, item) in enumerate(maps):
            if item.sampled is not None:
                arrays[f'sampled_{index}_{number}'] = _sampled(item.sampled)
            for name, curve in item.curves.items():
                points = np.stack([curve.fractions, curve.scores])
                arrays[f'curve_{index}_{number}_{name.replace(" ", "_")}'] = points
    if result.measures:
        arrays['metric_names'] = np.array(list(result.measures), dtype=np.str_)
    for number, view in enumerate(views):
        own = f'_{number}' if number else ''
        arrays[f'image{own}'] = np.asarray(view.image, np.uint8)
        geometry = view.geometry
        if geometry is not None and geometry.exact and geometry.field is None:
            arrays[f'geometry{own}'] = np.asarray(geometry.matrix, np.float64)
            arrays[f'original_size{own}'] = np.array(geometry.original_size, np.int64)
    return arrays


def _views(result: Heatmaps) -> list[NetworkView]:
    """What the networks of the maps saw, each once; the result's own view comes first."""
    found = [NetworkView(result.image, result.geometry)]
    for item in result.maps:
        if item.view is not None and not any(_same_view(item.view, each) for each in found):
            found.append(item.view)
    return found


def _number(views: Sequence[NetworkView], view: NetworkView | None) -> int:
    return 0 if view is None else next(number for number, each in enumerate(views) if _same_view(view, each))


def _same_view(one: NetworkView, other: NetworkView) -> bool:
    places = [None if each.geometry is None else each.geometry.matrix.tolist() for each in (one, other)]
    return places[0] == places[1] and np.array_equal(one.image, other.image)


def _sampled(sampled: SampledPoints) -> NDArray[np.float32]:
    columns = (*sampled.points.T, sampled.weights, sampled.levels, sampled.heads)
    return np.stack([np.asarray(column, np.float32) for column in columns], 1)


def _grid_arrays(result: ImageGrid) -> dict[str, NDArray[Any]]:
    return {
        f'image_{row}_{column}': np.asarray(image.pixels, np.uint8)
        for row, images in enumerate(result.rows)
        for column, image in enumerate(images)
    }


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f'{name}.npy', _EPOCH_OF_ZIP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order='C'), allow_pickle=False)
            archive.writestr(entry, member.getbuffer(), compresslevel=_COMPRESSION)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """JSON for the few kinds of value in a provenance besides plain ones."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)


def encoded(text: str) -> bytes:
    """Text as UTF-8; the names of files keep their bytes, whatever they are."""
    return _NOT_FROM_BYTES.sub('\ufffd', text).encode(errors='surrogateescape')


_NOT_FROM_BYTES = re.compile('[\ud800-\udc7f\udd00-\udfff]')


_PATHS = ('path', 'other_path')


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> bytes:
    """Rows as a ``.csv`` file; its columns of paths name no folder of this machine, as in a manifest.

    Args:
        rows: All with the same columns.
        columns: Their names where there may be no row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(
        {key: (shareable if key in _PATHS else anonymized)(each) for key, each in row.items()} for row in rows
    )
    return encoded(text.getvalue())


def curves_csv(result: Curves) -> bytes:
    """Curves as a table of step, epoch, config, group, parameter and value."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(('step', 'epoch', 'config', 'group', 'parameter', 'value'))
    for curve in result.curves:
        length = result.epoch_length.get(curve.config)
        epochs: list[Any] = [''] * len(curve.steps) if not length else (curve.steps // length).astype(int).tolist()
        constant = anonymized((curve.config, curve.group, curve.parameter))
        for step, epoch, value in zip(curve.steps.tolist(), epochs, curve.values.tolist(), strict=True):
            writer.writerow((step, epoch, *constant, repr(value)))
    return encoded(table.getvalue())
