"""A run of vis_patches: images cut into tokens, drawn and written one by one."""

from __future__ import annotations

import argparse
from typing import Any

from vistool import commands as cli
from vistool.analyses.patches import Patches
from vistool.data.samples import find_inputs
from vistool.errors import InputError, param
from vistool.models.configs import resolve
from vistool.models.model import Model, build_module, find_device
from vistool.runs.progress import Failure, progress, report
from vistool.visualization.visualizer import Visualizer


def draw_patches(args: argparse.Namespace) -> int:
    """Cuts and draws all images that the arguments name; returns the exit code."""
    patches = _analysis(args)
    items = find_inputs(args.img)
    model, name = _model(args) if args.config else (None, 'patches')
    out, style = cli.out_path(args, name, 'vis_patches'), cli.style_of(args)
    visualizer = Visualizer(out, style, save_raw=args.save_raw, show=args.show, panels=args.panels)
    visualizer.check(len(items))
    chosen = _chosen(args)
    failures = []
    with progress(len(items)) as advance:
        for index, item in enumerate(items):
            try:
                subject = model.read(item.path, seed=args.seed, index=index) if model else item.path
                result = patches(model, subject).with_provenance(command=args.command, seed=args.seed)
                cli.announce(visualizer.write(result, cli.file_name(item.name, *chosen)))
            except InputError as error:
                if len(items) == 1:
                    raise
                failures.append(Failure(str(item.path), error.line(param)))
            advance()
    return report(failures, len(items))


def _analysis(args: argparse.Namespace) -> Patches:
    return Patches(
        patch_size=numbers(args.patch_size, 'patch_size', (1, 2)),
        stride=numbers(args.stride, 'stride', (1, 2)),
        pad=args.pad,
        pad_value=numbers(args.pad_value, 'pad_value', (1, 3)),
        fit=args.fit,
        max_size=args.max_size,
        order=args.order,
        sequence=args.sequence,
        windows=args.windows,
        mask_ratio=args.mask_ratio,
        mask=args.mask,
        highlight=tuple(numbers(value, 'highlight', (1,)) for value in args.highlight),
        seed=args.seed,
    )


def numbers(text: Any, option: str, counts: tuple[int, ...]) -> Any:
    """``'16'`` → 16, ``'16,8'`` → (16, 8); None stays None."""
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in str(text).split(','))
    except ValueError:
        values = ()
    if len(values) not in counts:
        wanted = ' or '.join(','.join('N' * count) for count in counts)
        raise InputError(f'{text!r} is no whole number', accepted=wanted, parameter=option)
    return values[0] if len(values) == 1 else values


def _chosen(args: argparse.Namespace) -> tuple[object, ...]:
    """What file names say besides the image's own."""
    views = [view for view in ('order', 'sequence', 'windows') if getattr(args, view)]
    masked = f'{args.mask}-{args.mask_ratio}' if args.mask_ratio is not None else ''
    other = [f'{name}-{value}' for name, value, usual in _looks(args) if value != usual]
    return args.patch_size, args.stride, views, masked, args.highlight, other


def _looks(args: argparse.Namespace) -> list[tuple[str, Any, Any]]:
    """What changes the picture besides: name, value, default."""
    colour = ('pad-value', args.pad_value, '255')
    border = None if args.pad is None else f'{args.pad:g}'
    return [('pad', border, None), colour, ('fit', args.fit, 'resize'), ('max', args.max_size, None)]


def _model(args: argparse.Namespace) -> tuple[Any, str]:
    """The config's network with random weights: how it cuts does not depend on them."""
    device = find_device(args.device)
    source = resolve(args.config, cli.config_options(args.cfg_options))
    module = build_module(source, args.seed).to(device)
    module.eval()
    return Model(module, source.name, source.config, device=device), source.name
