"""Networks with random weights, from the head down: what training taught is destroyed, and put back untouched.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018. A random tensor is the trained one with its values in
random order: the scale of the activations stays, so the network still computes something, and what it learned is gone.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from vistool.network.inputs import run_network
from vistool.network.layers import named_layers
from vistool.network.tensors import NetworkInput

_LEARNED = re.compile(r'(running|moving)_(mean|var)')
"""Buffers that training changes: the statistics of batch normalization. Others hold indices, masks and constants."""
_INNER = ('block', 'blocks', 'layer', 'layers')
"""What stages call the blocks inside them: ``stages.2.blocks.5``."""
_TRIES = 8


@dataclass
class Block:
    """A part of a network: a numbered block with all that is inside it, or a layer outside any block.

    Attributes:
        name: Its dotted name; ``''`` for what the network itself holds.
        parameters: Name → parameter.
        buffers: Name → the module that holds the buffer, and its key there.
    """

    name: str
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    buffers: dict[str, tuple[nn.Module, str]] = field(default_factory=dict)


def find_blocks(module: nn.Module, inputs: NetworkInput) -> list[Block]:
    """All parameters, and all buffers that training changes, in blocks, from the head down.

    Blocks are in the order in which they start to run, reversed; what is never called (a class token, a module whose
    weights a function takes) belongs to the module around it.

    Args:
        module: The network, borrowed.
        inputs: Its input, of one image.
    """
    order = _order(module, inputs)
    owners: list[tuple[int, int, str, str, nn.Module]] = []
    for number, (name, child) in enumerate(named_layers(module)):
        if child._parameters or child._buffers:
            path = _called(name, order)
            owners.append((order.get(path, 0), number, name, _block_of(path), child))
    blocks: dict[str, Block] = {}
    seen: set[int] = set()
    for _, _, name, path, child in sorted(owners, key=lambda owner: owner[:2]):
        for key, parameter in child._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                blocks.setdefault(path, Block(path)).parameters[f'{name}.{key}'.lstrip('.')] = parameter
        for key, buffer in child._buffers.items():
            if buffer is not None and buffer.is_floating_point() and _LEARNED.match(key):
                blocks.setdefault(path, Block(path)).buffers[f'{name}.{key}'.lstrip('.')] = child, key
    return list(blocks.values())[::-1]


def _order(module: nn.Module, inputs: NetworkInput) -> dict[str, int]:
    """Module → its place in the order in which modules start to run."""
    order: dict[str, int] = {}

    def note(name: str, child: nn.Module, args: object) -> None:
        order.setdefault(name, len(order))

    handles = [child.register_forward_pre_hook(partial(note, name)) for name, child in named_layers(module)]
    try:
        with torch.no_grad():
            run_network(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _called(name: str, order: dict[str, int]) -> str:
    """The module itself, or the nearest one around it that is called."""
    while name and name not in order:
        name = name.rpartition('.')[0]
    return name


def _block_of(name: str) -> str:
    """``'backbone.layer4.2'`` of ``'backbone.layer4.2.conv1'``; a name without numbers stands for itself."""
    parts = name.split('.')
    end = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    after = parts[end + 1 : end + 3]
    if after and after[0].isdigit():
        end += 1
    elif len(after) == 2 and after[0] in _INNER and after[1].isdigit():
        end += 2
    return '.'.join(parts[: end + 1])


def grouped(blocks: Sequence[Block], most: int) -> list[list[Block]]:
    """Blocks in at most ``most`` groups of about equal length, the first block alone."""
    count = min(most, len(blocks))
    if count < 2:
        return [list(blocks)] if blocks else []
    ends = np.unique(np.linspace(1, len(blocks), count).round().astype(int)).tolist()
    return [list(blocks[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


@contextmanager
def randomized(blocks: Sequence[Block], seed: int) -> Iterator[None]:
    """Random values in place of the tensors of these blocks; the original tensors come back, bit for bit.

    Args:
        blocks: Which.
        seed: A block is made the same random values by a seed, whatever other blocks there are.
    """
    weights: list[tuple[nn.Parameter, Tensor]] = []
    buffers: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for block in blocks:
            for name, parameter in block.parameters.items():
                weights.append((parameter, parameter.data))
                parameter.data = shuffled(parameter.data, name, seed)
            for name, (child, key) in block.buffers.items():
                buffer = child._buffers[key]
                assert buffer is not None
                buffers.append((child, key, buffer))
                child._buffers[key] = shuffled(buffer, name, seed)
        yield
    finally:
        for parameter, kept in weights:
            parameter.data = kept
        for child, key, buffer in buffers:
            child._buffers[key] = buffer


def shuffled(tensor: Tensor, name: str, seed: int) -> Tensor:
    """A copy with its values in random order, by the seed and the tensor's name; never in the old order.

    A tensor whose values are all equal, as before any training, stays as it is.
    """
    flat = tensor.detach().flatten()
    generator = torch.Generator().manual_seed(zlib.crc32(f'{seed} {name}'.encode()))
    for _ in range(_TRIES):
        found = flat[torch.randperm(len(flat), generator=generator).to(flat.device)]
        if not torch.equal(found, flat):
            break
    return found.view(tensor.shape).clone()
