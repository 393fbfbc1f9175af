"""vistool's results beside the independent computations: are the values the same, and is each where it belongs?

The values of a map are looked for in the raw tensor of the layer, in any order. Whether each then lies in its place is
not taken from any layout but measured: parts of the image are changed, and the positions that answer have to be there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import oracles
import torch
from numpy.typing import NDArray
from oracles import Answers, Call
from torch import Tensor, nn
from zoo import Network, quiet

from vistool import CAM, Attention, FeatureMaps, InputError, Patches
from vistool.errors import spelled

Size: TypeAlias = tuple[int, int]

METHODS = ('gradcam', 'gradcam++', 'xgradcam', 'layercam', 'hirescam', 'gradcamelementwise')
SMALLEST = 1e-36
"""What float32 cannot tell from zero with its usual precision."""
MOST_PREFIX = 64
"""More class, distillation and register tokens than any network has."""
MIXED = ('t2t',)
"""Networks whose first layer is attention over pixels: with random weights each token repeats some other one."""
ROUNDING = 2e-6
"""Relative error of a float32 sum of many terms."""
WITHIN_NORM = 4e-3
"""Likewise behind a norm, whose epsilon keeps terms from canceling exactly."""


@dataclass(frozen=True)
class Outcome:
    """What became of one comparison.

    Attributes:
        task: ``cam``, ``featmap``, ``attention`` or ``patches``.
        subject: The layer or module.
        verdict: ``equal``, ``refused``, ``WRONG`` or ``CRASH``; ``unproven`` where no independent computation is known.
        reason: Why.
    """

    task: str
    subject: str
    verdict: str
    reason: str = ''

    @property
    def bad(self) -> bool:
        """Whether it is a fault of vistool's."""
        return self.verdict in ('WRONG', 'CRASH')


@dataclass(frozen=True)
class Arrangement:
    """One way to read a raw tensor as positions: ``(B, …) → (B, positions, channels)``.

    Attributes:
        name: What it is, for messages.
        read: Does it.
        padded: Whether windows hold more positions than there are cells.
    """

    name: str
    read: Callable[[Tensor], Tensor]
    padded: bool = False


def arrangements(shape: Sequence[int], batch: int, count: int) -> Iterator[Arrangement]:
    """The ways to read a tensor of a shape as ``count`` positions for each image, the likeliest first.

    Groups of an image count as one. Channels come first in maps and last in tokens.
    """
    if len(shape) < 3 or shape[0] % batch:
        return
    for axis in dict.fromkeys((1, len(shape) - 1) if len(shape) > 3 else (2, 1)):

        def flat(tensor: Tensor, axis: int = axis) -> Tensor:
            last = tensor.movedim(axis, -1)
            images = last.shape[0] * batch // shape[0]
            return last.reshape(images, -1, last.shape[-1])

        positions = int(np.prod(shape)) // shape[axis] // batch
        name = 'channels first' if axis == 1 and len(shape) > 3 else 'channels last'
        if positions == count:
            yield Arrangement(name, flat)
        elif count < positions <= count + MOST_PREFIX and len(shape) == 3 and shape[0] == batch:
            yield Arrangement('tokens after a prefix', lambda tensor, flat=flat: flat(tensor)[:, -count:])
            yield Arrangement('tokens before the rest', lambda tensor, flat=flat: flat(tensor)[:, :count])
        elif positions > count and (shape[0] > batch or len(shape) > 3 or positions > count + MOST_PREFIX):
            yield Arrangement('windows with padding', flat, padded=True)


def in_order(shown: Tensor, raw: Tensor, tolerance: float) -> Tensor | None:
    """The raw position of each shown cell, int64 ``(cells,)``; None where the values are not the same.

    Args:
        shown: ``(cells,)`` or ``(cells, channels)``.
        raw: Values of the raw positions, the same shape, or of more positions where windows are padded.
        tolerance: Absolute.
    """
    if shown.shape[1:] != raw.shape[1:] or len(raw) < len(shown) or (shown.ndim == 1 and len(raw) > len(shown)):
        return None
    shown, raw = shown.double(), raw.double()
    if len(raw) > len(shown):
        order = _nearest(shown, raw)
        found = bool(((shown - raw[order]).abs() <= tolerance).all()) and len(order.unique()) == len(order)
        return order if found else None
    if bool(((shown - raw).abs() <= tolerance).all()):
        return torch.arange(len(shown))
    if bool(((shown.sort(0).values - raw.sort(0).values).abs() > tolerance).any()):
        return None
    if shown.ndim == 1:
        order = torch.empty(len(shown), dtype=torch.long)
        order[shown.argsort()] = raw.argsort()
        return order
    # the nearest; positions with nearly the same values may be taken for each other
    order = _nearest(shown, raw)
    return order if bool(((shown - raw[order]).abs() <= tolerance).all()) else None


def _nearest(shown: Tensor, raw: Tensor) -> Tensor:
    """The raw position with the nearest values for each cell."""
    return torch.cat([torch.cdist(part, raw).argmin(1) for part in shown.split(1024)])


def misplaced(answers: Answers, order: Tensor, grid: Size) -> tuple[str, str]:
    """Why cells do not answer to the part of the image that they are drawn over, with the verdict.

    Where most positions answer to everything, the few that seem to answer to a part may do so by chance.

    Args:
        answers: How the raw positions change with parts of the image.
        order: The raw position of each cell, row by row.
        grid: Rows and columns of cells.

    Returns:
        ``('WRONG', why)``, or ``('unproven', why)``; ``('', '')`` if they do, or none is local.
    """
    places, locality = answers.places()[order], answers.locality[order]
    rows = (torch.arange(grid[0]) + 0.5) / grid[0]
    columns = (torch.arange(grid[1]) + 0.5) / grid[1]
    cells = torch.cartesian_prod(rows, columns)
    local = locality >= LOCAL  # the others may answer to everything, as behind global attention
    if int(local.sum()) < max(6, FEW * len(local)):
        return '', ''
    for axis, name in enumerate(('rows', 'columns')):
        if grid[axis] < 2:
            continue
        found, expected = places[local, axis].double(), cells[local, axis].double()
        spread = float(found.std())
        if min(spread, float(expected.std())) < SPREAD:
            continue
        agreement = float(torch.corrcoef(torch.stack([found, expected]))[0, 1])
        if agreement < AGREEMENT and int(local.sum()) < MOST * len(local):
            return 'unproven', f'its answers are blurred: {int(local.sum())} of {len(local)} cells answer to a part'
        if agreement < AGREEMENT:
            return 'WRONG', f'scrambled: its {name} answer to other parts of the image (agreement {agreement:.2f})'
    return '', ''


LOCAL = 3.0
"""How many times the mean answer a position's strongest answer has to be, if its place is to be told from it."""
FEW = 0.05
"""The smallest share of such positions that tells an order."""
MOST = 0.5
"""The smallest share of such positions that refutes one."""
SPREAD = 0.12
"""Spread of their places (0.29 for a uniform grid) below which no order can be told."""
AGREEMENT = 0.6
"""Correlation of these places with the cells' own."""


class Comparison:
    """One network, with what several tasks need of it, computed once.

    Args:
        network: The network.
        seed: Chooses inner layers and points.
        inner: How many random layers are looked at besides the default ones.
    """

    def __init__(self, network: Network, seed: int, inner: int) -> None:
        self.network, self.module, self.images = network, network.module, network.images
        self.pick = random.Random(seed)
        height, width = self.images.shape[2:]
        self.parts: Size = (3, 4) if width > height else (4, 3) if height > width else (4, 4)
        self.changed = torch.cat([self.images[:1], oracles.image_parts(self.images, self.parts, seed)])
        with torch.no_grad(), quiet():
            self.logits = oracles.logits_of(self.module(self.images))
        self._values: dict[str, list[list[list[Tensor]]]] = {}
        self._backward: dict[str, list[Call]] = {}
        self._logits: dict[str, list[list[Tensor]]] = {}
        self.inner = self._inner_layers(inner)

    @property
    def size(self) -> Size:
        """``(H, W)`` of the images."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def _inner_layers(self, count: int) -> list[str]:
        """Random layers whose output may be a map."""
        shapes: dict[str, tuple[int, ...]] = {}
        handles = []
        for name, child in self.module.named_modules():

            def note(layer: nn.Module, args: Any, output: Any, name: str = name) -> None:
                found = oracles.tensors_in(output)
                if found:
                    shapes.setdefault(name, tuple(found[0].shape))

            if name:
                handles.append(child.register_forward_hook(note))
        with torch.no_grad(), quiet():
            self.module(self.images[:1])
        for handle in handles:
            handle.remove()
        large = [name for name, shape in shapes.items() if len(shape) > 2 and np.prod(shape[1:]) > max(shape) > 1]
        return self.pick.sample(large, min(count, len(large)))

    def task(self, name: str, run: Callable[[], Iterator[Outcome]]) -> list[Outcome]:
        """The outcomes of a task; an error of vistool's is an outcome too, as is a network that is left changed."""
        before = _state(self.module)
        outcomes: list[Outcome] = []
        try:
            outcomes += run()
        except InputError as error:
            outcomes.append(Outcome(name, 'default', 'refused', spelled(error.problem)))
        except Exception as error:  # a network that the independent computation cannot follow
            reason = f'{type(error).__name__}: {error} ({_place_of(error, "checks")})'.replace('\n', ' ')
            outcomes.append(Outcome(name, 'check', 'unproven', reason))
        if _state(self.module) != before:
            outcomes.append(Outcome(name, 'network', 'WRONG', 'the network is not left as it was'))
        return outcomes

    def attempt(self, task: str, subject: str, run: Callable[[], Any]) -> tuple[Any, Outcome | None]:
        """What vistool returns, or the outcome where it raises."""
        try:
            with quiet():
                return run(), None
        except InputError as error:
            return None, Outcome(task, subject, 'refused', spelled(error.problem))
        except Exception as error:
            place = _place_of(error, 'vistool')
            return None, Outcome(
                task, subject, 'CRASH', f'{type(error).__name__}: {error} ({place})'.replace('\n', ' ')
            )

    def _misplaced(self, answers: Answers, order: Tensor, grid: Size) -> tuple[str, str]:
        """:func:`misplaced`; a scrambled order is not proven where tokens are mixed from the start."""
        verdict, why = misplaced(answers, order, grid)
        if verdict and any(name in str(self.network.architecture) for name in MIXED):
            return 'unproven', f'{why}; its first attention mixes tokens by chance'
        return verdict, why

    # class activation maps

    def cam(self) -> Iterator[Outcome]:
        """The default layers and random inner ones."""
        yield from self._cam(())
        for name in self.inner:
            yield from self._cam((name,))

    def _cam(self, layers: tuple[str, ...]) -> Iterator[Outcome]:
        subject = ', '.join(layers) or 'default layer'
        options: dict[str, Any] = {} if self.logits is not None else {'score': lambda output, samples: _mixture(output)}
        results, failed = self.attempt(
            'cam', subject, lambda: CAM(METHODS, layers=layers, **options)(self.module, self.images)
        )
        if failed:
            yield failed
            return
        if len(results[0].layers) > 1:
            for name in results[0].layers:
                yield from self._cam((name,))
            return
        name = _module_name(results[0].layers[0])
        yield self._compare_cam(name, results, 'default: ' if not layers else '')

    def _compare_cam(self, name: str, results: Sequence[Any], prefix: str) -> Outcome:
        outcome = partial(Outcome, 'cam', f'{prefix}{name}')
        classes = None if self.logits is None else self.logits.argmax(1)

        def score(output: Any) -> Tensor:
            if classes is None:
                return _mixture(output)
            logits = oracles.logits_of(output)
            assert logits is not None
            return logits.gather(1, classes[:, None])[:, 0]

        if name not in self._backward:  # the inner layers come along
            names = [each for each in dict.fromkeys([name, *self.inner]) if each not in self._backward]
            with quiet():
                self._backward.update(oracles.backward_through(self.module, self.images, names, score)[0])
        calls = self._backward[name]
        signed = {method: torch.stack([torch.from_numpy(_of(r, method).signed) for r in results]) for method in METHODS}
        grid: Size = (signed['gradcam'].shape[1], signed['gradcam'].shape[2])
        reasons, padded = [], False
        for number, call in enumerate(calls):
            for place, (value, gradient) in enumerate(zip(call.values, call.gradients, strict=True)):
                for way in arrangements(value.shape, len(self.images), grid[0] * grid[1]):
                    padded |= way.padded
                    if way.padded:
                        continue
                    gradient = torch.zeros_like(value) if gradient is None else gradient
                    a, g = way.read(value), way.read(gradient)
                    order, reason = self._same_cams(signed, results, a, g)
                    if order is None:
                        reasons.append(reason)
                        continue
                    answers = self._answers_of(name, number, place, way)
                    verdict, why = self._misplaced(answers, order, grid)
                    notes = [reason, '' if g.any() else 'no gradient', _doubt(name) if prefix else '']
                    return outcome(verdict or 'equal', why or '; '.join(filter(None, notes)))
        if not reasons and padded:
            return outcome('unproven', 'its windows are padded: which positions are padding is not known')
        if not reasons:
            return outcome('WRONG', f'a map of {grid} out of {[tuple(v.shape) for v in calls[0].values]}')
        return outcome('WRONG', next((reason for reason in reasons if 'off by' not in reason), reasons[0]))

    def _same_cams(
        self, signed: dict[str, Tensor], results: Sequence[Any], a: Tensor, g: Tensor
    ) -> tuple[Tensor | None, str]:
        """The order of the cells, and notes; None and the reason where a method's map is not the formula's."""
        found: Tensor | None = None
        notes = []
        for method in METHODS:
            truth, terms = oracles.formula(method, a, g), oracles.magnitude(method, a, g)
            for index in range(len(a)):
                shown = signed[method][index].flatten()
                tolerance = 1e-4 * float(truth[index].abs().max()) + ROUNDING * 10 * float(terms[index].max())
                tolerance = max(tolerance, SMALLEST)
                sums = oracles.magnitude(method, a[index : index + 1], g[index : index + 1], conditioned=False)
                rounding = ROUNDING * float(sums.max())
                canceled = float(truth[index].abs().max()) <= rounding
                flat = float(truth[index].max() - truth[index].min()) <= rounding
                small = float(truth[index].abs().max()) <= WITHIN_NORM * float(terms[index].max())
                if (canceled or flat or small) and _says_nothing(results[index], method):
                    notes.append(f'{method}: nothing above {"rounding" if canceled or flat else "what norms leave"}')
                    continue
                if canceled:
                    return None, f'{method} draws rounding errors as evidence'
                expected = truth[index]
                if not bool((expected > WITHIN_NORM * terms[index]).any()):  # its positive values may be left out
                    shown, expected = shown.clamp_max(0), expected.clamp_max(0)
                order = in_order(shown, expected, tolerance)
                if order is None:
                    away = float(
                        (shown.double() - truth[index]).abs().max() / truth[index].abs().max().clamp_min(1e-30)
                    )
                    return None, f'{method} is off by {away:.1e} of its largest value'
                natural = bool((order == torch.arange(len(order))).all())
                if found is None or (method == 'gradcam' and not natural):
                    found = order
                wrong = self._wrongly_drawn(_of(results[index], method).values, signed[method][index])
                if wrong:
                    return None, f'{method} {wrong}'
        return (torch.arange(a.shape[1]) if found is None else found), '; '.join(dict.fromkeys(notes))

    def _wrongly_drawn(self, values: NDArray[np.float32], signed: Tensor) -> str:
        """Why a drawn map is not its signed map, positive part, scaled and enlarged; ``''`` if it is."""
        truths = [oracles.unit_map(signed[None], self.size, epsilon)[0] for epsilon in (1e-7, 1e-30)]
        away = min(float((torch.from_numpy(values) - truth).abs().max()) for truth in truths)
        return f'is drawn {away:.1e} away from its values' if away > 2e-3 else ''

    # feature maps

    def featmap(self) -> Iterator[Outcome]:
        """The default stages and random inner layers."""
        yield from self._featmap(())
        for name in self.inner:
            yield from self._featmap((name,))

    def _featmap(self, layers: tuple[str, ...]) -> Iterator[Outcome]:
        subject = ', '.join(layers) or 'default stages'
        results, failed = self.attempt(
            'featmap', subject, lambda: FeatureMaps(layers=layers, all_channels=True)(self.module, self.images)
        )
        if failed:
            yield failed
            return
        shown: dict[str, list[Tensor]] = {}
        for result in results:
            for each in result.companions['channels'].layers:
                shown.setdefault(each.layer, []).append(torch.from_numpy(each.values))
        self._watch([name for name in map(_module_name, shown) if name not in self.inner])
        for name, maps in shown.items():
            yield self._compare_features(name, torch.stack(maps), '' if layers else 'default: ')

    def _compare_features(self, shown_name: str, maps: Tensor, prefix: str) -> Outcome:
        name = _module_name(shown_name)
        outcome = partial(Outcome, 'featmap', f'{prefix}{shown_name}')
        grid: Size = (maps.shape[2], maps.shape[3])
        with quiet():
            calls = oracles.hooked_values(self.module, self.images, [name])[name]
        shown = maps.flatten(2).transpose(1, 2)
        for number, values in enumerate(calls):
            for place, value in enumerate(values):
                for way in arrangements(value.shape, len(self.images), grid[0] * grid[1]):
                    raw = way.read(value).float()
                    # not bit for bit: convolutions depend on where in memory an image lies
                    tolerance = 1e-5 * float(raw.abs().max())
                    orders = [in_order(one, other, tolerance) for one, other in zip(shown, raw, strict=True)]
                    if orders[0] is None or any(order is None for order in orders):
                        continue
                    verdict, why = self._misplaced(self._answers_of(name, number, place, way), orders[0], grid)
                    return outcome(verdict or 'equal', why)
        shapes = [tuple(value.shape) for value in calls[0]]
        return outcome('WRONG', f'maps {tuple(maps.shape)} are not the values of {shapes}')

    def _watch(self, names: Sequence[str]) -> None:
        """Keeps what layers return for the first image as it is and with each part changed, all in one go."""
        if missing := [name for name in names if name not in self._values]:
            self._values.update({name: [] for name in missing})
            for images in self._chunks():
                with quiet():
                    found = oracles.hooked_values(self.module, images, missing)
                for name, calls in found.items():
                    self._values[name].append(calls)

    def _chunks(self) -> Iterator[Tensor]:
        """The changed images, as many at a time as the batch has, the last filled up."""
        for images in self.changed.split(len(self.images)):
            yield torch.cat([images, self.changed[: len(self.images) - len(images)]])

    def _answers_of(self, name: str, call: int, place: int, way: Arrangement) -> Answers:
        """How the positions of a layer answer to parts of the first image."""
        self._watch([name, *self.inner])
        read = torch.cat([way.read(chunk[call][place]).double() for chunk in self._values[name]])[: len(self.changed)]
        return Answers(self.parts, (read[1:] - read[:1]).norm(dim=2))

    # attention

    def attention(self) -> Iterator[Outcome]:
        """The last layer and two others; for the last also the row of one token."""
        number = self.pick.randrange(1, 8)
        wanted = {'last layer': (), 'first layer': 0, f'layer {number}': number}
        shown: dict[str, Any] = {}
        for subject, layers in wanted.items():
            results, failed = self.attempt('attention', subject, partial(self._attend, layers))
            if failed is None:
                shown[subject] = results
            elif 'attention layers run' not in failed.reason:
                yield self._questioned(failed)
                if 'runs no attention' in failed.reason:
                    return
        self._watch_logits([name for results in shown.values() for name in results[0].layers])
        for subject, results in shown.items():
            yield from self._compare_attention(results, 'default: ' if subject == 'last layer' else '')

    def _watch_logits(self, names: Sequence[str]) -> None:
        """Keeps the logits of all attention inside modules, for the first image and with each part of it changed."""
        names = list(dict.fromkeys(names))
        self._logits = {name: [] for name in names}
        for images in self._chunks() if names else ():
            with quiet():
                records = oracles.attention_weights(self.module, images, names)
            for name in names:
                inside = (each for each in records if name in ('', each.module) or each.module.startswith(f'{name}.'))
                self._logits[name].append([each.logits for each in inside])

    def _questioned(self, refusal: Outcome) -> Outcome:
        """The refusal, and what speaks against it: softmaxes that run although there is said to be no attention."""
        if 'runs no attention' not in refusal.reason:
            return refusal
        with quiet():
            records = oracles.attention_weights(self.module, self.images, [''])
        doubts = sorted({f'{r.module} {tuple(r.weights.shape)}' for r in records if min(r.weights.shape[-2:]) > 1})
        return replace(refusal, reason=f'{refusal.reason} BUT {"; ".join(doubts[:4])}') if doubts else refusal

    def _attend(self, layers: Any, query: Any = 'mean') -> Any:
        return Attention(layers=layers, queries=[query])(self.module, self.images)

    def _compare_attention(self, results: Sequence[Any], prefix: str) -> Iterator[Outcome]:
        for name in dict.fromkeys(results[0].layers):
            outcome = partial(Outcome, 'attention', f'{prefix}{name}')
            shown = torch.stack([torch.from_numpy(_heads_of(result, name)) for result in results])
            with quiet():
                records = oracles.attention_weights(self.module, self.images, [name])
                own = oracles.librarys_own_weights(self.module, self.images, name)
            # where the library shows its weights, they are the truth: a network may change a softmax before it is used
            truths = [record.weights for record in records] if own is None else [own]
            found = _find_attention(shown, truths, partial(self._inside, name))
            if found is None and any(item.layer.mixed for item in results[0].maps if item.layer.name == name):
                yield outcome('unproven', 'its heads are mixed after the softmax')
                continue
            if found is None:
                yield outcome(*self._unlike(shown, truths))
                continue
            weights, reading, order = found
            number = next((n for n, r in enumerate(records) if r.weights.shape == weights.shape), None)
            grid: Size = (shown.shape[2], shown.shape[3])
            verdict, why = '', ''
            if number is not None:
                verdict, why = self._misplaced(self._answers_of_keys(name, number, reading), order, grid)
            row = self._compare_row(name, weights, reading, order, grid, outcome)
            yield outcome(verdict, why) if verdict == 'WRONG' or (verdict and not row.bad) else row

    def _inside(self, name: str, reading: _Reading, shape: Sequence[int]) -> Tensor | None:
        """Which tokens of all windows of an image change with it, ``(groups · keys,)``; padding does not.

        The logit of a token with itself depends on that token alone.
        """
        own = []
        for chunk in self._logits[name]:
            logits = next((logits for logits in chunk if logits.shape == shape), None)
            if logits is None:
                return None
            own.append(reading.read(logits).diagonal(dim1=-2, dim2=-1).sum(2).flatten(1))
        read = torch.cat(own)[: len(self.changed)]
        return ((read - read[:1]).abs() > 1e-5 * read.abs().amax()).any(0)

    def _unlike(self, shown: Tensor, truths: Sequence[Tensor]) -> tuple[str, str]:
        """Verdict and reason for maps that no attention gives."""
        shapes = [tuple(weights.shape) for weights in truths]
        simple = all(_windowed_simply(shape, shown.shape, len(self.images)) for shape in shapes)
        reason = f'maps {tuple(shown.shape)} are not the mean rows of {shapes}'
        return ('WRONG' if simple else 'unproven'), reason

    def _compare_row(
        self, name: str, truth: Tensor, reading: _Reading, order: Tensor, grid: Size, outcome: Callable[..., Outcome]
    ) -> Outcome:
        """The row of one random token of the image."""
        if reading.queries != reading.keys:
            return outcome('equal')
        cell = self.pick.randrange(grid[0] * grid[1])
        row, column = divmod(cell, grid[1])
        point = f'{int((column + 0.5) * self.size[1] / grid[1])},{int((row + 0.5) * self.size[0] / grid[0])}'
        results, failed = self.attempt('attention', name, lambda: self._attend((name,), point))
        if failed:
            return failed if failed.bad else outcome('equal', f'no row of a point: {failed.reason}')
        shown = torch.from_numpy(_heads_of(results[0], name)).flatten(1).double()
        weights = reading.read(truth)[0]  # groups, heads, queries, keys
        token = int(reading.places(torch.arange(reading.groups * reading.keys))[order[cell]])
        group, key = divmod(token, reading.keys)
        rows = torch.zeros(reading.groups, weights.shape[1], reading.keys, dtype=torch.float64)
        rows[group] = weights[group, :, key].double()
        expected = reading.places(rows.transpose(0, 1).flatten(1))[:, order]
        away = float((shown - expected).abs().max())
        return (
            outcome('WRONG', f'the row of the token at {point} is {away:.1e} off') if away > 1e-4 else outcome('equal')
        )

    def _answers_of_keys(self, name: str, number: int, reading: _Reading) -> Answers:
        """How the keys of an attention operation answer to parts of the first image, by the change of their logits."""
        rows = [reading.read(chunk[number].double().nan_to_num(neginf=0.0)) for chunk in self._logits[name]]
        logits = torch.cat(rows)[: len(self.changed)]
        change = (logits[1:] - logits[:1]).abs().sum((2, 3)).flatten(1)
        return Answers(self.parts, reading.places(change))

    # patches

    def patches(self) -> Iterator[Outcome]:
        """Which tokens of the embedding answer to a changed pixel."""
        grid, failed = self.attempt('patches', 'embedding', lambda: Patches()(self.module, self.images[:1])[0])
        if failed:
            yield failed
            return
        facts = grid.provenance
        name, shape = facts['module'], tuple(facts['grid'])
        outcome = partial(Outcome, 'patches', name)
        count = shape[0] * shape[1]
        pixels = [(self.pick.randrange(self.size[0]), self.pick.randrange(self.size[1])) for _ in range(11)]
        changed = self.images[:1].repeat(len(pixels) + 1, 1, 1, 1)
        for number, (row, column) in enumerate(pixels, 1):
            changed[number, :, row, column] += torch.tensor([9.0, -7.0, 11.0])
        with quiet():
            calls = oracles.hooked_values(self.module, changed, [name])[name]
        for value in (value for values in calls for value in values):
            for way in arrangements(value.shape, len(changed), count):
                if way.padded:
                    continue
                read = way.read(value)
                answered = (read[1:] - read[:1]).abs().amax(2) > 1e-4 * read.abs().max()
                if value.ndim > 4 and way.name == 'channels last':
                    yield outcome('unproven', 'its tokens are in blocks')
                    return
                yield self._compare_patches(outcome, facts, pixels, answered)
                return
        yield outcome('unproven', f'{name} returns {[tuple(v.shape) for v in calls[0]]}, not {count} tokens')

    def _compare_patches(
        self, outcome: Callable[..., Outcome], facts: Any, pixels: Sequence[tuple[int, int]], answered: Tensor
    ) -> Outcome:
        """Whether the tokens that answer are those whose patch holds the pixel."""
        (rows, columns), patch, stride, start = facts['grid'], facts['patch'], facts['stride'], facts['start']
        missing = 0
        if float(answered.float().mean()) > MOST:
            return outcome('unproven', 'tokens answer to pixels everywhere: they are mixed before they are complete')
        for (y, x), answers in zip(pixels, answered, strict=True):
            down = [start[0] + r * stride[0] <= y < start[0] + r * stride[0] + patch[0] for r in range(rows)]
            across = [start[1] + c * stride[1] <= x < start[1] + c * stride[1] + patch[1] for c in range(columns)]
            expected = (torch.tensor(down)[:, None] & torch.tensor(across)).flatten()
            if bool((answers & ~expected).any()):
                token = int((answers & ~expected).nonzero()[0, 0])
                return outcome('WRONG', f'token {divmod(token, columns)} answers to pixel {(y, x)} outside its patch')
            missing += int(expected.any() and not (answers & expected).any())
        if missing > len(pixels) // 2:
            return outcome('WRONG', f'{missing} of {len(pixels)} pixels change no token')
        return outcome('equal')


@dataclass(frozen=True)
class _Reading:
    """How weights ``(…, queries, keys)`` are laid out as ``(B, groups, heads, queries, keys)``.

    Attributes:
        groups: Windows of an image.
        queries: Of a group.
        keys: Of a group.
        prefix: Keys that are not places in the image, before the others.
        read: Does it.
        real: Of several windows, the numbers of the tokens that are not padding.
    """

    groups: int
    queries: int
    keys: int
    prefix: int
    read: Callable[[Tensor], Tensor]
    real: Tensor | None = None

    def places(self, keys: Tensor) -> Tensor:
        """Of values ``(…, groups · keys)`` those of places in the image."""
        return keys[..., self.prefix :] if self.real is None else keys[..., self.real]


def _readings(shape: Sequence[int], batch: int, heads: int, cells: int) -> Iterator[_Reading]:
    queries, keys = shape[-2:]
    leading = int(np.prod(shape[:-2]))
    if leading % (batch * heads):
        return
    groups = leading // (batch * heads)
    prefix = keys - cells if groups == 1 else 0
    orders = {'bgh': (batch, groups, heads), 'bhg': (batch, heads, groups), 'hbg': (heads, batch, groups)}
    for order, sizes in orders.items():
        if groups == 1 and order == 'bhg':
            continue
        axes = [order.index(letter) for letter in 'bgh']

        def read(weights: Tensor, sizes: Any = sizes, axes: Any = axes) -> Tensor:
            return weights.reshape(*sizes, queries, keys).permute(*axes, 3, 4)

        yield _Reading(groups, queries, keys, prefix, read)


def _find_attention(
    shown: Tensor, truths: Sequence[Tensor], inside: Callable[[_Reading, Sequence[int]], Tensor | None]
) -> tuple[Tensor, _Reading, Tensor] | None:
    """Which weights the maps are the mean rows of, how they are laid out, and the raw key of each cell.

    Args:
        shown: ``(B, heads, h, w)``.
        truths: Weights ``(…, queries, keys)``.
        inside: Reading and shape of weights → which tokens of all windows are not padding, or None if that is unknown.
    """
    batch, heads, height, width = shown.shape
    cells = height * width
    for truth in truths:
        for reading in _readings(truth.shape, batch, heads, cells):
            weights = reading.read(truth).double()
            means: list[Tensor] = []
            if reading.groups == 1 and 0 <= reading.prefix <= MOST_PREFIX:
                prefixes = [reading.prefix] if reading.queries == reading.keys else range(min(reading.queries, 9))
                means = [weights[:, 0, :, first:].mean(2)[..., reading.prefix :] for first in prefixes]
            if (order := _order_of_all(shown, means)) is not None:
                return truth, reading, order
            tokens = reading.groups * reading.keys
            if reading.groups > 1 and reading.queries != reading.keys and tokens == cells:  # queries are pooled (Hiera)
                means = [(weights.mean(3) / reading.groups).transpose(1, 2).flatten(2)]
                if (order := _order_of_all(shown, means)) is not None:
                    return truth, reading, order
            if reading.queries != reading.keys or tokens < cells or (reading.groups == 1 and tokens == cells):
                continue
            real = torch.ones(tokens, dtype=torch.bool) if tokens == cells else inside(reading, truth.shape)
            if real is None or int(real.sum()) != cells:
                continue
            queries = real.view(1, reading.groups, 1, reading.queries, 1)
            means = [((weights * queries).sum(3) / cells).transpose(1, 2).flatten(2)[..., real]]
            if (order := _order_of_all(shown, means)) is not None:
                return truth, replace(reading, real=real.nonzero()[:, 0]), order
    return None


def _order_of_all(shown: Tensor, means: Sequence[Tensor]) -> Tensor | None:
    """The raw key of each cell, by the first of several possible ``(B, heads, keys)`` that the maps are; else None."""
    for mean in means:
        tolerance = 1e-4 * float(mean.abs().max())
        orders = [in_order(one.flatten(1).T, two.T, tolerance) for one, two in zip(shown, mean, strict=True)]
        if all(order is not None for order in orders):
            return orders[0]
    return None


def _windowed_simply(shape: Sequence[int], shown: Sequence[int], batch: int) -> bool:
    """Whether there are few more keys than cells, so that neither padding nor overlap explains a difference."""
    heads, cells = shown[1], shown[2] * shown[3]
    leading = int(np.prod(shape[:-2]))
    groups = leading / (batch * heads)
    return groups * shape[-1] == cells or (groups == 1 and shape[-1] - cells <= 9)


def _doubt(name: str) -> str:
    """A note on a default layer that is a part of a block, by its name; for people to judge."""
    parts = r'(^|[._])(qkv|kv|proj|attn|attention|mlp|ffn|fc\d?|shortcut|downsample|drop\w*|pos|crpe)\d*($|[._])'
    return 'a doubtful default' if re.search(parts, name) else ''


def _module_name(shown: str) -> str:
    """The module's name without the call and the tensor that are shown of it."""
    return re.split(r'[@#\[]', shown)[0]


def _of(result: Any, method: str) -> Any:
    return next(item for item in result.maps if item.coordinates['method'] == method)


def _heads_of(result: Any, layer: str) -> NDArray[np.float32]:
    """``(heads, h, w)``."""
    maps = [
        item.values
        for item in result.maps
        if item.coordinates['layer'] == layer and isinstance(item.coordinates['head'], int)
    ]
    return np.stack(maps)


def _says_nothing(result: Any, method: str) -> bool:
    """Whether a map without evidence is shown as such: it is zero everywhere."""
    return not bool(_of(result, method).values.any())


def _mixture(output: Any) -> Tensor:
    """A score for networks without classes: a fixed random mixture of the last features, ``(B,)``."""
    features = oracles.tensors_in(output)[-1]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(features.shape[1:], generator=generator)
    return (features * weights).flatten(1).sum(1)


def _state(module: nn.Module) -> list[Any]:
    """What analyses must leave alone: modes, hooks, buffers, and what requires gradients."""
    modes = [(each.training, len(each._forward_hooks), len(each._forward_pre_hooks)) for each in module.modules()]
    grads = [(each.requires_grad, each.grad is None, each._version) for each in module.parameters()]
    buffers = [each._version for each in module.buffers()]
    return [modes, grads, buffers]


def _place_of(error: BaseException, folder: str) -> str:
    """File and line of the innermost frame in a folder."""
    trace, place = error.__traceback__, ''
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if f'/{folder}/' in path:
            place = f'{folder}/{path.rpartition(f"/{folder}/")[2]}:{trace.tb_lineno}'
        trace = trace.tb_next
    return place
