"""Names of vision transformers' tensors, as other projects publish them, into those of mmpretrain's VisionTransformer.

Understood are DINO's and timm's layout (``blocks.0.mlp.fc1``), DINOv2's with its blocks flat (``blocks.0``) or in
chunks (``blocks.0.0``), and the one of Hugging Face's ViT and DINOv2 (``encoder.layer.0.attention.attention.query``),
whose query, key and value are stacked.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from math import isqrt

import torch
from torch import Tensor, nn

TABLE = 'relative_position_bias_table'
_LOGGER = logging.getLogger('vistool')


def resize_bias_tables(weights: dict[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fits every bias table to the window of the model.

    Args:
        weights: The checkpoint under the model's names. A table is ``((2h-1)(2w-1), heads)`` for a square window, with
            three more rows at the end where there is a class token.
        parameters: The model's parameters by name.

    Returns:
        The weights with resized tables, without the index buffers that belonged to the old ones.
    """
    resized = dict(weights)
    for name, table in weights.items():
        target = parameters.get(name)
        if not name.endswith(TABLE) or target is None or table.ndim != 2 or table.shape[1] != target.shape[-1]:
            continue
        old, new = _grid(len(table)), _grid(len(target))
        if len(table) == len(target) or old is None or new is None or old[1] != new[1]:
            continue
        resized[name] = resize_table(table, (old[0], old[0]), (new[0], new[0]))
        resized.pop(name.replace(TABLE, 'relative_position_index'), None)
        _LOGGER.info('%s resized from %d to %d rows', name, len(table), len(target))
    return resized


def _grid(rows: int) -> tuple[int, int] | None:
    """Side of the square of offsets and the rows after it, or None where it is no square."""
    return next(
        ((isqrt(rows - extra), extra) for extra in (0, 3) if isqrt(rows - extra) ** 2 == rows - extra > 0), None
    )


def resize_table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table ``(h · w + extra, heads)`` over ``old`` offsets, vertical and horizontal, resized to ``new`` ones."""
    count = old[0] * old[1]
    offsets, extra = table[:count], table[count:]
    image = offsets.float().T.reshape(1, -1, *old)
    image = nn.functional.interpolate(image, size=new, mode='bicubic', align_corners=False)
    return torch.cat([image.flatten(2)[0].T.to(table.dtype), extra])


_TARGET = 'patch_embed.projection.weight'
_TIMM = 'patch_embed.proj.weight'
_HUGGING_FACE = 'embeddings.patch_embeddings.projection.weight'
_UNUSED = ('mask_token', 'embeddings.mask_token')

_BLOCK = {
    'norm1': 'ln1',
    'norm2': 'ln2',
    'attn.qkv': 'attn.qkv',
    'attn.proj': 'attn.proj',
    'mlp.fc1': 'ffn.layers.0.0',
    'mlp.fc2': 'ffn.layers.1',
    'mlp.w12': 'ffn.w12',
    'mlp.w3': 'ffn.w3',
    'ls1.gamma': 'attn.gamma1.weight',
    'ls2.gamma': 'ffn.gamma2.weight',
}
_HUGGING_FACE_BLOCK = {
    'layernorm_before': 'ln1',
    'layernorm_after': 'ln2',
    'norm1': 'ln1',
    'norm2': 'ln2',
    'attention.output.dense': 'attn.proj',
    'intermediate.dense': 'ffn.layers.0.0',
    'output.dense': 'ffn.layers.1',
    'attention.o_proj': 'attn.proj',
    'mlp.fc1': 'ffn.layers.0.0',
    'mlp.fc2': 'ffn.layers.1',
    'layer_scale1.lambda1': 'attn.gamma1.weight',
    'layer_scale2.lambda1': 'ffn.gamma2.weight',
}
_OUTSIDE = {
    'patch_embed.proj': 'patch_embed.projection',
    'norm': 'ln1',
    'embeddings.cls_token': 'cls_token',
    'embeddings.position_embeddings': 'pos_embed',
    'embeddings.patch_embeddings.projection': 'patch_embed.projection',
    'layernorm': 'ln1',
}
_PARTS = {
    f'attention.{inner}': place
    for names in (('attention.query', 'attention.key', 'attention.value'), ('q_proj', 'k_proj', 'v_proj'))
    for place, inner in enumerate(names)
}


def convert_vision_transformer(
    weights: Mapping[str, Tensor], expected: Iterable[str]
) -> tuple[str, dict[str, Tensor]] | None:
    """Renames a checkpoint's tensors for mmpretrain's VisionTransformer.

    Args:
        weights: Tensors by their published names.
        expected: Names of the model's parameters.

    Returns:
        What layout it was, and the tensors by the model's names; None where model or checkpoint is nothing of the kind.
        Tensors that have no counterpart keep their names.
    """
    expected = set(expected)
    target = next((name.removesuffix(_TARGET) for name in expected if name.endswith(_TARGET)), None)
    found = next(
        (
            (layout, name.removesuffix(layout))
            for name in weights
            for layout in (_TIMM, _HUGGING_FACE)
            if name.endswith(layout)
        ),
        None,
    )
    if target is None or found is None:
        return None
    layout, prefix = found
    chunked = layout == _TIMM and any(re.search(r'blocks\.\d+\.\d+\.', name) for name in weights)
    converted: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, value in weights.items():
        own = name.removeprefix(prefix)
        stack = _stacked(own)
        if stack is not None:
            stacks.setdefault(target + stack[0], {})[stack[1]] = value
        elif own not in _UNUSED:
            renamed = _renamed(own, chunked)
            converted[_head(name, own, expected) or (name if renamed is None else target + renamed)] = value
    for name, parts in stacks.items():
        if len(parts) == 3:
            converted[name] = torch.cat([parts[place] for place in range(3)])
    kind = 'Hugging Face' if layout == _HUGGING_FACE else 'DINOv2 (blocks in chunks)' if chunked else 'timm and DINO'
    return f'the layout of {kind} converted', converted


def _head(name: str, own: str, expected: set[str]) -> str | None:
    """The model's name for the classifier's tensors, which lie outside the backbone's prefix."""
    match = re.fullmatch(r'(?:head|classifier)\.(weight|bias)', own) or re.fullmatch(r'classifier\.(weight|bias)', name)
    renamed = f'head.layers.head.{match[1]}' if match else ''
    return renamed if renamed in expected else None


def _stacked(name: str) -> tuple[str, int] | None:
    """For a query, key or value of its own: the name of the stack, and the place in it."""
    match = re.fullmatch(r'(?:encoder\.)?layers?\.(\d+)\.(.+)\.(weight|bias)', name)
    if match and match[2] in _PARTS:
        return f'layers.{match[1]}.attn.qkv.{match[3]}', _PARTS[match[2]]
    return None


def _renamed(name: str, chunked: bool) -> str | None:
    if match := re.fullmatch(r'blocks\.\d+\.(\d+)\.(.+)' if chunked else r'blocks\.(\d+)\.(.+)', name):
        return _in_block(match[1], match[2], _BLOCK)
    if match := re.fullmatch(r'(?:encoder\.)?layers?\.(\d+)\.(.+)', name):
        return _in_block(match[1], match[2], _HUGGING_FACE_BLOCK)
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    stem, _, kind = name.rpartition('.')
    if stem in _OUTSIDE and kind in ('weight', 'bias'):
        return f'{_OUTSIDE[stem]}.{kind}'
    return name if name in ('cls_token', 'pos_embed') else None


def _in_block(number: str, inner: str, table: Mapping[str, str]) -> str | None:
    if inner in table:
        return f'layers.{number}.{table[inner]}'
    stem, _, kind = inner.rpartition('.')
    return f'layers.{number}.{table[stem]}.{kind}' if stem in table else None
