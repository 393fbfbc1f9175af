"""What tells compared models apart."""

from __future__ import annotations

from collections.abc import Sequence

from vistool.models.model import Model


def labels(models: Sequence[Model]) -> list[str]:
    """What tells the models apart in a figure: their names, or their checkpoints where the names are the same."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    return [f'{model.name} {model.weights_name}' if len(set(names)) > 1 else model.weights_name for model in models]
