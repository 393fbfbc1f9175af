"""What will the learning rate do over the whole training run? The schedules of one or several configs."""

from __future__ import annotations

import argparse
import gc
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vistool import commands as cli
from vistool.errors import InputError

if TYPE_CHECKING:
    from vistool.visualization.style import Style


def build_parser() -> cli.Parser:
    """The command line of vis_lr."""
    example = 'vis_lr mmpretrain::resnet/resnet50_8xb32_in1k.py -d 1281167 -n 8 -s lr.png'
    parser = cli.Parser('vis_lr', __doc__, example)
    parser.add_argument('config', nargs='+', help='config file, mmpretrain::PATH, model name, or a run folder; several')
    add = parser.add_argument_group('run').add_argument
    add('-d', '--dataset-size', type=int, metavar='N', help='training images; default: the annotations are counted')
    add('-n', '--ngpus', type=int, default=1, metavar='N', help='GPUs that train (default: 1)')
    add('-p', '--parameter', default='lr', metavar='NAME', help='lr (default), momentum, wd, betas or all')
    add('--auto-scale-lr', action='store_true', help='scale the rate to the real batch, as tools/train.py does')
    add('--log', action='append', default=[], metavar='FILE', help='scalars.json of a real run, drawn over; repeatable')
    add('--cfg-options', nargs='+', default=[], metavar='K=V', help='changes to the config')
    _add_picture(parser)
    add = parser.add_argument_group('rare').add_argument
    add('--log-level', default='info', metavar='LEVEL', help='debug, info (default), warning, error')
    add('--debug', action='store_true', help='show tracebacks')
    add('--not-show', action='store_true', help=argparse.SUPPRESS)  # the default here
    return parser


def _add_picture(parser: cli.Parser) -> None:
    add = parser.add_argument_group('picture').add_argument
    names = ('-s', '-o', '--out', '--save-path', '--out-dir', '--output-dir')
    where = 'a file (png, jpg, webp, pdf, svg), else a folder; default: work_dirs/<config>/vis_lr/'
    add(*names, dest='out', metavar='PATH', help=where)
    add('--title', help="heading; default: the config's name")
    add('--style', default='whitegrid', metavar='NAME', help='darkgrid, whitegrid (default), dark, white or ticks')
    add('--window-size', metavar='W*H', help='in inches, such as 12*7')
    add('--width', metavar='W', help='column (3.25 in), text (6.875 in), screen, or pixels')
    add('--dpi', type=int, default=300, help='of pictures for paper (default: 300)')
    add('--save-raw', action='store_true', help='write the numbers beside the picture (.csv)')
    add('--show', action='store_true', help='open a window as well')


def style_of(args: argparse.Namespace) -> Style:
    """The style that the picture options ask for."""
    from vistool.visualization.style import Style

    size = None
    if args.window_size:
        match = re.fullmatch(r'(\d+(?:\.\d+)?)\*(\d+(?:\.\d+)?)', args.window_size.strip())
        if match is None:
            problem = f'{args.window_size!r} is no window size'
            raise InputError(problem, accepted='W*H in inches, such as 12*7', parameter='size')
        size = float(match[1]), float(match[2])
    width = int(args.width) if args.width and args.width.isdigit() else args.width
    return Style(width=width, dpi=args.dpi, theme=args.style, size=size)


def work(args: argparse.Namespace) -> int:
    """Reads, replays and draws."""
    style = style_of(args)
    from vistool.models.configs import resolve
    from vistool.visualization.visualizer import Visualizer

    options = cli.config_options(args.cfg_options)
    sources = [resolve(each, options) for each in args.config]
    out = cli.out_path(args, sources[0].name, 'vis_lr')
    visualizer = Visualizer(out, style, save_raw=args.save_raw, show=args.show)
    visualizer.check()
    from vistool.analyses.schedule import Schedule

    names = args.parameter.split(',')
    result = Schedule(names, args.dataset_size, args.ngpus, args.auto_scale_lr)(sources, args.log)
    if args.title is not None:
        result = replace(result, title=args.title)
    result = replace(result, provenance={**result.provenance, 'command': args.command})
    choices = [source.name for source in sources[1:]], names, 'scaled' if args.auto_scale_lr else ''
    cli.announce(visualizer.write(result, cli.file_name(sources[0].name, *choices)))
    return cli.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    # What the imports make stays: looking through it again and again for garbage costs a fifth of the whole command.
    gc.disable()
    try:
        return cli.run(work, build_parser(), argv)
    finally:
        gc.enable()


if __name__ == '__main__':
    sys.exit(main())
