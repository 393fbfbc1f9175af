"""What does a layer respond to, and what changed? Feature maps of any layer, for an image, a folder or a list."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vistool import commands as cli


def build_parser() -> cli.Parser:
    """The command line of vis_featmap."""
    example = (
        'vis_featmap demo/coffee.png configs/efficientnet_lite/efficientnet-lite0_in1k.py --compare '
        'configs/efficientnet_lite/efficientnet-lite0_in1k.py none'
    )
    parser = cli.Parser('vis_featmap', __doc__, example)
    parser.add_argument('img', help='image file, folder, quoted glob, .txt list, or @train, @val, @test')
    cli.add_model(parser)
    _add_features(parser)
    cli.add_compare(parser)
    cli.add_inputs(parser)
    cli.add_picture(parser)
    look = parser.add_argument_group('look of feature maps')
    look.add_argument('--overlay', action='store_true', help='over the photo instead of beside it')
    look.add_argument('--align', metavar='center|corner', help='what enlarging aligns, where it interpolates')
    look.add_argument('--arrangement', nargs=2, type=int, metavar=('R', 'C'), help='rows and columns of tiles')
    cli.add_batch(parser)
    cli.add_run(parser)
    rare = parser.add_argument_group('layout of tokens (found by looking at the model; these override)')
    rare.add_argument('--vit-like', action='store_true', help='the layers give tokens (B, L, C)')
    rare.add_argument('--num-extra-tokens', type=int, metavar='N', help='tokens before the grid; 0 is a value')
    return parser


def _add_features(parser: cli.Parser) -> None:
    group = parser.add_argument_group('features')
    group.add_argument(
        '--target-layers',
        nargs='+',
        default=[],
        metavar='LAYER',
        help='such as backbone.layer4[-1]; NAME@2: its second call; default: each stage of the backbone',
    )
    group.add_argument('--preview-model', action='store_true', help='list the layers with their output shapes and stop')
    group.add_argument(
        '--channel-reduction', default='', metavar='NAME', help='mean (default), sum, max, norm, select_max, pca, none'
    )
    group.add_argument('--topk', type=int, metavar='N', help='the N strongest channels of each layer')
    group.add_argument('--topk-by', default='mean', metavar='NAME', help='… by mean (default), max, norm or std')
    group.add_argument('--channels', nargs='+', default=[], metavar='C', help='these channels: 0 5 7-11')
    group.add_argument('--similar-to', nargs='+', default=[], metavar='X,Y', help='cosine similarity to these pixels')
    group.add_argument('--foreground', action='store_true', help='with pca: colour the foreground alone')
    group.add_argument('--save-basis', metavar='FILE', help='with pca: keep the colours for another run (.npz)')
    group.add_argument('--load-basis', metavar='FILE', help='with pca: colours kept before')
    group.add_argument('--all-channels', metavar='DIR', help='each channel as its own picture as well, and their sum')
    group.add_argument('--stats', action='store_true', help='numbers per channel over all images as well (.csv, plot)')


def work(args: argparse.Namespace) -> int:
    """Loads, runs up to the last layer, and draws."""
    from vistool.runs.features import Run, preview

    if args.preview_model:
        return preview(args)
    return Run(args).draw()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
