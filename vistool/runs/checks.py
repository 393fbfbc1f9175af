"""Options of a run that do not go together."""

from __future__ import annotations

import argparse

from vistool import provenance as recipe
from vistool.errors import InputError
from vistool.runs.records import CARRIED_OUT


def check_options(args: argparse.Namespace) -> None:
    """Refuses options of a run that contradict each other, before anything is loaded."""
    for name in ('batch_size', 'workers'):
        if getattr(args, name) < 1:
            raise InputError('must be at least 1', argument=f'--{name.replace("_", "-")}')
    if args.resume and args.overwrite:
        raise InputError('goes on with a run, --overwrite starts again', hint='leave one out', argument='--resume')
    if args.sheet:
        refuse_parts(args, '--sheet')
    if args.deterministic:
        args.command = recipe.what_alone(args.command, CARRIED_OUT)


def refuse_parts(args: argparse.Namespace, option: str) -> None:
    """Refuses an option that is of all images together where this process will see a part of them."""
    for other, given in (('--resume', args.resume), ('--launcher', args.launcher != 'none')):
        if given:
            raise InputError(
                f'is of all images together, and {other} sees a part of them', hint='leave one out', argument=option
            )
