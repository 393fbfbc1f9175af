"""The numbers of a run in a line, and what its batch means for its rate."""

from __future__ import annotations

import logging

from vistool.analyses.schedule.run import Run
from vistool.config import Source
from vistool.errors import InputError
from vistool.results import Curve

log = logging.getLogger('vistool')


def facts_line(run: Run, main: Curve, warmup: int) -> str:
    """Iterations per epoch, total, batch, warm-up, peak and final value.

    Args:
        run: The counts.
        main: The highest curve of the first parameter drawn.
        warmup: Its iterations of warm-up.
    """
    parts = []
    if run.by_epoch:
        parts.append(f'{run.epochs} epochs × {run.epoch_length:,} = {run.iterations:,} iterations')
    else:
        epochs = f' ({run.iterations / run.epoch_length:.3g} epochs)' if run.epoch_length else ''
        parts.append(f'{run.iterations:,} iterations{epochs}')
    if run.batch is not None:
        parts.append(f'batch {run.ngpus} × {run.per_gpu} = {run.batch:,}')
    if warmup:
        epochs = f' = {warmup / run.epoch_length:.3g} epochs' if run.epoch_length else ''
        parts.append(f'warm-up {warmup:,} iterations{epochs}')
    name = main.parameter
    parts.append(f'{name} peak {main.values.max():.3g}, end {main.values[-1]:.3g}')
    return ' · '.join(parts)


def warn_of_batch(source: Source, run: Run, scale: bool) -> float:
    """The factor of the learning rate; a warning where the config's rate was meant for another batch.

    Args:
        source: The config.
        run: The counts.
        scale: Whether scaling was asked for.

    Raises:
        InputError: If the config does not say which batch its rate was meant for.
    """
    settings = source.config.get('auto_scale_lr') or {}
    base = settings.get('base_batch_size')
    wanted = scale or bool(settings.get('enable'))
    if not base or run.batch is None:
        if wanted:
            lacking = 'auto_scale_lr.base_batch_size' if not base else 'train_dataloader.batch_size'
            raise InputError(f'{source.name} has no {lacking} to scale by', argument='--auto-scale-lr')
        return 1.0
    ratio = float(run.batch) / float(base)
    if wanted:
        log.info('%s: learning rate × %g (batch %d, meant for %d)', source.name, ratio, run.batch, base)
        return ratio
    if ratio != 1:
        log.warning(
            '%s: its rate is meant for a batch of %d, this run has %d; '
            '--auto-scale-lr multiplies it by %g, --ngpus sets the GPUs',
            source.name,
            base,
            run.batch,
            ratio,
        )
    return 1.0
