"""Architectures drawn at random from timm, torchvision, mmpretrain and transformers, with weights that all take part.

A draw picks a library, then a family in it, then a network of the family, so that common families are not drawn again
and again. Everything is built offline; networks of transformers get small random configs.
"""

from __future__ import annotations

import contextlib
import io
import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Size: TypeAlias = tuple[int, int]

MOST_PARAMETERS = 60_000_000
SIZES: tuple[Size, ...] = ((128, 160), (160, 128), (112, 168), (128, 128), (224, 224), (256, 256))
"""Input sizes ``(H, W)`` in the order of preference: small and not square first."""
MOST_PIXELS = 320 * 320
SHARES = {'timm': 40, 'mmpretrain': 22, 'transformers': 24, 'torchvision': 14}
"""How often each library is drawn, in percent."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built.

    Attributes:
        library: Where it is from.
        family: Networks of one family are variants of each other.
        name: Its name in the library.
        build: Makes it for an input size, with random weights; raises if it cannot be built for that size.
        sizes: Input sizes to try.
    """

    library: str
    family: str
    name: str
    build: Callable[[Size], nn.Module] = field(repr=False, compare=False)
    sizes: tuple[Size, ...] = SIZES

    def __str__(self) -> str:
        return f'{self.library}/{self.name}'


@dataclass(frozen=True)
class Network:
    """An architecture, built, with inputs that it takes.

    Attributes:
        architecture: What it is.
        module: The network in eval mode.
        images: ``(B, 3, H, W)``.
    """

    architecture: Architecture
    module: nn.Module
    images: Tensor


class Unfit(Exception):
    """An architecture is not tried; the message says why."""


def draw(seed: int, pattern: str = '') -> Iterator[Architecture]:
    """Architectures in random order, families of a library in turn; endless unless a pattern limits them.

    Args:
        seed: The same seed draws the same networks with the same installed packages.
        pattern: Only names (``library/name``) or families that contain this text.
    """
    generator = random.Random(seed)
    if pattern:
        yield from (each for each in every_architecture(seed) if pattern in str(each) or pattern == each.family)
        return
    queues = {library: _in_turn(generator, library, seed) for library in SHARES}
    while True:
        yield next(queues[generator.choices(list(SHARES), list(SHARES.values()))[0]])


def _in_turn(generator: random.Random, library: str, seed: int) -> Iterator[Architecture]:
    """Each family once in random order, then each once again."""
    while True:
        families = sorted(LIBRARIES[library]())
        generator.shuffle(families)
        for family in families:
            yield MAKERS[library](family, generator.choice(LIBRARIES[library]()[family]), seed)


def every_architecture(seed: int) -> Iterator[Architecture]:
    """All architectures of all libraries, those of transformers with one random config each."""
    for library, list_families in LIBRARIES.items():
        for family, names in sorted(list_families().items()):
            for name in names:
                yield MAKERS[library](family, name, seed)


def assemble(architecture: Architecture, seed: int, most: int = MOST_PARAMETERS, batch: int = 2) -> Network:
    """Builds an architecture for the first input size that it takes, with lively weights.

    Raises:
        Unfit: It is too large, or takes none of the sizes.
    """
    reasons: list[str] = []
    for size in architecture.sizes:
        if size[0] * size[1] > MOST_PIXELS:
            continue
        try:
            module = _built(architecture, size, seed, most)
        except Unfit:
            raise
        except Exception as error:  # whatever a library raises for a size that it does not take
            reasons.append(f'{type(error).__name__}: {error}')
            continue
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, *size, generator=generator)
        try:
            with torch.no_grad():
                measure_statistics(module, images)
                output = module(images)
        except Exception as error:
            reasons.append(f'{type(error).__name__}: {error}')
            continue
        numbers = [each for each in tree_leaves(output) if isinstance(each, Tensor) and each.is_floating_point()]
        if not all(bool(each.isfinite().all()) for each in numbers):
            raise Unfit('its output is not finite with random weights')
        return Network(architecture, module, images)
    raise Unfit(f'takes none of the sizes ({reasons[-1].splitlines()[0][:100] if reasons else "all are too large"})')


def _built(architecture: Architecture, size: Size, seed: int, most: int) -> nn.Module:
    with quiet():
        try:
            with torch.device('meta'):
                count = sum(parameter.numel() for parameter in architecture.build(size).parameters())
        except Exception:  # some constructors compute with values
            count = 0
        if count > most:
            raise Unfit(f'{count / 1e6:.0f} M parameters')
        torch.manual_seed(seed)
        module = architecture.build(size)
    count = sum(parameter.numel() for parameter in module.parameters())
    if count > most:
        raise Unfit(f'{count / 1e6:.0f} M parameters')
    module = module.float().eval() or module  # eval() of some networks of mmpretrain returns None
    enliven(module, seed)
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and the output of libraries."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter('ignore')
        yield


@torch.no_grad()
def enliven(module: nn.Module, seed: int) -> None:
    """Gives constant parameters and statistics random values: no head of zeros, no branch scaled to nothing.

    Fresh networks hold a lot of zeros and ones (heads, layer scales, last norms of residual branches, running means),
    behind which wrong maps look right.
    """
    generator = torch.Generator().manual_seed(seed)

    def random_like(tensor: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        if not bool((parameter == parameter.flatten()[0]).all()):
            if parameter.ndim > 1 and name.endswith('weight'):  # too small, and the score depends on nothing
                usual = 1 / math.sqrt(parameter[0].numel())
                parameter.mul_(max(1.0, usual / float(parameter.std())))
            continue
        if parameter.ndim < 2 or 'gamma' in name or 'scale' in name:
            low, high = (-0.1, 0.1) if name.endswith('bias') else (0.5, 1.5)
            parameter.copy_(random_like(parameter, low, high))
        else:
            spread = 1 / math.sqrt(parameter.shape[-1])
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._NormBase) and child.running_mean is not None:
            child.running_mean.copy_(random_like(child.running_mean, -0.2, 0.2))
            assert child.running_var is not None
            child.running_var.copy_(random_like(child.running_var, 0.5, 1.5))


@torch.no_grad()
def measure_statistics(module: nn.Module, images: Tensor) -> None:
    """Gives batch norms the statistics of ``images``, as training does; their spread of :func:`enliven` stays.

    With any others a small signal dies away behind the biases of a few norms, and no score depends on the image.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]

    def scaled(norm: nn.Module, args: Any) -> None:
        given = args[0]
        axes = [axis for axis in range(given.ndim) if axis != 1]
        if given.numel() == given.shape[1]:
            return
        assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
        spread = given.float().var(axes).clamp_min(1e-12)
        norm.running_mean.copy_(norm.running_mean * spread.sqrt() + given.float().mean(axes))
        norm.running_var.copy_(norm.running_var * spread)

    handles = [norm.register_forward_pre_hook(scaled) for norm in norms if norm.running_mean is not None]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()


# timm


@cache
def timm_families() -> dict[str, list[str]]:
    """The modules of timm with the networks in each."""
    import timm

    return {module: names for module in timm.list_modules() if (names := timm.list_models(module=module))}


def timm_architecture(family: str, name: str, seed: int) -> Architecture:
    """A network of timm, built for the input size where its constructor takes one."""
    import timm

    def build(size: Size) -> nn.Module:
        try:
            return timm.create_model(name, img_size=size)
        except TypeError:
            return timm.create_model(name)

    published = timm.get_pretrained_cfg(name)
    own = published.input_size[1:] if published is not None else (224, 224)
    return Architecture('timm', family, name, build, tuple(dict.fromkeys((*SIZES, tuple(own)))))


# torchvision


@cache
def torchvision_families() -> dict[str, list[str]]:
    """The modules of torchvision with the classifiers in each."""
    from torchvision import models

    families: dict[str, list[str]] = {}
    for name in models.list_models(module=models):
        families.setdefault(models.get_model_builder(name).__module__.rpartition('.')[2], []).append(name)
    return families


def torchvision_architecture(family: str, name: str, seed: int) -> Architecture:
    """A classifier of torchvision."""
    from torchvision import models

    def build(size: Size) -> nn.Module:
        options: dict[str, Any] = {'init_weights': False} if family in ('googlenet', 'inception') else {}
        if family == 'vision_transformer':
            options = {'image_size': size[0]}
        return models.get_model(name, weights=None, **options)

    return Architecture('torchvision', family, name, build)


# mmpretrain


@cache
def mmpretrain_families() -> dict[str, list[str]]:
    """The folders of configs that are installed with mmpretrain, with the configs in each."""
    import mmpretrain

    root = Path(mmpretrain.__file__).parent / '.mim' / 'configs'
    families: dict[str, list[str]] = {}
    for path in sorted(root.glob('*/*.py')):
        if path.parent.name != '_base_' and 'ImageClassifier' in _text_with_bases(path):
            families.setdefault(path.parent.name, []).append(str(path.relative_to(root)))
    return families


def _text_with_bases(path: Path) -> str:
    """The text of a config and of the configs that it names, which tells its model without executing it."""
    text = path.read_text()
    parts = text.split("'")[1::2]
    bases = [path.parent / part for part in parts if part.endswith('.py') and (path.parent / part).is_file()]
    return text + ''.join(_text_with_bases(base) for base in bases if base != path)


def mmpretrain_architecture(family: str, name: str, seed: int) -> Architecture:
    """The classifier of a config that is installed with mmpretrain."""
    import mmpretrain

    def build(size: Size) -> nn.Module:
        from mmengine.config import Config

        root = Path(mmpretrain.__file__).parent / '.mim' / 'configs'
        config = Config.fromfile(root / name)
        if config.model.type != 'ImageClassifier':
            raise Unfit(f'{config.model.type} is not a classifier')
        config.model.pop('pretrained', None)
        config.model.backbone.pop('init_cfg', None)
        return mmpretrain.get_model(config, pretrained=False)

    return Architecture('mmpretrain', family, name, build)


# transformers


def _heads(pick: random.Random) -> dict[str, Any]:
    heads = pick.choice([2, 3, 4])
    width = heads * pick.choice([8, 16])
    return {
        'hidden_size': width,
        'num_attention_heads': heads,
        'num_hidden_layers': pick.choice([2, 3, 4]),
        'intermediate_size': 2 * width,
    }


def _patched(pick: random.Random) -> dict[str, Any]:
    return {**_heads(pick), 'patch_size': pick.choice([8, 14, 16])}


def _staged(pick: random.Random, stages: int = 4) -> dict[str, Any]:
    width = pick.choice([8, 12])
    return {
        'embed_dim': width,
        'depths': [pick.choice([1, 2]) for _ in range(stages)],
        'num_heads': [2**n for n in range(stages)] if width == 8 else [1, 2, 3, 6][:stages],
    }


def _widths(pick: random.Random) -> dict[str, Any]:
    return {'hidden_sizes': [8, 16, 24, 32], 'depths': [pick.choice([1, 2]) for _ in range(4)]}


Options: TypeAlias = Callable[[random.Random], dict[str, Any]]
"""Makes the options of a small config."""


def _swin(pick: random.Random) -> dict[str, Any]:
    return {**_staged(pick), 'window_size': pick.choice([4, 7, 8]), 'patch_size': pick.choice([2, 4])}


def _segformer(pick: random.Random) -> dict[str, Any]:
    return {
        'hidden_sizes': [8, 16, 24, 32],
        'depths': [pick.choice([1, 2]) for _ in range(4)],
        'num_attention_heads': [1, 2, 3, 4],
        'decoder_hidden_size': 16,
    }


def _hiera(pick: random.Random) -> dict[str, Any]:
    return {'embed_dim': 16, 'num_heads': [1, 2, 4, 8], 'depths': [pick.choice([1, 2]), 2, pick.choice([2, 3]), 1]}


def _vision_tower(pick: random.Random) -> dict[str, Any]:
    return {'vision_config': _patched(pick)}


HUGGINGFACE: dict[str, tuple[str, Options, bool]] = {
    # family: (the model's class, options of its config, whether image_size may be a pair)
    'ViT': ('ViTForImageClassification', _patched, True),
    'DeiT': ('DeiTForImageClassification', _patched, True),
    'DeiTWithTeacher': ('DeiTForImageClassificationWithTeacher', _patched, True),
    'ViTMSN': ('ViTMSNForImageClassification', _patched, True),
    'BEiT': ('BeitForImageClassification', lambda pick: {**_patched(pick), 'use_relative_position_bias': True}, True),
    'Data2Vec': ('Data2VecVisionForImageClassification', _patched, True),
    'Dinov2': ('Dinov2ForImageClassification', _patched, True),
    'Dinov2WithRegisters': ('Dinov2WithRegistersForImageClassification', _patched, True),
    'IJepa': ('IJepaForImageClassification', _patched, True),
    'CLIP': ('CLIPForImageClassification', _vision_tower, False),
    'SigLIP': ('SiglipForImageClassification', _vision_tower, False),
    'Swin': ('SwinForImageClassification', _swin, True),
    'Swinv2': ('Swinv2ForImageClassification', _swin, True),
    'DonutSwin': ('DonutSwinForImageClassification', _swin, True),
    'ConvNext': ('ConvNextForImageClassification', _widths, True),
    'ConvNextV2': ('ConvNextV2ForImageClassification', _widths, True),
    'ResNet': ('ResNetForImageClassification', lambda pick: {'embedding_size': 8, **_widths(pick)}, True),
    'RegNet': ('RegNetForImageClassification', lambda pick: {'groups_width': 4, **_widths(pick)}, True),
    'BiT': (
        'BitForImageClassification',
        lambda pick: {'embedding_size': 64, 'hidden_sizes': [64, 128, 128, 256], 'depths': [1, 1, 2, 1]},
        True,
    ),
    'VAN': ('VanForImageClassification', _widths, True),
    'PoolFormer': ('PoolFormerForImageClassification', lambda pick: {'hidden_sizes': [8, 16, 24, 32]}, True),
    'FocalNet': ('FocalNetForImageClassification', lambda pick: {'embed_dim': 12, 'depths': [1, 2, 1, 1]}, True),
    'SegFormer': ('SegformerForImageClassification', _segformer, True),
    'PVT': ('PvtForImageClassification', _segformer, False),
    'PVTv2': ('PvtV2ForImageClassification', _segformer, True),
    'Hiera': ('HieraForImageClassification', _hiera, True),
    'LeViT': ('LevitForImageClassification', lambda pick: {'hidden_sizes': [16, 32, 48], 'depths': [2, 2, 2]}, False),
    'MobileViT': ('MobileViTForImageClassification', lambda pick: {}, True),
    'MobileViTV2': ('MobileViTV2ForImageClassification', lambda pick: {'width_multiplier': 0.5}, True),
    'MobileNetV1': ('MobileNetV1ForImageClassification', lambda pick: {'depth_multiplier': 0.25}, True),
    'MobileNetV2': ('MobileNetV2ForImageClassification', lambda pick: {'depth_multiplier': 0.35}, True),
    'EfficientNet': (
        'EfficientNetForImageClassification',
        lambda pick: {'width_coefficient': 0.5, 'hidden_dim': 640},
        True,
    ),
    'EfficientFormer': ('EfficientFormerForImageClassification', lambda pick: {}, False),
    'SwiftFormer': ('SwiftFormerForImageClassification', lambda pick: {}, True),
    'CvT': (
        'CvtForImageClassification',
        lambda pick: {'embed_dim': [16, 32, 48], 'num_heads': [1, 2, 3], 'depth': [1, 1, 2]},
        True,
    ),
    'TextNet': ('TextNetForImageClassification', lambda pick: {}, True),
    'HGNetV2': ('HGNetV2ForImageClassification', lambda pick: {}, True),
    'CLIPVision': ('CLIPVisionModel', _patched, False),
    'SiglipVision': ('SiglipVisionModel', _patched, False),
    'Dinov2Backbone': ('Dinov2Model', _patched, True),
    'DINOv3': ('DINOv3ViTModel', _patched, True),
    'DINOv3ConvNext': ('DINOv3ConvNextModel', _widths, True),
}
"""Small networks of transformers."""


def huggingface_families() -> dict[str, list[str]]:
    """Each network of :data:`HUGGINGFACE` is a family."""
    return {family: [kind] for family, (kind, _, _) in HUGGINGFACE.items()}


def huggingface_architecture(family: str, name: str, seed: int) -> Architecture:
    """A network of transformers with a small random config."""
    _, options, pairs = HUGGINGFACE[family]

    def build(size: Size) -> nn.Module:
        import transformers

        chosen = options(random.Random(seed))
        kind = getattr(transformers, name)
        patch = chosen.get('vision_config', chosen).get('patch_size')
        if isinstance(patch, int) and (size[0] % patch or size[1] % patch):
            raise ValueError(f'patches of {patch} do not fill {size}')
        if not pairs and size[0] != size[1]:
            raise ValueError('square images only')
        image: Any = size if pairs and size[0] != size[1] else size[0]
        if 'vision_config' in chosen:
            chosen['vision_config'] = {**chosen['vision_config'], 'image_size': image}
        elif hasattr(kind.config_class(), 'image_size'):
            chosen['image_size'] = image
        head = {'num_labels': 7} if 'Classification' in name else {}
        try:
            return kind(kind.config_class(**chosen, **head))
        except TypeError:  # this config takes a number; the network may still take other sizes
            return kind(kind.config_class(**{**chosen, 'image_size': size[0]}, **head))

    return Architecture('transformers', family, name, build)


Maker: TypeAlias = Callable[[str, str, int], Architecture]

LIBRARIES: dict[str, Callable[[], dict[str, list[str]]]] = {
    'timm': timm_families,
    'mmpretrain': mmpretrain_families,
    'transformers': huggingface_families,
    'torchvision': torchvision_families,
}
MAKERS: dict[str, Maker] = {
    'timm': timm_architecture,
    'mmpretrain': mmpretrain_architecture,
    'transformers': huggingface_architecture,
    'torchvision': torchvision_architecture,
}
