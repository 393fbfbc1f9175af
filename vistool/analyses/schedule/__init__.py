"""What the optimizer does in a training run: the rate, momentum and decay of every parameter group at every step."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from vistool.analyses.schedule.curves import (
    curves,
    facts_line,
    merge,
    percent,
    read_log,
    warmup_length,
    warn_of_batch,
)
from vistool.analyses.schedule.hooks import Hooks, read_hooks
from vistool.analyses.schedule.optimizers import (
    Group,
    OptimizerPlan,
    check_parameters,
    parameter_readers,
    read_optimizers,
)
from vistool.analyses.schedule.plain import plain_curves
from vistool.analyses.schedule.replay import (
    beyond_the_run,
    build_schedulers,
    may_merge,
    never_steps,
    plateaus,
    replay,
    scheduler_settings,
)
from vistool.analyses.schedule.training import TrainingPlan, read_training
from vistool.analyses.schedule.used import Comparison, UsedRates
from vistool.environment import versions, without_import_notices
from vistool.errors import InputError, counted, param
from vistool.models.configs import Source, resolve
from vistool.registry import ANALYSES
from vistool.results import Curve, Curves

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch.optim.lr_scheduler import LRScheduler

log = logging.getLogger('vistool')

ConfigLike: TypeAlias = 'str | os.PathLike[str] | Source | Config'
"""A config as users give it: what :func:`~vistool.models.configs.resolve` takes, or a resolved one."""


@ANALYSES.register_module()
@dataclass(frozen=True)
class Schedule:
    """The schedule of one or several configs, exactly as mmengine's Runner would step it.

    No Runner is built, no image is read and no network runs. The model is built, without weights, only if the parameter
    groups depend on it.

    Attributes:
        parameters: ``lr``, ``momentum``, ``wd``, ``betas`` or ``all``; one or several.
        dataset_size: Images in the training set; None reads its annotations.
        ngpus: The number of GPUs.
        auto_scale_lr: Whether the rate is scaled to the real batch size, as ``tools/train.py --auto-scale-lr`` does.
        steps: Steps to draw of a scheduler without a config.
    """

    parameters: Sequence[str] = ('lr',)
    dataset_size: int | None = None
    ngpus: int = 1
    auto_scale_lr: bool = False
    steps: int | None = None

    @without_import_notices()
    def __call__(
        self, configs: ConfigLike | Sequence[ConfigLike] | LRScheduler, logs: Sequence[str | Path] = ()
    ) -> Curves:
        """Computes the schedules.

        Args:
            configs: A config file, ``mmpretrain::…``, a resolved ``Source`` or an mmengine ``Config``; or several. Or a
                scheduler of plain torch code, which is drawn from where it is now.
            logs: ``scalars.json`` of real runs, in the order of the configs, to be drawn over the plan.

        Returns:
            Curves with the value during each iteration, counted from 0.

        Raises:
            InputError: A config cannot be read, trains nothing, has no schedule, or would fail in training.
        """
        if hasattr(configs, 'get_last_lr'):
            return plain_curves(cast('LRScheduler', configs), self.steps, self.parameters)
        one = isinstance(configs, (str, os.PathLike, Source)) or hasattr(configs, 'merge_from_dict')
        listed = cast('Sequence[ConfigLike]', [configs] if one else configs)
        sources = _with_unique_names([_source(each) for each in listed])
        if not sources:
            raise InputError('no config given', parameter='config')
        if len(logs) > len(sources):
            raise InputError(
                f'{counted(len(logs), "log")} for {counted(len(sources), "config")}',
                accepted='one for each',
                parameter='logs',
            )
        parts = [self._of_one(source, len(sources) > 1) for source in sources]
        for index, path in enumerate(logs):
            parts[index] = _with_log(parts[index], path)
        return _joined(parts)

    def beside(self, config: ConfigLike, used: Mapping[str, UsedRates], first: int = 0) -> Curves:
        """The plan of a config, and the learning rates that a run of it really used.

        Args:
            config: The config.
            used: The rates of each optimizer (``''`` for a single one).
            first: Which iteration their first row is; above 0 for a run that was resumed.

        Returns:
            The planned curves, a measured one beside each, and in the line of facts how far they part, and where.

        Raises:
            InputError: As when it is called; or the run had other parameter groups.
        """
        source = _source(config)
        return self._of_one(source, False, Comparison(used, first))

    def _of_one(self, source: Source, several: bool, used: Comparison | None = None) -> Curves:
        training = read_training(source, self.dataset_size, self.ngpus)
        hooks = read_hooks(source)
        if not source.config.get('param_scheduler') and not hooks.names:
            raise InputError(
                f'{source.name} has no param_scheduler: its learning rate never changes',
                hint='give a config with a schedule',
                parameter='config',
            )
        ratio = warn_of_batch(source, training, self.auto_scale_lr)
        made: list[Curve] = []
        plans = [_scaled(plan, ratio) for plan in read_optimizers(source)]
        for plan in plans:
            made += self._of_optimizer(source, plan, training, hooks, source.name if several else '', used)
        lengths = {} if training.epoch_length is None else {source.name: float(training.epoch_length)}
        main = max(
            (each for each in made if each.parameter == made[0].parameter), key=lambda each: float(each.values.max())
        )
        warmup = warmup_length(main.values) if main.parameter == 'lr' else 0
        facts = facts_line(training, main, warmup)
        if used is not None:
            facts = f'{facts} · {used.describe()}'
        log.info('%s: %s', source.name, facts)
        return Curves(
            tuple(made),
            lengths,
            source.name,
            facts,
            {source.name: warmup} if warmup else {},
            _ramp(made),
            provenance=_provenance(source, training, plans, ratio, self.parameters),
        )

    def _of_optimizer(
        self,
        source: Source,
        plan: OptimizerPlan,
        training: TrainingPlan,
        hooks: Hooks,
        label: str,
        used: Comparison | None = None,
    ) -> list[Curve]:
        settings = scheduler_settings(source, plan.name)
        _remarks(source, settings, training, hooks)
        check_parameters(self.parameters, [str(each['param_name']) for each in settings if 'param_name' in each])
        recorded = replay(
            plan,
            lambda optimizer: build_schedulers(source, settings, training, optimizer),
            training,
            hooks,
            parameter_readers(self.parameters, plan),
            merge=may_merge(settings) and set(hooks.names) <= {'SimSiamHook'},
        )
        made: list[Curve] = []
        for name, recording in recorded.items():
            merged = merge(plan, name, recording)
            planned = curves(source.name, plan.name, name, recording, merged, label)
            made += planned
            if used is not None and name == 'lr':
                made += used.curves(plan, recording, merged, planned)
        return made


def _source(config: ConfigLike) -> Source:
    if isinstance(config, Source):
        return config
    if isinstance(config, (str, os.PathLike)):
        return resolve(config)
    return Source(config, os.path.splitext(os.path.basename(config.filename or ''))[0] or 'config')


def _with_unique_names(sources: Sequence[Source]) -> list[Source]:
    named: list[Source] = []
    for source in sources:
        before = sum(each.name == source.name or each.name.startswith(f'{source.name} #') for each in named)
        named.append(replace(source, name=f'{source.name} #{before + 1}') if before else source)
    return named


def _scaled(plan: OptimizerPlan, ratio: float) -> OptimizerPlan:
    if ratio == 1:
        return plan
    groups = tuple(
        Group({**group.settings, 'lr': group.settings['lr'] * ratio}, group.names, group.size) for group in plan.groups
    )
    return replace(plan, groups=groups)


def _remarks(source: Source, settings: Sequence[dict[str, Any]], training: TrainingPlan, hooks: Hooks) -> None:
    if plateaus(settings):
        log.warning('%s reduces its rate on a plateau: drawn as if the metric always improved', source.name)
    if never_steps(settings, training):
        log.warning('%s schedules by epoch in a loop that counts iterations: such schedulers never step', source.name)
    for text in beyond_the_run(settings, training):
        log.warning('%s: %s: what lies beyond never happens', source.name, text)
    if training.accumulation > 1:
        count = training.accumulation
        log.info('%s: the weights change every %d iterations; the schedule steps in each', source.name, count)
    for name in hooks.names:
        log.info('%s: followed the hook %s', source.name, name)


def _ramp(made: Sequence[Curve]) -> tuple[str, str]:
    ordered = [each for each in made if each.order is not None]
    return (ordered[0].group, ordered[-1].group) if ordered else ('first layer', 'last layer')


def _with_log(part: Curves, path: str | Path) -> Curves:
    steps, values = read_log(path)
    first = next((each for each in part.curves if each.parameter == 'lr'), None)
    if first is None:
        raise InputError(
            'only learning rates are logged', hint=f'draw {param("parameters")} lr or all', parameter='logs'
        )
    inside = steps[(steps >= 0) & (steps < len(first.values))]
    planned = {each.group: each.values[inside] for each in part.curves if each.parameter == 'lr'}
    logged = values[(steps >= 0) & (steps < len(first.values))]
    # mmengine logs the first group's rate, which need not be the first curve's after merging
    gaps = [np.max(np.abs(logged - each) / np.maximum(np.abs(each), 1e-300), initial=0.0) for each in planned.values()]
    outside = len(steps) - len(inside)
    note = f'{counted(len(steps), "value")} logged, off the plan by at most {percent(min(gaps))}'
    note += f', {outside} of them beyond its end' if outside else ''
    log.info('%s: %s', path, note)
    curve = Curve(steps, values, first.config, 'logged', 'lr', None, 'logged', measured=True)
    return replace(part, curves=(*part.curves, curve), facts=f'{part.facts} · {note}')


def _joined(parts: Sequence[Curves]) -> Curves:
    if len(parts) == 1:
        return parts[0]
    return Curves(
        tuple(curve for part in parts for curve in part.curves),
        {name: length for part in parts for name, length in part.epoch_length.items()},
        '',
        '',
        {name: length for part in parts for name, length in part.warmup.items()},
        next((part.ramp for part in parts if part.ramp[0] != 'first layer'), ('first layer', 'last layer')),
        provenance={'configs': [dict(part.provenance) for part in parts]},
    )


def _provenance(
    source: Source, training: TrainingPlan, plans: Sequence[OptimizerPlan], ratio: float, names: Sequence[str]
) -> dict[str, Any]:
    return {
        'config': source.name,
        'parameters': list(names),
        'iterations': training.iterations,
        'epoch_length': training.epoch_length,
        'batch': training.batch,
        'ngpus': training.ngpus,
        'lr_scaled_by': ratio,
        'groups': sum(len(plan.groups) for plan in plans),
        'versions': versions(),
    }
