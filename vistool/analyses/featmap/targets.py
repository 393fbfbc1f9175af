"""Layer names to modules, and to the calls of them that are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from vistool.errors import InputError
from vistool.layers import find_layer

EVERY_CALL = 0
ARGUMENT = '--target-layers'


@dataclass(frozen=True)
class Target:
    """A layer to watch.

    Attributes:
        name: Its canonical dotted name, as it will be shown.
        module: The module.
        call: Which of its calls in one forward is meant, counted from 1; :data:`EVERY_CALL` for all of them.
    """

    name: str
    module: nn.Module
    call: int = 1


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while True:
        inner = getattr(module, '_orig_mod', None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if inner is None:
            return module
        module = inner


def find_targets(root: nn.Module, names: Sequence[str]) -> list[Target]:
    """The layers called ``names``; ``NAME@2`` means the second call in a forward, ``NAME@all`` each of them.

    A leading ``module.``, as checkpoints of wrapped models have it, is understood.

    Raises:
        InputError: If there is no such layer, or it is a container that is never called.
    """
    targets: dict[str, Target] = {}
    for given in names:
        name, _, which = given.partition('@')
        if which and which != 'all' and not (which.isdigit() and int(which)):
            raise InputError(f'{given!r}: no call {which!r}', accepted='@1, @2, …, @all', argument=ARGUMENT)
        if not hasattr(root, 'module'):
            name = name.removeprefix('module.')
        try:
            path, module = find_layer(root, name)
        except InputError as error:
            raise error.under(ARGUMENT) from error
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            children = ', '.join(f'{path}.{child}' for child, _ in list(module.named_children())[:6])
            raise InputError(
                f'{path!r} is a {type(module).__name__}, which only holds layers and is never called itself',
                accepted=children,
                argument=ARGUMENT,
            )
        shown = f'{path}@{which}' if which not in ('', '1', 'all') else path
        targets[f'{path}@{which or 1}'] = Target(shown, module, EVERY_CALL if which == 'all' else int(which or 1))
    return list(targets.values())
