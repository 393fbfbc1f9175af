"""Loads the weights of a checkpoint into a model, and reports in one line what did not fit.

A checkpoint is refused by the following rule, which counts parameter tensors and ignores buffers. A *part* is a child
of the model below the wrappers around everything (``backbone``, ``head``; ``layer1`` … ``fc`` for a flat model). A
checkpoint fits if

- at least a tenth of the model's parameters are loaded,
- no more parameters differ in shape than are loaded, and
- in the parts that got anything at all, at least 70 % of the model's parameters are loaded, and at least 70 % of the
  checkpoint's are used.

So whole parts may be missing, new or of another shape: a backbone without its head, another number of classes, a
detector around a backbone. But a part must not be a mixture, as when ResNet-50 is given the weights of ResNet-101,
which agree with it in many names and shapes.

Vision transformers are published under several layouts of names. Those are converted to mmpretrain's: DINO's and timm's
(``blocks.0.mlp.fc1``), DINOv2's with its blocks flat (``blocks.0``) or in chunks (``blocks.0.0``), and that of Hugging
Face's ViT and DINOv2 (``encoder.layer.0.attention.attention.query``), whose query, key and value are stacked. So is
torchvision's layout of MobileNetV2 (``features.3.conv.1.0``).
"""

from __future__ import annotations

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vistool.errors import InputError, message_of

if TYPE_CHECKING:
    from vistool.models.checkpoints.reading import Checkpoint

log = logging.getLogger('vistool')

TABLE = 'relative_position_bias_table'


def resize_bias_tables(weights: dict[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Resizes every bias table to the window of the model.

    Args:
        weights: The checkpoint with the model's names. A table is ``((2h-1)(2w-1), heads)`` for a square window, with
            three more rows at the end if there is a class token.
        parameters: The model's parameters by name.

    Returns:
        The weights with resized tables, without the index buffers of the old ones.
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
        log.info('%s resized from %d to %d rows', name, len(table), len(target))
    return resized


def _grid(rows: int) -> tuple[int, int] | None:
    """Side of the square of offsets and the number of rows after it; None if it is not a square."""
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
        The name of the layout, and the tensors by the model's names; None if the model or the checkpoint is of another
        kind. Tensors without a counterpart keep their names.
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
    return f'converting the layout of {kind}', converted


def _head(name: str, own: str, expected: set[str]) -> str | None:
    """The model's name for the classifier's tensors, which are outside the backbone's prefix."""
    match = re.fullmatch(r'(?:head|classifier)\.(weight|bias)', own) or re.fullmatch(r'classifier\.(weight|bias)', name)
    renamed = f'head.layers.head.{match[1]}' if match else ''
    return renamed if renamed in expected else None


def _stacked(name: str) -> tuple[str, int] | None:
    """For a separate query, key or value: the name of the stacked tensor, and the position in it."""
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


_MOBILENET_V2_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
_MOBILENET_V2_FIRST = 'backbone.layer1.0.conv.0.conv.weight'


def convert_mobilenet_v2(
    weights: Mapping[str, Tensor], expected: Iterable[str]
) -> tuple[str, dict[str, Tensor]] | None:
    """Renames a checkpoint of torchvision's MobileNetV2 for mmpretrain's classifier.

    Args:
        weights: Tensors by torchvision's names.
        expected: Names of the model's parameters.

    Returns:
        The name of the layout, and the tensors by the model's names; None if the model or the checkpoint is of another
        kind.
    """
    expected = set(expected)
    target = next(
        (name.removesuffix(_MOBILENET_V2_FIRST) for name in expected if name.endswith(_MOBILENET_V2_FIRST)), None
    )
    first = 'features.1.conv.0.0.weight'
    prefix = next((name.removesuffix(first) for name in weights if name.endswith(first)), None)
    if target is None or prefix is None:
        return None
    renamed = {target + _in_mobilenet_v2(name.removeprefix(prefix)): value for name, value in weights.items()}
    return "converting torchvision's layout", renamed


def _in_mobilenet_v2(name: str) -> str:
    """A tensor's name in mmpretrain, which counts blocks within stages and pairs each convolution with its norm.

    >>> _in_mobilenet_v2('features.3.conv.2.weight')
    'backbone.layer2.1.conv.2.conv.weight'
    """
    if match := re.fullmatch(r'classifier\.1\.(\w+)', name):
        return f'head.fc.{match[1]}'
    match = re.fullmatch(r'features\.(\d+)\.(?:conv\.)?(\d)(?:\.(\d))?\.(\w+)', name)
    stages = [f'layer{stage}.{block}' for stage, depth in enumerate(_MOBILENET_V2_DEPTHS, 1) for block in range(depth)]
    if match is None or int(match[1]) > len(stages) + 1:
        return name
    block, first, second, kind = int(match[1]), int(match[2]), match[3], match[4]
    if block in (0, len(stages) + 1):
        return f'backbone.conv{1 if block == 0 else 2}.{"bn" if first else "conv"}.{kind}'
    if second is not None:
        return f'backbone.{stages[block - 1]}.conv.{first}.{"bn" if int(second) else "conv"}.{kind}'
    last = 1 if block == 1 else 2  # the last convolution and its norm lie side by side in torchvision's block
    return f'backbone.{stages[block - 1]}.conv.{last}.{"bn" if first > last else "conv"}.{kind}'


class Mismatch(NamedTuple):
    """A tensor of both checkpoint and model, with its shape in each."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """The result of loading a checkpoint into a model. Names are the model's where it has the tensor.

    Attributes:
        missing: Tensors that only the model has; they keep their initial values.
        unexpected: Tensors that only the checkpoint has, by its names; they are not used.
        mismatched: Tensors whose shapes differ; they are not used.
        loaded: Tensors that were loaded.
        renamed: What made the checkpoint's names match, such as ``"removing the prefix 'backbone.'"``; or ``''``.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    loaded: tuple[str, ...] = ()
    renamed: str = ''

    def __str__(self) -> str:
        """One line for the user; ``''`` if everything fits."""
        parts = []
        if self.missing:
            parts.append(f'missing in the checkpoint, so left as initialized: {summarize(self.missing)}')
        if self.mismatched:
            shown = [f'{name} ({_size(found)}, not {_size(wanted)})' for name, found, wanted in self.mismatched[:3]]
            more = f', … {len(self.mismatched) - 3} more' if len(self.mismatched) > 3 else ''
            parts.append(f'different in shape from the model, so not loaded: {", ".join(shown)}{more}')
        if self.unexpected:
            parts.append(f'not in the model, so not used: {summarize(self.unexpected)}')
        return '; '.join(parts)


def summarize(names: Iterable[str], most: int = 6) -> str:
    """Names in groups with their counts: ``'backbone.layer4.* (12), head.fc.bias'``."""
    names = list(names)
    groups: dict[str, list[str]] = {}
    for depth in (3, 2, 1):
        groups = {}
        for name in names:
            groups.setdefault('.'.join(name.split('.')[:depth]), []).append(name)
        if len(groups) <= most:
            break
    items = list(groups.items())
    shown = [members[0] if len(members) == 1 else f'{group}.* ({len(members)})' for group, members in items[:most]]
    rest = sum(len(members) for _, members in items[most:])
    return ', '.join(shown) + (f', … {rest} more' if rest else '')


def _size(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape)) or 'scalar'


_PREFIXES = ('backbone.', 'encoder.', 'model.', 'module.')
# Buffers that a model computes itself; they are not reported.
_DERIVED = ('num_batches_tracked', 'relative_position_index', 'relative_coords_table', 'attn_mask')
_LEAST_OF_MODEL = 0.1
_LEAST_OF_PART = 0.7
_HINT = 'check that config and checkpoint belong together'


@dataclass
class _Match:
    """One way to match a checkpoint to a model: which tensor goes where. :meth:`copy` then copies the tensors."""

    renamed: str = ''
    copies: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    mismatched: dict[str, Mismatch] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def copy(self) -> LoadReport:
        with torch.no_grad():
            for target, value in self.copies.values():
                target.copy_(value)
        return LoadReport(
            missing=tuple(self.missing),
            unexpected=tuple(self.unexpected),
            mismatched=tuple(self.mismatched.values()),
            loaded=tuple(self.copies),
            renamed=self.renamed,
        )


def load_weights(module: nn.Module, checkpoint: Checkpoint) -> LoadReport:
    """Loads a checkpoint into a model, in place.

    The modules' own loading hooks run (they rename keys, resize position embeddings and bias tables). Prefixes are
    removed or added if more names match that way. One warning reports what is missing, unexpected or different in
    shape. On an error the model is left unchanged.

    Args:
        module: The model; its parameters keep dtype and device.
        checkpoint: The weights.

    Returns:
        What was loaded and what was not; buffers that a model computes itself (BatchNorm's ``num_batches_tracked``,
        Swin's indices) are not reported.

    Raises:
        InputError: The checkpoint belongs to another architecture, by the rule at the top of this file.
    """
    parameters = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    match = _best_match(module, checkpoint, parameters)
    _refuse_misfit(module, parameters, match, checkpoint)
    try:
        report = match.copy()
    except RuntimeError as error:  # for example a sparse or quantized tensor
        problem = f'{checkpoint.source} holds tensors that cannot be copied into the model ({message_of(error)})'
        raise InputError(problem, hint=_HINT, parameter='checkpoint') from error
    if report.renamed:
        log.info('%s: keys matched after %s', checkpoint.source, report.renamed)
    if text := str(report):
        log.warning('%s: %s', checkpoint.source or 'checkpoint', text)
    return report


def mismatches(module: nn.Module, checkpoint: Checkpoint) -> list[Mismatch]:
    """The tensors that :func:`load_weights` would find in both with different shapes; loads nothing."""
    parameters = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    return list(_best_match(module, checkpoint, parameters).mismatched.values())


def _best_match(module: nn.Module, checkpoint: Checkpoint, parameters: list[str]) -> _Match:
    """The match that loads most. Other prefixes are tried only if the unchanged names load less than half."""
    best = _match(module, checkpoint, '', lambda name: name)
    if 2 * len(best.copies) >= len(parameters):
        return best
    for note, rename in _renamings(list(checkpoint.state_dict), parameters):
        match = _match(module, checkpoint, note, rename)
        if len(match.copies) > len(best.copies):
            best = match
    for convert in (convert_vision_transformer, convert_mobilenet_v2):
        converted = convert(checkpoint.state_dict, parameters) if 2 * len(best.copies) < len(parameters) else None
        if converted is not None:
            note, weights = converted
            match = _match(module, replace(checkpoint, state_dict=weights), note, lambda name: name)
            best = match if len(match.copies) > len(best.copies) else best
    return best


def _renamings(found: list[str], expected: list[str]) -> Iterator[tuple[str, Callable[[str], str]]]:
    removable = ['', *_prefixes(found)]
    addable = ['', *_prefixes(expected)]
    for old in removable:
        for new in addable:
            if old != new:
                notes = [f'removing the prefix {old!r}'] * bool(old) + [f'adding the prefix {new!r}'] * bool(new)
                yield ' and '.join(notes), _replacing(old, new)


def _prefixes(names: list[str]) -> list[str]:
    """Prefixes that may be those of a wrapper: the usual ones, and any, nested too, that most names begin with."""
    prefixes = dict.fromkeys(prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in names))
    shared, left = '', names
    while left:
        parts = Counter(name[len(shared) :].partition('.')[0] for name in left if '.' in name[len(shared) :])
        part, count = parts.most_common(1)[0] if parts else ('', 0)
        if 2 * count <= len(names):
            break
        shared = f'{shared}{part}.'
        left = [name for name in left if name.startswith(shared)]
        prefixes[shared] = None
    return list(prefixes)


def _replacing(old: str, new: str) -> Callable[[str], str]:
    return lambda name: new + name.removeprefix(old) if name.startswith(old) else name


def _match(module: nn.Module, checkpoint: Checkpoint, note: str, rename: Callable[[str], str]) -> _Match:
    """Runs the model's own loading with its hooks, but takes every tensor out before it is copied."""
    match = _Match(note)
    weights = {rename(name): value for name, value in checkpoint.state_dict.items()}
    weights = resize_bias_tables(weights, dict(module.named_parameters(remove_duplicate=False)))
    versions = {rename(f'{name}.' if name else '')[:-1]: value for name, value in checkpoint.metadata.items()}

    def take(part: nn.Module, local: dict[str, Any], prefix: str, *_rest: Any) -> None:
        for name, target in _own_tensors(part):
            key = prefix + name
            value = local.pop(key, None)
            if value is None:
                continue
            if target.ndim == 0 and value.shape == (1,):
                value = value[0]  # a scalar as PyTorch 0.3 saved it
            if value.shape == target.shape:
                match.copies[key] = (target, value)
            elif not key.endswith(_DERIVED):
                match.mismatched[key] = Mismatch(key, tuple(value.shape), tuple(target.shape))

    # Registered last, so that it sees the keys and shapes after the module's own hooks.
    handles = [part.register_load_state_dict_pre_hook(take) for part in module.modules()]
    try:
        keys = module.load_state_dict(_with_metadata(weights, versions), strict=False)
    except Exception as error:  # a hook can raise anything on the tensors of another model
        problem = f'{checkpoint.source} does not fit the model ({message_of(error)})'
        raise InputError(problem, hint=_HINT, parameter='checkpoint') from error
    finally:
        for handle in handles:
            handle.remove()
    taken = match.copies.keys() | match.mismatched.keys()
    own = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    tied = {id(target) for target, _ in match.copies.values()}  # saved once, under one of its names
    match.missing = [
        key
        for key in keys.missing_keys
        if key not in taken and not key.endswith(_DERIVED) and id(own.get(key)) not in tied
    ]
    before = {rename(name): name for name in checkpoint.state_dict}
    match.unexpected = [
        checkpoint.as_in_file(before.get(key, key)) for key in keys.unexpected_keys if not key.endswith(_DERIVED)
    ]
    return match


def _with_metadata(weights: dict[str, Tensor], metadata: Mapping[str, Any]) -> Any:
    ordered: Any = OrderedDict(weights)
    # Only the versions: the other key that PyTorch reads here changes how tensors are assigned.
    ordered._metadata = {name: {'version': value.get('version')} for name, value in metadata.items()}
    return ordered


def _own_tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from part.named_parameters(recurse=False, remove_duplicate=False)
    for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
        if name not in part._non_persistent_buffers_set:
            yield name, buffer


def _refuse_misfit(module: nn.Module, parameters: list[str], match: _Match, checkpoint: Checkpoint) -> None:
    """Raises if the checkpoint belongs to another architecture, by the rule at the top of this file."""
    wanted = set(parameters) or set(match.copies)
    loaded = wanted & match.copies.keys()
    mismatched = wanted & match.mismatched.keys()
    part = _part_of(wanted)
    touched = {part(name) for name in loaded}
    of_model = [name for name in wanted if part(name) in touched]
    buffers = {name.rpartition('.')[2] for name, _ in module.named_buffers()} | {'running_mean', 'running_var'}
    surplus = [name for name in match.unexpected if name.rpartition('.')[2] not in buffers]
    of_checkpoint = [name for name in (*loaded, *mismatched, *surplus) if part(name) in touched]
    fits = (
        loaded
        and len(loaded) >= _LEAST_OF_MODEL * len(wanted)
        and len(loaded) >= len(mismatched)
        and len(loaded) >= _LEAST_OF_PART * max(len(of_model), len(of_checkpoint))
    )
    if fits:
        return
    used = {id(value) for _, value in match.copies.values()}
    spare = [name for name, value in checkpoint.state_dict.items() if id(value) not in used]
    spare = [checkpoint.as_in_file(name) for name in spare or checkpoint.state_dict]
    lacking = [*(name for name in match.missing if name in wanted), *sorted(mismatched)] or parameters
    amount = f'only {len(loaded)} of the' if loaded else 'none of the'
    raise InputError(
        f"{checkpoint.source or 'the checkpoint'} is of another architecture: it fits {amount} model's {len(wanted)} "
        f'parameters (the checkpoint has {", ".join(spare[:3])}, …; the model has {", ".join(lacking[:3])}, …)',
        hint=_HINT,
        parameter='checkpoint',
    )


def _part_of(names: Iterable[str]) -> Callable[[str], str]:
    """Maps a name to its part: its first component below the components that all names share."""
    owners = [name.split('.')[:-1] for name in names]
    shared = ''
    for level in zip(*owners, strict=False):
        if len(set(level)) > 1:
            break
        shared += f'{level[0]}.'

    def part(name: str) -> str:
        return name.removeprefix(shared).split('.')[0]

    return part
