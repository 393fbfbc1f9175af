"""Maps while training, for PyTorch Lightning: ``Trainer(callbacks=[ExplainCallback('probes/', transform=…)])``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, XLAStrategy
from torch import Tensor

from vistool.errors import InputError, cause_of, check_count, close_matches, naming
from vistool.models.model import load
from vistool.runs.spec import Images
from vistool.training.probes import AnalysisLike, Probes, build_analysis, find_probes
from vistool.training.strips import Strips
from vistool.visualization.kinds import style_of

log = logging.getLogger('vistool')


class ExplainCallback(Callback):
    """Draws maps of the same images at every epoch, as :class:`~vistool.training.ExplainHook` does.

    The pictures go to every logger of the trainer that takes images (``log_image``, or TensorBoard's ``add_image``).
    """

    def __init__(
        self,
        images: Images,
        transform: Callable[[Any], Tensor],
        analysis: AnalysisLike | None = None,
        interval: int = 1,
        network: str = '',
        classes: Sequence[str] | None = None,
        out: str | os.PathLike[str] | None = None,
        max_images: int = 8,
        style: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Checks the parameters.

        Args:
            images: The probes: a folder, a glob, a ``.txt`` list, or paths.
            transform: PIL image → input tensor ``(C, H, W)``, as in validation.
            analysis: What is drawn, as for the hook.
            interval: Epochs from one moment to the next.
            network: The network inside the LightningModule, by its dotted name (``'model'``); ``''``: the
                LightningModule itself, whose ``forward`` takes a batch of images.
            classes: Class names by id.
            out: The folder of the strips and numbers; None: ``explain`` in the trainer's ``default_root_dir``.
            max_images: As many images are drawn at most, evenly spaced among those that are named.
            style: Fields of :class:`~vistool.Style`.
            seed: Of whatever the transform draws.

        Raises:
            InputError: A parameter is not accepted, or there are no such images.
        """
        check_count(interval, 1, 10**9, 'interval')
        self.items = find_probes(images, max_images)
        self.analysis = build_analysis(analysis if analysis is not None else {'type': 'CAM'})
        self.transform, self.interval, self.network, self.classes = transform, interval, network, classes
        self.out, self.seed = out, seed
        with naming('style'):
            self.style = style_of(dict(style or {}))
        self.probes: Probes | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the probes and draws the state before the first step.

        Raises:
            InputError: The probes cannot be read or explained.
        """
        whole = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        if not whole or isinstance(trainer.strategy, (DeepSpeedStrategy, XLAStrategy)):  # both are kinds of DDPStrategy
            raise InputError(
                f'{type(trainer.strategy).__name__} spreads the weights over the processes',
                accepted='one device, or DDP',
            )
        if not trainer.is_global_zero:
            return
        try:
            module = pl_module.get_submodule(self.network)
        except AttributeError as error:
            names = [name for name, _ in pl_module.named_modules() if name]
            raise InputError(
                f'the LightningModule has no module {self.network!r}',
                hint=close_matches(self.network, names),
                parameter='network',
            ) from error
        model = load(module, device=pl_module.device, transform=self.transform, classes=self.classes)
        probes = Probes(model, self.items, self.analysis, self.seed)
        out = Path(self.out) if self.out is not None else Path(trainer.default_root_dir) / 'explain'
        self.strips = Strips(out, 'epoch', repr(self.analysis), self.style)
        self.strips.start(trainer.current_epoch, probes.explain(), probes.names)
        self.probes = probes
        self._show(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the probes where this epoch is due; a fault is a warning, and the training goes on."""
        when = trainer.current_epoch + 1
        if self.probes is not None and (when % self.interval == 0 or when == trainer.max_epochs):
            self._record(trainer, when)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last state of a training that ended early, unless that was done."""
        if self.probes is not None and trainer.current_epoch not in self.strips.moments:
            self._record(trainer, trainer.current_epoch)

    def _record(self, trainer: Trainer, when: int) -> None:
        assert self.probes is not None
        try:
            self.strips.add(when, self.probes.explain())
            self._show(trainer, when)
        except Exception as error:
            log.warning('epoch %d is not drawn: %s', when, cause_of(error))

    def _show(self, trainer: Trainer, when: int) -> None:
        for name, pixels in self.strips.latest().items():
            for logger in trainer.loggers:
                if hasattr(logger, 'log_image'):
                    logger.log_image(name, [pixels], step=when)
                elif hasattr(experiment := logger.experiment, 'add_image'):
                    experiment.add_image(name, pixels, when, dataformats='HWC')
