"""Recovers a DINOv2 backbone from an ONNX file. Needed once per machine; nothing else imports it.

The exporter kept the names of biases, norms and convolutions, but folded every Linear weight into an anonymous,
transposed initializer, and split the position embedding into its class token and its patch tokens. The names of the
nodes that read them still tell what they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError

if TYPE_CHECKING:
    from onnx import GraphProto
    from torch import Tensor

_BACKBONE = 'backbone.'
_OUTER = {
    'embeddings.cls_token': 'cls_token',
    'embeddings.position_embeddings': 'pos_embed',
    'embeddings.patch_embeddings.projection': 'patch_embed.projection',
    'layernorm': 'ln1',
}
_BLOCK = {
    'norm1': 'ln1',
    'norm2': 'ln2',
    'attention.output.dense': 'attn.proj',
    'layer_scale1.lambda1': 'attn.gamma1.weight',
    'layer_scale2.lambda1': 'ffn.gamma2.weight',
    'mlp.fc1': 'ffn.layers.0.0',
    'mlp.fc2': 'ffn.layers.1',
}
_QKV = ('query', 'key', 'value')


def read_dinov2(path: Path) -> dict[str, Tensor]:
    """Reads the backbone in an ONNX export of a DINOv2 model under mmpretrain's names.

    Args:
        path: The ONNX file; other parts of its graph (a decoder, say) are left out.

    Returns:
        A state dict for ``mmpretrain.models.VisionTransformer``, float32.

    Raises:
        InputError: ``onnx`` is missing, or the graph is not built as expected.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError('the DINOv2 weights need onnx', hint='pip install onnx', parameter='checkpoint') from error
    import torch

    weights = _named_weights(onnx.load(str(path)).graph)
    try:
        converted = _to_mmpretrain(weights)
    except KeyError as error:
        problem = f'{path} is not built as expected ({error.args[0]})'
        raise InputError(problem, hint='install another version of its package', parameter='checkpoint') from error
    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in converted.items()}


def _named_weights(graph: GraphProto) -> dict[str, NDArray[np.float32]]:
    """The backbone's tensors under the names they had in PyTorch."""
    from onnx import numpy_helper

    initializers = {tensor.name: tensor for tensor in graph.initializer}
    weights = {
        name.removeprefix(_BACKBONE): numpy_helper.to_array(tensor)
        for name, tensor in initializers.items()
        if name.startswith(_BACKBONE)
    }
    positions = {}
    for node in graph.node:
        anonymous = [name for name in node.input if name in initializers and name.startswith('onnx::')]
        owner = node.name.strip('/').replace('/', '.').rpartition('.')[0]
        if not anonymous or not owner.startswith(_BACKBONE):
            continue
        array = numpy_helper.to_array(initializers[anonymous[0]])
        if node.op_type == 'MatMul':
            weights[f'{owner.removeprefix(_BACKBONE)}.weight'] = array.T
        elif owner == f'{_BACKBONE}embeddings' and node.op_type in ('Concat', 'Reshape'):
            positions[node.op_type] = array  # the class token's is concatenated, the patches' are reshaped to a grid
    if positions.keys() == {'Concat', 'Reshape'}:
        weights['embeddings.position_embeddings'] = np.concatenate([positions['Concat'], positions['Reshape']], axis=1)
    return weights


def _to_mmpretrain(weights: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Renames the tensors, stacking q, k and v in that order.

    Raises:
        KeyError: A name is unknown, or a part is missing.
    """
    converted = {}
    for name, array in weights.items():
        block = re.fullmatch(r'encoder\.layer\.(\d+)\.(.+)', name)
        prefix, inner, table = (f'layers.{block[1]}.', block[2], _BLOCK) if block else ('', name, _OUTER)
        projection = re.fullmatch(r'attention\.attention\.(query|key|value)\.(weight|bias)', inner)
        if projection:
            parts = [weights[name.replace(f'.{projection[1]}.', f'.{which}.')] for which in _QKV]
            converted[f'{prefix}attn.qkv.{projection[2]}'] = np.concatenate(parts)
            continue
        stem, _, kind = inner.rpartition('.')
        converted[prefix + (table[inner] if inner in table else f'{table[stem]}.{kind}')] = array
    return {name: converted[name] for name in ('cls_token', 'pos_embed', *converted)}
