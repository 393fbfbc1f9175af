"""Where does each head of a vision transformer look, from this token? Attention as the model computed it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vistool import cli


def build_parser() -> cli.Parser:
    """The command line of vis_attention."""
    example = 'vis_attention demo/astronaut.png configs/dinov2/vit-small-p14_dinov2-pre_headless.py --query 225,110'
    parser = cli.Parser('vis_attention', __doc__, example)
    parser.add_argument('img', help='image file, folder, quoted glob, or .txt list of paths')
    cli.add_model(parser)
    group = parser.add_argument_group('map')
    group.add_argument(
        '--method', default='raw', metavar='NAME', help='raw (default), rollout, grad-rollout, legrad (the last two: of a class)'
    )
    group.add_argument(
        '--layers', nargs='+', default=[], metavar='LAYER', help='numbers (-1), ranges (0:4), names, all; default: the last'
    )
    group.add_argument('--heads', nargs='+', default=['all'], metavar='HEAD', help='all (default), mean, max, or numbers')
    group.add_argument(
        '--query',
        nargs='+',
        default=[],
        metavar='Q',
        help='cls (default where there is one), mean (over the image), X,Y in pixels of the photo, or the number of a token',
    )
    cli.add_compare(parser)
    cli.add_picture(parser)
    cli.add_batch(parser)
    cli.add_run(parser)
    return parser


def work(args: argparse.Namespace) -> int:
    """Loads, reads and draws."""
    from vistool.analyses import Attention
    from vistool.commands import draw_heatmaps

    attention = Attention(
        method=args.method,
        layers=args.layers,
        heads=args.heads,
        queries=args.query,
    )
    heads = [] if args.heads == ['all'] else args.heads
    choices = (args.method.lower(), args.layers, heads, args.query)
    return draw_heatmaps(args, 'vis_attention', attention, choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
