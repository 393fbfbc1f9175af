"""How does the model cut the image into tokens? Patches as a mosaic, a row, in windows, masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from vistool import cli


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


def numbers(text: Any, option: str, counts: tuple[int, ...]) -> Any:
    """``'16'`` → 16, ``'16,8'`` → (16, 8); None stays None."""
    from vistool.errors import InputError

    if text is None:
        return None
    try:
        values = tuple(int(part) for part in str(text).split(','))
    except ValueError:
        values = ()
    if len(values) not in counts:
        wanted = ' or '.join(','.join('N' * count) for count in counts)
        raise InputError(f'{text!r} is no whole number', accepted=wanted, argument=option)
    return values[0] if len(values) == 1 else values


def work(args: argparse.Namespace) -> int:
    """Loads, cuts and draws."""
    from vistool.analyses.patches import Patches
    from vistool.errors import InputError
    from vistool.inputs import find_inputs
    from vistool.jobs.progress import Failure, progress, report
    from vistool.visualization import Visualizer

    patches = Patches(
        patch_size=numbers(args.patch_size, '--patch-size', (1, 2)),
        stride=numbers(args.stride, '--stride', (1, 2)),
        pad=args.pad,
        pad_value=numbers(args.pad_value, '--pad-value', (1, 3)),
        fit=args.fit,
        max_size=args.max_size,
        order=args.order,
        sequence=args.sequence,
        windows=args.windows,
        mask_ratio=args.mask_ratio,
        mask=args.mask,
        highlight=tuple(numbers(value, '--highlight', (1,)) for value in args.highlight),
        seed=args.seed,
    )
    items = find_inputs(args.img)
    model, name = _model(args) if args.config else (None, 'patches')
    visualizer = Visualizer(
        cli.out_path(args, name, 'vis_patches'),
        cli.style_of(args),
        save_raw=args.save_raw,
        show=args.show,
        panels=args.panels,
    )
    visualizer.check(len(items))
    views = [view for view in ('order', 'sequence', 'windows') if getattr(args, view)]
    masked = f'{args.mask}-{args.mask_ratio}' if args.mask_ratio is not None else ''
    other = [f'{name}-{value}' for name, value, usual in _looks(args) if value != usual]
    chosen = (args.patch_size, args.stride, views, masked, args.highlight, other)
    failures = []
    with progress(len(items)) as advance:
        for index, item in enumerate(items):
            try:
                subject = model.read(item.path, seed=args.seed, index=index) if model else item.path
                result = patches(model, subject).with_recipe(command=args.command, seed=args.seed)
                cli.announce(visualizer.write(result, cli.file_name(item.name, *chosen)))
            except InputError as error:
                if len(items) == 1:
                    raise
                failures.append(Failure(str(item.path), str(error)))
            advance()
    return report(failures, len(items))


def _looks(args: argparse.Namespace) -> list[tuple[str, Any, Any]]:
    """What changes the picture besides: name, value, default."""
    colour = ('pad-value', args.pad_value, '255')
    border = None if args.pad is None else f'{args.pad:g}'
    return [('pad', border, None), colour, ('fit', args.fit, 'resize'), ('max', args.max_size, None)]


def _model(args: argparse.Namespace) -> tuple[Any, str]:
    """The config's network with random weights: how it cuts does not depend on them."""
    from vistool.config import resolve
    from vistool.models import Model, build_module, find_device

    device = find_device(args.device)
    source = resolve(args.config, cli.config_options(args.cfg_options))
    module = build_module(source, args.seed).to(device)
    module.eval()
    return Model(module, source.name, source.config, device=device), source.name


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(work, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
