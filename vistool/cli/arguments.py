"""The arguments that commands share."""

from __future__ import annotations

import argparse

from vistool.cli.parser import Parser


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
