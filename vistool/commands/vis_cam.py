"""Which pixels made the model say so? Class activation maps of an image, a folder or a list of images."""

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
    """The command line of vis_cam."""
    example = (
        'vis_cam demo/coffee.png configs/efficientnet_lite/efficientnet-lite0_in1k.py --target-category espresso cup'
    )
    parser = Parser('vis_cam', __doc__, example)
    options.add_images(parser)
    options.add_model(parser)
    _add_map(parser)
    _add_dense(parser)
    options.add_metrics(parser)
    options.add_compare(parser)
    options.add_picture(parser)
    options.add_inputs(parser)
    options.add_outputs(parser)
    options.add_batch(parser)
    options.add_run(parser)
    finer = parser.add_argument_group('FinerCAM')
    finer.add_argument(
        '--contrast',
        '--similar',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='classes to tell the target from; default: the nearest three',
    )
    options.add_tokens(parser)
    return parser


def _add_map(parser: Parser) -> None:
    group = parser.add_argument_group('map')
    group.add_argument(
        '--method',
        dest='methods',
        nargs='+',
        default=[],
        metavar='NAME',
        help='GradCAM (default), HiResCAM (for detectors), LayerCAM, …; several side by side; all: those of one pass',
    )
    options.add_targets(group, 'class ids, class names, topN, or label; default: the predicted class')
    options.add_score_sign(group)
    options.add_cam_layers(group)
    group.add_argument(
        '--layer-fusion', default='mean', metavar='mean|max|none', help='several layers; none: a column each'
    )
    group.add_argument('--reference', metavar='IMG', help='explain similarity to this image instead of a class')
    group.add_argument(
        '--preview-model', action='store_true', help='list layers and outputs and stop (needs no checkpoint)'
    )
    group.add_argument('--aug-smooth', action='store_true', help='average over six augmented views')


def _add_dense(parser: Parser) -> None:
    group = parser.add_argument_group('detectors and segmenters')
    group.add_argument(
        '--instances',
        nargs='+',
        default='top5',
        metavar='N',
        help='topN (default: top5), all, or numbers of predictions (0 2-4); of the classes of --target-category',
    )
    group.add_argument(
        '--score-thr',
        dest='score_threshold',
        type=options.real,
        default=0.3,
        metavar='S',
        help='leave out predictions with a lower score (default: 0.3)',
    )
    group.add_argument('--box', type=_numbers, metavar='X1,Y1,X2,Y2', help='the prediction that matches this box best')
    group.add_argument(
        '--attribute',
        nargs='+',
        default='class',
        metavar='class|left|top|right|bottom|box',
        help='what of each prediction is explained (default: class)',
    )
    group.add_argument(
        '--verify', action='store_true', help='compare each map of a detector with what masking the input finds'
    )
    group.add_argument('--point', type=_numbers, metavar='X,Y', help='segmentation: the class of this pixel')
    group.add_argument('--region', metavar='FILE', help='segmentation: the nonzero pixels of this picture')


def _numbers(text: str) -> tuple[float, ...]:
    """``'3,4.5'`` as numbers."""
    return tuple(options.real(part) for part in text.split(','))


def work(args: argparse.Namespace) -> int:
    """Loads, explains and draws."""
    spec = spec_of(args)
    return preview(spec) if args.preview_model else boundary.execute(spec)


def spec_of(args: argparse.Namespace) -> RunSpec:
    """The run that parsed arguments ask for."""
    from vistool.analyses.cam import CAM

    cam = options.taken(
        CAM, args, tokens=args.tokens or None, copies=args.batch_size, protocol=options.protocol_of(args)
    )
    return options.run_spec(args, 'vis_cam', cam)


def preview(spec: RunSpec) -> int:
    """Lists the network's modules, and its outputs for the first image, on stdout; needs no checkpoint."""
    from vistool.models.model import output_lines
    from vistool.runs.run import unweighted

    model, sample = unweighted(spec)
    boundary.announce([model.module, *output_lines(model, model.batch([sample]))])
    return boundary.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
