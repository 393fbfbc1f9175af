"""What shared arguments mean: a style, a place for files, changes to a config."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistool.errors import InputError


def style_of(args: argparse.Namespace) -> Any:
    """The :class:`~vistool.visualization.Style` that the picture options ask for."""
    from vistool.visualization.style import Style

    align: Any = getattr(args, 'align', None) or 'centre'
    align = 'centre' if align == 'center' else align
    width: Any = int(args.width) if args.width and args.width.isdigit() else args.width
    alpha: Any = args.alpha
    if alpha is not None and alpha != 'heat':
        try:
            alpha = float(alpha)
        except ValueError:
            raise InputError(f'{alpha!r} is no opacity', accepted='0 to 1, or heat', argument='--alpha') from None
    return Style(
        layout=args.layout,
        width=width,
        dpi=args.dpi,
        scale=args.scale,
        colormap=args.colormap,
        alpha=alpha,
        colorbar=args.colorbar,
        interpolation=args.interpolation,
        view=args.view,
        align=align,
        arrangement=tuple(args.arrangement) if getattr(args, 'arrangement', None) else None,
    )


def out_path(args: argparse.Namespace, config: str, command: str) -> Path:
    """``--out``, or the default folder of this config and command."""
    return Path(args.out) if args.out else Path('work_dirs') / config / command


def file_name(item: str, *choices: object) -> str:
    """A picture's name: the image's, then whatever the user chose for this run (method, class, layer, checkpoint).

    So another choice never overwrites the last one's picture. Lists are joined by ``-``; what was not chosen is
    left out.
    """
    parts = [item]
    for choice in choices:
        text = '-'.join(map(str, choice)) if isinstance(choice, (list, tuple)) else str(choice or '')
        if text:
            parts.append(re.sub(r'[^\w.+=-]+', '-', text).strip('-')[:80])
    return '_'.join(parts)


def config_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``K=V`` pairs read as OpenMMLab's tools read them.

    Raises:
        InputError: If one is no pair.
    """
    if not pairs:
        return {}
    from mmengine.config import DictAction

    for pair in pairs:
        if '=' not in pair or pair.startswith('='):
            raise InputError(
                f'{pair!r} is no KEY=VALUE', accepted='model.backbone.depth=18 data.x="[a,b]"', argument='--cfg-options'
            )
    reader = argparse.ArgumentParser(add_help=False)
    reader.add_argument('--cfg-options', nargs='+', action=DictAction)
    try:
        return reader.parse_args(['--cfg-options', *pairs]).cfg_options
    except (ValueError, AssertionError, SyntaxError) as error:
        raise InputError(f'{" ".join(pairs)!r} cannot be read: {error}', argument='--cfg-options') from error
