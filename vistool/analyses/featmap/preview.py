"""The modules of a network with the shapes of what they give for an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from vistool.analyses.featmap.stages import Call, find_stages, trace
from vistool.analyses.featmap.targets import unwrapped
from vistool.errors import InputError


def module_tree(root: nn.Module, inputs: Any) -> list[str]:
    """One line per module: name, class, output shapes without the batch, how often it ran, whether it is a stage.

    Args:
        root: The network.
        inputs: Its input, of one image.

    Raises:
        InputError: If the forward fails.
    """
    root = unwrapped(root)
    calls: dict[str, list[Call]] = {}
    for each in trace(root, inputs):
        calls.setdefault(each.name, []).append(each)
    try:
        stages = {name: f'stage {number}' for number, name in enumerate(find_stages(root, inputs), 1)}
    except InputError:
        stages = {}
    rows = []
    for name, module in root.named_modules():
        depth = name.count('.') + 1 if name else 0
        label = '  ' * depth + (f'{name}: ' if name else '') + type(module).__name__
        rows.append((label, _said(module, calls.get(name, [])), stages.get(name, '')))
    width = max(len(label) for label, _, _ in rows)
    return [f'{label:<{width}}  {said}{f"  ← {stage}" if stage else ""}'.rstrip() for label, said, stage in rows]


def _said(module: nn.Module, calls: Sequence[Call]) -> str:
    if not calls:
        container = isinstance(module, (nn.ModuleList, nn.ModuleDict))
        return '' if container else 'not called'
    shapes = ', '.join(_shapes(calls[0])) or 'no tensor'
    return f'{shapes}  called {len(calls)} times (@1 … @{len(calls)})' if len(calls) > 1 else shapes


def _shapes(call: Call) -> Iterator[str]:
    for shape in call.shapes:
        yield '×'.join(map(str, shape[1:])) or 'scalar'
