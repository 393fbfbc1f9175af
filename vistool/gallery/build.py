"""The gallery of a finished run: one page that opens from disk, its data in one file beside it, tiles in folders."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from vistool.errors import InputError, param
from vistool.gallery.data import as_script, page_data
from vistool.gallery.runs import ARGUMENT, FinishedRun, read_run
from vistool.visualization.files import write_file

_SCRIPTS = ('model.js', 'elements.js', 'cards.js', 'bar.js', 'detail.js', 'page.js')
_COPIES = 'gallery/compared'


def build_gallery(folder: Path, others: Sequence[Path] = ()) -> list[Path]:
    """Write the page over a finished run into its folder, ``gallery/index.html``.

    The page needs no server and no network. It loads ``gallery/data.js`` and the tiles that were written during the
    run; those of other runs are copied, so that the folder can be moved as a whole. Equal runs give equal files.

    Args:
        folder: Output folder of the run.
        others: Output folders of other finished runs over the same images, which stand at its left (the baseline).

    Returns:
        The page and its data.

    Raises:
        InputError: A folder does not hold a finished run, has no tiles or a broken manifest; two runs have no image in
            common; or the page cannot be written.
    """
    folder = Path(folder)
    runs = [*check_others(folder, others), read_run(folder)]
    homes = [f'compared/{number}/' for number in range(1, len(runs))] + ['']
    script = as_script(page_data(runs, homes))
    copies = {path for run, home in zip(runs, homes, strict=True) if home for path in _copy(run, folder, home)}
    paths = [folder / 'gallery' / 'index.html', folder / 'gallery' / 'data.js']
    write_file(paths[1], script.encode('ascii'), ARGUMENT)
    write_file(paths[0], _page(_title(runs[-1], len(others))).encode(), ARGUMENT)
    _remove_others(folder / _COPIES, copies)
    return paths


def check_others(folder: Path, others: Sequence[Path]) -> list[FinishedRun]:
    """The finished runs that are to stand beside the one in ``folder``, which need not be there yet.

    Raises:
        InputError: A folder does not hold a finished run or has no tiles, or is named twice.
    """
    places = [Path(each).resolve() for each in (*others, folder)]
    if len(set(places)) < len(places):
        raise InputError('a run cannot stand beside itself', hint='name each folder once', parameter=ARGUMENT)
    return [read_run(Path(each)) for each in others]


def _title(run: FinishedRun, others: int) -> str:
    parts = [run.facts.get('config'), run.facts.get('tool'), 'compared' if others else '']
    return ' · '.join(str(part) for part in parts if part) or 'vistool'


def _page(title: str) -> str:
    """The page with its style and script inside; the policy lets exactly these two run."""
    style, script = _packaged('page.css'), ''.join(_packaged(name) for name in _SCRIPTS)
    script = f"(() => {{\n'use strict';\n{script}}})();\n"
    policy = '; '.join(
        (
            "default-src 'none'",
            # Files have no origin that 'self' could mean in every browser.
            f"script-src 'self' file: {_digest(script)}",
            f'style-src {_digest(style)}',
            "img-src 'self' file: data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = _packaged('page.html')
    parts = {'title': html.escape(title), 'policy': html.escape(policy), 'style': style, 'script': script}
    for name, text in parts.items():
        page = page.replace(f'{{{{{name}}}}}', text)
    return page


def _packaged(name: str) -> str:
    return resources.files('vistool.gallery').joinpath(name).read_text(encoding='utf-8')


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _copy(run: FinishedRun, folder: Path, home: str) -> list[Path]:
    """Copy the tiles of another run below this one's gallery."""
    copied = []
    for file in sorted({str(tile['file']) for line in run.images for tile in line.get('tiles') or ()}):
        target = folder / 'gallery' / home / file.removeprefix('gallery/')
        try:
            data = (run.folder / file).read_bytes()
        except OSError as error:
            hint = f'run it again with {param("gallery", True)} and {param("resume", True)}'
            raise InputError(f'a tile of {str(run.folder)!r} is gone: {file}', hint=hint, parameter=ARGUMENT) from error
        write_file(target, data, ARGUMENT)
        copied.append(target)
    return copied


def _remove_others(folder: Path, keep: set[Path]) -> None:
    """Remove what an earlier gallery copied and this one does not show."""
    for path in sorted(folder.rglob('*'), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
