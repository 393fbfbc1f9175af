"""Layer names → modules, default layers, and suggestions for names that miss."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch import nn

from vistool.errors import InputError, close_matches, param

LayersGiven: TypeAlias = int | str | nn.Module | Sequence[int | str | nn.Module]
"""Layers as a user gives them: one or several, by number, by name, or as modules of the network."""

DEFAULT_LAYERS: dict[str, tuple[str, ...]] = {
    # Convolutional networks: the last map before pooling, after its last activation.
    'mmpretrain.ResNet': ('layer4',),
    'mmpretrain.HRFuseScales': ('final_layer',),
    'mmpretrain.MobileNetV2': ('conv2',),
    'mmpretrain.MobileNetV3': ('layer*',),
    'mmpretrain.EfficientNet': ('layers[-1]',),
    'mmpretrain.EfficientNetV2': ('layers[-1]',),
    'mmpretrain.RegNet': ('layer4',),
    'mmpretrain.RepVGG': ('stage_*',),
    'mmpretrain.VGG': ('features[-1]',),
    'mmpretrain.DenseNet': ('transitions[-1]',),
    'mmpretrain.ConvNeXt': ('stages[-1]',),
    'mmpretrain.PoolFormer': ('norm*',),
    'mmpretrain.MobileViT': ('conv_1x1_exp',),
    'torchvision.ResNet': ('layer4',),
    'torchvision.MobileNetV2': ('features[-1]',),
    'torchvision.MobileNetV3': ('features[-1]',),
    'torchvision.EfficientNet': ('features[-1]',),
    'torchvision.RegNet': ('trunk_output[-1]',),
    'torchvision.VGG': ('features[-1]',),
    'torchvision.DenseNet': ('features+relu',),
    'torchvision.ConvNeXt': ('features[-1]',),
    'torchvision.MaxVit': ('blocks[-1]',),
    'timm.ResNet': ('layer4',),
    'timm.HighResolutionNet': ('final_layer',),
    'timm.MobileNetV3': ('blocks[-1]',),
    'timm.EfficientNet': ('bn2',),
    'timm.RegNet': ('final_conv', 's4'),
    'timm.VGG': ('features[-1]',),
    'timm.DenseNet': ('features',),
    'timm.ConvNeXt': ('stages[-1]',),
    'timm.MaxxVit': ('norm', 'stages[-1]'),
    'transformers.ResNetModel': ('encoder.stages[-1]',),
    'transformers.RegNetModel': ('encoder.stages[-1]',),
    'transformers.ConvNextModel': ('encoder.stages[-1]',),
    'transformers.ConvNextV2Model': ('encoder.stages[-1]',),
    # Transformers that classify from a token: the norm before the last attention. After that, patch tokens no longer
    # reach the score. Those that average the patch tokens (/avg): the final norm, or the
    # last block where there is none.
    'mmpretrain.VisionTransformer': ('layers[-1].ln1',),
    'mmpretrain.VisionTransformer/avg': ('ln1', 'layers[-1]'),
    'mmpretrain.DeiT3': ('layers[-1].ln1#1',),  # it runs again before the last feed-forward layer
    'mmpretrain.DeiT3/avg': ('ln1', 'layers[-1]'),
    'mmpretrain.T2T_ViT': ('encoder[-1].ln1',),
    'mmpretrain.T2T_ViT/avg': ('encoder[-1]',),
    'mmpretrain.BEiTViT': ('layers[-1].ln1',),
    'mmpretrain.BEiTViT/avg': ('ln1', 'layers[-1]'),
    'mmpretrain.TNT': ('layers[-1].outer_block.norm_attn',),
    'torchvision.VisionTransformer': ('encoder.layers[-1].ln_1',),
    'timm.VisionTransformer': ('blocks[-1].norm1',),
    'timm.VisionTransformer/avg': ('norm', 'blocks[-1]'),
    'timm.Beit': ('blocks[-1].norm1',),
    'timm.Beit/avg': ('norm', 'blocks[-1]'),
    'timm.Eva': ('blocks[-1].norm1',),
    'timm.Eva/avg': ('norm', 'blocks[-1]'),
    'timm.TNT': ('blocks[-1].norm_out',),
    'transformers.ViTModel': ('layers[-1].layernorm_before', 'encoder.layer[-1].layernorm_before'),
    'transformers.DeiTModel': ('layers[-1].layernorm_before', 'encoder.layer[-1].layernorm_before'),
    'transformers.BeitModel': ('encoder.layer[-1].layernorm_before', 'layers[-1].layernorm_before'),
    'transformers.BeitModel/avg': ('encoder.layer[-1]', 'layers[-1]'),
    # Their class token attends to the patches only after these blocks.
    'mmpretrain.XCiT': ('xca_layers[-1]',),
    'timm.Xcit': ('blocks[-1]',),
    'timm.Cait': ('blocks[-1]',),
    # Transformers that average their tokens: the final norm, or the last stage where the norm comes after the average.
    'mmpretrain.SwinTransformer': ('norm*',),
    'mmpretrain.SwinTransformerV2': ('norm*',),
    'torchvision.SwinTransformer': ('norm',),
    'timm.SwinTransformer': ('norm',),
    'timm.SwinTransformerV2': ('norm',),
    'transformers.SwinModel': ('layernorm',),
    'transformers.Swinv2Model': ('layernorm',),
    'transformers.Dinov2Model': ('layernorm',),
    'transformers.Dinov2WithRegistersModel': ('layernorm',),
    'mmpretrain.MViT': ('norm*',),
    'mmpretrain.PCPVT': ('norm_after_stage*',),
    'mmpretrain.TinyViT': ('stages[-1]',),
    'timm.TinyVit': ('stages[-1]',),
    'mmpretrain.LeViT': ('stages[-1]',),
    'timm.Levit': ('stages[-1]',),
}
"""Package and class of a network → its default target layers, relative to it: the first that exists.

Classes are looked up along the MRO, as far as that stays inside the package: a class of another package is another
network, whatever its name. ``name*`` means the child with the highest number after that name. A pooling layer is
skipped, and an identity where there is another layer. ``KIND/avg`` takes precedence over ``KIND`` for a network whose
settings say that it averages its patch tokens.
"""

_PACKAGES = ('mmengine', 'mmpretrain', 'timm', 'torchvision', 'transformers', 'vistool')
"""Packages whose modules around a known network are known to leave its last map as it is."""


FUNCTIONS = ('relu',)
"""Functions whose output can be a layer: those after which a second call changes nothing."""


def find_layer(root: nn.Module, name: str) -> tuple[str, nn.Module]:
    """The module called ``name`` in dotted form, indices in brackets too (``backbone.layers[-1].ln1``).

    Two endings say which of its tensors is meant. ``features+relu`` is the output of the function ``F.relu`` that the
    network applies to what the module returns. ``encoder[aux][0]`` is a tensor inside the tuple or dict that the module
    returns. A bracket means a child where the module has one of that name or holds numbered layers.

    Returns:
        Its canonical name (dotted, indices made positive, then the endings) and the module.

    Raises:
        InputError: If there is none; close matches are listed.
    """
    stem, plus, ending = name.strip().partition('+')
    function, bracket, places = ending.partition('[')
    if plus and function not in FUNCTIONS:
        raise InputError(f'no layer {name!r}: no function {function!r} is watched', accepted=', '.join(FUNCTIONS))
    module, path, parts = unwrapped(root), '', _parts(stem)
    require_layers(module)
    while parts:
        child = _child(module, _word(parts[0]))
        if child is not None:
            key, module = child[0], unwrapped(child[1])
            path = f'{path}.{key}' if path else key
        elif parts[0] not in WRAPPED:  # names of a wrapped network hold those; the wrappers have been passed through
            break
        parts = parts[1:]
    numbered = isinstance(module, (nn.Sequential, nn.ModuleList))
    if parts and (plus or numbered or not path or not all(part.startswith('[') for part in parts)):
        raise _missing(root, name, module, path, _word(parts[0]))
    if not path:
        raise InputError(f'no layer {name!r}: the name is empty', hint=f'list all with {param("preview_model")}')
    inside = ''.join(f'[{_word(part)}]' for part in (*parts, *_parts(bracket + places)))
    return f'{path}{plus}{function}{inside}', module


def find_call(root: nn.Module, name: str) -> tuple[str, nn.Module]:
    """:func:`find_layer`, for names that may end in ``#2`` or ``#all`` (``@`` is the same).

    Returns:
        The layer's canonical name, with ``#`` and the call if there was one, and the module.

    Raises:
        InputError: If there is no such layer, or no such call.
    """
    stem, sign, call = re.fullmatch(r'(.*?)(?:([#@])([^#@]*))?', name.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    if sign and call != 'all' and not (re.fullmatch('[0-9]{1,9}', call) and int(call)):
        raise InputError(f'{name!r}: no call {call!r}', accepted='#1, #2, …, #all', parameter='layers')
    path, module = find_layer(root, stem)
    return (f'{path}#{call if call == "all" else int(call)}' if sign else path), module


def call_of(name: str) -> int | None:
    """The call in a canonical layer name, counted from 1; None if it does not say."""
    found = re.search(r'#(\d+)$', name)
    return int(found[1]) if found else None


def _missing(root: nn.Module, name: str, module: nn.Module, path: str, part: str) -> InputError:
    known = [full for full, _ in root.named_modules() if full]
    hint = close_matches(name.replace('[', '.').replace(']', ''), known)
    listing = f'list all with {param("preview_model")}'
    return InputError(
        f'no layer {name!r}: {path or type(root).__name__} has no {part!r}',
        accepted=_children(module),
        hint=f'{hint}; {listing}' if hint else listing,
    )


def module_path(name: str) -> str:
    """The dotted name of the module in a canonical layer name, without what says which of its tensors is meant."""
    return re.split(r'[+\[@#]', name, maxsplit=1)[0]


def function_of(name: str) -> str:
    """The function in a canonical layer name: ``'relu'`` of ``'features+relu'``, or ``''``."""
    return re.split(r'[\[@#]', name.partition('+')[2], maxsplit=1)[0]


def place_of(name: str) -> str:
    """Where the tensor is in what the layer returns: ``'[aux][0]'`` of ``'encoder[aux][0]'``, or ``''``."""
    return ''.join(re.findall(r'\[[^\]]*\]', name))


def words_for(layers: LayersGiven) -> list[str]:
    """Layers as users give them, for file names: words as they are, modules by their class."""
    given = [layers] if isinstance(layers, (int, Integral, str, nn.Module)) else layers
    return [type(layer).__name__ if isinstance(layer, nn.Module) else str(layer) for layer in given]


def layer_names(root: nn.Module, layers: str | nn.Module | Sequence[str | nn.Module]) -> list[str]:
    """Layers as users give them, one or several, by name or as modules of ``root``, as names.

    Raises:
        InputError: If a module is not part of ``root``.
    """
    given = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, (str, nn.Module)) else [layers]
    if not all(isinstance(layer, (str, nn.Module)) for layer in given):
        raise InputError(
            f'{layers!r} does not name layers',
            accepted='names of layers, or modules of the network',
            parameter='layers',
        )
    names = {}
    if any(isinstance(layer, nn.Module) for layer in given):
        names = {module: name for name, module in named_layers(root)}
    found = []
    for layer in given:
        if isinstance(layer, nn.Module):
            layer = unwrapped(layer)
            if not names.get(layer):
                raise InputError(
                    f'{type(layer).__name__} is not a layer of {type(root).__name__}',
                    accepted='names of layers, or modules of the network',
                    parameter='layers',
                )
            found.append(names[layer])
        else:
            found.append(layer)
    return found


def require_layers(root: nn.Module) -> None:
    """Raises an InputError for a network that calls functions only, so that there is nothing to name."""
    if next(root.children(), None) is None:
        raise InputError(
            f'{type(root).__name__} holds no modules: it calls functions only, so it has no layers to choose from',
            hint='write its steps as modules (nn.Conv2d for F.conv2d)',
            parameter='layers',
        )


def named_layers(root: nn.Module, prefix: str = '') -> Iterator[tuple[str, nn.Module]]:
    """The modules of ``root`` by name, itself first, without the wrappers that :func:`unwrapped` knows."""
    root = unwrapped(root)
    yield prefix, root
    for name, child in root.named_children():
        yield from named_layers(child, f'{prefix}.{name}' if prefix else name)


def default_layers(root: nn.Module) -> list[str]:
    """Names of the default target layers of ``root``, or ``[]`` if the table does not know its kind.

    The network itself has to be in the table, or be inside wrappers of the same packages. In a network of the user's
    own a known backbone may not be what the score comes from.
    """
    known = dict(named_layers(root))
    for prefix, module in known.items():
        found = [name for tail in _tails(module) if (name := _resolve(module, tail)) is not None]
        working = [name for name in found if not isinstance(find_call(module, name)[1], nn.Identity)]
        for name in (working or found)[:1]:
            return [f'{prefix}.{name}' if prefix else name] if _is_wrapped(known, prefix) else []
    return []


def package_of(module: nn.Module) -> str:
    """The package that a module's class is defined in; ``''`` where its forward was exchanged."""
    return '' if 'forward' in vars(module) else type(module).__module__.partition('.')[0]


def _is_wrapped(modules: Mapping[str, nn.Module], path: str) -> bool:
    """Whether all modules around the one at ``path`` are wrappers of known packages."""
    parts = path.split('.') if path else []
    return all(package_of(modules['.'.join(parts[:depth])]) in _PACKAGES for depth in range(len(parts)))


def _tails(module: nn.Module) -> Iterator[str]:
    kind: Any = type(module)  # mypy does not take classes for hashable
    for name in _class_names(kind, package_of(module)):
        if name in DEFAULT_LAYERS or f'{name}/avg' in DEFAULT_LAYERS:  # few modules are
            yield from DEFAULT_LAYERS.get(f'{name}/avg', ()) if _averages(module) else ()
            yield from DEFAULT_LAYERS.get(name, ())


@functools.lru_cache(1024)
def _class_names(kind: Any, package: str) -> list[str]:
    """A class and its bases as the table names them, as far as they are defined in a package."""
    return [f'{package}.{each.__name__}' for each in kind.__mro__ if each.__module__.partition('.')[0] == package]


def _averages(module: nn.Module) -> bool:
    """Whether a transformer averages its patch tokens, by the settings of mmpretrain, timm and Hugging Face.

    Gradients show a wrong answer: then another layer is searched for (:func:`~vistool.network.forward.better_layer`).
    """
    kind, pool = getattr(module, 'out_type', None), getattr(module, 'global_pool', None)
    config = getattr(module, 'config', None)
    return (
        kind in ('avg_featmap', 'featmap')
        or (isinstance(pool, str) and pool not in ('', 'token'))
        or bool(getattr(config, 'use_mean_pooling', False))
    )


def network_name(root: nn.Module) -> str:
    """The name of a network for messages: timm's, or the class of the network inside a wrapper."""
    inner = next(
        (part for name in ('model', 'backbone') if isinstance(part := getattr(root, name, None), nn.Module)), root
    )
    published = getattr(inner, 'pretrained_cfg', None) or {}
    return str(published.get('architecture') or type(inner).__name__)


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a normalization layer, by its type or its class name."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
    return isinstance(module, kinds) or bool(
        re.search(r'(Batch|Layer|Group|RMS|Instance)_?Norm', type(module).__name__)
    )


def _parts(name: str) -> list[str]:
    """``'a[-1].b'`` as ``['a', '[-1]', 'b']``."""
    return re.findall(r'\[[^\]]*\]|[^.\[\]]+', name.strip())


def _word(part: str) -> str:
    """What stands in brackets and quotes: ``'aux'`` of ``'["aux"]'``."""
    return part.strip('[] ').strip('"\'')


def _child(module: nn.Module, part: str) -> tuple[str, nn.Module] | None:
    children = dict(module.named_children())
    if part in children:
        return part, children[part]
    if part.endswith('*'):
        numbered = [name for name in children if re.fullmatch(re.escape(part[:-1]) + r'\d+', name)]
        last = max(numbered, key=lambda name: int(name[len(part) - 1 :]), default=None)
        return (last, children[last]) if last is not None else None
    if (
        re.fullmatch(r'-\d{1,9}', part)
        and isinstance(module, (nn.Sequential, nn.ModuleList))
        and int(part) >= -len(children)
    ):
        return list(children.items())[int(part)]
    return None


def _children(module: nn.Module, most: int = 12) -> str:
    names = [name for name, _ in module.named_children()]
    return ', '.join(names[:most]) + (f', … ({len(names)})' if len(names) > most else '') if names else ''


def _resolve(module: nn.Module, tail: str) -> str | None:
    try:
        name, layer = find_call(module, tail)
    except InputError:
        return None
    if isinstance(layer, nn.modules.pooling._MaxPoolNd):  # VGG ends with one, which only makes its map smaller
        siblings = [name for name, _ in module.get_submodule(name.rpartition('.')[0]).named_children()]
        return f'{name.rpartition(".")[0]}.{siblings[-2]}'.lstrip('.')
    return name


EVERY_CALL = 0


@dataclass(frozen=True)
class TargetLayer:
    """A layer whose output is asked for.

    Attributes:
        name: Its canonical dotted name, as shown to the user.
        module: The module.
        call: Which of its calls in one forward is meant, counted from 1; :data:`EVERY_CALL` for all of them, None for
            the one that :func:`~vistool.network.calls.choose_call` gives.
    """

    name: str
    module: nn.Module
    call: int | None = None


WRAPPED = frozenset({'_orig_mod', '_checkpoint_wrapped_module', 'module'})
"""What wrappers call the network inside them."""


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel``, ``torch.compile`` and checkpoint wrappers."""
    while True:
        kind: Any = type(module)  # mypy does not take classes for hashable
        for name in _wrapped_names(kind):
            if (inner := module._modules.get(name)) is not None:
                module = inner
                break
        else:
            return module


@functools.lru_cache(1024)
def _wrapped_names(kind: type) -> tuple[str, ...]:
    """What modules of a class would call the network inside them, if they are wrappers."""
    if issubclass(kind, torch.jit.ScriptModule):
        return ()  # its children are not Python's
    parallel = issubclass(kind, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return tuple(WRAPPED) if parallel else tuple(name for name in WRAPPED if name != 'module')


def layers_of(root: nn.Module) -> dict[str, nn.Module]:
    """The modules of a network by name, without those that compute its weights (``torch.nn.utils.parametrize``).

    What those return is as large as a weight: 3 × 3 for a convolution, which would pass for a small map.
    """
    return {name: module for name, module in root.named_modules() if '.parametrizations.' not in f'.{name}.'}


def find_target_layers(root: nn.Module, names: Sequence[str | nn.Module]) -> list[TargetLayer]:
    """The layers called ``names``; ``NAME#2`` means the second call in a forward, ``NAME#all`` each of them.

    A leading ``module.``, as in checkpoints of wrapped models, is understood. Modules of ``root`` may be given in place
    of names.

    Raises:
        InputError: If there is no such layer, or it is a container that is never called.
    """
    targets: dict[str, TargetLayer] = {}
    for given in layer_names(root, names):
        try:
            shown, module = find_call(root, given)
        except InputError as error:
            raise error.under('layers') from error
        path = shown.partition('#')[0]
        if getattr(module.forward, '__func__', None) is nn.Module.forward:  # which raises NotImplementedError
            children = ', '.join(f'{path}.{child}' for child, _ in list(module.named_children())[:6])
            raise InputError(
                f'{path!r} is a {type(module).__name__}, which only holds layers and is never called itself',
                accepted=children,
                parameter='layers',
            )
        every = shown.endswith('#all')
        targets[shown] = TargetLayer(path if every else shown, module, EVERY_CALL if every else call_of(shown))
    return list(targets.values())
