"""One photo, live: a page on this machine with the attention, similarity, CAM, feature maps and patches of a model."""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vistool.commands import boundary, options
from vistool.commands.options import Parser, whole
from vistool.environment import as_typed
from vistool.errors import InputError

if TYPE_CHECKING:
    import socket

    from torch import nn

    from vistool.explore.photos import Photo
    from vistool.explore.session import Session
    from vistool.explore.view import Drawing
    from vistool.models.configs import Source
    from vistool.models.model import Model
    from vistool.runs.patches import PatchesSpec
    from vistool.runs.spec import Models, RunSpec

_NEEDED = ('starlette', 'uvicorn')
"""Packages of the extra ``explore``."""
_PATIENCE = 0.4
"""Seconds that model work is waited for at the end."""


def build_parser() -> Parser:
    """The command line of vis_explore."""
    example = 'vis_explore configs/dinov2/vit-small-p14_dinov2-pre_headless.py --img demo/astronaut.png'
    parser = Parser('vis_explore', __doc__, example)
    options.add_model(parser)
    group = parser.add_argument_group('page')
    group.add_argument(
        '--img', dest='images', nargs='+', default=[], metavar='IMG',
        help='photos to begin with: files, a folder, a quoted glob, a .txt or .csv list, or @train, @val, @test; more '
        'can be dropped on the page',
    )  # fmt: skip
    group.add_argument('--port', type=whole, default=0, metavar='N', help='of this machine (default: any that is free)')
    group.add_argument('--no-browser', action='store_true', help='print the address, open nothing')
    options.add_layers(group, 'layers of CAM to begin with; default: by network')
    options.add_compare(parser)
    options.add_display(parser.add_argument_group('photos that are not of 8 bits'))
    options.add_inputs(parser)
    options.add_outputs(parser)
    options.add_run(parser)
    return parser


def work(args: argparse.Namespace) -> int:
    """Loads the models and serves the page until Ctrl-C."""
    require_packages()
    from vistool.explore.server import bound
    from vistool.runs.spec import find_source, opened_models

    models = options.models_of(args)
    with bound(args.port) as listening:
        source = find_source(models.first, models)
        photos = own_photos(args.images, source)
        with (
            tempfile.TemporaryDirectory(prefix='vis_explore-', ignore_cleanup_errors=True) as folder,
            opened_models(models, source, args.seed) as loaded,
        ):
            ended = serve(args, session_of(args, loaded, models, photos, Path(folder)), listening)
    if not ended:  # a forward cannot be interrupted, and Python would wait for it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(boundary.OK)
    return boundary.OK


def session_of(
    args: argparse.Namespace, loaded: Sequence[Model], models: Models, photos: Sequence[Photo], folder: Path
) -> Session:
    """What the page shows.

    Args:
        args: Parsed arguments.
        loaded: The models.
        models: How they were named.
        photos: The photos to begin with.
        folder: For the files of the session.
    """
    from vistool.explore.photos import Photos
    from vistool.explore.session import Session
    from vistool.runs.spec import labels

    names, commands = labels(loaded, models.names), CommandLines.of(args)
    return Session(loaded, names, Photos(photos, folder), commands, folder, args.seed, tuple(args.layers))


def serve(args: argparse.Namespace, session: Session, listening: socket.socket) -> bool:
    """Serves the page; returns whether no model work runs on."""
    from vistool.explore import server
    from vistool.explore.worker import Worker

    here = Path(server.__file__).parent
    files = server.static_files([here / 'page', here.parent / 'gallery' / 'shared'])
    worker = Worker()
    boundary.collect_garbage()

    def ready(address: str) -> None:
        boundary.announce([address])
        if not args.no_browser:
            open_page(address)

    try:
        server.serve(server.Server(session, worker, files, args.command), listening, ready)
    finally:
        ended = worker.stop(_PATIENCE)
    return ended


def require_packages() -> None:
    """Refuses to begin without the packages of the extra.

    Raises:
        InputError: One of them is missing.
    """
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(f'{name} is not installed', hint="pip install 'mmvistool[explore]'") from None


def own_photos(words: Sequence[str], source: Source | Model | nn.Module) -> list[Photo]:
    """The photos that the command names.

    Raises:
        InputError: One of the words names no photo.
    """
    from vistool.data.datasets import DatasetItem
    from vistool.explore.photos import Photo
    from vistool.runs.spec import find_items

    found: list[Photo] = []
    for word in words:
        for index, item in enumerate(find_items(word, source)):
            key = f'p{len(found) + 1}'
            if isinstance(item, DatasetItem):
                name = Path(item.path).name if item.path else item.name
                found.append(Photo(key, name, item, word, index))
            else:
                found.append(Photo(key, item.path.name, item, as_typed(item.path)))
    return found


def _here(word: str) -> str:
    """A word of a command line; a full path becomes relative where it lies below the current folder."""
    return as_typed(Path(word)) if os.path.isabs(word) and os.path.exists(word) else word


def open_page(address: str) -> None:
    """Opens a browser window, where there is a screen for one."""
    if sys.platform.startswith('linux') and not any(os.environ.get(name) for name in ('DISPLAY', 'WAYLAND_DISPLAY')):
        return
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


_TOOLS = {
    'vis_attention': 'vistool.commands.vis_attention',
    'vis_cam': 'vistool.commands.vis_cam',
    'vis_featmap': 'vistool.commands.vis_featmap',
    'vis_patches': 'vistool.commands.vis_patches',
}
_CARRIED = (
    'device', 'seed', 'options', 'trust_checkpoint', 'files', 'draw_on', 'output', 'activation',
    'display_range', 'bands', 'axes', 'classes_file',
)  # fmt: skip
"""Parameters of this command that the commands of views get as well, where they have them."""


@functools.cache
def _parser(tool: str) -> Parser:
    parser: Parser = importlib.import_module(_TOOLS[tool]).build_parser()
    parser.usage = parser.format_usage().removeprefix('usage: ')  # else argparse writes it for each of many lines
    return parser


@dataclass(frozen=True)
class CommandLines:
    """The command lines that draw views.

    Attributes:
        models: Config and checkpoint of each model, as they were typed.
        carried: Parameters with their values, as they were typed.
        names: What the models are called, where that was said.
    """

    models: Sequence[Sequence[str]]
    carried: Mapping[str, Sequence[str]]
    names: Sequence[str] = ()

    @classmethod
    def of(cls, args: argparse.Namespace) -> CommandLines:
        """Those of one start of this command."""
        first = [args.config, *([args.checkpoint] if args.checkpoint else [])]
        models = [[_here(word) for word in words] for words in [first, *args.compare]]
        parser, carried = build_parser(), {}
        for name in _CARRIED:
            value = getattr(args, name)
            if value != parser.get_default(name):
                carried[name] = [] if value is True else list(value) if isinstance(value, list) else [str(value)]
        return cls(models, carried, args.names)

    def words(self, drawing: Drawing, photo: Photo, model: int | None, out: str) -> list[str]:
        """A command line; see :class:`~vistool.explore.session.Commands`."""
        parser = _parser(drawing.tool)
        known = {action.dest for action in parser._actions}
        config, *checkpoint = self.models[model or 0]
        words = [drawing.tool, photo.images, config, *(checkpoint if 'checkpoint' in known else [])]
        if photo.index is not None:
            words += [parser.spelling('indices'), str(photo.index)]
        for name, values in {**drawing.parameters, **self.carried}.items():
            if name in known:
                words += [_option(parser, name), *values]
        if model is None:
            for other in self.models[1:]:
                words += [_option(parser, 'compare'), *other]
            words += [_option(parser, 'names'), *self.names] if self.names else []
        return [*words, _option(parser, 'save_raw'), _option(parser, 'out'), out]

    def line(self, words: Sequence[str]) -> str:
        """A command line as a user types it."""
        tool, *rest = words
        return _parser(tool).command(rest)

    def spec(self, words: Sequence[str]) -> RunSpec | PatchesSpec:
        """What a command line asks for, as its own command reads it."""
        tool, *rest = words
        parser = _parser(tool)
        args = parser.parse(rest)
        args.command, args.again = parser.command(rest), ()
        made: Callable[[argparse.Namespace], RunSpec | PatchesSpec] = importlib.import_module(_TOOLS[tool]).spec_of
        return made(args)


def _option(parser: Parser, name: str) -> str:
    """An option as it is typed: its shortest long form for the file, the first long form for all else."""
    return '-o' if name == 'out' else parser.spelling(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        return boundary.run(work, build_parser(), argv)
    finally:
        gc.freeze()  # Python would look through everything once more before the process ends, which takes seconds


if __name__ == '__main__':
    sys.exit(main())
