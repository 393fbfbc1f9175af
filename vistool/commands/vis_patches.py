"""How does the model cut the image into tokens? Patches as a mosaic, a row, in windows, masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vistool import commands as cli


def build_parser() -> cli.Parser:
    """The command line of vis_patches."""
    parser = cli.Parser(
        'vis_patches',
        __doc__,
        'vis_patches demo/astronaut.png --patch-size 64 --pad 2\n'
        '  vis_patches demo/astronaut.png configs/dinov2/vit-small-p14_dinov2-pre_headless.py --order',
    )
    parser.add_argument('img', help='image file, folder, quoted glob, or .txt list')
    parser.add_argument(
        'config',
        nargs='?',
        help='whose patches: config file, mmpretrain::PATH, model name, timm::NAME, run folder; needs no checkpoint',
    )
    sizes = parser.add_argument_group('without a config')
    sizes.add_argument('--patch-size', metavar='N|H,W', help='size of a patch in pixels')
    sizes.add_argument('--stride', metavar='N|H,W', help="from one patch to the next (default: the patch's size)")
    sizes.add_argument(
        '--fit', default='resize', metavar='HOW', help='images that are no multiple: resize (default), crop, pad'
    )
    sizes.add_argument('--max-size', type=int, metavar='N', help='make larger images smaller first')
    group = parser.add_argument_group('what is drawn')
    group.add_argument(
        '--pad', type=float, metavar='PX', help='border around each patch (default: a 32nd of the patch)'
    )
    group.add_argument('--pad-value', default='255', metavar='V|R,G,B', help='its colour (default: 255, white)')
    group.add_argument('--order', action='store_true', help='write token numbers on the patches where they can be read')
    group.add_argument('--sequence', action='store_true', help='the row of tokens that the transformer sees')
    group.add_argument('--windows', action='store_true', help="Swin's windows, plain and shifted")
    group.add_argument('--mask-ratio', type=float, metavar='R', help='share of patches to mask, 0 to 1')
    group.add_argument('--mask', default='random', metavar='KIND', help='random (default), block, grid')
    group.add_argument('--highlight', nargs='+', default=[], metavar='TOKEN', help='numbers of patches to bring out')
    cli.add_picture(parser, maps=False)
    cli.add_run(parser)
    return parser


def work(args: argparse.Namespace) -> int:
    """Loads, cuts and draws."""
    from vistool.runs.patches import draw_patches

    return draw_patches(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
