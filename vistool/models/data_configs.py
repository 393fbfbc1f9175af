"""YAML and JSON configs: data, which never runs code.

A Python config is code, and may import whatever it likes. A YAML or JSON config may come from anywhere, so before
mmengine reads it, the file and its bases are checked:

- YAML is read without tags that build Python objects, and bounded in depth and in what its aliases expand to;
- a ``type`` is a name of a registry, never a dotted name, which mmengine would import;
- nothing is imported (``custom_imports``), no file is named that runs code when it is read (pickles, YAML), and no code
  of a model is fetched (``trust_remote_code``);
- a base is another YAML or JSON file, or a config of an installed OpenMMLab package.

While something is built from such a config, registries look names up and import nothing;
see :func:`vistool.registry.in_scope`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vistool.errors import InputError, message_of
from vistool.records import read_text, shown
from vistool.registry import is_registry_name, known_scopes

MOST_NODES, MOST_DEPTH, LARGEST = 200_000, 64, 8 << 20
"""Bounds of one file: values after its aliases are expanded, nesting, and bytes."""

RUNS_CODE = re.compile(r'(?i).+\.(pkl|pickle|ya?ml|py)')
"""Names of files that mmengine would run, or could run while it reads them."""

_SUFFIXES = ('.yaml', '.yml', '.json')
_NAMES_OF_TYPES = ('type', 'constructor', 'runner_type')
_SCOPES = ('_scope_', 'default_scope')
_PLAIN_TAGS = re.compile(
    r'tag:yaml\.org,2002:(str|int|float|bool|null|seq|map|binary|timestamp|set|omap|pairs|merge)|!'
)
_USE_PYTHON = 'a Python config (.py) may do this: write it as one if you trust it'


def check_data_config(path: Path, inherited: tuple[Path, ...] = ()) -> None:
    """Checks a YAML or JSON config and its bases before they are read.

    Args:
        path: The file.
        inherited: The configs that it is a base of.

    Raises:
        InputError: The file could run code, is not a mapping, or is out of bounds; the error names file and key.
    """
    if path.resolve() in inherited:
        raise InputError(f'{path} is its own _base_', parameter='config')
    content = _parse(_substituted(path), path)
    if not isinstance(content, dict):
        raise InputError(f'{path} holds a {type(content).__name__}', accepted='a mapping', parameter='config')
    bases = content.pop('_base_', None) or []
    check_entries(content, str(path), 'config')
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise InputError(f'{path}: _base_ holds {shown(base)}', accepted='paths', parameter='config')
        _check_base(base, path, (*inherited, path.resolve()))


def check_entries(content: Mapping[Any, Any], where: str, parameter: str) -> None:
    """Checks the values of a config that is data; raises as :func:`check_data_config`.

    Args:
        content: The config, or what is to change in one.
        where: The file, for errors.
        parameter: The parameter to blame.
    """
    if content.get('custom_imports'):
        problem = f"{where}: 'custom_imports' would run code"
        raise InputError(problem, accepted='YAML and JSON configs without it', hint=_USE_PYTHON, parameter=parameter)
    for key, value in _leaves(content, where, parameter):
        if problem := _problem(key, value):
            raise InputError(f'{where}: {key!r} is {shown(value)}, {problem}', hint=_USE_PYTHON, parameter=parameter)


def _problem(key: str, value: object) -> str:
    """What is wrong with one value, or ``''``."""
    last = re.sub(r'\[\d+\]$', '', key).rpartition('.')[2]
    if last == 'trust_remote_code' and value:
        return 'which runs code of the model'
    if not isinstance(value, str):
        return ''
    if last in _NAMES_OF_TYPES and not is_registry_name(value):
        return 'which is not a name of a registry: YAML and JSON configs import nothing'
    if last in _SCOPES and value not in known_scopes():
        return f'which is not a scope of OpenMMLab ({", ".join(sorted(known_scopes()))})'
    if RUNS_CODE.fullmatch(value):
        return 'a file that could run code when it is read'
    if '\0' in value or any('\ud800' <= character <= '\udfff' for character in value):
        return 'which is not text that can be written'
    return ''


def _leaves(content: Mapping[Any, Any], where: str, parameter: str) -> Iterator[tuple[str, object]]:
    """Every plain value with its dotted key."""
    stack: list[tuple[str, object]] = [(str(key), value) for key, value in content.items()]
    seen = 0
    while stack:
        key, value = stack.pop()
        seen += 1
        if seen > MOST_NODES or key.count('.') + key.count('[') > 2 * MOST_DEPTH:
            raise InputError(f'{where} holds too many values or nests too deeply', parameter=parameter)
        if isinstance(value, Mapping):
            stack += [(f'{key}.{name}', each) for name, each in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(f'{key}[{place}]', each) for place, each in enumerate(value)]
        else:
            yield key, value


def _check_base(base: str, path: Path, inherited: tuple[Path, ...]) -> None:
    if '::' in base:
        package, _, relative = base.partition('::')
        if package not in known_scopes() or '..' in Path(relative).parts or Path(relative).is_absolute():
            accepted = 'PACKAGE::FILE of an installed OpenMMLab package'
            raise InputError(f'{path}: _base_ names {shown(base)}', accepted=accepted, parameter='config')
        return
    found = path.parent / base
    if found.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f'{path}: its _base_ {shown(base)} is Python, which runs code',
            accepted='a YAML or JSON file, or mmpretrain::FOLDER/FILE.py of an installed package',
            hint=_USE_PYTHON,
            parameter='config',
        )
    if not found.is_file():
        raise InputError(f'{path}: its _base_ {shown(base)} does not exist', parameter='config')
    check_data_config(found, inherited)


def _substituted(path: Path) -> str:
    """The text as mmengine parses it: predefined variables, environment and variables of bases put in."""
    from mmengine.config import Config

    read_text(path, 'config', LARGEST)
    with tempfile.TemporaryDirectory() as folder:
        copy = str(Path(folder) / f'config{path.suffix}')
        Config._substitute_predefined_vars(str(path), copy)
        Config._substitute_env_variables(copy, copy)
        Config._pre_substitute_base_vars(copy, copy)
        return Path(copy).read_text(encoding='utf-8')


def _parse(text: str, path: Path) -> object:
    if path.suffix.lower() != '.json':
        return _parse_yaml(text, path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f'{path} is nested too deeply', parameter='config') from error
    except ValueError as error:
        raise InputError(f'{path}: {error}', accepted='JSON', parameter='config') from error


def _parse_yaml(text: str, path: Path) -> object:
    import yaml

    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    try:
        _check_yaml(text, path, loader)
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = f', line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise InputError(f'{path}{line}: {error.problem}', accepted='YAML', parameter='config') from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path}: {message_of(error)}', accepted='YAML', parameter='config') from error


def _check_yaml(text: str, path: Path, loader: type) -> None:
    """Walks the parser's events before anything is built: tags, depth, and the size with aliases expanded."""
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=loader):
        where = f'{path}, line {event.start_mark.line + 1}'
        tag = getattr(event, 'tag', None)
        if tag and not _PLAIN_TAGS.fullmatch(tag):
            problem = f'{where}: the YAML tag {shown(tag)} builds an object'
            raise InputError(problem, accepted='YAML without such tags', hint=_USE_PYTHON, parameter='config')
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise InputError(f'{where}: *{event.anchor} contains itself', parameter='config')
            total += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if len(open_nodes) > MOST_DEPTH or total > MOST_NODES:
            what = 'nests too deeply' if len(open_nodes) > MOST_DEPTH else 'expands to too many values'
            raise InputError(f'{where}: the YAML {what}', parameter='config')
