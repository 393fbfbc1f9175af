"""Modules without weights: every parameter on the meta device, in milliseconds whatever the size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Networks read numbers out of these while they are built (drop-path rates, indices); the meta device holds none.
_WITH_VALUES = {torch.linspace, torch.arange, torch.tensor, torch.as_tensor, torch.meshgrid}


class _ValuesOnCpu(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _WITH_VALUES and func is not torch.meshgrid:
            options.setdefault('device', 'cpu')
        return func(*args, **options)


@contextmanager
def without_weights() -> Iterator[None]:
    """Tensors made inside have no storage, except the few whose values decide about a network's shape."""
    with torch.device('meta'), _ValuesOnCpu():
        yield
