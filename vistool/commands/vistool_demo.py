"""Copies the demo: photos, a labeled dataset, scenes with boxes, masks, and notebooks."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from vistool.commands import boundary, options
from vistool.commands.options import Parser
from vistool.errors import InputError

DEMO = Path(__file__).parents[1] / '.mim' / 'demo'


def build_parser() -> Parser:
    """The command line of vistool-demo."""
    parser = Parser('vistool-demo', __doc__, 'vistool-demo demo')
    parser.add_argument('out', metavar='DIR', help='folder for the files; must be new or empty')
    options.add_logging(parser, parser.add_argument_group('run'))
    return parser


def work(args: argparse.Namespace) -> int:
    """Copies everything, into the folder only when all is there: a half-copied demo is never taken for a whole one."""
    from vistool.visualization.files import check_folder

    out = Path(args.out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f'{out} is not empty', accepted='a new or empty folder', parameter='out')
    check_folder(out)
    whole = out.resolve()
    partial = whole.with_name(f'.{whole.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(DEMO, partial, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    out.mkdir(parents=True, exist_ok=True)
    for each in partial.iterdir():
        each.rename(whole / each.name)
    partial.rmdir()
    boundary.announce(sorted(path for path in out.rglob('*') if path.is_file()))
    return boundary.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
