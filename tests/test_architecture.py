"""The house's rules, read off the sources: imports point down, no circles, no options below the commands."""

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = (
    ('vistool',),
    ('vistool.commands', 'vistool.env', 'vistool.integrations'),
    ('vistool.explore', 'vistool.training'),
    ('vistool.runs',),
    ('vistool.gallery',),
    ('vistool.analyses',),
    ('vistool.metrics',),
    ('vistool.visualization',),
    ('vistool.results',),
    ('vistool.models',),
    ('vistool.network',),
    ('vistool.data',),
    ('vistool.display', 'vistool.registry'),
    ('vistool.environment',),
    ('vistool.ranges', 'vistool.records'),
    ('vistool.errors', 'vistool.imports'),
)
"""Rooms and top-level files, the highest first. An import goes to a lower layer, or stays in its own room."""

FOREIGN_OPTIONS = {'--local-dir', '--no-deps', '--nproc-per-node'}
"""Options of other programs (hf, torchrun) that a hint may name."""


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's name stands for its ``__init__``."""
    files = sorted((ROOT / 'vistool').rglob('*.py'))
    return {'.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): file for file in files}


@functools.cache
def trees() -> list[tuple[str, ast.Module]]:
    """Every module with its syntax tree."""
    return [(name, ast.parse(file.read_text(encoding='utf-8'))) for name, file in modules().items()]


def imported(tree: ast.Module) -> set[str]:
    """The package's modules that a module imports anywhere in it: at the top, inside functions, for type checking.

    ``from package import name`` is an import of the submodule where there is one, else of the package's ``__init__``.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name if name in modules() else node.module for name in names}
    return found & modules().keys()


@functools.cache
def imports() -> dict[str, set[str]]:
    """Module → the modules that it imports."""
    return {name: imported(tree) - {name} for name, tree in trees()}


def room_of(module: str) -> str:
    """The room, or the top-level file, that a module belongs to."""
    return '.'.join(module.split('.')[:2])


def package_of(module: str) -> str:
    """The package whose folder a module lies in; the top-level files stand for themselves."""
    if module.count('.') < 2 or modules()[module].name == '__init__.py':
        return module
    return module.rpartition('.')[0]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in graph[node]:
            if target not in order:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == order[node]:
            place = stack.index(node)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def docstrings(tree: ast.Module) -> set[int]:
    """Identities of the string nodes that document something: any string that is a statement of its own."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def arrows_up() -> set[str]:
    """Every import that goes to a higher layer, or to another room of the same layer."""
    layer = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
    return {
        f'{module} → {target}'
        for module, targets in imports().items()
        for target in targets
        if room_of(module) != room_of(target) and layer[room_of(target)] <= layer[room_of(module)]
    }


def package_imports() -> dict[str, set[str]]:
    """Package → the other packages whose modules it imports, the one around it and those inside it included."""
    graph: dict[str, set[str]] = {}
    for module, targets in imports().items():
        own = package_of(module)
        graph.setdefault(own, set()).update({package_of(target) for target in targets} - {own})
    return graph


def options() -> set[str]:
    """Modules below the commands that import argparse or mention an option in a string that is not a docstring."""
    found = set()
    for module, tree in trees():
        if room_of(module) == 'vistool.commands':
            continue
        documentation = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, 'module', '')]
                if 'argparse' in names:
                    found.add(f'{module} imports argparse')
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                mentioned = set(re.findall(r'(?<![\w-])--[a-z][\w-]*', node.value)) - FOREIGN_OPTIONS
                found |= {f'{module} mentions {option}' for option in mentioned}
    return found


def provenance_readers() -> set[str]:
    """Modules that read a result's ``provenance``: only its writers and the fingerprint of a resumed run may.

    Handing it on to another result, ``provenance={**result.provenance, …}``, is writing it.
    """
    allowed = ('vistool.results', 'vistool.visualization.files', 'vistool.runs.manifest')
    found = set()
    for module, tree in trees():
        nodes = list(ast.walk(tree))
        written = {id(node.func) for node in nodes if isinstance(node, ast.Call)}  # Model.provenance(), which writes it
        for node in nodes:
            if isinstance(node, ast.keyword) and node.arg == 'provenance':
                written |= {id(inner) for inner in ast.walk(node.value)}
        reads = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load))
        if not module.startswith(allowed) and any(
            node.attr == 'provenance' and id(node) not in written for node in reads
        ):
            found.add(module)
    return found


def test_every_room_has_a_layer() -> None:
    assert {room_of(module) for module in modules()} <= {room for rooms in LAYERS for room in rooms}


def test_imports_point_down() -> None:
    assert arrows_up() == set()


def test_no_circle_between_files() -> None:
    assert circles(imports()) == []


def test_no_circle_between_packages() -> None:
    assert circles(package_imports()) == []


def test_options_belong_to_commands() -> None:
    assert options() == set()


def test_provenance_is_written_and_never_read() -> None:
    assert provenance_readers() == set()
