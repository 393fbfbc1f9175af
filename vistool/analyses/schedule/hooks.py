"""Hooks that may change a learning rate during training: they run as in training, or are refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vistool.analyses.schedule.scopes import training_scope
from vistool.analyses.schedule.training import TrainingPlan
from vistool.errors import InputError, message_of, param
from vistool.models.configs import Source

# Of all hooks in mmengine and mmpretrain, only this one changes what schedulers set; a test reads their sources.
_CHANGING = {'SimSiamHook'}
_HARMLESS = {
    'CheckpointHook',
    'ClassNumCheckHook',
    'DenseCLHook',
    'DetVisualizationHook',
    'DistSamplerSeedHook',
    'EMAHook',
    'EarlyStoppingHook',
    'EmptyCacheHook',
    'ExplainHook',
    'IterTimerHook',
    'LearningRateHook',
    'LoggerHook',
    'NPUProfilerHook',
    'NaiveVisualizationHook',
    'ParamSchedulerHook',
    'PreciseBNHook',
    'PrepareProtoBeforeValLoopHook',
    'PrepareTTAHook',
    'ProfilerHook',
    'RuntimeInfoHook',
    'SegVisualizationHook',
    'SetAdaptiveMarginsHook',
    'SwAVHook',
    'SwitchRecipeHook',
    'SyncBuffersHook',
    'VisualizationHook',
    'WarmupParamHook',
}
_PACKAGES = ('mmengine', 'mmpretrain', 'mmcv', 'mmdet', 'mmseg', 'mmpose', 'mmrotate')
_TOUCHES = re.compile(r'param_groups|optim_wrapper|\boptimizers?\b|param_scheduler|\bset_lr\b')
_MOMENTS = ('before_train', 'before_train_epoch', 'before_train_iter', 'after_train_iter', 'after_train_epoch')
_LOW = 70  # priority of mmengine's ParamSchedulerHook; hooks with lower numbers run first


class StandInRunner:
    """The runner as a hook sees it: its counters and the optimizer, nothing else.

    Attributes:
        epoch: Completed epochs.
        iter: Completed iterations.
    """

    def __init__(self, training: TrainingPlan, optim_wrapper: Any) -> None:
        self.epoch = self.iter = 0
        self.max_epochs, self.max_iters = training.epochs, training.iterations
        self.optim_wrapper = optim_wrapper

    def __getattr__(self, name: str) -> Any:
        raise InputError(f'it needs runner.{name}, which exists only in training')


@dataclass(frozen=True)
class Hooks:
    """The hooks to call, by moment, in the order in which training calls them.

    Attributes:
        moments: Bound methods by moment; those after an iteration or epoch run before the schedulers' step.
        late: The same for hooks whose priority puts them after the schedulers' step.
        names: Their classes' names.
    """

    moments: Mapping[str, Sequence[tuple[str, Callable[..., Any]]]] = field(default_factory=dict)
    late: Mapping[str, Sequence[tuple[str, Callable[..., Any]]]] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def call(self, moment: str, runner: StandInRunner, late: bool = False, **more: Any) -> None:
        """Calls the hooks of a moment.

        Raises:
            InputError: A hook needs more of the runner than its counters and optimizer.
        """
        for name, method in (self.late if late else self.moments).get(moment, ()):
            try:
                method(runner, **more)
            except Exception as error:  # a hook is foreign code, which can raise anything
                raise InputError(
                    f'the hook {name} may change the schedule, and cannot run without training ({message_of(error)})',
                    hint=f'draw without hooks: {param("options")} custom_hooks="[]"',
                    parameter='config',
                ) from error


def read_hooks(source: Source) -> Hooks:
    """The hooks of a config that may change a learning rate.

    Raises:
        InputError: A hook cannot be found or built, or the hook that steps the schedulers is switched off.
    """
    defaults = source.config.get('default_hooks') or {}
    if 'param_scheduler' in defaults and defaults['param_scheduler'] is None:
        raise InputError(
            f'{source.name} switches off the ParamSchedulerHook, so nothing steps its schedulers',
            hint='remove default_hooks.param_scheduler',
            parameter='config',
        )
    settings = [*(hook for hook in defaults.values() if hook), *(source.config.get('custom_hooks') or [])]
    found = [hook for hook in settings if isinstance(hook, Mapping) and not _standard(hook.get('type'))]
    built = [each for hook in found if (each := _build(source, hook)) is not None]
    built.sort(key=_priority)  # stable: hooks of equal priority stay in the config's order
    early = _moments([hook for hook in built if _priority(hook) < _LOW])
    after = {moment: early[moment] for moment in ('after_train_iter', 'after_train_epoch')}
    late = _moments([hook for hook in built if _priority(hook) >= _LOW])
    return Hooks({**_moments(built), **after}, late, tuple(type(hook).__name__ for hook in built))


def _standard(kind: Any) -> bool:
    """Whether a hook of this name is known not to change the optimizer, so that it need not be imported."""
    return isinstance(kind, str) and kind.rpartition('.')[2] in _HARMLESS


def _build(source: Source, settings: Mapping[str, Any]) -> Any:
    """The hook, or None if its source shows that it does not change the optimizer."""
    import mmengine.hooks  # noqa: F401  (registers mmengine's)
    from mmengine.registry import HOOKS

    kind = settings.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    with training_scope(source.config):
        try:
            with HOOKS.switch_scope_and_registry(None) as registry:
                cls = registry.get(kind) if isinstance(kind, str) else kind
            if cls is None:
                raise KeyError(f'{kind} is not registered')
            if not _may_change(cls):
                return None
            hook = HOOKS.build({key: value for key, value in settings.items() if key != 'priority'})
        except Exception as error:  # as above
            raise InputError(
                f'the hook {name} of {source.name} cannot be built, so its effect on the schedule is unknown '
                f'({message_of(error)})',
                hint=f'list its module in custom_imports, or draw without hooks: {param("options")} custom_hooks="[]"',
                parameter='config',
            ) from error
    if 'priority' in settings:
        hook.priority = settings['priority']
    return hook


def _may_change(cls: type) -> bool:
    package = cls.__module__.split('.')[0]
    if package in _PACKAGES:
        return cls.__name__ in _CHANGING
    try:
        return bool(_TOUCHES.search(inspect.getsource(inspect.getmodule(cls) or cls)))
    except (OSError, TypeError):
        return True  # without its source, the hook has to run


def _priority(hook: Any) -> int:
    from mmengine.runner.priority import get_priority

    return get_priority(getattr(hook, 'priority', 'NORMAL'))


def _moments(hooks: Sequence[Any]) -> dict[str, list[tuple[str, Callable[..., Any]]]]:
    from mmengine.hooks import Hook

    return {
        moment: [
            (type(hook).__name__, getattr(hook, moment))
            for hook in hooks
            if getattr(type(hook), moment) is not getattr(Hook, moment) and not _idle(hook, moment)
        ]
        for moment in _MOMENTS
    }


def _idle(hook: Any, moment: str) -> bool:
    """Whether a hook is known to do nothing then, which saves a call in each of a million iterations."""
    return type(hook).__name__ == 'SimSiamHook' and moment == 'before_train_iter' and hook.adjust_by_epoch
