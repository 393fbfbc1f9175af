"""What will the learning rate do over the whole training run? The schedules of one or several configs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vistool.commands import boundary, options
from vistool.commands.options import Parser, whole
from vistool.errors import InputError


def build_parser() -> Parser:
    """The command line of vis_lr."""
    example = 'vis_lr mmpretrain::resnet/resnet50_8xb32_in1k.py -d 1281167 -n 8 -s lr.png'
    parser = Parser('vis_lr', __doc__, example)
    parser.add_argument(
        'config', nargs='+', help='one or several: config file, mmpretrain::PATH, model name, or a run directory'
    )
    group = parser.add_argument_group('run')
    add = group.add_argument
    add(
        '-d',
        '--dataset-size',
        type=whole,
        metavar='N',
        help='training images; default: the annotations are counted',
    )
    add('-n', '--ngpus', type=whole, default=1, metavar='N', help='GPUs that train (default: 1)')
    parameters = 'lr|momentum|wd|betas|all'
    add('-p', '--parameter', dest='parameters', default='lr', metavar=parameters, help='default: lr')
    add('--auto-scale-lr', action='store_true', help='scale the rate to the real batch, as tools/train.py does')
    drawn = 'scalars.json of a real run, drawn over; repeatable'
    add('--logged', '--log', dest='logs', action='append', default=[], metavar='FILE', help=drawn)
    options.add_config_options(group)
    _add_picture(parser)
    rare = parser.add_argument_group('rare')
    options.add_anonymous(rare)
    options.add_logging(parser, rare)
    return parser


def _add_picture(parser: Parser) -> None:
    group = parser.add_argument_group('picture')
    add = group.add_argument
    names = ('-s', '-o', '--out', '--save-path', '--out-dir', '--output-dir')
    where = 'a file (png, jpg, webp, pdf, svg), else a folder; default: work_dirs/<config>/vis_lr/'
    add(*names, dest='out', metavar='PATH', help=where)
    add('--title', help="heading; default: the config's name")
    themes = 'darkgrid|whitegrid|dark|white|ticks'
    add('--style', dest='theme', default='whitegrid', metavar=themes, help='default: whitegrid')
    add('--log-scale', action='store_true', help='a logarithmic axis')
    add('--window-size', dest='size', metavar='W*H', help='in inches, such as 12*7')
    options.add_width(group)
    add('--save-raw', action='store_true', help='write the numbers beside the picture (.csv)')
    add('--show', action='store_true', help='open a window as well')


def window_size(text: str | None) -> tuple[float, float] | None:
    """``'12*7'`` as numbers.

    Raises:
        InputError: It is not two numbers.
    """
    if not text:
        return None
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\*(\d+(?:\.\d+)?)', text.strip())
    if match is None:
        problem = f'{text!r} is not a window size'
        raise InputError(problem, accepted='W*H in inches, such as 12*7', parameter='size')
    return float(match[1]), float(match[2])


def work(args: argparse.Namespace) -> int:
    """Reads, replays and draws."""
    style = options.style_of(args, size=window_size(args.size))
    from vistool.models.configs import resolve
    from vistool.visualization.files import file_name
    from vistool.visualization.visualizer import Visualizer

    changes = options.config_options(args.options)
    sources = [resolve(each, changes) for each in args.config]
    out = Path(args.out) if args.out else Path('work_dirs') / sources[0].name / 'vis_lr'
    visualizer = Visualizer(out, style, save_raw=args.save_raw, show=args.show)
    visualizer.check()
    from vistool.analyses.schedule import Schedule

    names = args.parameters.split(',')
    result = options.taken(Schedule, args, parameters=names)(sources, args.logs)
    if args.title is not None:
        result = replace(result, title=args.title)
    choices = [source.name for source in sources[1:]], names, 'scaled' if args.auto_scale_lr else ''
    name = file_name(sources[0].name, *choices)
    boundary.announce(visualizer.write(result.with_provenance(command=args.command), name))
    return boundary.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
