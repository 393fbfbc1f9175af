"""Results to files: the one place where pictures and the numbers behind them are written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistool.errors import InputError
from vistool.results import Curves, Heatmaps, ImageGrid, Result
from vistool.visualization import raster
from vistool.visualization.files import VECTOR_SUFFIXES, check_folder, encode_pixels, is_file, safe_name, write_file
from vistool.visualization.grids import bare_tiles
from vistool.visualization.heatmaps import overlays, panel_scenes, sheet_scenes
from vistool.visualization.raw import raw_bytes, raw_suffix
from vistool.visualization.render import picture_bytes, picture_pixels, show
from vistool.visualization.style import Style

_DEFAULT_SUFFIX = '.png'
_FORMATS = 'png, jpg, jpeg, webp, pdf, svg'


@dataclass
class Visualizer:
    """Writes results as pictures, and on request their numbers. May be used from several threads.

    Attributes:
        out: A file with a picture's suffix (png, jpg, jpeg, webp, pdf, svg) for one result, or a folder; None writes
            nothing (with ``show``).
        style: How to draw.
        save_raw: Whether the numbers are written beside each picture.
        show: Whether each picture is shown in a window too; waits until it is closed.
        panels: Folder for each tile, untitled and at native resolution, or None.
        backends: mmengine's visualization backends that get each picture too.
    """

    out: Path | str | None
    style: Style = field(default_factory=Style)
    save_raw: bool = False
    show: bool = False
    panels: Path | str | None = None
    backends: Sequence[Any] = ()
    _written: dict[Path, str] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def check(self, count: int = 1) -> None:
        """Find out before the work whether its results can be written.

        Args:
            count: How many results will come.

        Raises:
            InputError: The suffix is unknown, a folder cannot be written in, several results would go into one file,
                or no window can be opened.
        """
        if self.out is not None:
            out = Path(self.out)
            one = is_file(out)
            if one and count > 1:
                raise _one_file(out, f'{count} results')
            check_folder(out.parent if one else out)
        if self.panels is not None:
            check_folder(Path(self.panels), 'panels')
        if self.show:
            from vistool.visualization.vector import check_window

            check_window()

    def write(self, result: Result, name: str, step: int = 0) -> list[Path]:
        """Write one result.

        Args:
            result: What to draw.
            name: Name of the picture without suffix; ``/`` makes sub-folders. Unused where ``out`` is one file.
            step: Its number, for backends.

        Returns:
            The files written: pictures, then numbers, then panels.

        Raises:
            InputError: Something cannot be drawn or written, or another result went to the same file before.
        """
        written: list[Path] = []
        if self.out is not None:
            target = self._target(Path(self.out), name)
            for path, data in self._pictures(result, target):
                write_file(path, data)
                written.append(path)
            if self.save_raw:
                raw = target.with_name(target.stem + raw_suffix(result))
                write_file(raw, raw_bytes(result))
                written.append(raw)
        if self.panels is not None:
            written += panels(result, Path(self.panels) / safe_name(name), self.style)
        if self.backends:
            pixels = picture_pixels(result, self.style)
            with self._lock:
                for backend in self.backends:
                    backend.add_image(_flat(name), pixels, step)
        if self.show:
            show(result, self.style, name)
        return written

    def close(self) -> None:
        """Lets the backends write what they still hold."""
        for backend in self.backends:
            backend.close()

    def put(self, name: str, data: bytes) -> Path:
        """Write a picture that was encoded elsewhere, in a worker say, under the name that ``write`` would give it.

        Raises:
            InputError: It cannot be written, or another result went to the same file before.
        """
        assert self.out is not None
        target = self._target(Path(self.out), name)
        write_file(target, data)
        return target

    @property
    def suffix(self) -> str:
        """The suffix of the pictures."""
        return Path(self.out).suffix.lower() if self.out is not None and is_file(Path(self.out)) else _DEFAULT_SUFFIX

    def _target(self, out: Path, name: str) -> Path:
        one = is_file(out)
        # A name may hold dots (v1.5), so the suffix is appended rather than exchanged.
        path = out if one else out / (safe_name(name) + _DEFAULT_SUFFIX)
        with self._lock:
            before = self._written.setdefault(path, name)
        if before != name:
            raise _one_file(path, f'{before!r} and {name!r}')
        return path

    def _pictures(self, result: Result, target: Path) -> list[tuple[Path, bytes]]:
        suffix = target.suffix.lower()
        if self.style.layout != 'overlay' or isinstance(result, Curves):
            return [(target, picture_bytes(result, self.style, suffix))]
        if suffix in VECTOR_SUFFIXES:
            raise InputError(
                f'the overlay layout makes plain images, not {suffix} files',
                accepted='png, jpg, webp',
                parameter='layout',
            )
        images = bare_tiles(result) if isinstance(result, ImageGrid) else overlays(result, self.style)
        if len(images) == 1:
            return [(target, encode_pixels(images[0], suffix))]
        paths = [target.with_name(f'{target.stem}_{_flat(name)}{target.suffix}') for name in _names(result)]
        return [(path, encode_pixels(image, suffix)) for path, image in zip(paths, images, strict=True)]


def _names(result: Heatmaps | ImageGrid) -> list[str]:
    if isinstance(result, Heatmaps):
        return [each.name for each in result.maps]
    return [str(number) for number in range(1, 1 + sum(map(len, result.rows)))]


def _flat(name: str) -> str:
    return safe_name(name.replace('/', '-').replace('\\', '-').replace(' ', '_'))


def _one_file(path: Path, what: str) -> InputError:
    return InputError(
        f'{what} would be written to the one file {str(path)!r}', hint='give a folder instead', parameter='out'
    )


def save(result: Result, path: Path | str, style: Style | None = None, save_raw: bool = False) -> list[Path]:
    """Write a result to one file (png, jpg, webp, pdf, svg).

    Returns:
        The files written.

    Raises:
        InputError: The suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    visualizer = Visualizer(path, style or Style(), save_raw=save_raw)
    visualizer.check()
    if not is_file(path):
        raise InputError(f'{str(path)!r} is no picture file', accepted=_FORMATS)
    return visualizer.write(result, path.stem)


def panels(result: Result, folder: Path, style: Style) -> list[Path]:
    """Write each tile of a result untitled, as PNG, all of one pixel size (the photo's own), for LaTeX subfigures.

    Returns:
        The files: ``input.png`` and one per map, or ``1.png``, ``2.png`` … for a grid.

    Raises:
        InputError: The result has no tiles, or the folder cannot be written in.
    """
    if isinstance(result, Curves):
        raise InputError('curves have no panels', parameter='panels')
    if isinstance(result, ImageGrid):
        tiles = list(zip(_names(result), bare_tiles(result), strict=True))
    else:
        tiles = [(name, raster.paint(drawn, 1.0)) for name, drawn in panel_scenes(result, style)]
    written = []
    for name, pixels in tiles:
        path = folder / f'{_flat(name)}.png'
        write_file(path, encode_pixels(pixels, '.png'), 'panels')
        written.append(path)
    return written


def sheet(results: Sequence[Heatmaps], path: Path | str, style: Style) -> list[Path]:
    """Write several images' maps on pages: rows are images, columns are maps.

    Returns:
        One file; for formats without pages, ``NAME-1.png``, ``NAME-2.png`` … where one page is not enough.

    Raises:
        InputError: The suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    if not is_file(path):
        raise InputError(f'{str(path)!r} is no picture file', accepted=_FORMATS, parameter='sheet')
    suffix = path.suffix.lower()
    page = style.page(vector=suffix in VECTOR_SUFFIXES)
    scenes = sheet_scenes(results, style, page)
    if suffix in VECTOR_SUFFIXES:
        from vistool.visualization import vector

        figures = [vector.figure(each, page) for each in scenes]
        pages = [figures] if suffix == '.pdf' else [[each] for each in figures]
        data = [vector.encode(each, suffix) for each in pages]
    else:
        data = [encode_pixels(raster.paint(each, page.density), suffix) for each in scenes]
    numbered = [path.with_name(f'{path.stem}-{number}{path.suffix}') for number in range(1, len(data) + 1)]
    paths = [path] if len(data) == 1 else numbered
    for each, content in zip(paths, data, strict=True):
        write_file(each, content, 'sheet')
    return paths
