"""Results to files: the one place where pictures and the numbers behind them are written."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistool.errors import InputError, close_matches, param
from vistool.results import Heatmaps, Result
from vistool.visualization import kinds, raster
from vistool.visualization import text as fonts
from vistool.visualization.facets import facets, with_titles
from vistool.visualization.files import (
    VECTOR_SUFFIXES,
    ProtectedFiles,
    check_file,
    check_folder,
    encode_pixels,
    flat_name,
    is_file,
    safe_name,
    write_file,
)
from vistool.visualization.heatmaps import query_scenes, sheet_scenes
from vistool.visualization.kinds import open_window, picture_bytes, picture_pixels, style_of
from vistool.visualization.latex import plain_name, write_figure
from vistool.visualization.scene import Pixels
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
        companions: A folder for each companion that is written as a folder (``{'channels': folder}``); the others are
            written beside the picture, with their key as a suffix (``photo_stats.png``).
    """

    out: Path | str | None
    style: Style = field(default_factory=Style)
    save_raw: bool = False
    show: bool = False
    panels: Path | str | None = None
    backends: Sequence[Any] = ()
    companions: Mapping[str, Path | str] = field(default_factory=dict)
    _photos: ProtectedFiles = field(default_factory=ProtectedFiles, init=False, repr=False)
    _written: dict[Path, str] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def check(self, count: int = 1, *, sheet: str = '') -> None:
        """Finds out before the work whether its results can be written.

        Args:
            count: How many results will come.
            sheet: The value of the parameter ``sheet`` that would put all of them into one file; ``''``: there is none.

        Raises:
            InputError: The suffix is unknown, a folder cannot be written in, several results would go into one file,
                or no window can be opened.
        """
        if self.out is not None:
            out = Path(self.out)
            one = is_file(out)
            if one and count > 1:
                raise _one_file(out, f'{count} results', sheet)
            if one:
                check_file(out, 'out')
            else:
                check_folder(out)
        if self.panels is not None:
            check_folder(Path(self.panels), 'panels')
        for folder in self.companions.values():
            check_folder(Path(folder), '')
        if self.show:
            from vistool.visualization.vector import check_window

            check_window()

    def keep(self, photos: Iterable[str | os.PathLike[str] | None]) -> None:
        """Never puts a picture in the place of these files, from which results are made; None is passed over."""
        self._photos.add(photos)

    def write(self, result: Result, name: str, step: int = 0) -> list[Path]:
        """Writes one result.

        Args:
            result: What to draw.
            name: Name of the picture without suffix; ``/`` makes sub-folders. Unused where ``out`` is one file.
            step: Its number, for backends.

        Returns:
            The files written: pictures, then numbers (numbers first where a kind always has them), panels, companions.

        Raises:
            InputError: Something cannot be drawn or written, another result went to the same file before, or one of
                the photos lies there; see :meth:`keep`.
        """
        written: list[Path] = []
        target = None if self.out is None else self._target(Path(self.out), name)
        if target is not None:
            written += self._files(result, target)
        if self.panels is not None:
            written += panels(result, Path(self.panels) / safe_name(name), self.style)
        if self.backends:
            pixels = picture_pixels(result, self.style)
            with self._lock:
                for backend in self.backends:
                    backend.add_image(flat_name(name), pixels, step)
        if self.show:
            open_window(result, self.style, name)
        for key, companion in result.companions.items():
            if key in self.companions:
                written += write_folder(companion, Path(self.companions[key]), self.style, '')
            elif target is not None:
                written += self._files(companion, target.with_name(f'{target.stem}_{key}{target.suffix}'))
        return written

    def close(self) -> None:
        """Lets the backends write what they still hold."""
        for backend in self.backends:
            backend.close()

    def put(self, name: str, data: bytes) -> Path:
        """Writes a picture that was encoded elsewhere, in a worker say, under the name that ``write`` would give it.

        Raises:
            InputError: It cannot be written, another result went to the same file before, or one of the photos lies
                there.
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
        self._photos.refuse(path)
        return path

    def _files(self, result: Result, target: Path) -> list[Path]:
        """Writes a result's pictures and, where they are wanted, its numbers."""
        files = self._pictures(result, target)
        raw = kinds.to_raw(result)
        if raw is not None and (raw.always or self.save_raw):
            beside = target.with_name(target.stem + raw.suffix), raw.data
            files = [beside, *files] if raw.always else [*files, beside]
        for path, data in files:
            write_file(path, data)
        return [path for path, _ in files]

    def _pictures(self, result: Result, target: Path) -> list[tuple[Path, bytes]]:
        suffix = target.suffix.lower()
        if self.style.layout != 'overlay':
            return [(target, picture_bytes(result, self.style, suffix))]
        images = kinds.to_overlays(result, self.style)
        if images is None:
            return [(target, picture_bytes(result, self.style, suffix))]
        if suffix in VECTOR_SUFFIXES:
            raise InputError(
                f'the overlay layout makes plain images, not {suffix} files',
                accepted='png, jpg, webp',
                parameter='layout',
            )
        if len(images) == 1:
            return [(target, encode_pixels(images[0][1], suffix))]
        return [
            (target.with_name(f'{target.stem}_{flat_name(name)}{target.suffix}'), encode_pixels(image, suffix))
            for name, image in images
        ]


def _one_file(path: Path, what: str, sheet: str = '') -> InputError:
    instead = f', or {param("sheet", sheet)} for all together' if sheet else ''
    problem = f'{what} would be written to the one file {str(path)!r}'
    return InputError(problem, hint=f'give a folder instead{instead}', parameter='out')


def save(result: Result | Sequence[Result], path: str | Path, *, save_raw: bool = False, **style: Any) -> list[Path]:
    """Writes a result to a file (png, jpg, webp, pdf, svg).

    Args:
        result: What an analysis returned. Several results go to a folder, as ``0.png``, ``1.png`` …; heat maps of
            several images also to one file, as pages with a row per image.
        path: The file, or the folder for several results.
        save_raw: Whether the numbers are written beside each picture.
        style: Fields of :class:`~vistool.visualization.style.Style`.

    Returns:
        The files written.

    Raises:
        InputError: A file cannot be written, or a style is not accepted.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(
            f'{type(path).__name__} is not a path',
            hint='render(result, format=…) gives a picture as bytes',
            parameter='path',
        )
    path, chosen = Path(path), style_of(style)
    visualizer = Visualizer(path, chosen, save_raw=save_raw)
    if isinstance(result, Result):
        visualizer.check()
        if not is_file(path):
            raise InputError(f'{str(path)!r} is not a picture file', accepted=_FORMATS)
        return visualizer.write(result, path.stem)
    maps = [each for each in result if isinstance(each, Heatmaps)]
    if is_file(path) and len(maps) == len(result) > 1:
        return sheet(maps, path, chosen)
    visualizer.check(len(result))
    return [file for number, each in enumerate(result) for file in visualizer.write(each, str(number))]


def write_folder(result: Result, folder: Path, style: Style, argument: str = 'out') -> list[Path]:
    """Writes a result as the files of a folder, or as ``picture.png`` where its kind is one picture.

    Raises:
        InputError: The folder cannot be written in; the message names the parameter ``argument``, if it is not empty.
    """
    files = kinds.to_files(result, style) or [('picture.png', picture_bytes(result, style, '.png'))]
    written = []
    for name, data in files:
        write_file(folder / name, data, argument)
        written.append(folder / name)
    return written


def panels(result: Result, folder: Path, style: Style) -> list[Path]:
    """Writes each tile of a result untitled, as PNG, all of one pixel size, for LaTeX subfigures.

    That is the photo's own, or the style's ``panel_size``.

    Returns:
        The files: ``input.png``, one per map, the input of each query where several are points, and ``figure.tex``,
        which arranges them; or ``1.png``, ``2.png`` … for a grid.

    Raises:
        InputError: The result has no tiles, or the folder cannot be written in.
    """
    written: list[Path] = []
    size = 1, 1

    def write(name: str, pixels: Pixels) -> Path:
        nonlocal size
        path = folder / f'{plain_name(flat_name(name), [each.stem for each in written])}.png'
        write_file(path, encode_pixels(pixels, '.png'), 'panels')
        written.append(path)
        size = pixels.shape[0], pixels.shape[1]
        return path

    for name, pixels in kinds.to_panels(result, style):
        write(name, pixels)
        del pixels  # before the next is drawn: a panel is as large as the photo
    if isinstance(result, Heatmaps):
        names = [path.name for path in written]
        scenes = query_scenes(result, style).items()
        inputs = {query: write(f'{query}/input', raster.paint(scene, 1.0)).name for query, scene in scenes}
        titled = with_titles(facets(result), style.row_titles, style.column_titles)
        written += write_figure(folder / 'figure.tex', titled, names, size[0] / size[1], inputs)
    return written


def sheet(results: Sequence[Heatmaps], path: Path | str, style: Style) -> list[Path]:
    """Writes several images' maps on pages: rows are images and columns are maps, or the other way round.

    Returns:
        One file; for formats without pages, ``NAME-1.png``, ``NAME-2.png`` … where one page is not enough.

    Raises:
        InputError: The suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    check_file(path, 'sheet')
    suffix = path.suffix.lower()
    with fonts.using(style.font):
        data = _pages(results, style, suffix)
    numbered = [path.with_name(f'{path.stem}-{number}{path.suffix}') for number in range(1, len(data) + 1)]
    paths = [path] if len(data) == 1 else numbered
    for each, content in zip(paths, data, strict=True):
        write_file(each, content, 'sheet')
    return paths


def _pages(results: Sequence[Heatmaps], style: Style, suffix: str) -> list[bytes]:
    """The files of a sheet: one PDF, or one of another format for each page."""
    page = style.page(vector=suffix in VECTOR_SUFFIXES)
    scenes = sheet_scenes(results, style, page)
    if suffix not in VECTOR_SUFFIXES:
        return [encode_pixels(raster.paint(each, page.density), suffix) for each in scenes]
    from vistool.visualization import vector

    figures = [vector.figure(each, page) for each in scenes]
    return [vector.encode(each, suffix) for each in ([figures] if suffix == '.pdf' else [[each] for each in figures])]


_SUFFIX = 'VisBackend'


def open_backends(names: Sequence[str], out: Path, config: Any = None, rank: int = 0, world: int = 1) -> list[Any]:
    """Mmengine's backends by name.

    Args:
        names: ``tensorboard``, ``wandb``, ``mlflow``, ``local`` … : whatever is registered, without "VisBackend".
        out: The run's output; they keep their files in ``vis_data`` in it (beside it, where it is one file).
        config: Where its ``visualizer.vis_backends`` or ``vis_backends`` has an entry for a backend, its settings are
            used.
        rank: Number of this process; each has a sub-folder of its own where there are several.
        world: How many processes there are.

    Raises:
        InputError: A name is unknown, or the backend's package is missing or refuses to start.
    """
    if not names:
        return []
    import mmengine.visualization  # noqa: F401  registers its backends
    from mmengine.registry import VISBACKENDS

    known = {_short(name): name for name in VISBACKENDS.module_dict}
    folder = (out.parent if out.suffix else out) / 'vis_data'
    opened = []
    for name in names:
        kind = known.get(_short(name))
        if kind is None:
            listed = ', '.join(sorted(known))
            hint = close_matches(_short(name), known)
            raise InputError(f'unknown backend {name!r}', accepted=listed, hint=hint, parameter='backends')
        settings = {'save_dir': str(folder / f'rank{rank}' if world > 1 else folder), **_settings(config, kind)}
        try:
            backend = VISBACKENDS.build({**settings, 'type': kind})
            _ = backend.experiment  # starts it: what is missing is said now
        except Exception as error:
            with contextlib.suppress(OSError):
                Path(settings['save_dir']).rmdir()  # it makes its folder first
            package = isinstance(error, ImportError)
            raise InputError(
                f'{name}: its package cannot be imported' if package else f'{name} cannot be started: {error}',
                hint=f'pip install {_short(name)}' if package else '',
                parameter='backends',
            ) from error
        opened.append(backend)
    return opened


def _short(name: str) -> str:
    return re.sub(_SUFFIX.lower() + '$', '', name.lower())


def _settings(config: Any, kind: str) -> dict[str, Any]:
    """What a config says of a backend, its place aside."""
    if config is None:
        return {}
    visualizer = config.get('visualizer')
    entries = list((visualizer.get('vis_backends') if isinstance(visualizer, Mapping) else None) or [])
    for entry in [*entries, *(config.get('vis_backends') or [])]:
        if isinstance(entry, Mapping) and str(entry.get('type')).rpartition('.')[2] == kind:
            return {key: value for key, value in entry.items() if key not in ('type', 'save_dir', '_scope_')}
    return {}
