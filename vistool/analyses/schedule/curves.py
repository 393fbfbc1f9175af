"""Recordings of many groups → few curves: equal ones are merged, and each is named by what distinguishes it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from typing_extensions import TypedDict

from vistool.analyses.schedule.optimizers import Group, OptimizerPlan
from vistool.analyses.schedule.replay import Recording
from vistool.analyses.schedule.training import TrainingPlan
from vistool.errors import InputError, counted, param
from vistool.models.configs import Source
from vistool.records import find_path, parse_json, read_text
from vistool.results import Curve

log = logging.getLogger('vistool')

_ENOUGH_LAYERS = 3
_SETTINGS = {'beta1': 'betas', 'beta2': 'betas'}


@dataclass(frozen=True)
class Merged:
    """Groups with equal values over the whole run.

    Attributes:
        members: Positions of the groups.
        name: What distinguishes them (``'layer 3'``, ``'lr 0.001'``), unique; ``'all'`` if there is only one.
        layer: Their common layer, if the groups come from layer-wise decay.
        size: How many numbers their parameters hold; 0 if unknown.
    """

    members: tuple[int, ...]
    name: str
    layer: int | None
    size: int


def merge(plan: OptimizerPlan, parameter: str, recording: Recording) -> list[Merged]:
    """Merges the groups of an optimizer with equal curves, in order of layer or of first appearance."""
    same: dict[bytes, int] = {}
    columns = [same.setdefault(recording.rows[:, each].tobytes(), each) for each in range(recording.rows.shape[1])]
    found: dict[int, list[int]] = {}
    for group, place in enumerate(recording.places):
        found.setdefault(columns[place], []).append(group)
    bundles = list(found.values())
    layers = [_layer([plan.groups[index] for index in bundle]) for bundle in bundles]
    ramp = len(bundles) >= _ENOUGH_LAYERS and None not in layers and len(set(layers)) == len(layers)
    merged: list[Merged] = []
    for bundle, layer in zip(bundles, layers, strict=True):
        groups = [plan.groups[index] for index in bundle]
        name = 'all' if len(bundles) == 1 else f'layer {layer}' if ramp else _distinction(groups, parameter)
        taken = sum(each.name == name or each.name.startswith(f'{name} #') for each in merged)
        unique = f'{name} #{taken + 1}' if taken else name
        merged.append(Merged(tuple(bundle), unique, layer if ramp else None, sum(group.size for group in groups)))
    return sorted(merged, key=lambda each: each.layer or 0) if ramp else merged


def _layer(groups: Sequence[Group]) -> int | None:
    layers = {group.settings.get('layer_id') for group in groups}
    only = layers.pop() if len(layers) == 1 else None
    return only if isinstance(only, int) else None


def _distinction(groups: Sequence[Group], parameter: str) -> str:
    key = _SETTINGS.get(parameter, parameter)
    value = groups[0].settings.get(key)
    if groups[0].settings.get('fix_lr'):
        return 'fixed lr'
    if parameter == 'momentum' and value is None:
        value = (groups[0].settings.get('betas') or [''])[0]
    short = {'weight_decay': 'wd'}.get(key, key)
    return f'{short} {value:.3g}' if isinstance(value, (int, float)) else f'{short} {value}'


def curves(
    config: str, optimizer: str, parameter: str, recording: Recording, merged: Sequence[Merged], label: str
) -> list[Curve]:
    """Curves of one parameter of one optimizer.

    Args:
        config: The config's name.
        optimizer: The optimizer's name among several, or ``''``.
        parameter: The parameter, as recorded.
        recording: Its values.
        merged: The result of :func:`merge`.
        label: The name of the config in the legend; ``''`` if there is only one.
    """
    steps = np.arange(int(recording.counts.sum()), dtype=np.int64)
    last = max((each.layer or 0 for each in merged), default=0)
    made = []
    for each in merged:
        group = f'{optimizer}: {each.name}' if optimizer else each.name
        order = None if each.layer is None else each.layer / max(last, 1)
        text = _legend(each, group, label, each is merged[-1])
        made.append(Curve(steps, recording.column(each.members[0]), config, group, parameter, order, text))
    return made


def _legend(each: Merged, group: str, label: str, last: bool) -> str:
    if each.layer is not None:  # the color bar shows the layers; the last layer's line represents the config
        return label if last else ''
    counted = f' ({_amount(each.size)} parameters)' if each.size else ''
    own = '' if group == 'all' else f'{group}{counted}'
    return ' · '.join(part for part in (label, own) if part)


def _amount(size: int) -> str:
    for unit, factor in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if size >= factor:
            return f'{_number(size / factor)} {unit}'
    return str(size)


def _number(value: float) -> str:
    """Three digits that count, never with an exponent for a large number."""
    return f'{value:,.0f}' if value >= 999 else f'{value:.3g}'


def percent(share: float) -> str:
    """A share in percent, with two digits that count; whole above 99, where more would be noise."""
    return f'{100 * share:,.0f} %' if share > 0.99 else f'{100 * share:.2g} %'


def warmup_length(values: NDArray[np.float64]) -> int:
    """Iterations from the first value up to and including the highest; 0 if the values do not rise until there.

    Args:
        values: ``(T,)``.
    """
    top = values.max()
    peak = int(np.argmax(values >= top - 1e-9 * abs(top)))
    rising = peak > 0 and bool((np.diff(values[: peak + 1]) >= 0).all())
    return peak + 1 if rising else 0


def facts_line(training: TrainingPlan, main: Curve, warmup: int) -> str:
    """Iterations per epoch, total, batch, warm-up, peak and final value.

    Args:
        training: The counts.
        main: The highest curve of the first parameter drawn.
        warmup: The length of its warm-up, in iterations.
    """
    parts = []
    if training.by_epoch:
        iterations = counted(training.iterations, 'iteration')
        parts.append(f'{counted(training.epochs, "epoch")} × {training.epoch_length:,} = {iterations}')
    else:
        epochs = f' ({_number(training.iterations / training.epoch_length)} epochs)' if training.epoch_length else ''
        parts.append(f'{counted(training.iterations, "iteration")}{epochs}')
    if training.batch is not None:
        parts.append(f'batch {training.ngpus} × {training.per_gpu} = {training.batch:,}')
    if warmup:
        epochs = f' = {_number(warmup / training.epoch_length)} epochs' if training.epoch_length else ''
        parts.append(f'warm-up {counted(warmup, "iteration")}{epochs}')
    name = main.parameter
    parts.append(f'{name} peak {main.values.max():.3g}, end {main.values[-1]:.3g}')
    return ' · '.join(parts)


def warn_of_batch(source: Source, training: TrainingPlan, scale: bool) -> float:
    """The factor of the learning rate; a warning if the config's rate is meant for another batch size.

    Args:
        source: The config.
        training: The counts.
        scale: Whether scaling was requested.

    Raises:
        InputError: The config does not say which batch size its rate is meant for.
    """
    settings = source.config.get('auto_scale_lr') or {}
    base = settings.get('base_batch_size')
    wanted = scale or bool(settings.get('enable'))
    if not base or training.batch is None:
        if wanted:
            lacking = 'auto_scale_lr.base_batch_size' if not base else 'train_dataloader.batch_size'
            raise InputError(f'{source.name} has no {lacking} to scale by', parameter='auto_scale_lr')
        return 1.0
    ratio = float(training.batch) / float(base)
    if wanted:
        log.info('%s: learning rate × %g (batch %d, meant for %d)', source.name, ratio, training.batch, base)
        return ratio
    if ratio != 1:
        log.warning(
            '%s: the learning rate is set for a total batch of %d; this run uses %d; '
            f'{param("auto_scale_lr")} multiplies it by %g, {param("ngpus")} sets the GPUs',
            source.name,
            base,
            training.batch,
            ratio,
        )
    return 1.0


_ACCEPTED = 'vis_data/scalars.json of a run'


_A_LOG = f'give {_ACCEPTED}'
_Step = Annotated[int, Ge(0), Le(10**12)]


class LogEntry(TypedDict, total=False):
    """What is read of one line of a log; older versions write a rate for each optimizer."""

    lr: float | list[float] | dict[str, Any] | None
    step: _Step | None
    iter: _Step | None


def read_log(path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Reads a log: steps ``(N,)``, counted from 0, and the rate of the first parameter group at each, ``(N,)``.

    Raises:
        InputError: It cannot be read or contains no rate.
    """
    path = find_path(path, 'logs')
    lines = read_text(path, 'logs', hint=_A_LOG).splitlines()
    found: dict[int, float] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == len(lines) and not line.rstrip().endswith('}'):
            continue  # a run that is still writing its log
        entry = parse_json(line, LogEntry, f'{path}, line {number}', 'logs', _A_LOG)
        rate, step = entry.get('lr'), entry.get('step', entry.get('iter'))
        if isinstance(rate, (int, float)) and step is not None:
            found[step - 1] = float(rate)  # mmengine logs completed iterations; a resumed run repeats some
    if not found:
        raise InputError(f'{path} holds no learning rate', accepted=_ACCEPTED, parameter='logs')
    steps = np.array(sorted(found), dtype=np.int64)
    return steps, np.array([found[step] for step in steps.tolist()])
