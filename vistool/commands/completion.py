"""Completion in the shell: options, their choices, methods, metrics, configs, models, demo weights and files.

What an option takes is read off the parser: the choices of ``each|shared|percentile``, a file for ``PATH``. Names of
methods and models are read from the sources that register them, because importing torch takes seconds. argcomplete
speaks to the shells.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import argcomplete
from argcomplete.completers import FilesCompleter

from vistool.models.configs import PACKAGES, SCHEMES, package_folder, packaged_configs

_ROOT = Path(__file__).parents[1]
_FILES = re.compile(r'PATH|FILE|DIR|IMG|RUN(_[AB])?')
"""Metavariables of options that take a file or a folder."""
_CHOICE = re.compile(r'[a-z][\w-]+|[A-Z]{3}')
"""A word of a metavariable that is typed as it stands: ``mean`` or ``BGR``, and not ``N`` or ``H,W``."""


def registration(shell: str, program: str) -> str:
    """What a shell evaluates to complete all of vistool's commands.

    Args:
        shell: ``bash``, ``zsh``, ``fish`` or ``powershell``.
        program: The command that asks; it is registered even where vistool is not installed.
    """
    scripts = importlib.metadata.entry_points(group='console_scripts')
    commands = {each.name for each in scripts if each.value.startswith('vistool.commands.')}
    return argcomplete.shellcode(sorted({*commands, program}), shell=shell)


def complete(
    parser: argparse.ArgumentParser,
    *,
    output: TextIO | None = None,
    leave: Callable[[int], object] = os._exit,
) -> None:
    """Answers a shell that asks how a command line may go on, and ends the process.

    Args:
        parser: Of the command.
        output: Where the answer goes; None: where the shell reads it.
        leave: Ends the process.
    """
    for action in parser._actions:
        action.completer = _completer(action)  # type: ignore[attr-defined]
    argcomplete.autocomplete(
        parser, always_complete_options=False, validator=_continues, output_stream=output, exit_method=leave
    )


def _continues(name: str, prefix: str) -> bool:
    """Whether a name continues what was typed; methods are written in any case."""
    return name.lower().startswith(prefix.lower())


def _completer(action: argparse.Action) -> Callable[..., Iterable[str]]:
    """What completes the values of an argument."""
    names = _NAMES.get(action.dest)
    metavar = action.metavar if isinstance(action.metavar, str) else ''
    choices = [each for each in metavar.split('|') if _CHOICE.fullmatch(each)] if '|' in metavar else []
    files = FilesCompleter() if _FILES.fullmatch(metavar) or action.dest in _FILES_TOO else None

    def completions(prefix: str, **_: object) -> list[str]:
        found = [*choices, *(names(prefix) if names else ())]
        return [*found, *files(prefix)] if files else found

    return completions


def _configs(prefix: str) -> Iterator[str]:
    """What names a config: files apart, those of packages by folder, models without a config, models of mmpretrain."""
    package, separator, _ = prefix.partition('::')
    if not separator:
        yield from (f'{scheme}::' for scheme in (*PACKAGES, *SCHEMES) if _is_installed(scheme))
    elif package in _MODELS:
        yield from (f'{package}::{name}' for name in _models_of(package))
    elif package == 'hf':
        yield from (f'hf::{path}' for path in FilesCompleter()(prefix.removeprefix('hf::')))
    else:
        yield from _one_level(packaged_configs(package), prefix)


def _one_level(names: Iterable[str], prefix: str) -> list[str]:
    """The names that begin so, down to their next folder: as shells complete paths."""
    length = len(prefix)
    ends = ((name, name.find('/', length)) for name in names if name.startswith(prefix))
    return list(dict.fromkeys(name if end < 0 else name[: end + 1] for name, end in ends))


def _is_installed(scheme: str) -> bool:
    return scheme == 'hf' or (
        importlib.util.find_spec(scheme) is not None if scheme in _MODELS else package_folder(scheme) is not None
    )


_MODELS = {
    'timm': (('models/*.py',), re.compile(r'^@register_model\n(?:@.*\n)*def (\w+)', re.MULTILINE)),
    'torchvision': (
        ('models/*.py', 'models/detection/*.py', 'models/segmentation/*.py'),
        re.compile(r'^@register_model\(\)\n(?:[@ )].*\n)*def (\w+)', re.MULTILINE),
    ),
}
"""Libraries of models: the files that register them, and how."""


@functools.cache
def _models_of(library: str) -> list[str]:
    """The models that a library registers, as its sources say."""
    spec = importlib.util.find_spec(library)
    folders = [Path(each) for each in (spec.submodule_search_locations if spec else None) or ()]
    patterns, registered = _MODELS[library]
    files = (file for folder in folders for pattern in patterns for file in sorted(folder.glob(pattern)))
    return sorted({name for file in files for name in registered.findall(file.read_text(encoding='utf-8'))})


def _checkpoints(prefix: str) -> Iterator[str]:
    """What names a checkpoint, apart from files."""
    yield 'none'
    yield from (f'demo://{name}' for name in _keys_of('models/checkpoints/demo_weights.py', '_DEMOS'))


def _methods(prefix: str) -> Iterator[str]:
    """CAM methods as figures write them, and the word for several.

    zsh drops what does not continue the very letters that were typed, so it gets the names in lower case after those.
    """
    yield 'all'
    lower = os.environ.get('_ARGCOMPLETE_SHELL') == 'zsh' and bool(prefix) and prefix.islower()
    for _, title, *_ in _registered('analyses/cam', ('register_cam', 'register_perturbation_cam')):
        yield title.lower() if lower else title


def _metrics(prefix: str) -> Iterator[str]:
    """Names of metrics."""
    yield from (name.replace('_', '') for name, *_ in _registered('metrics', ('register_metric',)))


def _registered(folder: str, decorators: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The texts that each registration in the sources of a folder begins with, such as name and title."""
    for file in sorted((_ROOT / folder).glob('*.py')):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and _named(node.func) in decorators and node.args:
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                yield tuple(text for text in texts if isinstance(text, str))


def _named(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ''


def _checks(prefix: str) -> Iterator[str]:
    """Names of what vis_check checks."""
    yield from _keys_of('analyses/check/criteria.py', 'CHECKS')


def _keys_of(file: str, name: str) -> Iterator[str]:
    """The keys of a dictionary that a file of the package writes out."""
    for node in ast.parse((_ROOT / file).read_text(encoding='utf-8')).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, 'target', None)
        value = getattr(node, 'value', None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(value, ast.Dict):
            yield from (str(key.value) for key in value.keys if isinstance(key, ast.Constant))


def _images(prefix: str) -> Sequence[str]:
    return ('@train', '@val', '@test')


def _colormaps(prefix: str) -> Iterable[str]:
    from matplotlib import colormaps

    return colormaps


_NAMES: dict[str, Callable[[str], Iterable[str]]] = {
    'images': _images,
    'config': _configs,
    'compare': lambda prefix: (*_configs(prefix), *_checkpoints(prefix)),
    'checkpoint': _checkpoints,
    'methods': _methods,
    'metrics': _metrics,
    'checks': _checks,
    'colormap': _colormaps,
}
"""Parameters → where their names are found."""
_FILES_TOO = ('images', 'config', 'compare', 'checkpoint', 'before', 'after')
"""Parameters that take files besides names."""
