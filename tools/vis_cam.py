"""Which pixels made the model say so? Class activation maps of one image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vistool import cli


def build_parser() -> cli.Parser:
    """The command line of vis_cam."""
    parser = cli.Parser(
        'vis_cam', __doc__, 'vis_cam demo/coffee.png configs/efficientnet_lite/efficientnet-lite0_in1k.py'
    )
    parser.add_argument('img', help='image file')
    cli.add_model(parser)
    group = parser.add_argument_group('map')
    group.add_argument(
        '--method',
        nargs='+',
        default=['GradCAM'],
        metavar='NAME',
        help='GradCAM (default), GradCAM++, XGradCAM, EigenCAM, EigenGradCAM, LayerCAM; several are drawn side by side',
    )
    group.add_argument(
        '--target-category',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='class ids, names or topN; default: the predicted class',
    )
    group.add_argument(
        '--target-layers',
        nargs='+',
        default=[],
        metavar='LAYER',
        help='such as backbone.layer4[-1]; several are averaged; default: by network',
    )
    group.add_argument('--preview-model', action='store_true', help='list the layers and stop (needs no checkpoint)')
    group.add_argument(
        '--eigen-smooth', action='store_true', help='first principal component instead of the sum over channels'
    )
    group.add_argument('--aug-smooth', action='store_true', help='average over six augmented views')
    cli.add_picture(parser)
    cli.add_run(parser)
    rare = parser.add_argument_group('layout of tokens (found by looking at the model; these override)')
    rare.add_argument('--vit-like', action='store_true', help='the layers give tokens (B, L, C)')
    rare.add_argument('--num-extra-tokens', type=int, metavar='N', help='tokens before the grid; 0 is a value')
    return parser


def work(args: argparse.Namespace) -> int:
    """Loads, explains and draws."""
    import vistool as vt
    from vistool.analyses.cam import CAM
    from vistool.config import resolve
    from vistool.inputs import find_inputs
    from vistool.models import build_module
    from vistool.visualization import Visualizer

    items = find_inputs(args.img)
    source = resolve(args.config, cli.config_options(args.cfg_options))
    if args.preview_model:
        cli.announce([build_module(source, args.seed)])
        return cli.OK
    visualizer = Visualizer(
        cli.out_path(args, source.name, 'vis_cam'), cli.style_of(args), save_raw=args.save_raw, show=args.show
    )
    visualizer.check()
    model = vt.load(source, args.checkpoint, device=args.device, trust_checkpoint=args.trust_checkpoint, seed=args.seed)
    cam = CAM(
        args.method,
        args.target_category,
        args.target_layers,
        args.aug_smooth,
        args.eigen_smooth,
        args.num_extra_tokens,
        args.vit_like or None,
    )
    smoothing = [name for name in ('aug_smooth', 'eigen_smooth') if getattr(args, name)]
    weights = Path(args.checkpoint).stem if args.checkpoint else ''
    chosen = ([name.lower() for name in args.method], args.target_category, args.target_layers, smoothing, weights)
    for index, item in enumerate(items):
        result = cam(model, model.read(item.path, seed=args.seed, index=index))
        result = result.with_recipe(command=args.command, seed=args.seed)
        cli.announce(visualizer.write(result, cli.file_name(item.name, *chosen)))
    return cli.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
