"""What changed between two runs? Predictions, scores and maps of the same images, and a gate for CI."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from vistool.commands import boundary, options
from vistool.commands.options import Parser, whole
from vistool.errors import check_count

log = logging.getLogger('vistool')


def build_parser() -> Parser:
    """The command line of vis_diff."""
    parser = Parser(
        'vis_diff',
        __doc__,
        'vis_diff work_dirs/before work_dirs/after --fail-if "iou<0.8" --fail-if "flips>0.5%" --junit diff.xml',
    )
    parser.add_argument('before', metavar='RUN_A', help='output folder of a finished run over several images')
    parser.add_argument('after', metavar='RUN_B', help='the same images again: another checkpoint, code or machine')
    group = parser.add_argument_group('what fails')
    group.add_argument(
        '--fail-if', action='append', default=[], metavar='RULE',
        help='repeatable: iou<0.8, rank<0.9, mass>0.1, score>0.02, flips>0.5%%, missing>0, unmatched>0, failed>0; with '
        '"mean" or "median" before it, over all maps; default: any change larger than noise',
    )  # fmt: skip
    group = parser.add_argument_group('what is written')
    group.add_argument(
        '-o', '--out', '--out-dir', dest='out', metavar='DIR', default='work_dirs/vis_diff',
        help='folder for diff.csv, summary.md and worst.png (default: work_dirs/vis_diff)',
    )  # fmt: skip
    group.add_argument('--junit', metavar='FILE', help='a report that CI systems read (.xml)')
    group.add_argument(
        '--top', type=whole, default=8, metavar='N', help='images on the sheet of the worst (default: 8)'
    )
    options.add_width(group)
    run = parser.add_argument_group('run')
    options.add_anonymous(run)
    options.add_logging(parser, run)
    return parser


def work(args: argparse.Namespace) -> int:
    """Compares, judges, writes."""
    from vistool.runs.difference_files import counts, describe, write_difference
    from vistool.runs.differences import compare_runs
    from vistool.runs.verdicts import Rule, default_rules, judge
    from vistool.visualization.files import check_file, check_folder

    rules = [Rule.of(text) for text in args.fail_if]
    style = options.style_of(args)
    check_count(args.top, 0, 1000, 'top')
    out, junit = Path(args.out), Path(args.junit) if args.junit else None
    check_folder(out)
    if junit is not None:
        check_file(junit, 'junit', ('.xml',))
    with boundary.progress_bar() as progress:
        found = compare_runs(args.before, args.after, progress)
    if not any(item.paired for item in found.maps):
        log.warning('the runs have no maps in common: only predictions and scores are compared')
    rules = rules or default_rules(found)
    verdicts = judge(found, rules)
    boundary.announce(write_difference(found, verdicts, out, style, args.top, junit))
    for line in counts(found):
        log.info('%s', line)
    for verdict in verdicts:
        (log.error if verdict.failed else log.info)('%s', describe(verdict))
    return boundary.SOME_FAILED if any(verdict.failed for verdict in verdicts) else boundary.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
