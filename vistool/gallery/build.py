"""The gallery of a finished run: one page that opens from disk, its data in one file beside it, tiles in folders."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from PIL import Image

from vistool.environment import anonymized
from vistool.errors import InputError, param
from vistool.gallery.data import as_script, page_data
from vistool.gallery.points import read_points
from vistool.gallery.runs import ARGUMENT, FinishedRun, compared_models, own_path, read_run
from vistool.records import find_path, read_bytes, read_text
from vistool.visualization.files import write_file

_STYLES = ('shared/base.css', 'page.css')
_SCRIPTS = (
    'model.js', 'selection.js', 'shared/elements.js', 'cards.js', 'map.js', 'matrix.js', 'values.js', 'export.js',
    'bar.js', 'detail.js', 'page.js',
)  # fmt: skip
_COPIES = 'gallery/compared'
_COPIED = f'{_COPIES}/files.txt'
_LARGEST_TILE = 8 << 20


def build_gallery(folder: Path, others: Sequence[Path] = (), embedding: Path | None = None) -> list[Path]:
    """Write the page over a finished run into its folder, ``gallery/index.html``.

    The page needs no server and no network. It loads ``gallery/data.js`` and the tiles that were written during the
    run; those of other runs are copied, so that the folder can be moved as a whole. Equal runs give equal files.

    Args:
        folder: Output folder of the run.
        others: Output folders of other finished runs over the same images, which stand at its left (the baseline).
        embedding: Where the images lie on a map: the output folder of vis_tsne, or a table with a row per image. None:
            as the run itself says, if it does.

    Returns:
        The page and its data.

    Raises:
        InputError: A folder does not hold a finished run, has no tiles or a broken manifest; two runs have no image in
            common; the embedding cannot be read or has none of the images; or the page cannot be written.
    """
    folder = Path(folder)
    own, beside = read_run(folder), check_others(folder, others)
    runs = [*beside, *compared_models(own), own]
    homes = [f'compared/{number}/' for number in range(1, len(beside) + 1)] + [''] * (len(runs) - len(beside))
    table = None if embedding is None else read_points(embedding, 'embedding')
    data = page_data(runs, homes, table)
    if table and not any('points' in image for image in data['images']):
        raise InputError(
            f'no image of {str(folder)!r} is in {str(embedding)!r}', hint='run both over the same images',
            parameter='embedding',
        )  # fmt: skip
    script = as_script(data)
    copies = [name for run, home in zip(runs, homes, strict=True) if home for name in _copy(run, folder, home)]
    paths = [own_path(folder, name) for name in ('gallery/index.html', 'gallery/data.js')]
    write_file(paths[1], script.encode('ascii'), ARGUMENT)
    write_file(paths[0], _page(_title(own, len(others))).encode(errors='replace'), ARGUMENT)
    _remove_others(folder, copies)
    return paths


def check_others(folder: Path, others: Sequence[Path]) -> list[FinishedRun]:
    """The finished runs that are to stand beside the one in ``folder``, which need not be there yet.

    Raises:
        InputError: A folder does not hold a finished run or has no tiles, or is named twice.
    """
    places = [find_path(each, ARGUMENT).resolve() for each in (*others, folder)]
    if len(set(places)) < len(places):
        raise InputError('a run cannot stand beside itself', hint='name each folder once', parameter=ARGUMENT)
    return [read_run(Path(each)) for each in others]


def _title(run: FinishedRun, others: int) -> str:
    parts = [anonymized(run.facts.get('config')), run.facts.get('tool'), 'compared' if others else '']
    return ' · '.join(str(part) for part in parts if part) or 'vistool'


def _page(title: str) -> str:
    """The page with its style and script inside; the policy lets exactly these two run."""
    style, script = (''.join(_packaged(name) for name in names) for names in (_STYLES, _SCRIPTS))
    # Files opened from disk cannot import modules: what other pages import is part of this one script.
    script = re.sub(r'^export ', '', script, flags=re.MULTILINE)
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
    return re.sub(r'\{\{(\w+)\}\}', lambda found: parts[found[1]], page)  # in one pass: a title may hold '{{style}}'


def _packaged(name: str) -> str:
    return resources.files('vistool.gallery').joinpath(name).read_text(encoding='utf-8')


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _copy(run: FinishedRun, folder: Path, home: str) -> list[str]:
    """Copies the tiles of another run below this one's gallery; returns their paths from ``folder``."""
    copied = []
    for file in sorted({tile['file'] for line in run.images for tile in line.get('tiles') or ()}):
        target = f'gallery/{home}{file.removeprefix("gallery/")}'
        write_file(own_path(folder, target), _picture(run.folder, file), ARGUMENT)
        copied.append(target)
    return copied


def _picture(folder: Path, file: str) -> bytes:
    """A tile of another run, if it is a regular file that holds a picture.

    Raises:
        InputError: It is anything else; a run from elsewhere may name any file.
    """
    hint = f'run it again with {param("gallery", True)} and {param("resume", True)}'
    path = own_path(folder, file)
    if not path.exists():
        raise InputError(f'a tile of {str(folder)!r} is gone: {file}', hint=hint, parameter=ARGUMENT)
    data = read_bytes(path, ARGUMENT, _LARGEST_TILE, hint)
    try:
        with Image.open(io.BytesIO(data), formats=('JPEG', 'PNG')) as image:
            image.load()
    except Exception as error:  # a damaged picture can raise anything
        raise InputError(f'{str(path)!r} is not a picture', hint=hint, parameter=ARGUMENT) from error
    return data


def _remove_others(folder: Path, keep: Sequence[str]) -> None:
    """Removes what an earlier gallery copied, by its own list, and this one does not show; then writes the new list."""
    if not keep and (folder / _COPIES).is_symlink():
        return
    record = own_path(folder, _COPIED)
    before = read_text(record, ARGUMENT).splitlines() if record.is_file() else []
    for name in sorted({name for name in before if name.startswith(f'{_COPIES}/')}.difference(keep)):
        try:
            path = own_path(folder, name)
        except InputError:  # the list was changed: not a file that vistool copied
            continue
        if path.is_file():
            path.unlink()
            _remove_empty(path.parent, folder / _COPIES)
    if keep:
        write_file(record, ''.join(f'{name}\n' for name in keep).encode(errors='surrogateescape'), ARGUMENT)
    elif record.is_file():
        record.unlink()
        _remove_empty(record.parent, folder / _COPIES)


def _remove_empty(folder: Path, top: Path) -> None:
    """Removes a folder and those above it, up to ``top``, as long as they are empty."""
    while folder.is_relative_to(top) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
