"""How does the model cut the image into tokens? Patches as a mosaic, a row, in windows, masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vistool.commands import boundary, options
from vistool.commands.options import Parser, real, whole
from vistool.errors import InputError

if TYPE_CHECKING:
    from vistool.runs.patches import PatchesSpec


def build_parser() -> Parser:
    """The command line of vis_patches."""
    parser = Parser(
        'vis_patches',
        __doc__,
        'vis_patches demo/astronaut.png --patch-size 64 --pad 2\n'
        '  vis_patches demo/astronaut.png configs/dinov2/vit-small-p14_dinov2-pre_headless.py --order',
    )
    options.add_images(parser, datasets=False)
    parser.add_argument(
        'config',
        nargs='?',
        help='whose patches: config file, mmpretrain::PATH, model name, timm::NAME, run directory; needs no checkpoint',
    )
    sizes = parser.add_argument_group('without a config')
    sizes.add_argument('--patch-size', metavar='N|H,W', help='size of a patch in pixels')
    sizes.add_argument('--stride', metavar='N|H,W', help="from one patch to the next (default: the patch's size)")
    sizes.add_argument(
        '--fit', default='resize', metavar='resize|crop|pad', help='images that are not a multiple (default: resize)'
    )
    sizes.add_argument('--max-size', type=whole, metavar='N', help='make larger images smaller first')
    group = parser.add_argument_group('what is drawn')
    group.add_argument('--pad', type=real, metavar='PX', help='border around each patch (default: a 32nd of the patch)')
    group.add_argument('--pad-value', default='255', metavar='V|R,G,B', help='its color (default: 255, white)')
    group.add_argument('--order', action='store_true', help='write token numbers on the patches where they can be read')
    group.add_argument('--sequence', action='store_true', help='the row of tokens that the transformer sees')
    group.add_argument('--windows', action='store_true', help="Swin's windows, plain and shifted")
    group.add_argument('--mask-ratio', type=real, metavar='R', help='share of patches to mask, 0 to 1')
    group.add_argument('--mask', default='random', metavar='random|block|grid', help='default: random')
    group.add_argument('--highlight', nargs='+', default=[], metavar='TOKEN', help='patches to bring out: 0 5 7-11 -1')
    options.add_picture(parser, maps=False)
    options.add_run(parser)
    return parser


def work(args: argparse.Namespace) -> int:
    """Loads, cuts and draws."""
    from vistool.runs.patches import draw_patches
    from vistool.runs.run import Callbacks

    spec = spec_of(args)
    with boundary.progress_bar() as progress:
        return boundary.exit_code(draw_patches(spec, Callbacks(boundary.announce, progress)))


def spec_of(args: argparse.Namespace) -> PatchesSpec:
    """What parsed arguments ask for."""
    from vistool.analyses.patches import Patches
    from vistool.runs.patches import PatchesSpec

    analysis = options.taken(
        Patches,
        args,
        patch_size=numbers(args.patch_size, 'patch_size', (1, 2)),
        stride=numbers(args.stride, 'stride', (1, 2)),
        pad_value=numbers(args.pad_value, 'pad_value', (1, 3)),
        highlight=tuple(args.highlight),
    )
    return options.taken(
        PatchesSpec,
        args,
        analysis=analysis,
        options=options.config_options(args.options),
        output=options.output_of(args),
        choices=choices(args),
    )


def numbers(text: str | None, parameter: str, counts: tuple[int, ...]) -> int | tuple[int, ...] | None:
    """``'16'`` → 16, ``'16,8'`` → (16, 8); None stays None.

    Raises:
        InputError: The text is something else, or has another count of numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in text.split(','))
    except ValueError:
        values = ()
    if len(values) not in counts:
        accepted = ' or '.join(','.join('N' * count) for count in counts)
        raise InputError(f'{text!r} is not a whole number', accepted=accepted, parameter=parameter)
    return values[0] if len(values) == 1 else values


def choices(args: argparse.Namespace) -> tuple[object, ...]:
    """What file names say besides the image's own."""
    views = [view for view in ('order', 'sequence', 'windows') if getattr(args, view)]
    masked = f'{args.mask}-{args.mask_ratio}' if args.mask_ratio is not None else ''
    border = None if args.pad is None else f'{args.pad:g}'
    looks = (('pad', border, None), ('pad-value', args.pad_value, '255'), ('fit', args.fit, 'resize'))
    other = [f'{name}-{value}' for name, value, usual in (*looks, ('max', args.max_size, None)) if value != usual]
    return args.patch_size, args.stride, views, masked, args.highlight, other


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return boundary.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
