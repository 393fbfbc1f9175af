"""The arguments that commands share, and the boundary where an exception becomes one line and an exit code.

Nothing heavy is imported here: ``--help`` answers at once, and arguments are checked before torch is loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn, TextIO

from vistool import recipe
from vistool.errors import InputError

OK, SOME_FAILED, BAD_INPUT, OWN_FAULT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done; some items of a batch failed; bad input; a fault of vistool's own; interrupted."""

log = logging.getLogger('vistool')
_stdout: ContextVar[TextIO] = ContextVar('stdout')


class Parser(argparse.ArgumentParser):
    """An argument parser of the command-line contract.

    Options may be spelled with dashes or underscores and are never abbreviated; ``-1,-2`` is a value; bad usage raises
    :class:`~vistool.errors.InputError`; a list option that swallowed a positional says so.
    """

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # argparse takes only plain numbers for values; «-1,-2» and «-5,3» are values as well
        self._negative_number_matcher = re.compile(r'^-\.?\d')

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print with a usage block."""
        hint = f'see {self.prog} --help'
        if 'required' in message:
            hint = f'positional arguments go before options that take a list; {hint}'
        raise InputError(message, hint=hint)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses ``argv`` (the process's own by default); options and positionals may be mixed."""
        words = [_dashed(word) for word in (sys.argv[1:] if argv is None else argv)]
        args = self.parse_intermixed_args(words)
        for action in self._actions:
            if action.option_strings and action.nargs in ('+', '*'):
                given = getattr(args, action.dest, None) or []
                if action.dest != 'compare':
                    self._check_list(action.option_strings[-1], given)
        return args

    def _check_list(self, option: str, values: Sequence[Any]) -> None:
        for value in values:
            text = str(value)
            if text == 'none' or text.startswith('demo://') or os.path.isfile(text):
                raise InputError(
                    f'{text!r} looks like a positional argument that the list took in',
                    hint=f'put positionals before {option}, or another option between',
                    argument=option,
                )


def _dashed(word: str) -> str:
    if not word.startswith('--'):
        return word
    name, equals, value = word.partition('=')
    return name.replace('_', '-') + equals + value


def add_model(parser: Parser, *, checkpoint: bool = True) -> None:
    """``config`` and ``checkpoint``."""
    parser.add_argument(
        'config', help='config file, mmpretrain::PATH, model name, timm::NAME, or the folder of a run (work_dirs/exp)'
    )
    if checkpoint:
        parser.add_argument(
            'checkpoint',
            nargs='?',
            help="path, URL, demo://NAME, or none (random weights); default: the run folder's, else the config's",
        )


def add_picture(parser: Parser, *, maps: bool = True) -> None:
    """Where pictures go and how they look; ``maps``: also how heat maps are coloured."""
    group = parser.add_argument_group('picture')
    group.add_argument(
        '-o',
        '--out',
        '--save-path',
        '--out-dir',
        '--output-dir',
        dest='out',
        metavar='PATH',
        help='a file (png, jpg, webp, pdf, svg), else a folder; default: work_dirs/<config>/<command>/',
    )
    group.add_argument(
        '--layout',
        default='grid',
        metavar='grid|overlay',
        help="titled figure, or the bare overlay at the network's size",
    )
    group.add_argument('--width', metavar='W', help='column (3.25 in), text (6.875 in), screen, or pixels')
    group.add_argument('--dpi', type=int, default=300, help='of pictures for paper (default: 300)')
    if maps:
        _add_maps(group)
    else:
        parser.set_defaults(scale=None, colormap=None, alpha=None, colorbar=None, interpolation=None, view=None)
    group.add_argument('--panels', metavar='DIR', help='write each tile untitled as well, at native resolution')
    group.add_argument('--save-raw', action='store_true', help='write the numbers beside the picture (.npz)')
    group.add_argument('--show', action='store_true', help='open a window as well')


def _add_maps(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--scale', metavar='each|shared|percentile', help='colour scale of each map, one for all, or without outliers'
    )
    group.add_argument('--colormap', metavar='NAME', help='any matplotlib colour map')
    group.add_argument('--alpha', metavar='A|heat', help='weight of the colours, 0 to 1; heat: transparent where cold')
    group.add_argument('--colorbar', action='store_true', default=None, help='draw colour bars')
    group.add_argument('--interpolation', metavar='nearest|bilinear|bicubic', help='how maps are enlarged')
    group.add_argument('--view', metavar='original|network', help='draw on the whole file, or on what the network saw')
    group.add_argument('--sheet', metavar='FILE', help='put all images of the run on pages as well')


def add_run(parser: Parser, *, model: bool = True) -> None:
    """How the command runs; without a ``model`` there is no device and no checkpoint to choose."""
    group = parser.add_argument_group('run')
    if model:
        group.add_argument('--device', default='cpu', help='cpu (default), cuda:0, …')
    group.add_argument('--seed', type=int, default=0, help='of random transforms and random weights (default: 0)')
    group.add_argument('--cfg-options', nargs='+', default=[], metavar='K=V', help='changes to the config')
    if model:
        group.add_argument('--trust-checkpoint', action='store_true', help="let the checkpoint's pickle run code")
    group.add_argument('--log-level', default='info', metavar='LEVEL', help='debug, info (default), warning, error')
    group.add_argument('--debug', action='store_true', help='show tracebacks')
    parser.add_argument(
        '--not-show', action='store_true', help=argparse.SUPPRESS
    )  # older tools' option, the default here


def add_compare(parser: Parser) -> None:
    """Other models beside the first."""
    parser.add_argument(
        '--compare',
        nargs='+',
        action='append',
        default=[],
        metavar='CONFIG',
        help='CONFIG [CHECKPOINT]: the same from another model or checkpoint beside it; repeatable',
    )


def add_inputs(parser: Parser) -> None:
    """Files of a network with several inputs."""
    group = parser.add_argument_group('several inputs (for configs with «inputs»)')
    group.add_argument(
        '--input', nargs='+', default=[], metavar='NAME=PATH', help='a file for an input, or a folder of files'
    )
    group.add_argument('--draw-on', metavar='NAME', help='the input to draw maps on; default: the first with places')


def add_batch(parser: Parser) -> None:
    """How many images go through at once."""
    group = parser.add_argument_group('many images')
    group.add_argument('--batch-size', type=int, default=8, metavar='N', help='images per forward (default: 8)')
    group.add_argument(
        '--workers', type=int, default=2, metavar='N', help='threads that read and that write (default: 2)'
    )
    group.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on the CPU')


def style_of(args: argparse.Namespace) -> Any:
    """The :class:`~vistool.visualization.Style` that the picture options ask for."""
    from vistool.visualization.style import Style

    align: Any = getattr(args, 'align', None) or 'centre'
    align = 'centre' if align == 'center' else align
    width: Any = int(args.width) if args.width and args.width.isdigit() else args.width
    alpha: Any = args.alpha
    if alpha is not None and alpha != 'heat':
        try:
            alpha = float(alpha)
        except ValueError:
            raise InputError(f'{alpha!r} is no opacity', accepted='0 to 1, or heat', argument='--alpha') from None
    return Style(
        layout=args.layout,
        width=width,
        dpi=args.dpi,
        scale=args.scale,
        colormap=args.colormap,
        alpha=alpha,
        colorbar=args.colorbar,
        interpolation=args.interpolation,
        view=args.view,
        align=align,
        arrangement=tuple(args.arrangement) if getattr(args, 'arrangement', None) else None,
    )


def out_path(args: argparse.Namespace, config: str, command: str) -> Path:
    """``--out``, or the default folder of this config and command."""
    return Path(args.out) if args.out else Path('work_dirs') / config / command


def file_name(item: str, *choices: object) -> str:
    """A picture's name: the image's, then whatever the user chose for this run (method, class, layer, checkpoint).

    So another choice never overwrites the last one's picture. Lists are joined by ``-``; what was not chosen is
    left out.
    """
    parts = [item]
    for choice in choices:
        text = '-'.join(map(str, choice)) if isinstance(choice, (list, tuple)) else str(choice or '')
        if text:
            parts.append(re.sub(r'[^\w.+=-]+', '-', text).strip('-')[:80])
    return '_'.join(parts)


def config_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``K=V`` pairs read as OpenMMLab's tools read them.

    Raises:
        InputError: If one is no pair.
    """
    if not pairs:
        return {}
    from mmengine.config import DictAction

    for pair in pairs:
        if '=' not in pair or pair.startswith('='):
            raise InputError(
                f'{pair!r} is no KEY=VALUE', accepted='model.backbone.depth=18 data.x="[a,b]"', argument='--cfg-options'
            )
    reader = argparse.ArgumentParser(add_help=False)
    reader.add_argument('--cfg-options', nargs='+', action=DictAction)
    try:
        return reader.parse_args(['--cfg-options', *pairs]).cfg_options
    except (ValueError, AssertionError, SyntaxError) as error:
        raise InputError(f'{" ".join(pairs)!r} cannot be read: {error}', argument='--cfg-options') from error


def run(work: Callable[[argparse.Namespace], int], parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Parses, works, and turns whatever is raised into one line on stderr and an exit code.

    stdout is for the paths written, through :func:`announce`; what libraries print is logged at debug level.
    """
    debug = '--debug' in (sys.argv if argv is None else argv)
    try:
        args = parser.parse(argv)
        args.command = recipe.command(parser.prog, None if argv is None else list(argv))
        _set_up_logging(args.log_level, debug)
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # a config's custom_imports find the user's own files
        _stdout.set(sys.stdout)
        with contextlib.redirect_stdout(_Chatter()), warnings.catch_warnings():
            if not debug:
                warnings.simplefilter('ignore')
            return work(args)
    except InputError as error:
        if debug:
            raise
        return _complain(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _complain('interrupted', INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; say nothing at exit either
        return OK
    except Exception as error:
        if debug:
            raise
        library = _missing_library(error)
        if library:
            return _complain(library, BAD_INPUT)
        return _complain(
            f'{type(error).__name__}: {" ".join(str(error).split())}; run with --debug for the traceback', OWN_FAULT
        )


def announce(lines: Iterable[object]) -> None:
    """Prints the paths written (or a listing asked for) to the process's own stdout, one a line."""
    for line in lines:
        print(line, file=_stdout.get(sys.stdout), flush=True)


def _complain(message: str, code: int) -> int:
    print(f'error: {message}', file=sys.stderr)
    return code


def _set_up_logging(level: str, debug: bool) -> None:
    levels = ('debug', 'info', 'warning', 'error')
    if level.lower() not in levels:
        raise InputError(f'unknown level {level!r}', accepted=', '.join(levels), argument='--log-level')
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    handler.addFilter(_Once())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel('DEBUG' if debug else level.upper())


class _Chatter(io.TextIOBase):
    def write(self, text: str) -> int:
        if text.strip():
            log.debug('%s', text)
        return len(text)


class _Once(logging.Filter):
    """Passes each message once: what holds for a run need not be said for every image."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.levelno, record.getMessage())
        new = key not in self._said or not logging.DEBUG < record.levelno < logging.ERROR
        self._said.add(key)
        return new


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = ' '.join(record.getMessage().split())
        return message if record.levelno <= logging.INFO else f'{record.levelname.lower()}: {message}'


def _missing_library(error: Exception) -> str:
    """One line for a cv2 that cannot find the system's libraries."""
    if isinstance(error, ImportError) and re.search(r'lib(GL|glib|gthread|xcb|SM|Xext)[\w.-]*\.so', str(error)):
        return (
            f'OpenCV cannot be imported ({error}); it needs system libraries: '
            'apt-get install libgl1 libglib2.0-0 libxcb1'
        )
    return ''
