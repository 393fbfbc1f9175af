"""The command line: arguments that commands share, and the boundary where exceptions become one line and an exit code.

Nothing heavy is imported here: ``--help`` answers at once, and arguments are checked before torch is loaded.
"""

from vistool.commands.boundary import BAD_INPUT, INTERRUPTED, OK, OWN_FAULT, SOME_FAILED, announce, run
from vistool.commands.options import (
    add_batch,
    add_compare,
    add_inputs,
    add_model,
    add_picture,
    add_run,
    config_options,
    file_name,
    out_path,
    style_of,
)
from vistool.commands.parser import Parser

__all__ = [
    'BAD_INPUT',
    'INTERRUPTED',
    'OK',
    'OWN_FAULT',
    'SOME_FAILED',
    'Parser',
    'add_batch',
    'add_compare',
    'add_inputs',
    'add_model',
    'add_picture',
    'add_run',
    'announce',
    'config_options',
    'file_name',
    'out_path',
    'run',
    'style_of',
]
