"""What mmengine raises while it reads a config → one line that names the file, the line and the cause."""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

from vistool.errors import InputError, close_matches
from vistool.models.configs.packaged import PACKAGES, packaged_configs
from vistool.models.configs.run_folders import SUFFIXES

LONGEST = 240
"""Characters of a foreign message that are kept."""


def explain(error: Exception, path: Path) -> InputError:
    """The error of reading ``path``, as an :class:`InputError`."""
    if isinstance(error, SyntaxError):
        return _syntax(error, path)
    message = one_line(error)
    if isinstance(error, ImportError) and 'custom modules' in message:
        return InputError(
            f'{path}: custom_imports failed: {_root_cause(error)}',
            hint='run from the folder that holds the module, or put that folder on PYTHONPATH',
            parameter='config',
        )
    if (
        isinstance(error, ModuleNotFoundError)
        and (package := message.split()[0]) in message.partition('not installed')[0]
    ):
        module = next((name for name in PACKAGES if f"'{name}::" in _text(path) or name == package), package)
        return InputError(
            f'{path}: its _base_ needs the package {module}, which is not installed',
            hint=f'pip install {PACKAGES.get(module, package)}',
            parameter='config',
        )
    place = _place(error)
    if isinstance(error, FileNotFoundError) and place is None:
        quoted = re.search(r'file "(.+)" does not exist', message)
        absent = error.filename or (quoted[1] if quoted else message)
        return InputError(f'{path}: its _base_ {absent} does not exist', hint='mend _base_', parameter='config')
    fault = f'{place or path}: {type(error).__name__}: {message[:LONGEST]}'
    return InputError(fault, hint='mend the config', parameter='config')


def one_line(error: BaseException) -> str:
    """The error's message without line breaks; a KeyError's without its quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return ' '.join(str(message).split())


def missing(spec: str, forms: str, model_names: Iterable[str]) -> InputError:
    """The error for a ``spec`` that is no file, folder, or model name, with the nearest of each."""
    path = Path(spec).expanduser()
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    near = [str(file) for file in _configs_near(folder)]
    packaged = packaged_configs('mmpretrain')
    same_name = [name for name in packaged if name.endswith(f'/{path.stem}.py')]
    hint = close_matches(spec, [*near, *same_name, *model_names, *packaged])
    if same_name and same_name[0] not in hint:
        hint = f'did you mean {same_name[0]}?'
    return InputError(f'{spec} not found', accepted=forms, hint=hint, parameter='config')


def _configs_near(folder: Path, most: int = 500) -> list[Path]:
    """Config files in ``folder`` and one level below; not deeper, for it may be a home directory."""
    found = [path for pattern in ('*', '*/*') for path in folder.glob(pattern) if path.suffix in SUFFIXES]
    return sorted(found)[:most]


def _syntax(error: SyntaxError, path: Path) -> InputError:
    """Looks again for the file at fault, which may be a ``_base_``: mmengine parses a copy without a name."""
    found = _faulty_file(path, set())
    culprit, fault = found if found else (Path(error.filename or path), error)
    shown = f' («{fault.text.strip()[:60]}»)' if fault.text and fault.text.strip() else ''
    return InputError(f'{culprit}, line {fault.lineno}: {fault.msg}{shown}', hint='mend the config', parameter='config')


def _faulty_file(path: Path, seen: set[Path]) -> tuple[Path, SyntaxError] | None:
    if path.suffix != '.py' or not path.is_file() or path in seen:
        return None
    seen.add(path)
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    except SyntaxError as error:
        return path, error
    bases = (path.parent / name for name in _bases(tree) if '::' not in name)
    return next((found for base in bases if (found := _faulty_file(base, seen))), None)


def _bases(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == '_base_':
            strings = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            return [string for string in strings if isinstance(string, str)]
    return []


def _place(error: Exception) -> str | None:
    """``file, line n`` of the user's own code that raised, or None if mmengine itself did."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>']
    own = [frame for frame in frames if Path(frame.filename).is_file() and 'site-packages' not in frame.filename]
    return f'{own[-1].filename}, line {own[-1].lineno}' if own else None


def _root_cause(error: BaseException) -> str:
    """The innermost message of a chain of import errors."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return one_line(error)[:LONGEST]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError):
        return ''
