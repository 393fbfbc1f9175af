"""Which axes of an attention operation are images, windows and heads, and which tokens lie where: asked, not assumed.

The network runs once on the two images of a :class:`~vistool.network.positions.Probe`. Inside every attention operation
each query takes its own token's value (or, where queries and keys are different tokens, the mean of all), so that
nothing is mixed between places. What a token changes then follows what its own patch changes, through any number of
blocks. Class tokens, registers and text change nothing; latents and mixtures of experts all change alike.

Rules:

* The axis of the images is the one along which the two halves of the operation differ least.
* Heads of one window change with the same pattern over their tokens, windows with different ones.
* Tokens lie in the order that their answers follow (:func:`~vistool.network.positions.readings`); an order other than
  the assumed one has to be clearly better.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vistool.network.attention import AttentionOp, Frame, watch_attention
from vistool.network.capture import borrowed, remembered
from vistool.network.layers import unwrapped
from vistool.network.positions import Probe, make_probe, probe_maps
from vistool.network.tensors import (
    Grids,
    Layout,
    NetworkInput,
    Size,
    call_module,
    find_image,
    map_tensors,
    seen_grids,
    tensors,
)

log = logging.getLogger('vistool')

T = TypeVar('T')

_ALIKE = 0.5
"""Correlation between the patterns of two heads of one window; between windows it is near zero."""
_BESIDE_HEADS = 0.85
"""Likewise for an axis beside one whose entries are as alike as this: neighboring rows of the image are alike too."""
_SURELY_ALIKE = 0.65
"""Likewise where the module around the operation was asked, which no layers before it blur."""
_MANY, _SAME = 24, 0.25
"""With fewer values than this, heads differ by no more than this share of their size; windows do by chance rarely."""
_MIXED = 0.1
"""At most this share of the tokens is silent for one head and not for another."""
_FLAT = 0.1
"""Answers whose logarithms vary less than this have no pattern."""
_UNRELATED = 1.0
"""Halves of an axis that differ by more than this, in units of their variance, are not the two images."""
_SILENT = 1e-5
"""An answer this small, as a share of the tokens' own size, is rounding."""

_TRUSTED = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'torchvision', 'transformers', 'timm', 'vistool')
_TRUSTED_TIMM = (
    'beit', 'cait', 'davit', 'deit', 'edgenext', 'eva', 'levit', 'maxxvit', 'pvt_v2', 'swin_transformer',
    'swin_transformer_v2', 'twins', 'vision_transformer', 'xcit',
)  # fmt: skip
_ASKED_MMDET = ('swin', 'pvt')
"""Backbones of mmdet with attention of their own; its DETR and relatives flatten one map row by row."""
_REORDERING = (
    'halo_attn',
    'bottleneck_attn',
    'lambda_layer',
    'hiera',
    'mobilevit',
    'efficientformer',
    'crossvit',
    'yolos',
    'mae',
    'mixmim',
)
"""Modules of trusted packages whose tokens do not lie row by row, are masked, or whose axes run otherwise."""


def is_known(module: nn.Module, inputs: NetworkInput) -> bool:
    """Whether a network takes one image and consists of families whose attention needs no probe.

    Their heads come after images, and their tokens lie row by row or in windows that are traced exactly. The check goes
    by the Python modules that define the layers.
    """
    if len(list(tensors(inputs))) != 1 or find_image(inputs) is None:
        return False
    for path in {type(child).__module__ for child in unwrapped(module).modules()}:
        package, _, rest = path.partition('.')
        leaf = path.rpartition('.')[2]
        if package not in _TRUSTED or any(word in leaf for word in _REORDERING):
            return False
        if package == 'mmdet' and leaf in _ASKED_MMDET:
            return False
        if rest.startswith('models.') and package == 'timm' and not leaf.startswith('_') and leaf not in _TRUSTED_TIMM:
            return False
    return True


Role = Literal['image', 'window', 'head']


class Axis(NamedTuple):
    """One leading axis of an attention operation, or a factor of one.

    Attributes:
        role: What it counts.
        size: Its size; 0 for images, whose number varies.
    """

    role: Role
    size: int


@dataclass(frozen=True, eq=False)
class TokenAnswers:
    """How the tokens of one attention operation answer to the probe, for one image.

    Attributes:
        shape: ``(groups, heads, queries, keys)`` for one image.
        axes: What the leading axes are, in the model's order.
        keys: float32 ``(windows, keys)``: how much each key changes, as a share of its own size.
        queries: ``(windows, queries)``, or None where they cannot be told from the keys.
        same_tokens: Whether queries and keys are the same tokens.
        computed: Whether the model computed the weights itself, by a softmax.
        separate: Whether there are other axes than that of the images.
    """

    shape: tuple[int, int, int, int]
    axes: tuple[Axis, ...]
    keys: Tensor
    queries: Tensor | None
    same_tokens: bool
    computed: bool
    separate: bool

    @property
    def from_image(self) -> bool:
        """Whether any key depends on the image."""
        return bool((self.keys > _SILENT).any())

    @property
    def asks_from_image(self) -> bool:
        """Whether any query is known to depend on the image, or none is known not to."""
        return self.queries is None or bool((self.queries > _SILENT).any())

    @property
    def same_place(self) -> bool:
        """Whether there are windows whose keys all show the same place: experts or branches, not positions."""
        windows, keys = self.keys.shape
        inside = self.keys.clamp_min(1e-9).log()
        return windows > keys > 1 and float(inside.std(1).mean()) < 0.3 * float(inside.mean(1).std())

    @property
    def doubtful(self) -> bool:
        """Whether windows may have passed for heads: deep in a network, or where each gathers tokens from everywhere.

        Heads have one axis of their own, unless they share it with the images.
        """
        heads = sum(axis.role == 'head' and axis.size > 1 for axis in self.axes)
        return heads > 1 or (heads == 1 and not self.separate)

    @property
    def is_gate(self) -> bool:
        """Whether it is a softmax over experts, prototypes or classes rather than over tokens.

        That is one that the model computed itself, and whose keys do not depend on the image or all show one place.
        """
        return self.computed and (not self.from_image or self.same_place)

    @property
    def weighs(self) -> tuple[int, int, int]:
        """How many times it weighs keys, for how many queries, and how many keys."""
        return math.prod(self.shape[:2]), *self.shape[2:]

    def fits(self, op: AttentionOp, batch: int) -> bool:
        """Whether an operation on a batch has these axes."""
        count, queries, keys = self.weighs
        return math.prod(op.shape[:2]) == batch * count and op.shape[2:] == (queries, keys)


@dataclass(frozen=True, eq=False)
class AttentionAnswers:
    """The answers of all attention operations of a network.

    Attributes:
        probe: The two images.
        ops: One entry for each operation, in running order; None where its axes were not recognized.
        problem: Why there are no answers, or ``''``.
    """

    probe: Probe
    ops: tuple[TokenAnswers | None, ...] = ()
    problem: str = ''
    _placed: dict[int, Any] = field(default_factory=dict)

    def of(self, op: AttentionOp) -> TokenAnswers | None:
        """The answers of an operation, which is counted without the gates."""
        gates = self.gates()
        kept = [found for index, found in enumerate(self.ops) if index not in gates]
        return kept[op.ordinal] if op.ordinal < len(kept) else None

    def remember(self, index: int, compute: Callable[[], T]) -> T:
        """What was computed from the answers of an operation, once."""
        if index not in self._placed:
            self._placed[index] = compute()
        found: T = self._placed[index]
        return found

    @property
    def silent(self) -> bool:
        """Whether no operation answers."""
        return not any(found is not None and found.from_image for found in self.ops)

    def gates(self) -> frozenset[int]:
        """The operations that are not attention over tokens.

        Where no operation answers at all, the image dies away on the way (random weights), which says nothing.
        """
        if self.silent:
            return frozenset()
        return frozenset(index for index, found in enumerate(self.ops) if found is not None and found.is_gate)


def attention_answers(module: nn.Module, inputs: NetworkInput) -> AttentionAnswers:
    """The answers of a network, by one forward of two images; remembered with the network, its weights and the size."""
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(module, 'attention', shapes, lambda: _ask(module, inputs))


def _ask(module: nn.Module, inputs: NetworkInput) -> AttentionAnswers:
    probe = make_probe(inputs)
    found: list[TokenAnswers | None] = []

    def instead(op: AttentionOp) -> Tensor:
        found.append(_answer(op))
        return _own_values(op, found[-1])

    with borrowed(module), torch.no_grad():
        try:
            with watch_attention(module, 2, lambda op: None, instead=instead) as watch:
                call_module(module, probe.inputs)
        except Exception as error:  # any failure of foreign code; the caller's own forward will report what matters
            return AttentionAnswers(probe, problem=f'it fails on a batch of two images ({type(error).__name__})')
    answers = AttentionAnswers(probe, tuple(found))
    if gates := sorted({watch.names[index] or 'the network' for index in answers.gates()}):
        log.info('a softmax over experts, prototypes or classes is not numbered as attention: %s', ', '.join(gates))
    return answers


def answers_within(op: AttentionOp, batch: int) -> Iterator[tuple[TokenAnswers, Probe, Size]]:
    """How an operation answers where a module around it, rather than the whole network, is given other maps.

    Deep in a network, or behind many convolutions, all tokens answer alike. Modules that take ``(B, C, h, w)`` of the
    size of a convolution's output (or half of it), or that with its channels last, are run on a pair of such maps,
    innermost first.

    Args:
        op: The operation, with the modules around it.
        batch: Images in the batch.

    Yields:
        The answers, the maps that were asked, and their grid.
    """
    for frame in reversed(op.frames):
        maps = frame.tensor
        if maps is None or maps.ndim != 4 or maps.shape[0] != batch or not maps.is_floating_point():
            continue
        known = seen_grids(op.grids) if isinstance(op.grids, Grids) else []
        height, width = maps.shape[2:]
        layouts = (Layout('BCHW', (height, width)), Layout('BHWC', (maps.shape[1], height)))
        fitting = [layout for layout in layouts if layout.grid in known]
        if len(fitting) != 1:
            continue
        layout = fitting[0]
        if min(layout.grid) > 1:
            probe = probe_maps(layout.to_map(maps))
            yield from ((each, probe, layout.grid) for each in _answers_within(frame, maps, layout, probe, batch))


class _Enough(BaseException):
    """Ends a run once everything is known. Not an ``Exception``, which a network may catch."""


def _answers_within(frame: Frame, maps: Tensor, layout: Layout, probe: Probe, batch: int) -> list[TokenAnswers]:
    """The answers of the operation that comes after those that have already run in a module, then of those alike."""
    assert isinstance(probe.inputs, Tensor)
    pair = layout.from_map(probe.inputs, probe.inputs).to(maps.dtype)
    found: list[TokenAnswers | None] = []

    def exchange(tensor: Tensor) -> Tensor:
        if tensor is maps:
            return pair
        return tensor[:1].expand(2, *tensor.shape[1:]) if tensor.ndim and tensor.shape[0] == batch else tensor

    def instead(op: AttentionOp) -> Tensor:
        found.append(_answer(op, _SURELY_ALIKE))
        if len(found) > frame.attended:
            raise _Enough
        return _own_values(op, found[-1])

    with torch.no_grad(), suppress(_Enough):
        try:
            with watch_attention(frame.module, 2, lambda op: None, instead=instead):
                frame.module(*map_tensors(exchange, frame.args), **map_tensors(exchange, frame.kwargs))
        except Exception:  # any failure of foreign code; then there is no further evidence
            return []
    last = found[-1] if len(found) > frame.attended else None
    if last is None:
        return []
    alike = (each for each in reversed(found) if each is not None and each.weighs == last.weighs)
    return [each for each in alike if each.from_image]


def _answer(op: AttentionOp, alike: float = _ALIKE) -> TokenAnswers | None:
    """How the tokens of an operation on the two images of a probe answer; heads are as ``alike`` as that."""
    assert op.value is not None
    parts = {
        name: tensor.detach().float().reshape(*op.lead, *tensor.shape[2:])
        for name in ('value', 'key', 'query', 'weights')
        if (tensor := getattr(op, name)) is not None
    }
    if 'weights' in parts:
        logs = parts['weights'].clamp_min(1e-30).log()
        parts['weights'] = logs - logs.mean(-1, keepdim=True)
    split = _image_axis(list(parts.values()), op.lead)
    if split is None:
        return None
    axis, before = split
    keys = _change(parts['value'], axis, before)
    found = _roles(keys, alike)
    factors = [[each for each in axes if each.size != 1] for axes in found]
    axes = list(chain(*factors[: axis + 1], [Axis('image', 0)], *factors[axis + 1 :]))
    tokens = _merged(keys, axes)
    queries = None
    if op.query is not None:
        queries = _merged(_change(parts['query'], axis, before), axes)
    elif op.shape[3] >= 8:
        queries = _merged(_change_of_rows(parts['weights'], axis, before, keys), axes)
    heads = math.prod(each.size for each in axes if each.role == 'head')
    shape = (len(tokens), heads, op.shape[2], op.shape[3])
    same = op.shape[2] == op.shape[3] and (queries is None or _same_tokens(queries, tokens))
    return TokenAnswers(shape, tuple(axes), tokens, queries, same, op.query is None, len(op.lead) > 1)


def _same_tokens(queries: Tensor, keys: Tensor) -> bool:
    """Whether queries and keys answer alike: the same ones are silent, and the others follow one pattern."""
    silent, still = keys <= _SILENT * 10, queries <= _SILENT * 10
    if bool(silent.all()) or bool(still.all()):
        return bool(silent.all()) == bool(still.all())
    pair = torch.stack([queries.flatten(), keys.flatten()])[:, ~(silent | still).flatten()].log()
    flat = pair.shape[1] < 3 or bool((pair.std(1) < _FLAT).all())
    return flat or correlated(queries, keys) > _ALIKE


def correlated(queries: Tensor, keys: Tensor) -> float:
    """The correlation of the logarithms of two answers, where neither is silent; 0 where they are flat."""
    loud = ((queries > _SILENT * 10) & (keys > _SILENT * 10)).flatten()
    pair = torch.stack([queries.flatten(), keys.flatten()])[:, loud].log()
    if pair.shape[1] < 3 or bool((pair.std(1) < _FLAT).all()):
        return 0.0
    return float(torch.corrcoef(pair)[0, 1].nan_to_num())


def _own_values(op: AttentionOp, found: TokenAnswers | None) -> Tensor:
    """For each query the value of its own token, or the mean of all, ``(G, H, Nq, dv)``."""
    assert op.value is not None
    if op.shape[2] == op.shape[3] and (found is None or found.same_tokens):
        return op.value
    return op.value.mean(2, keepdim=True).expand(-1, -1, op.shape[2], -1)


def _merged(change: Tensor, axes: Sequence[Axis]) -> Tensor:
    """``(*lead, tokens)`` as ``(windows, tokens)``: the mean over heads."""
    factors = [each for each in axes if each.role != 'image']
    change = change.reshape(*(each.size for each in factors), change.shape[-1])
    order = [i for role in ('window', 'head') for i, each in enumerate(factors) if each.role == role]
    windows = math.prod(each.size for each in factors if each.role == 'window')
    return change.permute(*order, len(factors)).reshape(windows, -1, change.shape[-1]).mean(1).cpu()


def _image_axis(parts: Sequence[Tensor], lead: Sequence[int]) -> tuple[int, int] | None:
    """The leading axis that holds the two images, and how many entries of it lie around them (1: images come first).

    The two halves of that axis differ least: they show the same heads and windows of nearly the same image. Values
    that heads share differ nowhere, so the part that differs most counts. Where no axis holds two similar halves, as
    where tokens were pruned, a first axis of two is taken to count the images; None if there is none.
    """
    found = []
    sizes = [float((part - part.flatten(0, -2).mean(0)).square().mean()) + 1e-30 for part in parts]
    for axis, size in enumerate(lead):
        for before in (n for n in range(1, size // 2 + 1) if size % (2 * n) == 0):
            halves = (part.unflatten(axis, (before, 2, -1)).unbind(axis + 1) for part in parts)
            changes = (float((second - first).square().mean()) for first, second in halves)
            found.append((max(c / n for c, n in zip(changes, sizes, strict=True)), axis, before))
    least = min((difference for difference, _, _ in found), default=math.inf)
    if least > _UNRELATED:  # no images, or tokens that were pruned, so that other ones lie at the same places
        return (0, 1) if lead and lead[0] == 2 else None
    return next((axis, before) for difference, axis, before in found if difference <= least * (1 + 1e-6))


def _change(values: Tensor, axis: int, before: int) -> Tensor:
    """``(*lead, tokens)``: how much each token changes, as a share of the mean size of its fellows."""
    first, second = values.unflatten(axis, (before, 2, -1)).unbind(axis + 1)
    return (second - first).norm(dim=-1) / first.norm(dim=-1).mean(-1, keepdim=True).clamp_min(1e-9)


def _change_of_rows(weights: Tensor, axis: int, before: int, keys: Tensor) -> Tensor:
    """``(*lead, queries)``: how much each row of weights changes by its query alone.

    ``log w[q, i] - log w[q, j]`` is ``q · (k_i - k_j)``, whatever the other keys are. Over the quarter of the keys that
    change least, its change is that of the query. ``weights`` are their logarithms.
    """
    first, second = weights.unflatten(axis, (before, 2, -1)).unbind(axis + 1)
    change = second - first
    still = keys.argsort(-1)[..., : max(4, keys.shape[-1] // 4)]
    chosen = change.gather(-1, still[..., None, :].expand(*change.shape[:-1], -1))
    return (chosen - chosen.mean(-1, keepdim=True)).norm(dim=-1)


def _roles(keys: Tensor, alike: float) -> list[list[Axis]]:
    """What each leading axis of ``(*lead, tokens)`` counts; an axis that counts both is split into two.

    Heads of one window change in the same pattern over their tokens. Where nothing changes, or all tokens alike, the
    last axis is taken to count heads.
    """
    loud = keys > _SILENT  # padding is silent, and says nothing about the tokens of a window
    pattern = keys.clamp_min(1e-9).log() * loud
    pattern = (pattern - pattern.sum(-1, keepdim=True) / loud.sum(-1, keepdim=True).clamp_min(1)) * loud
    flat = keys.shape[-1] < 3 or float(pattern.std()) < _FLAT or not bool(loud.any())
    wide = [axis for axis in range(keys.ndim - 1) if keys.shape[axis] > 1]

    def entries(axis: int) -> tuple[Tensor, Tensor]:
        pair = (each.movedim(axis, 0).reshape(keys.shape[axis], -1) for each in (pattern, loud))
        return next(pair), next(pair)

    if not flat and len(wide) > 1 and any(_alike(*entries(axis), least=_BESIDE_HEADS) for axis in wide):
        alike = max(alike, _BESIDE_HEADS)
    found = []
    for axis in range(keys.ndim - 1):
        size = keys.shape[axis]
        if size == 1:
            found.append([Axis('head', 1)])
        elif flat:
            found.append([Axis('head' if axis == wide[-1] else 'window', size)])
        else:
            found.append(_factors(*entries(axis), least=alike))
    return found


def _factors(pattern: Tensor, loud: Tensor, *, least: float) -> list[Axis]:
    """An axis ``(size, …)`` as heads, as windows, or as heads of windows or windows of heads, whichever fits.

    Args:
        pattern: The logarithms of the answers around their means, 0 where there is none.
        loud: Where there is one.
        least: The least correlation between heads.
    """
    size = len(pattern)
    for heads in (n for n in range(size, 1, -1) if size % n == 0):
        windows = size // heads
        if _alike(*(each.reshape(heads, -1) for each in (pattern, loud)), least=least):
            return [Axis('head', heads), Axis('window', windows)]
        swapped = (each.reshape(windows, heads, -1).transpose(0, 1).reshape(heads, -1) for each in (pattern, loud))
        if windows > 1 and _alike(*swapped, least=least):
            return [Axis('window', windows), Axis('head', heads)]
    return [Axis('window', size)]


def _alike(rows: Tensor, loud: Tensor, *, least: float) -> bool:
    """Whether rows follow one pattern, by the mean correlation of each with the mean of the others.

    Few values are correlated by chance, so they have to be nearly the same. The same tokens are silent for all heads.
    """
    if float((loud != loud[:1]).float().mean()) > _MIXED:
        return False
    if rows.numel() < _MANY:
        return float((rows - rows.mean(0)).norm() / rows.norm().clamp_min(1e-9)) < _SAME
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
    others = (rows.sum(0) - rows) / (len(rows) - 1)
    return float((rows * others).sum(1).mean() / others.norm(dim=1).mean().clamp_min(1e-9)) > least
