"""What a training shows while it runs: maps of fixed images at every epoch, and the learning rate that was really used.

The hooks of mmengine's Runner are in :mod:`~vistool.training.hooks`. What they share with other trainers, such as
:mod:`vistool.integrations.lightning`, is in :mod:`~vistool.training.probes` and :mod:`~vistool.training.strips`.
"""

from vistool.training.hooks import ExplainHook, LearningRateHook

__all__ = ['ExplainHook', 'LearningRateHook']
