"""What does a layer respond to, and what changed? Feature maps of any layer, for an image, a folder or a list."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vistool.commands import boundary, options
from vistool.commands.options import Parser, whole
from vistool.errors import InputError, param

if TYPE_CHECKING:
    from vistool.analyses.base import MapAnalysis
    from vistool.analyses.featmap import FeatureMaps
    from vistool.runs.spec import RunSpec


def build_parser() -> Parser:
    """The command line of vis_featmap."""
    example = (
        'vis_featmap demo/coffee.png configs/efficientnet_lite/efficientnet-lite0_in1k.py --compare '
        'configs/efficientnet_lite/efficientnet-lite0_in1k.py none'
    )
    parser = Parser('vis_featmap', __doc__, example)
    options.add_images(parser)
    options.add_model(parser)
    _add_features(parser)
    options.add_compare(parser)
    options.add_inputs(parser)
    options.add_picture(parser)
    look = parser.add_argument_group('look of feature maps')
    look.add_argument('--overlay', action='store_true', help='over the photo instead of beside it')
    look.add_argument(
        '--align', default='center', metavar='center|corner', help='what enlarging aligns, where it interpolates'
    )
    look.add_argument('--arrangement', nargs=2, type=whole, metavar=('R', 'C'), help='rows and columns of tiles')
    options.add_batch(parser)
    options.add_run(parser)
    options.add_tokens(parser)
    return parser


def _add_features(parser: Parser) -> None:
    group = parser.add_argument_group('features')
    options.add_layers(
        group, 'such as backbone.layer4[-1]; NAME#2: its second call; default: each stage of the backbone'
    )
    group.add_argument('--preview-model', action='store_true', help='list the layers with their output shapes and stop')
    group.add_argument(
        '--channel-reduction',
        dest='reduction',
        default='',
        metavar='mean|sum|max|norm|select_max|pca|none',
        help='what becomes of the channels (default: mean)',
    )
    group.add_argument('--topk', type=whole, metavar='N', help='the N strongest channels of each layer')
    group.add_argument(
        '--topk-by', dest='criterion', default='mean', metavar='mean|max|norm|std', help='… by (default: mean)'
    )
    group.add_argument('--channels', nargs='+', default=[], metavar='C', help='these channels: 0 5 7-11')
    group.add_argument('--similar-to', nargs='+', default=[], metavar='X,Y', help='cosine similarity to these pixels')
    group.add_argument('--foreground', action='store_true', help='with pca: color the foreground alone')
    group.add_argument('--save-basis', metavar='FILE', help='with pca: keep the colors for another run (.npz)')
    group.add_argument('--load-basis', dest='basis', metavar='FILE', help='with pca: colors kept before')
    group.add_argument('--all-channels', metavar='DIR', help='each channel as its own picture as well, and their sum')
    group.add_argument('--stats', action='store_true', help='numbers per channel over all images as well (.csv, plot)')


def work(args: argparse.Namespace) -> int:
    """Loads, runs up to the last layer, and draws."""
    spec = spec_of(args)
    if args.preview_model:
        return preview(spec)

    def save_basis(fitted: MapAnalysis) -> None:
        from vistool.analyses.featmap.pca import basis_bytes
        from vistool.visualization.files import write_file

        basis = getattr(fitted, 'basis', None)
        if basis is not None:
            path = Path(args.save_basis)
            write_file(path, basis_bytes(basis), 'save_basis')
            boundary.announce([path])

    return boundary.execute(spec, save_basis if args.save_basis else None)


def spec_of(args: argparse.Namespace) -> RunSpec:
    """The run that parsed arguments ask for."""
    args.align = {'centre': 'center'}.get(args.align, args.align)
    if args.overlay:
        args.alpha, args.interpolation = args.alpha or '0.5', args.interpolation or 'bilinear'
    return options.run_spec(args, 'vis_featmap', analysis_of(args))


def analysis_of(args: argparse.Namespace) -> FeatureMaps:
    """The analysis that the options ask for.

    Raises:
        InputError: They contradict each other, or nothing can be written where they say.
    """
    from vistool.analyses.featmap import FeatureMaps
    from vistool.analyses.featmap.pca import read_basis
    from vistool.visualization.files import check_file

    if args.save_basis:
        if args.reduction != 'pca':
            raise InputError('is for colors by PCA', hint=f'add {param("reduction", "pca")}', parameter='save_basis')
        check_file(Path(args.save_basis), 'save_basis', ('.npz',))
    if args.basis and args.foreground:
        raise InputError('the loaded basis says what foreground is', hint='leave it out', parameter='foreground')
    return options.taken(
        FeatureMaps,
        args,
        basis=read_basis(args.basis) if args.basis else None,
        similar_to=args.similar_to,
        tokens=args.tokens or None,
        all_channels=bool(args.all_channels),
    )


def preview(spec: RunSpec) -> int:
    """Lists the network's modules with what they give for the first image, on stdout; needs no checkpoint."""
    from vistool.models.model import preview_model
    from vistool.runs.run import unweighted

    boundary.announce([preview_model(*unweighted(spec))])
    return boundary.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
