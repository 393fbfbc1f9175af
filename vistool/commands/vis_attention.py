"""Where does each head of a vision transformer look, from this token? Attention as the model computed it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vistool.commands import boundary, options
from vistool.commands.options import Parser

if TYPE_CHECKING:
    from vistool.runs.spec import RunSpec


def build_parser() -> Parser:
    """The command line of vis_attention."""
    example = 'vis_attention demo/astronaut.png configs/dinov2/vit-small-p14_dinov2-pre_headless.py --query 225,110'
    parser = Parser('vis_attention', __doc__, example)
    options.add_images(parser)
    options.add_model(parser)
    _add_map(parser)
    _add_size(parser)
    options.add_metrics(parser)
    options.add_compare(parser)
    options.add_picture(parser)
    options.add_inputs(parser)
    options.add_outputs(parser)
    options.add_batch(parser)
    options.add_run(parser)
    return parser


def _add_map(parser: Parser) -> None:
    group = parser.add_argument_group('map')
    group.add_argument(
        '--method',
        default='raw',
        metavar='raw|rollout|grad-rollout|legrad',
        help='default: raw; the last two are of a class',
    )
    options.add_layers(
        group, 'numbers (-1), ranges (0-3, 0:4, -3:), names, all; default: the last over the image', '--layers'
    )
    group.add_argument(
        '--heads',
        nargs='+',
        default=['all'],
        metavar='all|mean|max|N',
        help='default: all; N: numbers and ranges (0 3-5)',
    )
    group.add_argument(
        '--query',
        dest='queries',
        nargs='+',
        default=[],
        metavar='Q',
        help="cls (default where there is one), mean (over the image), X,Y in pixels of the photo, a token's number, "
        'or #N: the object query of prediction N of a detector',
    )
    options.add_targets(group, 'as in vis_cam; for grad-rollout and legrad')
    options.add_score_sign(group)
    group.add_argument(
        '--threshold',
        type=options.real,
        metavar='T',
        help='outline and highlight the tokens holding this share of the attention',
    )
    group.add_argument(
        '--stats',
        action='store_true',
        help='entropy, distance and shares of the attention of every head, as a picture (and .csv)',
    )


def _add_size(parser: Parser) -> None:
    group = parser.add_argument_group('size')
    group.add_argument(
        '--img-size', metavar='S', help='the whole photo at an edge (518), H,W (480,640) or a factor (0.5x)'
    )
    group.add_argument(
        '--fit',
        default='crop',
        metavar='crop|pad|resize',
        help='sizes that are not a multiple of the patch (default: crop)',
    )
    group.add_argument('--overlay', action='store_true', help='draw maps over the photo (as --alpha 0.5)')


def work(args: argparse.Namespace) -> int:
    """Loads, reads and draws."""
    return boundary.execute(spec_of(args))


def spec_of(args: argparse.Namespace) -> RunSpec:
    """The run that parsed arguments ask for."""
    from vistool.analyses.attention import Attention

    if args.overlay:
        args.alpha = args.alpha or '0.5'
    attention = options.taken(Attention, args, copies=args.batch_size, protocol=options.protocol_of(args))
    return options.run_spec(args, 'vis_attention', attention)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
