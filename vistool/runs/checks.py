"""Options of a run that do not go together."""

from __future__ import annotations

import argparse

from vistool import provenance
from vistool.errors import InputError, param
from vistool.runs.records import CARRIED_OUT


def check_options(args: argparse.Namespace) -> None:
    """Refuses options of a run that contradict each other, before anything is loaded."""
    for name in ('batch_size', 'workers'):
        if getattr(args, name) < 1:
            raise InputError('must be at least 1', parameter=name)
    if args.resume and args.overwrite:
        raise InputError(
            f'goes on with a run, {param("overwrite")} starts again', hint='leave one out', parameter='resume'
        )
    if args.sheet:
        refuse_parts(args, 'sheet')
    if args.deterministic:
        args.command = provenance.what_alone(args.command, CARRIED_OUT)


def refuse_parts(args: argparse.Namespace, option: str) -> None:
    """Refuses an option that is of all images together where this process will see a part of them."""
    for other, given in (('resume', args.resume), ('launcher', args.launcher != 'none')):
        if given:
            raise InputError(
                f'is of all images together, and {other} sees a part of them', hint='leave one out', parameter=option
            )
