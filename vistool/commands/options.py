"""The arguments that commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistool.commands.parser import Parser
from vistool.errors import InputError


def style_of(args: argparse.Namespace) -> Any:
    """The :class:`~vistool.visualization.style.Style` that the picture options ask for."""
    from vistool.visualization.style import Style

    align: Any = getattr(args, 'align', None) or 'centre'
    align = 'centre' if align == 'center' else align
    width: Any = int(args.width) if args.width and args.width.isdigit() else args.width
    alpha: Any = args.alpha
    if alpha is not None and alpha != 'heat':
        try:
            alpha = float(alpha)
        except ValueError:
            raise InputError(f'{alpha!r} is no opacity', accepted='0 to 1, or heat', parameter='alpha') from None
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
                f'{pair!r} is no KEY=VALUE', accepted='model.backbone.depth=18 data.x="[a,b]"', parameter='options'
            )
    reader = argparse.ArgumentParser(add_help=False)
    reader.add_argument('--cfg-options', nargs='+', action=DictAction)
    try:
        return reader.parse_args(['--cfg-options', *pairs]).cfg_options
    except (ValueError, AssertionError, SyntaxError) as error:
        raise InputError(f'{" ".join(pairs)!r} cannot be read: {error}', parameter='options') from error


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
    """Many images: which of them, how many at once, in which processes, and what is kept of the run."""
    _add_selection(parser)
    group = parser.add_argument_group('many images')
    group.add_argument('--batch-size', type=int, default=8, metavar='N', help='images per forward (default: 8)')
    group.add_argument(
        '--workers', type=int, default=2, metavar='N', help='threads that read and that write (default: 2)'
    )
    group.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on the CPU')
    group.add_argument('--resume', action='store_true', help='go on with the run in the output folder')
    group.add_argument('--overwrite', action='store_true', help='start again, whatever the output folder holds')
    group.add_argument(
        '--gallery', nargs='*', metavar='RUN', help='a web page over the run; of other runs (folders) beside it'
    )
    group.add_argument(
        '--vis-backend', nargs='+', default=[], metavar='NAME', help='pictures go there too: tensorboard, wandb, …'
    )
    group.add_argument(
        '--launcher', default='none', metavar='none|pytorch|slurm', help='what started the processes of this run'
    )
    group.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)  # some launchers add it
    group.add_argument(
        '--deterministic', action='store_true', help='the same bytes however many processes and interruptions; slower'
    )


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group('which images')
    group.add_argument('--indices', nargs='+', default=[], metavar='I', help='their places: 7, -1, 10-19')
    group.add_argument('--classes', nargs='+', default=[], metavar='CLASS', help='of a dataset: ids or names')
    group.add_argument('--per-class', type=int, metavar='N', help='of a dataset: N of each class, drawn with --seed')
    group.add_argument('--only', metavar='wrong|right|uncertain', help='by what the model makes of them')
    group.add_argument('--max-samples', type=int, metavar='N', help='N of them, drawn with --seed')
