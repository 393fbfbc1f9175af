"""What does my data pipeline really feed the network? Samples of a config's dataset, and each step on their way."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vistool.commands import boundary, options
from vistool.commands.options import Parser, real, whole


def build_parser() -> Parser:
    """The command line of browse_dataset."""
    parser = Parser(
        'browse_dataset', __doc__, 'browse_dataset configs/demo_dataset/plain.py --mode pipeline --show-number 4'
    )
    options.add_model(parser, checkpoint=False)
    _add_selection(parser)
    group = parser.add_argument_group('picture')
    modes = 'original|transformed|concat|pipeline|batch'
    group.add_argument('-m', '--mode', default='transformed', metavar=modes, help='default: transformed')
    group.add_argument('--repeats', type=whole, default=1, metavar='N', help='each image N times, side by side')
    group.add_argument('--sheet', nargs=2, type=whole, metavar=('R', 'C'), help='many samples in a file: rows, columns')
    group.add_argument('-r', '--rescale-factor', type=real, metavar='F', help='pixels F times as large')
    group.add_argument(
        '-c', '--channel-order', metavar='BGR|RGB', help='of loaded images; default: as their loader says'
    )
    group.add_argument('--bgr2rgb', action='store_true', help='the same as --channel-order BGR')
    out = ('-o', '--out', '--output-dir', '--out-dir', '--save-path')
    group.add_argument(*out, dest='out', metavar='PATH', help='folder, or a file for one picture; default: work_dirs/…')
    options.add_width(group)
    options.add_display(group)
    group.add_argument('--save-raw', action='store_true', help='write index, path, label, sizes, parameters (.csv)')
    group.add_argument('--show', action='store_true', help='open a window for each picture as well')
    group.add_argument('-i', '--show-interval', type=real, default=2.0, metavar='S', help='seconds a window stays')
    group.add_argument('--report', action='store_true', help='one page: classes, sizes, colors, boxes, faults')
    bits = 'bits of 64 in which hashes of near-duplicates may differ, for --report (default: 4); off: none are searched'
    group.add_argument('--duplicates', default='4', metavar='D|off', help=bits)
    options.add_run(parser, model=False)
    parser.add_argument('--workers', type=whole, metavar='N', help='processes that read and draw; 0: this one alone')
    return parser


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group('samples')
    group.add_argument(
        '-p', '--phase', default='train', metavar='train|val|test', help='which dataset (default: train)'
    )
    group.add_argument('-n', '--show-number', metavar='N|all', help='how many (default: all; 64 without --out)')
    group.add_argument('--indices', nargs='+', default=[], metavar='I', help='7 -1 10-19 (with 19) 10:19 -5: 1,2,5')
    group.add_argument('--classes', nargs='+', default=[], metavar='CLASS', help='ids or names')
    group.add_argument('--per-class', type=whole, metavar='N', help='at most N of each class')
    group.add_argument('--shuffle', action='store_true', help='in an order that the seed decides')


def work(args: argparse.Namespace) -> int:
    """Opens the dataset, reads, draws, writes."""
    from vistool.analyses.dataset import BrowseDataset
    from vistool.runs.datasets import DatasetSpec, browse, report
    from vistool.runs.run import Callbacks
    from vistool.runs.spec import Output

    order = args.channel_order.upper() if args.channel_order else 'BGR' if args.bgr2rgb else None
    spec = options.taken(
        DatasetSpec,
        args,
        options=options.config_options(args.options),
        channel_order=order,
        analysis=BrowseDataset(args.mode, args.repeats, tuple(args.sheet) if args.sheet else None),
        output=Output(args.out, options.style_of(args), args.save_raw, show=args.show),
    )
    with boundary.progress_bar() as progress:
        carry_out = report if args.report else browse
        return boundary.exit_code(carry_out(spec, Callbacks(boundary.announce, progress)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
