"""Following tokens into windows: the block is run on random tokens, and each is recognised by its bits."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vistool.analyses.attention.calls import Frame
from vistool.tokens import Layout

_ATTENTION = {F.scaled_dot_product_attention, F.softmax, torch.softmax, Tensor.softmax, F.multi_head_attention_forward}


def table_of(probe: Probe, inside: int, tokens: int) -> Tensor | None:
    """Which of the block's tokens each token in a window is, ``(inside,)``."""
    for windowed in probe.inside:
        if windowed.numel() // windowed.shape[-1] == inside:
            for source in probe.sources:
                table = _recognise(windowed.reshape(inside, -1), source.reshape(tokens, -1))
                if table is not None:
                    return table
    return None


class _Stop(Exception):
    """Ends a probe where the attention begins."""


class Probe(TorchFunctionMode):
    """Keeps what goes into Linear and LayerNorm, and whatever is laid out like the block's input, latest first.

    Attributes:
        inside: Inputs of such layers, channels last.
        sources: Tensors of all the block's tokens, in order, channels last.
    """

    def __init__(self, tensor: Tensor, layout: Layout) -> None:
        super().__init__()
        batch, (h, w), channels = (
            tensor.shape[0],
            layout.grid,
            tensor.numel() // math.prod((tensor.shape[0], *layout.grid)),
        )
        self._last = {(batch, h, w, channels), (batch, h * w, channels)}
        self._first = (batch, channels, h, w)
        self._totals: set[int] = set()
        self.inside: list[Tensor] = []
        self.sources: list[Tensor] = []
        self.keep(tensor)

    def keep(self, tensor: Tensor) -> None:
        """Takes a tensor for a source if it has the shape of one, and is not an earlier one's tokens moved about."""
        if tuple(tensor.shape) == self._first:
            tensor = tensor.permute(0, 2, 3, 1)
        elif tuple(tensor.shape) not in self._last:
            return
        total = int(_fingerprints(tensor.reshape(-1, tensor.shape[-1])).sum())
        if total not in self._totals:
            self._totals.add(total)
            self.sources.insert(0, tensor)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _ATTENTION:
            raise _Stop
        output = func(*args, **(kwargs or {}))
        if func in (F.linear, F.layer_norm):  # a norm may come after the windows are cut
            self.inside.insert(0, args[0] if args else kwargs['input'])
        if isinstance(output, Tensor):
            self.keep(output)
        return output


def run_probe(frame: Frame, tensor: Tensor, layout: Layout) -> Probe:
    """Runs a module on random tokens in place of ``tensor``, up to its attention."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(tensor.shape, generator=generator).to(tensor)
    probe = Probe(tokens, layout)
    args = tuple(tokens if value is tensor else value for value in frame.args)
    kwargs = {name: tokens if value is tensor else value for name, value in frame.kwargs.items()}
    try:
        with torch.no_grad(), probe:
            frame.module(*args, **kwargs)
    except _Stop:
        pass
    return probe


def _recognise(inside: Tensor, source: Tensor) -> Tensor | None:
    """For each row of ``inside`` which row of ``source`` it is a copy of, -1 for none; None unless each occurs once."""
    if inside.shape[1] != source.shape[1]:
        return None
    marks, own = _fingerprints(inside), _fingerprints(source)
    ordered, order = own.sort()
    at = torch.searchsorted(ordered, marks).clamp_max(len(ordered) - 1)
    found = torch.where(ordered[at] == marks, order[at], -1)
    hits = found[found >= 0]
    return found.cpu() if len(hits) == len(own) == len(hits.unique()) else None


def _fingerprints(rows: Tensor) -> Tensor:
    """A number per row that depends on its bits alone: sums of integers do not depend on their order."""
    bits = rows.float().contiguous().view(torch.int32).to(torch.int64)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(1 << 30, (bits.shape[1],), generator=generator).to(bits.device)
    return (bits * weights).sum(1)
