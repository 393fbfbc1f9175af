"""The schedulers' own steps, taken on groups without weights, in the order in which training takes them."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from numpy.typing import NDArray

from vistool.analyses.schedule.hooks import Hooks, StandInRunner
from vistool.analyses.schedule.optimizers import Group, OptimizerPlan, Reader
from vistool.analyses.schedule.scopes import cheapest_scope, numbers_as_text, type_name
from vistool.analyses.schedule.training import TrainingPlan
from vistool.errors import InputError, cause_of
from vistool.models.configs import Source
from vistool.registry import is_registered

# Settings that may hold one value for each group; groups cannot be merged then.
_PER_GROUP = ('eta_max', 'min_value')
_PACKAGES = ('mmengine', 'mmpretrain')


def scheduler_settings(source: Source, optimizer: str) -> list[dict[str, Any]]:
    """The scheduler settings of one optimizer (``''`` for a single one).

    Raises:
        InputError: There are none for this optimizer, or they are not dicts.
    """
    found = source.config.get('param_scheduler')
    if not found:
        return []
    if isinstance(found, Mapping) and 'type' not in found:
        if optimizer not in found:
            known = ', '.join(map(str, found))
            raise InputError(
                f'{source.name} has schedulers for {known}, but its optimizer is called {optimizer or "nothing"}',
                hint='list the schedulers of each optimizer under its name',
                parameter='config',
            )
        found = found[optimizer]
    listed = [found] if isinstance(found, Mapping) else list(found)
    for each in listed:
        if not isinstance(each, Mapping) or 'type' not in each:
            raise InputError(f'{source.name} has a param_scheduler without a type: {each!r}', parameter='config')
    return [dict(copy.deepcopy(each)) for each in listed]


def build_schedulers(
    source: Source, settings: Sequence[Mapping[str, Any]], training: TrainingPlan, optimizer: Any
) -> list[Any]:
    """The schedulers of one optimizer.

    Raises:
        InputError: A scheduler cannot be built; training would stop there as well.
    """
    from mmengine.optim import scheduler as _  # noqa: F401  (registers mmengine's)
    from mmengine.registry import PARAM_SCHEDULERS

    built = []
    with cheapest_scope(source.config, PARAM_SCHEDULERS, list(settings)) as portable:
        for index, each in enumerate(portable):
            if text := numbers_as_text(each, f'param_scheduler[{index}]'):
                raise InputError(f'{source.name}: {text}', parameter='config')
            given = copy.deepcopy(dict(each))
            given.setdefault('end', training.epochs if given.get('by_epoch', True) else training.iterations)
            shared = {'optimizer': optimizer, 'epoch_length': training.epoch_length}
            try:
                built.append(PARAM_SCHEDULERS.build(given, default_args=shared))
            except Exception as error:  # a scheduler can be foreign code, which can raise anything
                where = f'param_scheduler[{index}] of {source.name} ({type_name(each["type"])})'
                raise InputError(
                    f'{where} cannot be built: {cause_of(error)}',
                    hint='training would stop there as well',
                    parameter='config',
                ) from error
    return built


def may_merge(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether equal groups stay equal: every scheduler is from a known package and has one value for all groups."""
    listed = any(isinstance(each.get(key), (list, tuple)) for each in settings for key in _PER_GROUP)
    return not listed and all(_known(each['type']) for each in settings)


def plateaus(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a scheduler waits for a metric."""
    return any('ReduceOnPlateau' in type_name(each['type']) for each in settings)


def never_steps(settings: Sequence[Mapping[str, Any]], training: TrainingPlan) -> bool:
    """Whether a scheduler counts epochs in a loop that has only one."""
    return not training.by_epoch and any(
        each.get('by_epoch', True) and not each.get('convert_to_iter_based') for each in settings
    )


_ENDLESS = 10**9
"""mmengine's ``INF``, and anything above: an end that is meant never to come."""


def beyond_the_run(settings: Sequence[Mapping[str, Any]], training: TrainingPlan) -> list[str]:
    """What schedulers plan for after the last epoch or iteration, in words: it never happens."""
    found = []
    for index, each in enumerate(settings):
        by_epoch = bool(each.get('by_epoch', True))
        if by_epoch and not training.by_epoch:
            continue  # it never steps at all, which :func:`never_steps` says
        unit, last = ('epochs', training.epochs) if by_epoch else ('iterations', training.iterations)
        for name, moment in _moments_of(each):
            if last < moment < _ENDLESS or (name == 'begin' and moment == last):
                where = f'param_scheduler[{index}] ({type_name(each["type"])})'
                found.append(f'{where} has {name}={moment:,} {unit}, but the run has {last:,}')
    return found


def _moments_of(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The settings that name a moment of the run, as moments."""
    begin = settings.get('begin') or 0
    for name in ('begin', 'end', 'T_max', 'total_steps'):
        value = settings.get(name)
        if isinstance(value, int) and isinstance(begin, int):
            yield name, value + (begin if name in ('T_max', 'total_steps') else 0)
    for value in settings.get('milestones') or ():
        if isinstance(value, int):
            yield 'milestone', value


def _known(kind: Any) -> bool:
    from mmengine.registry import PARAM_SCHEDULERS

    if not isinstance(kind, str):
        return kind.__module__.split('.')[0] in _PACKAGES
    return is_registered(PARAM_SCHEDULERS, kind) or kind == 'CosineAnnealingWeightDecay'


_NEVER = 1 << 62


@dataclass(frozen=True)
class Recording:
    """Values of one parameter over a run; a value that stays the same is stored once.

    Attributes:
        rows: float64 ``(N, K)``, one column per distinct group.
        counts: int64 ``(N,)``, the number of iterations for which each row is valid.
        places: The column of each group of the plan.
    """

    rows: NDArray[np.float64]
    counts: NDArray[np.int64]
    places: Sequence[int]

    def column(self, group: int) -> NDArray[np.float64]:
        """float64 ``(T,)``, the value of a group during each iteration."""
        return np.repeat(self.rows[:, self.places[group]], self.counts)


class StandIn(torch.optim.Optimizer):
    """An optimizer whose groups have no weights."""

    def __init__(self, defaults: Mapping[str, Any], groups: Sequence[Group]) -> None:
        self.defaults = dict(defaults)
        self.state: Any = {}
        self.param_groups = [{'params': [torch.zeros(1)], **group.settings} for group in groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Does nothing; schedulers wrap it to check the order of calls."""


def replay(
    plan: OptimizerPlan,
    build: Callable[[Any], list[Any]],
    training: TrainingPlan,
    hooks: Hooks,
    readers: Mapping[str, Reader],
    merge: bool,
) -> dict[str, Recording]:
    """Steps the schedulers of one optimizer through a run.

    Args:
        plan: The optimizer and its groups.
        build: Builds the schedulers of an optimizer.
        training: The counts.
        hooks: Hooks that may change the rate too.
        readers: For each parameter to record, how to read it from a group.
        merge: Whether equal groups may be merged; not if a setting lists one value per group.

    Raises:
        InputError: A scheduler or hook fails, as it would in training.
    """
    if not merge:
        return _together(plan, list(plan.groups), build, training, hooks, readers)
    found = {}
    # Separately, so that constant parameters cost nothing; but a hook must be called once per moment.
    for names in [list(readers)] if hooks.names else [[name] for name in readers]:
        kinds, places = _distinct(plan.groups, names)
        chosen = {name: readers[name] for name in names}
        recorded = _together(plan, kinds, _building(build, names), training, hooks, chosen)
        found.update({name: replace(each, places=places) for name, each in recorded.items()})
    return found


def _together(
    plan: OptimizerPlan,
    groups: Sequence[Group],
    build: Callable[[Any], list[Any]],
    training: TrainingPlan,
    hooks: Hooks,
    readers: Mapping[str, Reader],
) -> dict[str, Recording]:
    optimizer = StandIn(plan.defaults, groups)
    handed: Any = optimizer
    if len(groups) == len(plan.groups) > 1 or hooks.names:
        handed = OptimWrapper(optimizer)  # with the extra group that mmengine adds for the base settings
    schedulers = build(handed)
    optimizer._global_step = 0  # type: ignore[attr-defined]  # no weights are updated, about which schedulers would warn
    stepper = _Stepper(training, optimizer.param_groups, schedulers, hooks, StandInRunner(training, handed), readers)
    stepper.walk()
    return stepper.recorded()


def _building(build: Callable[[Any], list[Any]], names: Sequence[str]) -> Callable[[Any], list[Any]]:
    """The same, restricted to the schedulers that set the parameters of these names."""
    wanted = {'momentum' if name == 'beta1' else name for name in names}
    return lambda optimizer: [each for each in build(optimizer) if each.param_name in wanted]


def _distinct(groups: Sequence[Group], names: Sequence[str]) -> tuple[list[Group], list[int]]:
    """The groups that differ in one of these parameters, and for each group the position of its equal among them.

    A scheduler computes a parameter from its own values alone, so the other parameters need not agree.
    """
    keys = {*names, 'fix_lr'}
    keys |= {'momentum', 'betas'} if keys & {'momentum', 'beta1', 'beta2'} else set()
    keys |= {f'{when}_{key}' for key in keys for when in ('initial', 'max', 'min')}
    seen: dict[str, int] = {}
    kinds: list[Group] = []
    places: list[int] = []
    for group in groups:
        key = repr(sorted((name, value) for name, value in group.settings.items() if name in keys))
        if key not in seen:
            seen[key] = len(kinds)
            kinds.append(group)
        places.append(seen[key])
    return kinds, places


class _Stepper:
    """Steps through the run, from each moment at which something can change to the next."""

    def __init__(
        self,
        training: TrainingPlan,
        groups: list[dict[str, Any]],
        schedulers: Sequence[Any],
        hooks: Hooks,
        runner: StandInRunner,
        readers: Mapping[str, Reader],
    ) -> None:
        self.training, self.groups, self.hooks, self.runner = training, groups, hooks, runner
        # Validation steps a plateau scheduler. Its metric is assumed to improve always, so that it does nothing.
        moving = [each for each in schedulers if not getattr(each, 'need_val_args', False)]
        self.by_epoch = [each for each in moving if each.by_epoch]
        self.by_iter = [each for each in moving if not each.by_epoch]
        self.names, self.readers = list(readers), list(readers.values())
        moments = hooks.moments.get('before_train_iter'), hooks.moments.get('after_train_iter')
        self.slow = any(moments) or bool(hooks.late.get('after_train_iter'))  # no iteration can be skipped
        self.rows, self.counts = array('d'), array('q')

    def walk(self) -> None:
        """Takes every step of the run."""
        length = self.training.epoch_length if self.training.by_epoch else self.training.iterations
        assert length is not None  # read_training gives one wherever epochs count
        try:
            self.hooks.call('before_train', self.runner)
            for epoch in range(self.training.epochs):
                self.hooks.call('before_train_epoch', self.runner)
                self._epoch(length)
                self.hooks.call('after_train_epoch', self.runner)
                for scheduler in self.by_epoch:
                    scheduler.step()
                self.hooks.call('after_train_epoch', self.runner, late=True)
                self.runner.epoch = epoch + 1
        except InputError:
            raise
        except Exception as error:  # a scheduler can be foreign code, which can raise anything
            raise InputError(
                f'training would stop after {self.runner.iter} iterations: {cause_of(error)}',
                hint="check the config's param_scheduler",
                parameter='config',
            ) from error

    def _epoch(self, left: int) -> None:
        while left:
            if self.slow:
                self._one_with_hooks()
                left -= 1
                continue
            waits = [_wait(scheduler) for scheduler in self.by_iter]
            active = [each for each, wait in zip(self.by_iter, waits, strict=True) if not wait]
            idle = [each for each, wait in zip(self.by_iter, waits, strict=True) if wait]
            # as long as the same schedulers act: until one ends or another begins
            stretch = min([left, *filter(None, waits), *map(_lasts, active)])
            if active:
                self._walk(stretch, active)
            else:
                self._record(stretch)
            for scheduler in idle:
                scheduler._global_step += stretch  # the only effect of its step outside [begin, end)
            left -= stretch
            self.runner.iter += stretch

    def _walk(self, count: int, active: Sequence[Any]) -> None:
        """Takes ``count`` iterations after each of which the same schedulers act."""
        extend, groups, readers, steps = self.rows.extend, self.groups, self.readers, [each.step for each in active]
        for _ in range(count):
            for read in readers:
                extend([read(group) for group in groups])
            for step in steps:
                step()
        self.counts.extend([1] * count)

    def _one_with_hooks(self) -> None:
        position = self.runner.iter
        self.hooks.call('before_train_iter', self.runner, batch_idx=position)
        self._record(1)
        self.hooks.call('after_train_iter', self.runner, batch_idx=position)
        for scheduler in self.by_iter:
            scheduler.step()
        self.hooks.call('after_train_iter', self.runner, late=True, batch_idx=position)
        self.runner.iter += 1

    def _record(self, count: int) -> None:
        for read in self.readers:
            self.rows.extend([read(group) for group in self.groups])
        self.counts.append(count)

    def recorded(self) -> dict[str, Recording]:
        """The recordings by parameter."""
        counts, rows = np.array(self.counts, dtype=np.int64), np.array(self.rows, dtype=np.float64)
        table = rows.reshape(len(counts), len(self.readers), len(self.groups))
        places = range(len(self.groups))
        return {name: Recording(table[:, index], counts, places) for index, name in enumerate(self.names)}


def _wait(scheduler: Any) -> int:
    """The number of iterations after which this scheduler's step has an effect; 0 for the next step."""
    if not _plain(scheduler):
        return 0
    following = scheduler._global_step + 1
    if following >= scheduler.end:
        return _NEVER
    return max(0, scheduler.begin - following)


def _lasts(scheduler: Any) -> int:
    """The number of iterations for which a scheduler continues to act."""
    return scheduler.end - scheduler._global_step - 1 if _plain(scheduler) else _NEVER


def _plain(scheduler: Any) -> bool:
    """Whether its step is mmengine's own, which only counts outside [begin, end)."""
    return type(scheduler).step in (_ParamScheduler.step, MomentumSchedulerMixin.step)
