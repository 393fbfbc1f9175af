"""What is in a network's output, whatever container it comes in: class scores, probabilities, values, features.

One place decides which tensor holds the scores (:func:`find_scores`) and what they mean (:func:`find_readout`). What is
certain is used without a word; what is likely is used with a line on stderr; everything else is an error that lists the
choices.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vistool.errors import InputError, close_matches, counted, param
from vistool.network.tensors import (
    Layout,
    NoSpatialMap,
    Size,
    find_layout,
    first_tensor,
    float_tensors,
    part_of,
    tensors,
)

log = logging.getLogger('vistool')

Meaning: TypeAlias = Literal['softmax', 'sigmoid', 'binary', 'probabilities', 'value', 'scores']
"""What the scores of a network are:

- ``softmax``: logits of classes that exclude each other;
- ``sigmoid``: logits of labels that do not;
- ``binary``: one logit, of the second of two classes;
- ``probabilities``: in [0, 1] already;
- ``value``: quantities that are not classes (regression);
- ``scores``: of classes, shown as they are because the user said so.
"""

ACTIVATIONS = ('auto', 'softmax', 'sigmoid', 'none')
OutputName: TypeAlias = str | int | None
"""``'logits'``, ``1``, ``'heads.main[0]'``; None leaves it to be found."""

CHOOSE = (
    f'say which with {param("output")} and what they mean with {param("activation")}, or write a score of your own: '
    'score= from Python, cam_target in a config'
)

_FEATURES = frozenset({
    'feature', 'features', 'feat', 'feats', 'embedding', 'embeddings', 'embed', 'embeds', 'emb', 'hidden', 'pooler',
    'pooled', 'projection', 'proj', 'latent', 'latents', 'representation', 'state', 'states', 'backbone',
})  # fmt: skip
"""Words in the names of tensors that do not hold scores, such as ``pooler_output`` and ``image_embeds``."""

_SECONDARY = frozenset({'aux', 'auxiliary', 'auxillary', 'deep', 'side', 'teacher', 'distillation', 'text', 'loss'})
"""Words in the names of heads that help in training, or score something else than the image."""

_SCORES = (
    {'logit', 'logits'},
    {'cls_score', 'cls_scores'},
    {
        'score', 'scores', 'pred', 'preds', 'prediction', 'predictions', 'out', 'output', 'outputs', 'cls', 'class',
        'classes', 'classification', 'classifier', 'main', 'y', 'yhat', 'label', 'labels',
    },
    {'prob', 'probs', 'probability', 'probabilities'},
)  # fmt: skip
"""Words in the names of tensors that hold scores, the clearest first."""

_EXACT = ('logits', 'logit', 'logits_per_image')
"""Whole names that leave no doubt."""

_VALUES = frozenset({
    'age', 'value', 'values', 'regression', 'reg', 'price', 'height', 'weight', 'depth', 'distance', 'angle', 'count',
    'temperature', 'bmi', 'steering', 'speed', 'rating', 'mos', 'quality', 'biomass', 'yaw', 'pitch', 'roll',
})  # fmt: skip
"""Words in names of quantities, such as ``bone_age``."""

SATURATED = 17.0
"""The sigmoid of a larger number is 1 in float32: no classifier is trained to give it, so it is not a logit."""
_SUM_TOLERANCE = 1e-3
_LIBRARIES = ('mmpretrain', 'timm', 'torchvision', 'transformers')


@dataclass(frozen=True)
class Candidate:
    """A tensor of an output that has a row of numbers for each image.

    Attributes:
        place: Where it is, as :func:`~vistool.network.tensors.leaves` writes it: ``'[heads][main]'``.
        scores: ``(B, C)``.
        tensor: As the network gave it.
    """

    place: str
    scores: Tensor
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the network gave it."""
        return tuple(self.tensor.shape)

    @property
    def path(self) -> str:
        """Its place as a user writes it: ``heads.main``, ``[1]``; ``''`` for an output that is one tensor."""
        return written(self.place)

    @property
    def words(self) -> list[str]:
        """The words of its name in lower case, its whole name among them."""
        names = [name for name in _steps(self.place) if not name.isdigit()]
        return [*map(str.lower, names), *(word for name in names for word in _words(name))]

    def is_called(self, words: frozenset[str]) -> bool:
        """Whether its name has one of these words."""
        return any(word in words for word in self.words)


@dataclass(frozen=True)
class Readout:
    """Which tensor of a network's output holds the scores, and what they mean.

    Attributes:
        place: Where the tensor is; ``''`` where it is the output itself.
        meaning: What the numbers are.
        columns: How many numbers the tensor has for each image.
        classes: How many classes these are about: two where one number stands for two classes; for values, how many.
        exclusive: Whether exactly one class is true of an image.
        known: Whether this is certain; else it was assumed, which was logged.
        reason: Why.
        name: What a single value is called (``'age'``).
    """

    place: str
    meaning: Meaning
    columns: int
    classes: int
    exclusive: bool
    known: bool
    reason: str
    name: str = 'value'

    @property
    def is_value(self) -> bool:
        """Whether the numbers are quantities, not classes."""
        return self.meaning == 'value'

    @property
    def path(self) -> str:
        """The tensor's place as a user writes it: ``heads.main``, ``[1]``, ``''``."""
        return written(self.place)

    def scores(self, output: Any, count: int) -> Tensor:
        """The scores to explain: logits, probabilities or values, ``(count, classes)``.

        One number x that stands for two classes becomes the columns −x and x, or 1 − x and x for a probability.

        Args:
            output: What the network returned for ``count`` images.
            count: How many images those are.

        Raises:
            InputError: The tensor is not there, or has another shape than before.
        """
        found = next((each for each in candidates(output, count) if each.place == self.place), None)
        if found is None or found.scores.shape[1] != self.columns:
            there = f'{written(self.place) or "its tensor"} with {counted(self.columns, "number")} for each image'
            raise InputError(
                f'the network gave {there} before and now gives {listed(output)}', hint=CHOOSE, parameter='output'
            )
        x = found.scores
        if self.classes == self.columns:
            return x
        return torch.cat([1 - x if self.meaning == 'probabilities' else -x, x], 1)

    def numbers(self, scores: Tensor) -> Tensor:
        """What is printed for each column of :meth:`scores`: a probability, or the value itself."""
        scores = scores.float()
        if self.meaning == 'binary' and not self.known and bool((scores.abs() > SATURATED).any()):
            log.warning(
                'a number is too large for a logit, so it may be a value and not one of two classes; '
                f'{param("activation", "none")} shows values'
            )
        if self.meaning == 'softmax':
            return scores.softmax(-1)
        return scores.sigmoid() if self.meaning in ('sigmoid', 'binary') else scores

    @property
    def words(self) -> str:
        """In one line, for a listing: ``'two classes by sigmoid (assumed: …)'``."""
        text = {
            'softmax': f'{counted(self.classes, "class", "classes")} by softmax',
            'sigmoid': f'{counted(self.classes, "independent label")} by sigmoid',
            'binary': 'two classes by sigmoid',
            'probabilities': f'probabilities of {self.classes} {"classes" if self.exclusive else "independent labels"}',
            'value': f'{counted(self.classes, "value")}, not classes',
            'scores': f'scores of {counted(self.classes, "class", "classes")}, shown as they are',
        }[self.meaning]
        return f'{text} ({"" if self.known else "assumed: "}{self.reason})'

    def entry(self) -> dict[str, Any]:
        """As plain JSON values, for provenance."""
        return {'output': self.path, 'meaning': self.meaning, 'known': self.known, 'reason': self.reason}


def candidates(output: Any, count: int) -> list[Candidate]:
    """The tensors in an output that have a row of numbers for each of ``count`` images.

    These are ``(B, C)``, ``(B,)``, ``(B, C, 1, 1)``, and what is left of them when a network squeezes its output:
    ``(C,)`` and ``()`` for a single image. A scalar beside other tensors is a loss, not a score.
    """
    found = []
    for place, tensor in _named_tensors(output):
        rows = _as_rows(tensor, count)
        if rows is not None and rows.shape[1] > 0:
            found.append(Candidate(place, rows, tensor))
    return [each for each in found if each.shape or len(found) == 1]


def _named_tensors(output: Any) -> Iterator[tuple[str, Tensor]]:
    found = list(float_tensors(output))
    if not found and hasattr(output, '__dict__') and not isinstance(output, type):  # an object of the user's own
        found = list(float_tensors(vars(output)))
        if not found and isinstance(getattr(output, 'logits', None), Tensor):  # a property
            found = [('[logits]', output.logits)]
    yield from found


def _as_rows(tensor: Tensor, count: int) -> Tensor | None:
    shape = tuple(tensor.shape)
    if len(shape) > 1 and shape[0] == count and all(side == 1 for side in shape[2:]):
        return tensor.flatten(1)
    if len(shape) == 1 and shape[0] == count:
        return tensor[:, None]
    return tensor.reshape(1, -1) if count == 1 and len(shape) < 2 else None


def _steps(place: str) -> list[str]:
    """``'[heads][0]'``, ``'heads.0'`` and ``'heads[0]'`` → ``['heads', '0']``."""
    return [step for step in re.split(r'[\[\].]+', place) if step]


def _words(name: str) -> list[str]:
    """``'bone_age'``, ``'boneAge'`` → ``['bone', 'age']``."""
    return re.split(r'[_\W]+', re.sub(r'(?<=[a-z])(?=[A-Z])', '_', name).lower())


def written(place: str) -> str:
    """A place as a user writes it: ``'[heads][main][0]'`` → ``'heads.main[0]'``."""
    text = ''
    for step in _steps(place):
        text += f'[{step}]' if step.isdigit() else f'.{step}' if text else step
    return text


def listed(output: Any) -> str:
    """The tensors of an output with their shapes, for messages: ``'logits (2, 5), features (2, 16)'``."""
    found = [f'{written(place)} {tuple(tensor.shape)}'.strip() for place, tensor in _named_tensors(output)]
    return ', '.join(found) or f'no tensor ({type(output).__name__})'


def absence(module: nn.Module, output: Any) -> str:
    """Why a network gives no scores, for messages."""
    if not has_classes(module):
        return 'it has no classification head'
    if first_tensor(output) is not None:
        return f'its output is {listed(output)}'
    kinds = [f'{str(tensor.dtype).removeprefix("torch.")} {tuple(tensor.shape)}' for tensor in tensors(output)]
    return f'its output holds no floating-point tensor: {", ".join(kinds) or type(output).__name__}'


def find_scores(
    output: Any, count: int, wanted: OutputName = None, numbers: Sequence[int | None] = ()
) -> tuple[Candidate | None, bool, str]:
    """Which tensor of an output holds the scores.

    The user's word counts first. Else, of several tensors ``(B, C)``, the number of classes decides; then names of the
    field: features and auxiliary heads are left out, and ``logits`` goes before ``cls_score``, ``pred`` and ``probs``.
    A tensor ``(B, C, 1, 1)`` may be pooled features, so it counts only where C is the number of classes.

    Args:
        output: What the network returned for ``count`` images.
        count: How many images.
        wanted: What the user said.
        numbers: The number of classes, the surest source first: class names, the head. None is ignored.

    Returns:
        The tensor (None where there is none), whether it is certain, and why it was chosen.

    Raises:
        InputError: What the user named is not there, or two tensors remain.
    """
    every = candidates(output, count)
    if wanted is not None:
        return _named(output, every, wanted), True, 'as requested'
    number = next((n for n in numbers if n and any(_fits(each, n) for each in every)), None)
    sized = [each for each in every if len(each.shape) < 3 or (number and _fits(each, number))]
    found = [
        each for each in sized if not each.is_called(_FEATURES) or _rank(each) == 0 or each.scores.shape[1] == number
    ]
    if not found:
        return None, True, ''
    left = [each for each in found if number and _fits(each, number)] or found
    if len(left) == 1 and (len(sized) == 1 or (number and _fits(left[0], number))):
        return left[0], True, ''
    left = [each for each in left if not each.is_called(_FEATURES) or _rank(each) == 0] or left
    left = [each for each in left if not each.is_called(_SECONDARY)] or left
    best = min(map(_rank, left))
    left = [each for each in left if _rank(each) == best]
    exact = [each for each in left if each.words[0] in _EXACT] if best == 0 else []
    left = exact if len(exact) == 1 else left
    left = [each for each in left if each.scores.shape[1] == number] or left
    if len(left) == 1:
        others = ', '.join(each.path for each in sized if each is not left[0])
        return left[0], exact == left, f'by its name; not {others}'
    raise InputError(
        f'{len(left)} tensors of the output may hold the scores: {_shapes(left)}',
        accepted=', '.join(param('output', each.path.strip('[]')) for each in left[:4]),
        hint=CHOOSE,
        parameter='output',
    )


def default_scores(output: Any, count: int) -> Tensor | None:
    """The scores ``(count, C)`` by their place alone, where nothing is known of the network; None where unclear."""
    try:
        chosen, _, _ = find_scores(output, count)
    except InputError:
        return None
    return None if chosen is None else chosen.scores


@dataclass(frozen=True)
class ScoreReader:
    """Finds the scores in a network's output where they may be missing or unclear; equal ones find the same.

    Attributes:
        find: ``(output for n images, n) → (n, C)``, or None.
        key: What tells it from others.
    """

    find: Callable[[Any, int], Tensor | None] = field(compare=False)
    key: Hashable

    def __call__(self, output: Any, count: int) -> Tensor | None:
        """The scores ``(count, C)`` in an output, or None."""
        return self.find(output, count)


BY_PLACE = ScoreReader(default_scores, 'by place')


def _fits(candidate: Candidate, classes: int) -> bool:
    """Whether a tensor has a number for each class; one is enough for two."""
    return candidate.scores.shape[1] == classes or (classes == 2 and candidate.scores.shape[1] == 1)


def _rank(candidate: Candidate) -> int:
    """How clearly a name says that a tensor holds scores, 0 most."""
    words = candidate.words
    return next((rank for rank, known in enumerate(_SCORES) if known.intersection(words)), len(_SCORES))


def _shapes(found: Sequence[Candidate]) -> str:
    return ', '.join(f'{each.path} {each.shape}'.strip() for each in found)


def _named(output: Any, found: Sequence[Candidate], wanted: OutputName) -> Candidate:
    """The tensor that a user's path names: whole, or its end where only one tensor ends so."""
    steps, places = _steps(str(wanted)), [_steps(each.place) for each in found]
    for depth, step in enumerate(steps):  # [-1] is the last
        if re.fullmatch(r'-\d{1,9}', step):
            inside = [_steps(place) for place, _ in _named_tensors(output)]
            there = [int(place[depth]) for place in inside if place[:depth] == steps[:depth] and place[depth].isdigit()]
            steps[depth] = str(max(there, default=-1) + 1 + int(step))
    hits = [each for each, place in zip(found, places, strict=True) if place == steps]
    hits = hits or [each for each, place in zip(found, places, strict=True) if steps and place[-len(steps) :] == steps]
    if not steps or (len(found) == 1 and found[0].place == '' and steps == ['0']):
        hits = [each for each in found if each.place == '']
    if len(hits) == 1:
        return hits[0]
    if any(_steps(place) == steps for place, _ in _named_tensors(output)):
        problem = f'{str(wanted)!r} is not a row of numbers for each image; the output holds {listed(output)}'
    else:
        many = counted(len(hits), 'tensor') if hits else 'no tensor'
        problem = f'{many} {str(wanted)!r} in the output, which holds {listed(output)}'
    names = [each.path or 'the output itself (leave it out)' for each in found]
    raise InputError(
        problem,
        accepted=', '.join(names) or 'a tensor (B, C) or (B,)',
        hint=close_matches(str(wanted), names) or CHOOSE,
        parameter='output',
    )


@dataclass(frozen=True)
class Hints:
    """What is known about a network's output before it has run.

    Attributes:
        output: Which tensor holds the scores, if the user said.
        activation: One of :data:`ACTIVATIONS`.
        names: Class names by id, or None.
        config: The config that the network was built from, or an empty mapping.
        value: Whether a target asks for a value, so that a single number is not taken for classes.
    """

    output: OutputName = None
    activation: str = 'auto'
    names: tuple[str, ...] | None = None
    config: Mapping[str, Any] | None = None
    value: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f'unknown activation {self.activation!r}',
                accepted=', '.join(ACTIVATIONS),
                hint=close_matches(str(self.activation), ACTIVATIONS),
                parameter='activation',
            )


def find_readout(
    module: nn.Module,
    output: Any,
    count: int,
    hints: Hints | None = None,
    rerun: Callable[[], Any] | None = None,
) -> Readout | None:
    """Which tensor of a network's output holds the scores, and what they mean.

    The meaning is, in this order:

    1. what the user said (``activation``);
    2. ``problem_type`` of Hugging Face, the class of the head, the evaluator or the loss of the config, a loss among
       the network's own modules;
    3. for a single number: the number of class names, its name, and whether it is too large for a logit;
    4. what the libraries do (softmax; Hugging Face trains a single label as a value).

    Otherwise several numbers are taken as classes by softmax and a single one as two classes by sigmoid, which is
    logged. Numbers in [0, 1] that the network's last operation (a sigmoid, a softmax) gave are not squashed again, nor
    are those that sum to 1 for every image.

    Args:
        module: The network.
        output: What it returned for ``count`` images.
        count: How many images.
        hints: What is known beforehand.
        rerun: Runs the network on one image with gradients and returns its output, at the same place; needed only
            where ``output`` has no graph and lies in [0, 1].

    Returns:
        None for a network without a head, or whose output holds no row of numbers for each image.

    Raises:
        InputError: The user's choice does not fit, or two tensors may hold the scores.
    """
    hints = hints or Hints()
    if hints.output is None and not has_classes(module):
        return None
    numbers = len(hints.names or ()), output_count(module)
    chosen, sure, why = find_scores(output, count, hints.output, numbers)
    if chosen is None:
        return None
    squashed, seen = _is_squashed(chosen, rerun)
    found = _read(module, chosen, hints, squashed, seen)
    certain = sure and found.known
    if not sure:
        log.warning(
            f'the scores are taken from the output %r (%s); choose another with {param("output")}', chosen.path, why
        )
    if not found.known:
        choices = 'sigmoid or none' if found.columns == 1 else 'softmax, sigmoid or none'
        log.log(
            logging.INFO if found.meaning == 'softmax' else logging.WARNING,
            f'the output %s is taken as %s; say otherwise with {param("activation")} ({choices})',
            chosen.shape,
            found.words,
        )
    return Readout(**{**vars(found), 'known': certain})


def _read(module: nn.Module, chosen: Candidate, hints: Hints, squashed: bool, seen: str) -> Readout:
    """What the numbers of the chosen tensor mean; see :func:`find_readout`.

    Probabilities exclude each other if they sum to 1, unless the config says that the labels are independent.
    """
    columns = chosen.scores.shape[1]
    evidence, reason = _evidence(module, hints.config or {}, columns)
    if columns == 1:
        return _read_one(module, chosen, hints, squashed, seen, evidence, reason)

    def readout(meaning: Meaning, exclusive: bool, known: bool, reason: str) -> Readout:
        return Readout(chosen.place, meaning, columns, columns, exclusive, known, reason)

    sums = bool(((chosen.scores.detach().float().sum(1) - 1).abs() < _SUM_TOLERANCE).all())
    if hints.activation == 'none':
        if _in_unit(chosen.scores):
            return readout('probabilities', sums, True, 'as requested')
        return readout('value' if evidence == 'value' else 'scores', True, True, 'as requested')
    if hints.activation != 'auto':
        softmax = hints.activation == 'softmax'
        said: Meaning = 'probabilities' if squashed else 'softmax' if softmax else 'sigmoid'
        return readout(said, softmax, True, 'as requested')
    if evidence == 'value':
        return readout('value', False, True, reason)
    if squashed or (_in_unit(chosen.scores) and sums):
        exclusive = sums and evidence != 'sigmoid'
        return readout('probabilities', exclusive, squashed, seen or 'all values lie in [0, 1] and sum to 1')
    if evidence is not None:
        return readout('softmax' if evidence == 'softmax' else 'sigmoid', evidence == 'softmax', True, reason)
    if libraries := _libraries(module):
        return readout('softmax', True, True, f'a classifier of {libraries[0]}')
    return readout('softmax', True, False, 'several numbers, and nothing says that they are independent')


def _read_one(
    module: nn.Module,
    chosen: Candidate,
    hints: Hints,
    squashed: bool,
    seen: str,
    evidence: Evidence | None,
    reason: str,
) -> Readout:
    """What a single number means: two classes, one label, or a value.

    A single class name that is not one of Hugging Face's defaults (``LABEL_0``) makes it one label.
    """
    names = hints.names or ()
    value_name = _value_name(chosen, names)

    def value(known: bool, reason: str) -> Readout:
        return Readout(chosen.place, 'value', 1, 1, False, known, reason, value_name or 'value')

    def classes(known: bool, reason: str) -> Readout:
        count = 1 if len(names) == 1 and not names[0].upper().startswith('LABEL_') else 2
        meaning: Meaning = 'probabilities' if squashed else 'binary' if count == 2 else 'sigmoid'
        return Readout(chosen.place, meaning, 1, count, count == 2, known, reason)

    if hints.activation == 'softmax':
        raise InputError(
            'the softmax of a single number is always 1',
            accepted=f'{param("activation", "sigmoid")} (two classes), {param("activation", "none")} (a value)',
            parameter='activation',
        )
    if hints.activation == 'sigmoid':
        return classes(True, 'as requested')
    if hints.activation == 'none':
        if squashed and (len(names) == 2 or evidence == 'sigmoid'):
            return classes(True, 'as requested')
        return value(True, 'as requested')
    if len(names) == 2 and evidence != 'value':
        return classes(True, seen or 'one number and two class names')
    if evidence is not None:
        return value(True, reason) if evidence == 'value' else classes(True, reason)
    if value_name:
        return value(True, f'it is called {value_name!r}')
    if 'transformers' in _libraries(module):
        return value(True, 'transformers trains a single label as a value')
    if hints.value:
        return value(True, 'as requested')
    if squashed:
        return classes(False, seen)
    if bool((chosen.scores.detach().abs() > SATURATED).any()):
        return value(False, 'a single number too large for a logit')
    return classes(False, 'a single number, and nothing says that it is a value')


def _value_name(chosen: Candidate, names: Sequence[str]) -> str:
    """What a value is called, by its only class name or its place in the output; ``''`` for what is not a quantity."""
    last = _steps(chosen.place)[-1:]
    called = [*(names if len(names) == 1 else ()), *last]
    return next((name for name in called if _VALUES.intersection(_words(name))), '')


def _in_unit(scores: Tensor) -> bool:
    values = scores.detach()
    return bool((values >= 0).all() and (values <= 1).all())


_SQUASHING = {
    'Sigmoid': 'a sigmoid',
    'Softmax': 'a softmax',
    'LogSoftmax': 'a softmax',
    'Hardsigmoid': 'a hard sigmoid',
}
_WEIGHTS = ('Addmm', 'Mm', 'Bmm', 'Matmul', 'Linear', 'Convolution', 'NativeBatchNorm', 'NativeLayerNorm')
_NEAR = 16
"""How many operations before the end of a network are looked at for a sigmoid or softmax."""


class _Squashed(TorchFunctionMode):
    """Keeps what sigmoids and softmaxes give.

    Attributes:
        found: Their names and outputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        kind = getattr(function, '__name__', '').strip('_').capitalize()
        if kind in _SQUASHING and isinstance(result, Tensor):
            self.found.append((kind, result.detach()))
        return result


def _is_squashed(chosen: Candidate, rerun: Callable[[], Any] | None) -> tuple[bool, str]:
    """Whether a sigmoid or softmax, after the last weights, gave these scores; and in words.

    The operations are read from the autograd graph; reshaping and averaging in between do not matter. Where a network
    builds no graph, the output of a sigmoid or softmax has to be the scores themselves.
    """
    if not _in_unit(chosen.scores):
        return False, ''
    tensor = chosen.tensor
    if tensor.grad_fn is None and rerun is not None:
        with _Squashed() as calls:
            tensor = dict(_named_tensors(rerun())).get(chosen.place, tensor)
        for kind, given in calls.found:
            if tensor.grad_fn is None and torch.equal(given.flatten(), tensor.flatten()):
                return True, f'{_SQUASHING[kind]} is its last operation'
    waiting: list[Any] = [tensor.grad_fn]
    known: set[Any] = set()
    while waiting and len(known) < _NEAR:
        node = waiting.pop(0)
        if node is None or node in known:
            continue
        known.add(node)
        kind = re.sub(r'Backward\d*$', '', node.name())
        if kind in _SQUASHING:
            return True, f'{_SQUASHING[kind]} is its last operation'
        if not kind.startswith(_WEIGHTS):
            waiting += [parent for parent, _ in node.next_functions]
    return False, ''


Evidence: TypeAlias = Literal['softmax', 'sigmoid', 'value']

_VALUE_LOSSES = ('mse', 'l1loss', 'smoothl1', 'huber', 'logcosh', 'gaussiannll', 'poissonnll', 'maeloss', 'regress')
_LABEL_LOSSES = ('bce', 'binarycrossentropy', 'asymmetric', 'multilabel')
_CLASS_LOSSES = ('crossentropy', 'labelsmooth', 'nllloss', 'seesaw')
_VALUE_METRICS = ('mae', 'mse', 'rmse', 'meanabsoluteerror', 'meansquarederror', 'r2score', 'regress')
_LABEL_METRICS = ('multilabel', 'averageprecision')
_CLASS_METRICS = ('accuracy', 'singlelabel', 'confusionmatrix')


def _evidence(module: nn.Module, config: Mapping[str, Any], columns: int) -> tuple[Evidence | None, str]:
    """What the network and its config say about its scores, and where they say so; None where they say nothing.

    A softmax over a single number means nothing, so for one it counts as "these are classes".
    """
    for found, reason in (
        *_problem_types(module),
        *_heads(module, config),
        *_evaluators(config),
        *_losses(module, config),
    ):
        if found == 'softmax' and columns == 1:
            continue
        return found, reason
    return None, ''


def _problem_types(module: nn.Module) -> Iterator[tuple[Evidence, str]]:
    kinds: dict[str, Evidence] = {
        'multi_label_classification': 'sigmoid',
        'single_label_classification': 'softmax',
        'regression': 'value',
    }
    for part in (module, getattr(module, 'model', None)):
        kind = getattr(getattr(part, 'config', None), 'problem_type', None)
        if kind in kinds:
            yield kinds[kind], f'problem_type {kind!r}'


def _heads(module: nn.Module, config: Mapping[str, Any]) -> Iterator[tuple[Evidence, str]]:
    described: Any = config.get('model')
    described = described if isinstance(described, Mapping) else {}
    parts = (module, getattr(module, 'model', None), getattr(module, 'head', None))
    names = [type(part).__name__ for part in parts]
    names += [_plain(part.get('type')) for part in (described, described.get('head')) if isinstance(part, Mapping)]
    for name in (name for name in names if 'regress' in _word(name)):
        yield 'value', f'the head {name}'
    names += [type(child).__name__ for child in module.modules() if not type(child).__name__.endswith('Loss')]
    for name in (name for name in names if 'multilabel' in _word(name)):
        yield 'sigmoid', f'the head {name}'


def _evaluators(config: Mapping[str, Any]) -> Iterator[tuple[Evidence, str]]:
    for key in ('test_evaluator', 'val_evaluator'):
        given = config.get(key)
        for each in given if isinstance(given, (list, tuple)) else [given]:
            name = _plain(each.get('type')) if isinstance(each, Mapping) else ''
            word, reason = _word(name), f'the evaluator {name}'
            if any(metric in word for metric in _LABEL_METRICS):
                yield 'sigmoid', reason
            elif any(metric in word for metric in _CLASS_METRICS):
                yield 'softmax', reason
            elif word in _VALUE_METRICS or 'regress' in word:
                yield 'value', reason


def _losses(module: nn.Module, config: Mapping[str, Any]) -> Iterator[tuple[Evidence, str]]:
    """What the losses say, if all of them say the same."""
    told = (_loss(name, settings) for name, settings in _all_losses(module, config))
    found = dict(pair for pair in told if pair is not None)
    if len(found) == 1:
        yield from found.items()


def _all_losses(module: nn.Module, config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names of losses with their settings: the config's, and those among the network's modules."""
    parts = {key: config.get(key) for key in ('model', 'loss', 'criterion')}
    for key, value in _entries(parts):
        if 'loss' in key.lower() or key == 'criterion':
            kind = value.get('type') if isinstance(value, Mapping) else value
            if isinstance(kind, (str, type)):
                yield _plain(kind), value if isinstance(value, Mapping) else {}
    losses: list[str] = []
    for name, child in module.named_modules():
        if any(name.startswith(f'{outer}.') for outer in losses):
            continue  # a loss inside a loss
        if isinstance(child, nn.modules.loss._Loss) or type(child).__name__.endswith('Loss'):
            losses.append(name)
            yield type(child).__name__, vars(child)


def _loss(name: str, settings: Mapping[str, Any]) -> tuple[Evidence, str] | None:
    word, reason = _word(name), f'the loss {name}'
    if any(each in word for each in _VALUE_LOSSES):
        return 'value', reason
    if any(each in word for each in _LABEL_LOSSES) or settings.get('mode') == 'multi_label':
        return 'sigmoid', reason
    if 'crossentropy' in word and settings.get('use_sigmoid') is True:
        return 'sigmoid', f'{reason} with use_sigmoid'
    return ('softmax', reason) if any(each in word for each in _CLASS_LOSSES) else None


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values in a config, from the outermost inwards."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key), each
            yield from _entries(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _entries(each)


def _plain(kind: object) -> str:
    """A type in a config by its bare name: ``'mmpretrain.Accuracy'`` → ``'Accuracy'``."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _word(name: str) -> str:
    return name.replace('_', '').lower()


def _libraries(module: nn.Module) -> list[str]:
    """The libraries whose classifier a network is, a wrapper's before that of what it wraps."""
    kinds = [kind for part in (module, getattr(module, 'model', None)) for kind in type(part).__mro__]
    return [library for kind in kinds if (library := kind.__module__.partition('.')[0]) in _LIBRARIES]


def has_classes(module: nn.Module) -> bool:
    """Whether a network has a classification head, as far as its attributes say.

    Without one, mmpretrain's classifiers have ``head=None`` and its backbones no head at all; timm and torchvision have
    ``num_classes``, Hugging Face ``config.num_labels``, which are 0.
    """
    if getattr(module, 'head', module) is None:  # absent (a wrapper, a plain module) is not the same as None
        return False
    for part in (module, getattr(module, 'model', None)):
        classes = getattr(part, 'num_classes', None)
        labels = getattr(getattr(part, 'config', None), 'num_labels', None)
        if (type(classes) is int and classes == 0) or (type(labels) is int and labels == 0):
            return False
    backbone = any(kind.__name__ == 'BaseBackbone' for kind in type(module).__mro__)
    return not backbone or int(getattr(module, 'num_classes', 0) or 0) > 0


def output_count(module: nn.Module) -> int | None:
    """The number of class scores by the network's attributes (its head's ``num_classes``, its labels), or None."""
    for part in (getattr(module, 'head', None), module, getattr(module, 'model', None)):
        for count in (getattr(part, 'num_classes', None), getattr(getattr(part, 'config', None), 'num_labels', None)):
            if type(count) is int and count > 0:
                return count
    return None


_POOLED = ('pooler_output', 'image_embeds', 'last_hidden_state', 'logits')


def feature_place(output: Any) -> str:
    """Where the features are in what a headless network returned; ``''`` for the output itself.

    Of tensors with names the first of ``pooler_output``, ``image_embeds``, ``last_hidden_state`` and ``logits`` that is
    there; of others the last.
    """
    if isinstance(output, Mapping) and output:
        key = next((key for key in _POOLED if isinstance(output.get(key), Tensor)), list(output)[-1])
        return f'[{key}]{feature_place(output[key])}'
    if isinstance(output, (tuple, list)) and output:
        return f'[{len(output) - 1}]{feature_place(output[-1])}'
    return ''


def pooled_features(output: Any, size: Size) -> Tensor:
    """One feature vector per image: the class token if there is one, else the mean over the positions.

    Args:
        output: What a headless network returned: pooled features ``(B, D)``, tokens ``(B, L, D)``, a map ``(B, D, h,
            w)``, a tuple with one of those per stage, or a Hugging Face output object (see :func:`feature_place`).
        size: ``(H, W)`` of the network input.

    Returns:
        ``(B, D)``.

    Raises:
        InputError: If there are no features in it.
    """
    output = part_of(output, feature_place(output))[1]
    if isinstance(output, Tensor) and output.ndim in (2, 3, 4):
        return output if output.ndim == 2 else _pool(output, size)
    raise InputError(
        f"the network's output ({type(output).__name__}) holds no features to compare",
        accepted='(B, D), (B, L, D) or (B, D, h, w)',
        parameter='reference',
    )


def _pool(output: Tensor, size: Size) -> Tensor:
    layout = _pooled_layout(output, size)
    if layout is None:
        return output.mean((2, 3)) if output.ndim == 4 else output.mean(1)
    if layout.axes == 'BLC' and layout.prefix:
        return output[:, 0]
    return layout.to_map(output).mean((2, 3))


def _pooled_layout(output: Tensor, size: Size) -> Layout | None:
    """The layout of features; None where they are pooled to one position, or are tokens that form no grid."""
    try:
        return find_layout(output, size)
    except NoSpatialMap:
        return None


def pooling(output: Any, size: Size) -> str:
    """What :func:`pooled_features` makes of tokens, in words; ``''`` for maps, whose mean it takes, and features."""
    output = part_of(output, feature_place(output))[1]
    if not isinstance(output, Tensor) or output.ndim != 3:
        return ''
    layout = _pooled_layout(output, size)
    if layout is None:
        return f'the mean of {counted(output.shape[1], "token")}'
    height, width = layout.grid
    if layout.axes == 'BLC' and layout.prefix:
        which = 'the first token' if layout.prefix == 1 else f'the first of {layout.prefix} tokens'
        return f'{which} before {height}×{width} positions, taken for a class token'
    return f'the mean of {height}×{width} positions'
