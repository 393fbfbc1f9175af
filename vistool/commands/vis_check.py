"""Does this CAM method work on this model? Checks that need no labels; the answer is a table, a page and an exit code.

0: all methods pass; 1: some fail; 2: the command or its files are not accepted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from vistool.commands import boundary, options
from vistool.commands.options import Parser

log = logging.getLogger('vistool')


def build_parser() -> Parser:
    """The command line of vis_check."""
    example = 'vis_check demo configs/efficientnet_lite/efficientnet-lite0_in1k.py --method GradCAM LayerCAM'
    parser = Parser('vis_check', __doc__, example)
    options.add_images(parser)
    options.add_model(parser)
    group = parser.add_argument_group('method')
    group.add_argument(
        '--method',
        dest='methods',
        nargs='+',
        default=['GradCAM'],
        metavar='NAME',
        help='GradCAM (default), LayerCAM, EigenCAM, …; several are checked side by side; all: those of one pass',
    )
    names = 'randomization, classes, gridpg, difull, direction, maps, stability, layers; default: all'
    group.add_argument('--checks', nargs='+', default=[], metavar='NAME', help=names)
    options.add_targets(group, 'class id, class name, or label; default: the predicted class')
    options.add_cam_layers(group)
    options.add_picture(parser, maps=False, tiles=False)
    options.add_inputs(parser)
    options.add_outputs(parser)
    options.add_selection(parser)
    options.add_run(parser)
    options.add_tokens(parser)
    parser.set_defaults(compare=[])
    return parser


def work(args: argparse.Namespace) -> int:
    """Loads, checks, draws, and prints the table."""
    from vistool.analyses.cam import CAM
    from vistool.analyses.check import Check
    from vistool.runs.checks import CheckSpec, check
    from vistool.runs.run import Callbacks
    from vistool.runs.spec import Selection
    from vistool.visualization.checks import table

    cam = options.taken(CAM, args, tokens=args.tokens or None)
    spec = options.taken(
        CheckSpec,
        args,
        analysis=options.taken(Check, args, cam=cam),
        models=options.models_of(args),
        selection=options.taken(Selection, args),
        output=options.output_of(args),
    )
    summary = check(spec, Callbacks(boundary.announce))
    report = summary.report
    log.info('%s', table(report), extra={'table': True})
    failed = dict.fromkeys(report.titles[each.method] for each in report.failed)
    if failed:
        log.error('%d of %d methods failed: %s', len(failed), len(report.titles), ', '.join(failed))
    return boundary.OK if report.passes and not summary.failures else boundary.SOME_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
