"""Does a CAM method work on a model? Checks that need no labels, each with a verdict, its number and its reason.

What is checked stands in :data:`~vistool.analyses.check.criteria.CHECKS`, what decides in
:class:`~vistool.analyses.check.criteria.Criteria`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from vistool.analyses.cam import CAM
from vistool.analyses.cam.methods import Method, find_methods
from vistool.analyses.check import grids
from vistool.analyses.check.criteria import CHECKS, Criteria, find_checks
from vistool.analyses.check.diagnosis import border_share, diagnosis, reason
from vistool.analyses.check.explaining import Explained, explain, map_of, without_warnings
from vistool.analyses.check.randomization import Block, find_blocks, grouped, randomized
from vistool.analyses.check.similarity import pointing_cell, rank_correlation, ssim
from vistool.environment import versions
from vistool.errors import InputError, check_seed, param
from vistool.metrics import Protocol
from vistool.models.model import Model, Subject, as_model, as_samples
from vistool.network.detection import find_detector
from vistool.network.segmentation import find_segmenter
from vistool.network.stages import find_stages
from vistool.registry import ANALYSES
from vistool.results import Heatmap
from vistool.results.checks import Cascade, CheckReport, Finding, Grid, Verdict

__all__ = ['CHECKS', 'Check', 'Criteria']

log = logging.getLogger('vistool')

UNITS, STEPS = 16, 16
"""Pixels leave in blocks of a 16th of the shorter side, in 16 steps: a class activation map knows little finer, and
each step is a forward."""
NOISY = 4
"""Noisy copies of each image."""
INSIDE = 2
"""Layers inside a stage that are tried beside the stage itself: each costs as much as a check of direction."""
NO_CLASSES = 'no class is explained'
AGNOSTIC = 'class-agnostic by its definition: its maps are not evidence for a class'


@ANALYSES.register_module()
@dataclass(frozen=True)
class Check:
    """Checks whether CAM methods work on a model, on one image or, better, a few dozen.

    >>> report = vt.Check(vt.CAM(['gradcam', 'layercam']))(model, samples)
    >>> report['gradcam', 'randomization'].text

    Attributes:
        cam: The analysis that is checked: its methods, layers and classes. Of several classes the first is checked.
        checks: Names from :data:`~vistool.analyses.check.criteria.CHECKS`; none means all.
        criteria: The thresholds.
        seed: Of random weights, classes and grids.
    """

    cam: CAM = field(default_factory=CAM)
    checks: str | Sequence[str] = ()
    criteria: Criteria = field(default_factory=Criteria)
    seed: int = 0

    def check(self, model: Model) -> None:
        """Checks the names of methods, layers and checks.

        Raises:
            InputError: One of them is not accepted.
        """
        find_checks(self.checks)
        check_seed(self.seed)
        if find_detector(model.module) is not None or find_segmenter(model.module) is not None:
            raise InputError(
                f'{model.name} finds objects or regions; the checks are for networks that score whole images',
                hint=f'vis_cam compares the maps of a detector with what masking finds ({param("verify")})',
                parameter='model',
            )
        self.cam.check(model)

    def __call__(self, model: Model | nn.Module, subject: Subject) -> CheckReport:
        """Checks the methods on one image or several.

        Args:
            model: A loaded model, or any module. It comes back as it was, its weights bit for bit.
            subject: A sample, a list of samples, or the network's input: a tensor ``(C, H, W)`` or ``(B, C, H, W)``.

        Raises:
            InputError: A method, class, layer or check does not exist or does not fit the model.
        """
        model = as_model(model)
        samples, _ = as_samples(subject, model)
        self.check(model)
        fusion = self.cam.layer_fusion if self.cam.layer_fusion != 'none' else 'mean'
        cam = replace(self.cam.for_model(model), metrics=(), truth=None, layer_fusion=fusion)
        with model.borrowed():
            explained = Explained.of(cam, find_methods(cam.methods), model, samples)
            with without_warnings():
                return _Checking(explained, self.criteria, self.seed, bool(self.cam.layers)).report(
                    find_checks(self.checks)
                )


@dataclass(eq=False)
class _Checking:
    """The checks of one run, and what they find on the way."""

    explained: Explained
    criteria: Criteria
    seed: int
    named: bool
    stages: tuple[str, ...] = ()
    cascades: dict[str, Cascade] = field(default_factory=dict)
    shown: dict[tuple[str, str], Grid] = field(default_factory=dict)
    rows: list[dict[str, float | int | str]] = field(default_factory=list)

    def report(self, checks: Sequence[str]) -> CheckReport:
        """Makes the checks."""
        made: Mapping[str, Callable[[], Mapping[str, Finding]]] = {
            'randomization': self.randomization,
            'classes': self.classes,
            'gridpg': lambda: self.grid('gridpg'),
            'difull': lambda: self.grid('difull'),
            'direction': self.direction,
            'maps': self.blank,
            'stability': self.stability,
            'layers': self.advice,
        }
        found = {check: made[check]() for check in checks}
        methods, results = self.explained.methods, self.explained.results
        return CheckReport(
            model=self.explained.model.name,
            layers=results[0].layers,
            count=len(results),
            titles={name: method.title for name, method in methods.items()},
            checks=tuple(checks),
            findings=tuple(found[check][name] for name in methods for check in checks),
            image=results[0].image,
            stages=self.stages,
            cascades=self.cascades,
            grids=tuple(self.shown.values()),
            rows=tuple(self.rows),
            provenance={
                'analysis': 'check',
                **self.explained.model.provenance(),
                'methods': [method.title for method in methods.values()],
                'layers': list(results[0].layers),
                'images': [sample.name for sample in self.explained.samples],
                'targets': [result.targets[0].entry() if result.targets else None for result in results],
                'criteria': dict(vars(self.criteria)),
                'seed': self.seed,
                'versions': versions(),
            },
        )

    def keep(self, method: str, check: str, image: int | str, name: str, value: float) -> None:
        """Keeps a number for the table of all numbers."""
        self.rows.append({'method': method, 'check': check, 'image': image, 'name': name, 'value': value})

    def every(
        self, check: str, judge: Callable[[str, Method], tuple[Verdict, str, float | None]]
    ) -> dict[str, Finding]:
        """A finding for each method."""
        return {name: Finding(check, name, *judge(name, method)) for name, method in self.explained.methods.items()}

    def all_open(self, check: str, why: str) -> dict[str, Finding]:
        """The check cannot be made for any method."""
        return self.every(check, lambda name, method: ('open', why, None))

    # --- randomization ------------------------------------------------------------------------------------------------

    def randomization(self) -> Mapping[str, Finding]:
        """Maps of the network while its blocks become random, from the head down."""
        explained, criteria = self.explained, self.criteria
        groups = grouped(find_blocks(explained.model.module, explained.one(0)), criteria.stages)
        if not groups:
            return self.all_open('randomization', 'the network has no parameters that could be random')
        self.stages = tuple(group[-1].name or 'input' for group in groups)
        plain = explained.maps()
        similar = {name: [(1.0, 1.0, 1.0)] for name in plain}
        first = {name: [maps[0].values] for name, maps in plain.items()}
        for stage in range(1, len(groups) + 1):
            random = self.of_random([block for group in groups[:stage] for block in group], 0)
            for name, maps in random.items():
                similar[name].append(self.compared(name, plain[name], maps, self.stages[stage - 1]))
                first[name].append(maps[0].values)
        self.cascades = {
            name: Cascade(np.stack(first[name]), np.array(similar[name], np.float64)) for name in explained.methods
        }
        every = [block for group in groups for block in group]
        draws = {name: [similar[name][-1][0]] for name in plain}
        for draw in range(1, criteria.draws):
            for name, maps in self.of_random(every, draw).items():
                draws[name].append(self.compared(name, plain[name], maps, f'all, draw {draw + 1}')[0])

        def judge(name: str, method: Method) -> tuple[Verdict, str, float]:
            low, high = min(draws[name]), max(draws[name])
            if low > criteria.survival:
                return 'fail', f'the maps survive random weights: rank correlation {low:.2f} or more', low
            return 'pass', f'rank correlation {low:.2f} to {high:.2f} once all weights are random', low

        return self.every('randomization', judge)

    def of_random(self, blocks: Sequence[Block], draw: int) -> dict[str, list[Heatmap]]:
        """Maps of the network with these blocks random."""
        with randomized(blocks, self.seed + draw):
            return self.explained.maps(self.explained.cam)

    def compared(
        self, name: str, plain: Sequence[Heatmap], random: Sequence[Heatmap], stage: str
    ) -> tuple[float, float, float]:
        """Means over the images of the rank correlation, SSIM, and whether the maximum stays in its cell."""
        found = []
        for index, (one, other) in enumerate(zip(plain, random, strict=True)):
            pair = one.values, other.values
            same = pointing_cell(pair[0]) == pointing_cell(pair[1])
            found.append((rank_correlation(*pair), ssim(*pair), float(same)))
            for measure, value in zip(('rank correlation', 'SSIM', 'same cell'), found[-1], strict=True):
                self.keep(name, 'randomization', index, f'{measure}, random down to {stage}', value)
        means = np.mean(found, 0)
        return float(means[0]), float(means[1]), float(means[2])

    # --- classes ------------------------------------------------------------------------------------------------------

    def classes(self) -> Mapping[str, Finding]:
        """Maps of the explained class beside those of the most likely other one and of random ones."""
        explained, criteria = self.explained, self.criteria
        if not explained.numbers or len(explained.numbers[0]) < 2:
            return self.all_open('classes', NO_CLASSES)
        asked = self.other_classes()
        results = explain(explained.cam, explained.model, explained.samples, asked)
        least: dict[str, list[float]] = {name: [] for name in explained.methods}
        for index, result in enumerate(results):
            for name in explained.methods:
                own = map_of(result, name).values
                alike = []
                for number in range(1, len(asked[index])):
                    alike.append(rank_correlation(own, map_of(result, name, number).values))
                    self.keep(name, 'classes', index, f'rank correlation with {result.targets[number].name}', alike[-1])
                least[name].append(min(alike))

        def judge(name: str, method: Method) -> tuple[Verdict, str, float | None]:
            if not method.shows_class and not method.is_baseline:
                return 'open', AGNOSTIC, None
            mean = float(np.mean(least[name]))
            if mean > criteria.similarity:
                return 'fail', f'says nothing about the class: maps of other classes correlate by {mean:.2f}', mean
            return 'pass', f'rank correlation {mean:.2f} with the least similar other class', mean

        return self.every('classes', judge)

    def other_classes(self) -> list[list[int | str]]:
        """For each image its class, the most likely other one, and random ones; empty where there are no others."""
        explained, draw = self.explained, np.random.default_rng(abs(self.seed))
        assert explained.classes is not None
        asked: list[list[int | str]] = []
        for own, shares, result in zip(explained.classes, explained.numbers, explained.results, strict=True):
            others = [each for each in shares.argsort(descending=True).tolist() if each != result.targets[0].id]
            drawn = draw.permutation(others[1:])[: self.criteria.others].tolist()
            asked.append([own[0], *others[:1], *drawn])
        return asked

    # --- grid games ---------------------------------------------------------------------------------------------------

    def grid(self, check: str) -> Mapping[str, Finding]:
        """One of the grid games."""
        explained, criteria = self.explained, self.criteria
        if not explained.numbers:
            return self.all_open(check, NO_CLASSES)
        try:
            games = grids.arrangements(explained, criteria.sure, criteria.grids, self.seed)
            played = list((grids.gridpg if check == 'gridpg' else grids.difull)(explained, games))
        except InputError as error:
            return self.all_open(check, error.problem)
        if not played:
            return self.all_open(check, 'in most grids the score depends on more than the photo of the class')
        shares: dict[str, list[float]] = {}
        for number, each in enumerate(played):
            self.shown.setdefault((each.method, check), each)
            shares.setdefault(each.method, []).append(0.0 if math.isnan(each.share) else each.share)
            self.keep(each.method, check, number, 'share in the right cell', each.share)

        def judge(name: str, method: Method) -> tuple[Verdict, str, float | None]:
            if name not in shares:
                runs = 'runs the network itself, which has no disconnected cells'
                return 'open', runs if method.shows_class else AGNOSTIC, None
            mean = float(np.mean(shares[name]))
            told = f'{mean:.0%} of the map lies in the right cell; chance is 25%'
            return ('fail' if mean < criteria.inside else 'pass'), told, mean

        return self.every(check, judge)

    # --- direction ----------------------------------------------------------------------------------------------------

    def protocol(self) -> Protocol:
        """Removal in blocks of a 16th of the shorter side."""
        side = min(self.explained.results[0].image.shape[:2])
        return Protocol(name='check', block=max(1, side // UNITS), steps=STEPS, samples=NOISY, seed=self.seed)

    def scored(self) -> list[str]:
        """The methods whose maps are evidence for the score."""
        return [name for name, method in self.explained.methods.items() if method.shows_class or method.is_baseline]

    def direction(self) -> Mapping[str, Finding]:
        """The area under the score with the least relevant removed first, and with the most relevant removed first."""
        explained, criteria, methods = self.explained, self.criteria, self.scored()
        areas: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
        if methods:
            cam = replace(explained.cam, methods=methods, metrics=['deletion'])
            runs = [
                explain(
                    replace(cam, protocol=replace(self.protocol(), order=order)),
                    explained.model,
                    explained.samples,
                    explained.classes,
                )
                for order in ('least', 'most')
            ]
            for index, pair in enumerate(zip(*runs, strict=True)):
                for name in methods:
                    least, most = (map_of(result, name) for result in pair)
                    plain = float(most.curves['deletion'].scores[0])
                    areas[name].append((least.metrics['deletion'], most.metrics['deletion'], plain))
                    self.keep(name, 'direction', index, 'area, least relevant first', least.metrics['deletion'])
                    self.keep(name, 'direction', index, 'area, most relevant first', most.metrics['deletion'])

        def judge(name: str, method: Method) -> tuple[Verdict, str, float | None]:
            if name not in areas:
                return 'open', AGNOSTIC, None
            least, most, plain = np.array(areas[name]).T
            gain = float((least - most).sum() / max(np.abs(plain).sum(), 1e-12))
            told = f'area {least.mean():.2f} least relevant first, {most.mean():.2f} most relevant first'
            if gain < -criteria.inverted:
                return 'fail', f'inverted map: {told}', gain
            return ('pass', told, gain) if gain > criteria.inverted else ('open', f'undecided: {told}', gain)

        return self.every('direction', judge)

    # --- maps that show nothing ---------------------------------------------------------------------------------------

    def blank(self) -> Mapping[str, Finding]:
        """How many maps are blank, constant, saturated or of the border only, and why the first of them is."""
        explained, criteria, plain = self.explained, self.criteria, self.explained.maps()

        def judge(name: str, method: Method) -> tuple[Verdict, str, float]:
            kinds = [diagnosis(found, criteria) for found in plain[name]]
            for index, (found, kind) in enumerate(zip(plain[name], kinds, strict=True)):
                values = np.nan_to_num(found.values)
                share = border_share(values, criteria.ring) if values.max() > 0 else math.nan
                self.keep(name, 'maps', index, kind or 'share at the border', share)
            bad = [index for index, kind in enumerate(kinds) if kind]
            if not bad:
                return 'pass', 'every map shows something', 0.0
            share, kind = len(bad) / len(kinds), kinds[bad[0]]
            why = reason(kind, explained, name, bad[0], criteria)
            told = f'{len(bad)} of {len(kinds)} {kind}{f" ({why})" if why else ""}'
            return ('fail' if share >= criteria.usual else 'pass'), told, share

        return self.every('maps', judge)

    # --- stability ----------------------------------------------------------------------------------------------------

    def stability(self) -> Mapping[str, Finding]:
        """The largest relative change of each map under noise."""
        explained, criteria = self.explained, self.criteria
        noisy = explained.maps(replace(explained.cam, metrics=['sensitivity'], protocol=self.protocol()))

        def judge(name: str, method: Method) -> tuple[Verdict, str, float | None]:
            changes = [found.metrics['sensitivity'] for found in noisy[name]]
            for index, change in enumerate(changes):
                self.keep(name, 'stability', index, 'relative change', change)
            known = [change for change in changes if not math.isnan(change)]
            if not known:
                return 'open', 'every map is blank', None
            middle = float(np.median(known))
            return (
                ('fail' if middle > criteria.unstable else 'pass'),
                f'noise of 2% changes the map by {middle:.0%}',
                middle,
            )

        return self.every('stability', judge)

    # --- other layers -------------------------------------------------------------------------------------------------

    def advice(self) -> Mapping[str, Finding]:
        """Insertion at the stages of the network, and inside the last ones, beside that at the layer in use."""
        explained, methods = self.explained, self.scored()
        here_layers = tuple(explained.results[0].layers)
        own = '+'.join(here_layers)
        if not own or not methods:
            return self.every('layers', lambda name, method: ('open', _no_layer(method), None))
        candidates = [here_layers, *((name,) for name in self.candidates() if name != own)]
        found = {'+'.join(layers): each for layers in candidates if (each := self.insertions(layers, methods))}

        def judge(name: str, method: Method) -> tuple[Verdict, str, float | None]:
            if name not in methods or method.is_baseline:
                return 'open', _no_layer(method), None
            here = np.array(found[own][name])
            best = max(found, key=lambda layer: float(np.mean(found[layer][name])))
            there = np.array(found[best][name])
            place = 'here' if self.named else 'at the default'
            if there.mean() - here.mean() > self.criteria.better and (there > here).mean() > 0.5:
                told = f'use {best}, insertion {there.mean():.2f} against {here.mean():.2f} {place}'
                return 'open', told, float(there.mean() - here.mean())
            return 'pass', f'insertion {here.mean():.2f} {place}, none of {len(found) - 1} other layers is better', 0.0

        return self.every('layers', judge)

    def candidates(self) -> list[str]:
        """The stages of the network, and blocks and layers inside the last two of them."""
        module = self.explained.model.module
        try:
            stages = find_stages(module, self.explained.one(0))
        except InputError:
            return []
        modules = dict(module.named_modules())
        inside = [
            name for stage in stages[:-3:-1] if stage in modules for name in _last_children(modules[stage], stage)
        ]
        return [*stages, *inside]

    def insertions(self, layers: Sequence[str], methods: Sequence[str]) -> dict[str, list[float]] | None:
        """Method → the insertion of each image at a layer (or several); None where it gives no maps."""
        explained, told = self.explained, '+'.join(layers)
        cam = replace(explained.cam, methods=methods, layers=layers, metrics=['insertion'], protocol=self.protocol())
        try:
            results = explain(cam, explained.model, explained.samples, explained.classes)
        except InputError as error:
            log.debug('%s: %s', told, error)
            return None
        found = {name: [map_of(result, name).metrics['insertion'] for result in results] for name in methods}
        for name, values in found.items():
            for index, value in enumerate(values):
                self.keep(name, 'layers', index, f'insertion at {told}', value)
        return found


def _last_children(stage: nn.Module, name: str) -> list[str]:
    """The last layers inside a stage that have parameters, without the one whose output is the stage's own."""
    children = [f'{name}.{each}' for each, child in stage.named_children() if any(True for _ in child.parameters())]
    if isinstance(stage, nn.Sequential):
        children = children[:-1]
    return children[-INSIDE:]


def _no_layer(method: Method) -> str:
    return 'it takes no layer' if method.is_baseline or method.shows_class else AGNOSTIC
