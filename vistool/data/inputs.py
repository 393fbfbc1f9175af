"""Several inputs of one network: which of them the maps are drawn on, and which all images of a batch share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, TypeAlias


class NamedInputs(dict[str, Any]):
    """Inputs by name, of one image or of a batch.

    >>> vt.CAM()(model, vt.NamedInputs({'pixel_values': images, 'input_ids': prompts}, shared=['input_ids']))

    Args:
        inputs: Name → tensor.
        drawn: The input on which maps are drawn; default: the first image.
        shared: Inputs without the images' batch axis, which every image gets whole: prompts, prototypes, a support set.
            None leaves it to be found.
        raw: Inputs that still have to pass through the model's data preprocessor.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        *,
        drawn: str | None = None,
        shared: Iterable[str] | None = None,
        raw: Iterable[str] = (),
    ) -> None:
        super().__init__(inputs)
        self.drawn, self.raw = drawn, frozenset(raw)
        self.shared = None if shared is None else frozenset(shared)


class PositionalInputs(list[Any]):
    """Inputs by position; see :class:`NamedInputs`, with positions from 0 in place of names."""

    def __init__(
        self,
        inputs: Sequence[Any],
        *,
        drawn: int | None = None,
        shared: Iterable[int] | None = None,
        raw: Iterable[int] = (),
    ) -> None:
        super().__init__(inputs)
        self.drawn, self.raw = drawn, frozenset(raw)
        self.shared = None if shared is None else frozenset(shared)


SeveralInputs: TypeAlias = NamedInputs | PositionalInputs


def several(inputs: Mapping[str, Any] | Sequence[Any]) -> SeveralInputs:
    """Plain inputs as a container that holds what is known about them; one that does so already is copied."""
    if isinstance(inputs, (NamedInputs, PositionalInputs)):
        return copy(inputs)
    return NamedInputs(inputs) if isinstance(inputs, Mapping) else PositionalInputs(inputs)


def shared_of(inputs: object) -> Collection[Any]:
    """Names or positions of the inputs that all images share."""
    return (inputs.shared or ()) if isinstance(inputs, (NamedInputs, PositionalInputs)) else ()


def drawn_of(inputs: object) -> str | int | None:
    """Name or position of the input on which maps are drawn; None means the first image."""
    return inputs.drawn if isinstance(inputs, (NamedInputs, PositionalInputs)) else None


def entries(inputs: Mapping[str, Any] | Sequence[Any]) -> list[tuple[Any, Any]]:
    """Inputs with their names or positions."""
    return list(inputs.items()) if isinstance(inputs, Mapping) else list(enumerate(inputs))
