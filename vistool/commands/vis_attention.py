"""Where does each head of a vision transformer look, from this token? Attention as the model computed it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vistool import commands as cli


def build_parser() -> cli.Parser:
    """The command line of vis_attention."""
    example = 'vis_attention demo/astronaut.png configs/dinov2/vit-small-p14_dinov2-pre_headless.py --query 225,110'
    parser = cli.Parser('vis_attention', __doc__, example)
    parser.add_argument('img', help='image file, folder, quoted glob, or .txt list of paths')
    cli.add_model(parser)
    group = parser.add_argument_group('map')
    group.add_argument(
        '--method',
        default='raw',
        metavar='NAME',
        help='raw (default), rollout, grad-rollout, legrad (the last two: of a class)',
    )
    group.add_argument(
        '--layers',
        nargs='+',
        default=[],
        metavar='LAYER',
        help='numbers (-1), ranges (0:4), names, all; default: the last',
    )
    group.add_argument(
        '--heads', nargs='+', default=['all'], metavar='HEAD', help='all (default), mean, max, or numbers'
    )
    group.add_argument(
        '--query',
        nargs='+',
        default=[],
        metavar='Q',
        help="cls (default where there is one), mean (over the image), X,Y in pixels of the photo, or a token's number",
    )
    group.add_argument(
        '--target-category', nargs='+', default=[], metavar='CLASS', help='as in vis_cam; for grad-rollout and legrad'
    )
    group.add_argument(
        '--threshold', type=float, metavar='T', help='outline and light the tokens with this share of the mass'
    )
    group.add_argument(
        '--stats', action='store_true', help='entropy, distance and mass of every head, as a picture (and .csv)'
    )
    _add_size(parser)
    cli.add_compare(parser)
    cli.add_picture(parser)
    cli.add_inputs(parser)
    cli.add_batch(parser)
    cli.add_run(parser)
    return parser


def _add_size(parser: cli.Parser) -> None:
    group = parser.add_argument_group('size')
    group.add_argument(
        '--img-size', metavar='S', help='the whole photo at an edge (518), H,W (480,640) or a factor (0.5x)'
    )
    group.add_argument(
        '--fit',
        default='crop',
        metavar='HOW',
        help='sizes that are no multiple of the patch: crop (default), pad, resize',
    )
    group.add_argument('--overlay', action='store_true', help='draw maps over the photo (as --alpha 0.5)')


def work(args: argparse.Namespace) -> int:
    """Loads, reads and draws."""
    from vistool.analyses.attention import Attention
    from vistool.models.input_size import sizing
    from vistool.runs.heatmaps import draw_heatmaps

    attention = Attention(
        method=args.method,
        layers=args.layers,
        heads=args.heads,
        queries=args.query,
        targets=args.target_category,
        threshold=args.threshold,
        stats=args.stats,
    )
    if args.overlay and args.alpha is None:
        args.alpha = '0.5'
    heads = [] if args.heads == ['all'] else args.heads
    threshold = '' if args.threshold is None else f't{args.threshold:g}'
    choices = (args.method.lower(), args.target_category, args.layers, heads, args.query, threshold, args.img_size)
    prepare = sizing(args.img_size, args.fit)
    return draw_heatmaps(args, 'vis_attention', attention, choices, prepare=prepare)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
