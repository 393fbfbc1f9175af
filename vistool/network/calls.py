"""Which call of a layer is meant that runs several times in one forward: one rule for every analysis."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import nn

from vistool.data.inputs import drawn_of
from vistool.errors import param
from vistool.network.capture import remembered
from vistool.network.layer_search import searched
from vistool.network.layers import module_path, unwrapped
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.positions import positions
from vistool.network.tensors import NetworkInput, rows, tensors

log = logging.getLogger('vistool')


def choose_call(
    root: nn.Module, name: str, layer: nn.Module, inputs: NetworkInput, calls: int, read: ScoreReader = BY_PLACE
) -> int:
    """The call of a layer that is explained and drawn, counted from 0.

    The rule: the last call through whose map the score depends on the image on which maps are drawn; where there is
    none, the last whose output changes with that image. A siamese network calls its backbone once for each image, and
    only one of these calls sees the image that is drawn. DeiT3 of mmpretrain normalizes by ``ln1`` before its last
    attention, then again before its last feed-forward layer, where patch tokens no longer reach the score.

    The first comes from the forward of the layer search, the second from that of the token order; both run once for a
    network and input size. The choice is logged in one line, and so is a layer that does not depend on the drawn image
    at all.

    Args:
        root: The network.
        name: The layer.
        layer: Its module.
        inputs: A batch.
        calls: How many times it runs.
        read: Finds the scores in what the network returns.
    """
    if calls < 2 and sum(tensor.ndim == 4 for tensor in tensors(inputs)) < 2:
        return 0
    one = rows(inputs, 0, 1)
    key = tuple(tuple(tensor.shape) for tensor in tensors(one)), drawn_of(one), calls
    return remembered(root, f'call of {name} by {read.key}', key, lambda: _choose(root, name, layer, one, calls, read))


def _choose(root: nn.Module, name: str, layer: nn.Module, one: NetworkInput, count: int, read: ScoreReader) -> int:
    own = {module: path for path, module in unwrapped(root).named_modules()}.get(layer, module_path(name))
    used = _true(searched(root, one, read).calls.get(own, ()))
    dependent = [] if used else _true(positions(root, one).changes(layer))
    chosen = [index for index in used or dependent or [count - 1] if index < count][-1]
    drawn = drawn_of(one)
    image = 'the image' if drawn is None else f'input {drawn!r}'
    if not used and not dependent and not positions(root, one).problem:
        text = f'layer {name} does not depend on {image}, on which maps are drawn'
        remembered(root, f'warning of {name}', text, lambda: log.warning(text))
    if count > 1:
        why = 'through which the score depends on it' if used else 'that depends on it' if dependent else 'of all'
        choice = f'layer {name} runs {count} times: call #{chosen + 1} is drawn on {image} (the last {why})'
        choice += f'; choose another with {param("layers", f"{name}#1")}'
        remembered(root, f'choice of {name}', choice, lambda: log.info(choice))
    return chosen


def _true(flags: Sequence[bool]) -> list[int]:
    return [index for index, flag in enumerate(flags) if flag]
