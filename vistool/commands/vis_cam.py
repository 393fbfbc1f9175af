"""Which pixels made the model say so? Class activation maps of an image, a folder or a list of images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vistool import commands as cli


def build_parser() -> cli.Parser:
    """The command line of vis_cam."""
    example = (
        'vis_cam demo/coffee.png configs/efficientnet_lite/efficientnet-lite0_in1k.py --target-category espresso cup'
    )
    parser = cli.Parser('vis_cam', __doc__, example)
    parser.add_argument('img', help='image file, folder, quoted glob, .txt list, or @train, @val, @test')
    cli.add_model(parser)
    _add_map(parser)
    cli.add_compare(parser)
    cli.add_picture(parser)
    cli.add_inputs(parser)
    cli.add_batch(parser)
    cli.add_run(parser)
    _add_rare(parser)
    return parser


def _add_map(parser: cli.Parser) -> None:
    group = parser.add_argument_group('map')
    group.add_argument(
        '--method',
        nargs='+',
        default=['GradCAM'],
        metavar='NAME',
        help='GradCAM (default), LayerCAM, EigenCAM, …; several stand side by side; all: those of one pass',
    )
    group.add_argument(
        '--target-category',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='class ids, class names, topN, or label; default: the predicted class',
    )
    group.add_argument(
        '--target-layers',
        nargs='+',
        default=[],
        metavar='LAYER',
        help='such as backbone.layer4[-1]; several are fused; default: by network',
    )
    group.add_argument(
        '--layer-fusion', default='mean', metavar='mean|max|none', help='several layers; none: a column each'
    )
    group.add_argument('--reference', metavar='IMG', help='explain likeness to this image instead of a class')
    group.add_argument('--preview-model', action='store_true', help='list the layers and stop (needs no checkpoint)')
    group.add_argument(
        '--eigen-smooth', action='store_true', help='first principal component instead of the channel sum'
    )
    group.add_argument('--aug-smooth', action='store_true', help='average over six augmented views')


def _add_rare(parser: cli.Parser) -> None:
    rare = parser.add_argument_group('FinerCAM')
    rare.add_argument(
        '--similar',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='classes to tell the target from; default: the nearest three',
    )
    rare = parser.add_argument_group('layout of tokens (found by looking at the model; these override)')
    rare.add_argument('--vit-like', action='store_true', help='the layers give tokens (B, L, C)')
    rare.add_argument('--num-extra-tokens', type=int, metavar='N', help='tokens before the grid; 0 is a value')


def work(args: argparse.Namespace) -> int:
    """Loads, explains and draws."""
    from vistool.analyses.cam import CAM
    from vistool.runs.heatmaps import draw_heatmaps
    from vistool.runs.loading import preview_model

    if args.preview_model:
        return preview_model(args)
    cam = CAM(
        methods=args.method,
        targets=args.target_category,
        layers=args.target_layers,
        aug_smooth=args.aug_smooth,
        eigen_smooth=args.eigen_smooth,
        extra_tokens=args.num_extra_tokens,
        tokens=args.vit_like or None,
        layer_fusion=args.layer_fusion,
        reference=args.reference,
        contrast=args.similar,
        seed=args.seed,
    )
    variants = [name for name in ('aug_smooth', 'eigen_smooth') if getattr(args, name)]
    variants += [args.layer_fusion] if args.layer_fusion != 'mean' else []
    variants += [f'like-{Path(args.reference).stem}'] if args.reference else []
    choices = ([name.lower() for name in args.method], args.target_category, args.target_layers, variants)
    return draw_heatmaps(args, 'vis_cam', cam, choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
