"""The registry of analyses, a child of mmengine's ``TASK_UTILS``.

Build one from a config with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``; ``list(ANALYSES.module_dict)``
names them. A user's own analysis registers itself from the user's file through the config's ``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import TASK_UTILS, Registry

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=['vistool.analyses'])

CAM_TARGETS = Registry('cam target', scope='vistool')
"""Scores that a class activation map can explain besides a class's: ``cam_target = dict(type='Name', …)`` in a config.

A class whose instances, or a function which, called with ``(output, samples)``, gives one score ``(n,)`` for each image in the
network's output. Without a parent: looking a name up does not depend on the config's default scope.
"""
