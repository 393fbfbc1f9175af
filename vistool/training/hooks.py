"""Hooks for mmengine's Runner: ``custom_hooks = [dict(type='vistool.ExplainHook', images='probes/')]``."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from vistool.analyses.schedule import Schedule
from vistool.analyses.schedule.used import UsedRates
from vistool.data.pipelines import Pipeline, build_pipeline, find_pipeline
from vistool.errors import InputError, cause_of, check_count, naming, param
from vistool.models.configs import Source
from vistool.models.model import Model
from vistool.network.layers import unwrapped
from vistool.registry import HOOKS
from vistool.results import Curves
from vistool.runs.spec import AnyItem, Images
from vistool.training.probes import AnalysisLike, Probes, build_analysis, find_probes, undisturbed
from vistool.training.strips import Strips, Unit
from vistool.visualization.files import check_folder
from vistool.visualization.kinds import picture_pixels, style_of
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')


@HOOKS.register_module()
class ExplainHook(Hook):
    """Draws maps of the same images at every epoch of a training, without a trace in the training.

    Each moment goes to the ``vis_backends`` of the run as one picture a probe, and to a film strip a probe in the
    ``work_dir``, with a column for each epoch. All moments of a probe share one scale of raw values. Weights, buffers,
    modes, gradients and random generators are as without the hook, to the last bit.

    What is wrong with the images, the analysis or the network is an error before the first epoch. What fails later is
    a warning, and the training goes on.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        images: Images,
        analysis: AnalysisLike | None = None,
        interval: int = 1,
        by_epoch: bool = True,
        out: str | os.PathLike[str] | None = None,
        max_images: int = 8,
        style: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Checks the parameters.

        Args:
            images: The probes: a folder, a glob, a ``.txt`` list, paths, or ``@train``, ``@val``, ``@test`` of the
                config, whose labels are then known.
            analysis: What is drawn: ``dict(type='vistool.CAM', …)`` (the default), ``vistool.Attention``,
                ``vistool.FeatureMaps``, or any :class:`~vistool.MapAnalysis`.
            interval: Epochs (iterations) from one moment to the next; the state before the first step and that after
                the last are drawn in any case.
            by_epoch: Whether epochs are counted, not iterations.
            out: The folder of the strips and numbers; None: ``explain`` in the run's ``work_dir``.
            max_images: As many images are drawn at most, evenly spaced among those that are named.
            style: Fields of :class:`~vistool.Style`.
            seed: Of whatever random transforms of the validation pipeline draw.

        Raises:
            InputError: A parameter is not accepted, or there are no such images.
        """
        check_count(interval, 1, 10**9, 'interval')
        self.analysis = build_analysis(analysis if analysis is not None else {'type': 'CAM'})
        self.images, self.interval, self.by_epoch, self.out = images, interval, by_epoch, out
        self.max_images, self.seed = max_images, seed
        with naming('style'):
            self.style = style_of(dict(style or {}))
        # What lies in a dataset of the config is known when there is a config.
        self.items: list[AnyItem] = [] if str(images).startswith('@') else find_probes(images, max_images)
        self.probes: Probes | None = None

    @property
    def _unit(self) -> Unit:
        return 'epoch' if self.by_epoch else 'iteration'

    def before_train(self, runner: Runner) -> None:
        """Reads the probes and draws the state before the first step.

        Raises:
            InputError: The probes cannot be read or explained.
        """
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise InputError(
                'this run counts iterations, not epochs',
                hint=f'give {param("by_epoch", False)} and {param("interval", 1000)}',
                parameter='by_epoch',
            )
        network = network_of(runner)
        if not is_main_process():
            return
        with undisturbed():
            model = model_of(runner, network)
            items = self.items or find_probes(self.images, self.max_images, model)
            probes = Probes(model, items, self.analysis, self.seed)
        out = Path(self.out) if self.out is not None else Path(runner.work_dir) / 'explain'
        self.strips = Strips(out, self._unit, f'{self.analysis!r}', self.style)
        self.strips.start(self._completed(runner), probes.explain(), probes.names)
        self.probes = probes
        self._show(runner, self._completed(runner))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the probes, where iterations are counted and this one is due."""
        if not self.by_epoch and (runner.iter + 1) % self.interval == 0:
            self._record(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draws the probes, where epochs are counted and this one is due."""
        if self.by_epoch and (runner.epoch + 1) % self.interval == 0:
            self._record(runner, runner.epoch + 1)

    def after_train(self, runner: Runner) -> None:
        """Draws the last state, unless that was done."""
        if self.probes is not None and self._completed(runner) not in self.strips.moments:
            self._record(runner, self._completed(runner))

    def _completed(self, runner: Runner) -> int:
        return int(runner.epoch if self.by_epoch else runner.iter)

    def _record(self, runner: Runner, when: int) -> None:
        """Draws the probes; a fault is a warning, because no picture is worth a training of days."""
        if self.probes is None:
            return
        try:
            self.strips.add(when, self.probes.explain())
            self._show(runner, when)
        except Exception as error:
            log.warning('%s %d is not drawn: %s', self._unit, when, cause_of(error))

    def _show(self, runner: Runner, when: int) -> None:
        for name, pixels in self.strips.latest().items():
            runner.visualizer.add_image(name, pixels, when)


@HOOKS.register_module()
class LearningRateHook(Hook):
    """Draws the learning rates of a run over those that its config plans, and says where they part.

    The picture, ``learning_rate.png`` with its table, is written to the ``work_dir`` at the end of the training, and
    goes to the ``vis_backends``. The plan is the one of ``vis_lr``.
    """

    priority = 'VERY_LOW'  # after every hook that sets a rate before an iteration

    def __init__(self, out: str | os.PathLike[str] | None = None, style: Mapping[str, Any] | None = None) -> None:
        """Checks the parameters.

        Args:
            out: The folder of the picture; None: the run's ``work_dir``.
            style: Fields of :class:`~vistool.Style`.

        Raises:
            InputError: The style is not accepted.
        """
        self.out = out
        with naming('style'):
            self.style = style_of(dict(style or {}))
        self.rates: dict[str, UsedRates] = {}
        self.first = 0

    def before_train(self, runner: Runner) -> None:
        """Plans the run, so that what cannot be planned is an error now.

        Raises:
            InputError: The config cannot be planned.
        """
        self.rates, self.first = {}, int(runner.iter)
        if not is_main_process():
            return
        self._plan(runner)
        check_folder(self._folder(runner))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Notes the rate of every parameter group in this iteration."""
        for name, groups in _groups(runner).items():
            self.rates.setdefault(name, UsedRates()).note([float(group['lr']) for group in groups])

    def after_train(self, runner: Runner) -> None:
        """Writes the picture and the table; a fault is a warning, because the training is done."""
        if not is_main_process() or not self.rates:
            return
        try:
            curves = self._plan(runner, self.rates)
            paths = Visualizer(self._folder(runner), self.style, save_raw=True).write(curves, 'learning_rate')
            log.info('wrote %s', ', '.join(map(str, paths)))
            runner.visualizer.add_image('learning_rate', picture_pixels(curves, self.style), int(runner.iter))
        except Exception as error:
            log.warning('the learning rate is not drawn: %s', cause_of(error))

    def _folder(self, runner: Runner) -> Path:
        return Path(self.out) if self.out is not None else Path(runner.work_dir)

    def _plan(self, runner: Runner, used: Mapping[str, UsedRates] | None = None) -> Curves:
        from mmengine.dist import get_world_size

        if not runner.cfg:
            raise InputError('the run has no config to plan from', hint='build it with Runner.from_cfg')
        config = runner.cfg.copy()
        size = len(runner.train_loop.dataloader.dataset)
        schedule = Schedule(dataset_size=size, ngpus=get_world_size())
        with undisturbed():
            source = Source(config, _config_name(runner))
            return schedule(source) if used is None else schedule.beside(source, used, self.first)


def _groups(runner: Runner) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The parameter groups of each optimizer, by its name; ``''`` for a single one."""
    wrapper: Any = runner.optim_wrapper
    wrappers = dict(wrapper.items()) if hasattr(wrapper, 'optim_wrappers') else {'': wrapper}
    return {name: each.optimizer.param_groups for name, each in wrappers.items()}


def _config_name(runner: Runner) -> str:
    return Path(runner.cfg.filename).stem if runner.cfg.filename else str(runner.cfg.get('experiment_name', 'training'))


def network_of(runner: Runner) -> nn.Module:
    """The network that a runner trains, without the wrappers of distributed training.

    Raises:
        InputError: No process holds the whole network.
    """
    name = type(runner.model).__name__
    if is_model_wrapper(runner.model) and ('Sharded' in name or 'DeepSpeed' in name or 'Colossal' in name):
        raise InputError(
            f'{name} spreads the weights over the processes, so that none of them can run the network alone',
            accepted='one process, or MMDistributedDataParallel',
        )
    return unwrapped(runner.model)


def model_of(runner: Runner, network: nn.Module) -> Model:
    """The network that a runner trains, with the pipeline of its validation set and the names of its classes."""
    loaders = [loop.dataloader for loop in (runner.val_loop, runner.train_loop) if loop is not None]
    metas = [getattr(loader.dataset, 'metainfo', None) or {} for loader in loaders]
    classes = next((tuple(map(str, meta['classes'])) for meta in metas if meta.get('classes')), None)
    device = next((weight.device for weight in network.parameters()), None)
    model = Model(network, _config_name(runner), runner.cfg, classes)
    if device is not None:
        model.device = device
    preprocessor = getattr(network, 'data_preprocessor', None)
    phase = next((name for name in ('val', 'test') if find_pipeline(runner.cfg, name) is not None), None)
    live = getattr(getattr(loaders[0].dataset, 'pipeline', None), 'transforms', None)
    if phase is not None:
        model.pipeline = build_pipeline(runner.cfg, phase, preprocessor)
    elif live and runner.val_loop is not None:  # a runner that was given its parts, and no config
        model.pipeline = Pipeline(live, preprocessor)
    return model
