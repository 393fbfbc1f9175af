"""Attention through all layers: rollout, gradient-weighted rollout and LeGrad, a tile of the weights at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.attention.calls import Call
from vistool.analyses.attention.watch import watching
from vistool.analyses.cam.engine import call as run
from vistool.capture import first_tensor, hooked, replace_tensor
from vistool.errors import InputError


def rollout(calls: Sequence[Call], start: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, «Quantifying attention flow in transformers», ACL 2020).

    The rows of Â_L … Â_1 with Â = (mean over heads of A + I) / 2, from the last layer to the first, without any
    N × N matrix.

    Args:
        calls: The layers in order, ``(B, H, N, N)`` each.
        start: ``(B, Q, N)``, the distribution over tokens that each row starts from.

    Returns:
        ``(B, Q, N)``; rows sum to 1 as those of ``start`` do.
    """
    rows = start.double()
    for call in reversed(calls):
        rows = (rows + _through(call, rows, lambda heads, part, weights: weights)) / 2
    return rows


def gradient_rollout(calls: Sequence[Call], gradients: Sequence[Tensor], start: Tensor) -> Tensor:
    """Gradient-weighted rollout (Chefer, Gur and Wolf, «Generic attention-model explainability», ICCV 2021).

    The rows of R, where R = I and then R += mean over heads of (A ⊙ ∂y/∂A)⁺ · R for every layer.

    Args:
        calls: The layers in order, with their values.
        gradients: ∂y/∂output of each, ``(B, H, N, dv)``; ∂y/∂A = ∂y/∂output · Vᵀ.
        start: ``(B, Q, N)``.

    Returns:
        ``(B, Q, N)``.
    """
    rows = start.double()
    for call, gradient in zip(reversed(calls), reversed(gradients), strict=True):
        assert call.value is not None
        value, own = call.value, gradient

        def weighted(heads: slice, part: slice, weights: Tensor, value: Tensor = value, own: Tensor = own) -> Tensor:
            return (own[:, heads, part].to(weights) @ value[:, heads].mT.to(weights)).mul_(weights).clamp_min_(0)

        rows = rows + _through(call, rows, weighted)
    return rows


def _through(call: Call, rows: Tensor, change: Callable[[slice, slice, Tensor], Tensor]) -> Tensor:
    """``rows`` times the mean over heads of the changed weights; tiles that no row starts from are left out."""
    result, room = torch.zeros_like(rows), call.room()
    for heads, part in call.tiles():
        own = rows[:, None, :, part]
        if own.any():
            weights = change(heads, part, call.part(part, heads, room))
            result += (own.to(weights.dtype) @ weights).sum(1)
    return result / call.shape[1]


def positive_gradients(call: Call, gradient: Tensor) -> Tensor:
    """The mean over heads and queries of (∂s/∂A)⁺, ``(B, N)``; streamed."""
    assert call.value is not None
    total = torch.zeros(call.shape[0], call.shape[3], dtype=torch.float64, device=gradient.device)
    for first in range(0, call.shape[2], call.step):
        part = gradient[:, :, first : first + call.step]
        total += (part @ call.value.mT.to(part)).clamp_min_(0).sum((1, 2)).double()
    return total / (call.shape[1] * call.shape[2])


@dataclass(frozen=True)
class Blocks:
    """The residual blocks around attention operations.

    Attributes:
        names: One dotted name per operation.
        modules: The modules of that name.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]


def block_of(call: Call) -> tuple[str, nn.Module] | None:
    """The outermost numbered module around an operation that runs no other before it."""
    for frame in call.frames[1:]:
        if re.search(r'\d$', frame.name) and not frame.attended:
            return frame.name, frame.module
    return None


@contextmanager
def averaged_tokens(blocks: Blocks) -> Iterator[None]:
    """Makes the tail of the network score every block's average token, all blocks in one batch.

    Each block's tokens are cut off from the next block. In place of the last one's come, for every block, its average
    token at every place, blocks stacked along the batch: whatever norm, pooling and head follow, they see only that.
    """
    kept: list[Tensor] = []
    last = blocks.names[-1]

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        tokens = first_tensor(output)
        if tokens is None or tokens.ndim != 3 or (kept and tokens.shape[1:] != kept[0].shape[1:]):
            raise InputError(
                f'LeGrad scores the average token of every block, and {name} gives no tokens like the others',
                accepted='raw, rollout',
                argument='--method',
            )
        kept.append(tokens.mean(1, keepdim=True).expand_as(tokens))
        return replace_tensor(output, tokens, torch.cat(kept) if name == last else tokens.detach())

    with hooked(dict(zip(blocks.names, blocks.modules, strict=True)), keep):
        yield
    kept.clear()


def legrad(
    module: nn.Module, inputs: Any, batch: int, blocks: Blocks, wanted: Sequence[int], score: Callable[[Any], Tensor]
) -> Callable[[Tensor], Tensor]:
    """LeGrad (Bousselham et al., «LeGrad: an explainability method for vision transformers», ICCV 2025).

    s_l = head(norm(average token of block l)) for the class; E_l = mean over heads and queries of (∂s_l/∂A_l)⁺; the map
    is their mean over the layers ``wanted``. ``score`` makes class scores ``(L · B, C)`` of the network's output.

    Returns:
        A function of a class column: ``(classes (B,)) → (B, N)``.
    """
    calls: list[Call] = []
    with (
        averaged_tokens(blocks),
        watching(module, batch, lambda call: calls.append(call.compact(values=True)), leaves='all'),
    ):
        try:
            scores = score(run(module, inputs)).unflatten(0, (len(blocks.names), batch))
        except RuntimeError as error:
            raise InputError(
                f'the head of this network cannot score average tokens ({" ".join(str(error).split())[:120]})',
                accepted='raw, rollout, grad-rollout',
                argument='--method',
            ) from error
    chosen = [calls[index] for index in wanted]

    def explain(classes: Tensor) -> Tensor:
        objective = scores.gather(2, classes.expand(len(scores), -1)[..., None]).sum()
        gradients = torch.autograd.grad(objective, [call.own for call in chosen], retain_graph=True)
        with torch.no_grad():
            maps = [positive_gradients(c, c.grouped(g)) for c, g in zip(chosen, gradients, strict=True)]
            return torch.stack(maps).mean(0)

    return explain
