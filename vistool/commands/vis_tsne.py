"""How does the network separate my classes? The features of a whole dataset in a plane, by t-SNE, PCA or UMAP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from vistool.commands import boundary, options
from vistool.commands.options import Parser, real, whole
from vistool.errors import InputError, naming

_STAGES = {'backbone': 'backbone', 'neck': 'neck', 'pre_logits': ''}


def build_parser() -> Parser:
    """The command line of vis_tsne."""
    parser = Parser(
        'vis_tsne',
        __doc__,
        'vis_tsne configs/efficientnet_lite/efficientnet-lite0_demo.py demo://efficientnet-lite0 --thumbnails',
    )
    options.add_model(parser)
    parser.add_argument('--checkpoint', dest='checkpoint_option', metavar='PATH', help='the same as the positional')
    _add_data(parser)
    _add_features(parser)
    _add_reducer(parser)
    options.add_compare(parser)
    group = parser.add_argument_group('picture')
    out = ('-o', '--out', '--out-dir', '--save-path', '--work-dir')
    group.add_argument(*out, dest='out', metavar='PATH', help='a file (png, jpg, webp, pdf, svg), else a folder')
    options.add_width(group)
    group.add_argument('--thumbnails', action='store_true', help='draw samples as small pictures')
    group.add_argument('--legend', action='store_true', help=argparse.SUPPRESS)  # of mmpretrain's tool; always drawn
    group.add_argument('--save-raw', action='store_true', help='write the features beside the picture (.npz)')
    group.add_argument('--show', action='store_true', help='open a window as well')
    group = parser.add_argument_group('many images')
    group.add_argument('--batch-size', type=whole, default=32, metavar='N', help='images per forward (default: 32)')
    group.add_argument('--workers', type=whole, default=2, metavar='N', help='threads that read (default: 2)')
    group.add_argument(
        '--gallery', nargs='*', metavar='RUN', help='a web page over the samples and the map; other runs beside it'
    )
    options.add_amp(group)
    options.add_outputs(parser)
    options.add_run(parser)
    return parser


def _add_data(parser: Parser) -> None:
    group = parser.add_argument_group('samples (default: the first 20 classes of the test set, 100 of each)')
    group.add_argument('--img', dest='images', metavar='PATH', help='image, folder, quoted glob, .txt or .csv list')
    group.add_argument('-p', '--phase', metavar='train|val|test', help='which dataset (default: test, else val)')
    group.add_argument('--test-cfg', dest='data', metavar='CONFIG', help='take the dataset of another config')
    group.add_argument(
        '--max-num-class', dest='max_classes', type=whole, default=20, metavar='N', help='the first N classes'
    )
    options.add_selection(parser)
    parser.add_argument('--class-idx', dest='classes', nargs='+', default=[], help=argparse.SUPPRESS)
    parser.add_argument('--max-num-samples', dest='per_class', type=whole, help=argparse.SUPPRESS)


def _add_features(parser: Parser) -> None:
    group = parser.add_argument_group('features (default: what enters the layer that gives the scores)')
    group.add_argument('--target-layers', dest='layer', default='', metavar='LAYER', help='a layer, pooled')
    group.add_argument('--vis-stage', dest='stage', metavar='backbone|neck|pre_logits', help='default: pre_logits')


def _add_reducer(parser: Parser) -> None:
    group = parser.add_argument_group('layout')
    group.add_argument('--reducer', default='tsne', metavar='tsne|pca|umap', help='default: tsne')
    group.add_argument('--perplexity', type=real, metavar='P', help='default: 30, or a third of few samples')
    group.add_argument('--neighbors', type=whole, default=10, metavar='K', help='of the k-NN accuracy (default: 10)')
    group.add_argument('--early-exaggeration', type=real, default=12.0, metavar='X', help='of t-SNE (default: 12)')
    group.add_argument('--learning-rate', type=real, metavar='R', help="of t-SNE (default: scikit-learn's auto)")
    group.add_argument('--n-iter', dest='iterations', type=whole, default=1000, metavar='N', help='of t-SNE (1000)')
    group.add_argument(
        '--n-iter-without-progress', dest='patience', type=whole, default=300, metavar='N', help='of t-SNE (300)'
    )
    group.add_argument('--init', default='pca', metavar='pca|random', help='of t-SNE (default: pca)')
    group.add_argument('--n-components', dest='components', type=whole, default=2, help=argparse.SUPPRESS)


def work(args: argparse.Namespace) -> int:
    """Computes features, lays samples out, and draws them."""
    from vistool.analyses.embedding import DatasetEmbedding
    from vistool.runs.embeddings import EmbeddingSpec, embed
    from vistool.runs.run import Callbacks
    from vistool.runs.spec import Execution, Selection

    if args.checkpoint and args.checkpoint_option:
        raise InputError('two checkpoints', hint='give one of them', parameter='checkpoint_option')
    args.checkpoint = args.checkpoint or args.checkpoint_option
    args.files = []
    if args.components != 2:
        raise InputError(f'{args.components} dimensions cannot be drawn', accepted='2', parameter='components')
    spec = EmbeddingSpec(
        options.taken(DatasetEmbedding, args, layer=layer_of(args)),
        options.models_of(args),
        images_of(args),
        args.data,
        options.taken(Selection, args),
        args.max_classes,
        options.taken(Execution, args),
        options.output_of(args),
        args.thumbnails,
        args.seed,
        args.command,
        args.again,
    )
    named = naming('phase', 'images') if args.phase else nullcontext()
    with named, boundary.progress_bar() as progress:
        _, summary = embed(spec, Callbacks(boundary.announce, progress))
    return boundary.exit_code(summary)


def layer_of(args: argparse.Namespace) -> str:
    """The layer, as one of two options names it."""
    if args.stage is None:
        return str(args.layer)
    if args.stage not in _STAGES:
        raise InputError(f'unknown stage {args.stage!r}', accepted=', '.join(_STAGES), parameter='stage')
    if args.layer:
        raise InputError('both a stage and a layer', hint='give one of them', parameter='stage')
    return _STAGES[args.stage]


def images_of(args: argparse.Namespace) -> str | None:
    """The images, as one of two options names them."""
    if args.phase is None:
        return args.images  # type: ignore[no-any-return]
    if args.images is not None:
        raise InputError('both images and a dataset', hint='give one of them', parameter='phase')
    if args.phase not in ('train', 'val', 'test'):
        raise InputError(f'unknown phase {args.phase!r}', accepted='train, val, test', parameter='phase')
    return f'@{args.phase}'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
