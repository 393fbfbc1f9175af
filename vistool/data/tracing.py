"""Runs transforms one by one and tracks what each does to the pixel grid and to the values."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from vistool.data.geometry import GeometricStep, Geometry, Size, resize
from vistool.data.geometry_rules import MMPRETRAIN, OPENMMLAB, TIMM, TORCHVISION, Rule, TransformCall, still, stretched
from vistool.data.images import image_of, size_of, with_image
from vistool.data.photometry import Photometry, followed
from vistool.data.replay import RandomState, replay
from vistool.errors import InputError, message_of

log = logging.getLogger('vistool')

_RULES: dict[str, dict[str, Any]] = {
    'mmcv': OPENMMLAB,
    'mmdet': OPENMMLAB,
    'mmseg': OPENMMLAB,
    'mmpretrain': OPENMMLAB | MMPRETRAIN,
    'mmcls': OPENMMLAB | MMPRETRAIN,
    'torchvision': TORCHVISION,
    'timm': TIMM,
    'vistool': {'Cover': stretched, 'Pack': still},
}

#: Transforms that only run others, kept in their attribute ``transforms``.
_CONTAINERS: dict[str, dict[str, Any]] = {
    'mmcv': dict.fromkeys(['Compose', 'KeyMapper', 'RandomChoice', 'RandomApply'], True),
    'mmengine': {'Compose': True},
    'mmpretrain': dict.fromkeys(['AutoAugment', 'RandAugment'], True),
    'mmcls': dict.fromkeys(['AutoAugment', 'RandAugment'], True),
    'torchvision': dict.fromkeys(['Compose', 'RandomApply', 'RandomChoice', 'RandomOrder'], True),
}

_CALLS = ('transform', 'forward', '__call__')


def find(tables: dict[str, dict[str, Any]], transform: Any) -> Any:
    """A transform's entry, looked up along its base classes; None if a subclass overrides how it works."""
    changed = False
    for cls in type(transform).__mro__:
        entry = tables.get(cls.__module__.split('.')[0], {}).get(cls.__name__)
        if entry is not None:
            return None if changed else entry
        changed = changed or any(name in vars(cls) for name in _CALLS)
    return None


class Tracer:
    """One sample on its way through a pipeline.

    Args:
        geometry: From the image as it enters to the original; None if the image is yet to be loaded.
        photometry: Of the image as it enters.
        warned: Names of transforms that were warned about; extended in place.
        observe: Called with ``(transform, value)`` after each step, inner ones included.
    """

    def __init__(
        self,
        geometry: Geometry | None,
        photometry: Photometry,
        warned: set[str] | None = None,
        observe: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.geometry, self.photometry = geometry, photometry
        self._warned = set() if warned is None else warned
        self._observe = observe
        self.drawn: Mapping[str, list[Any]] = {}  # by the last step's random methods

    def run(self, transforms: Sequence[Any], value: Any) -> Any:
        """Applies transforms in order; an InputError if one fails or returns nothing."""
        for transform in transforms:
            value = self.apply(transform, value)
            if value is None:
                raise InputError(f'the transform {name_of(transform)} discarded the image')
        return value

    def apply(self, transform: Any, value: Any) -> Any:
        """Applies one transform, stepping into those that only run others."""
        if type(transform).__name__ == 'TorchVisonTransformWrapper':
            value['img'] = self.apply(transform.t, value['img'])
            return value
        if find(_CONTAINERS, transform) and _keeps_image(transform):
            with self._stepping_into(transform):
                return transform(value)
        return self._leaf(transform, value)

    @contextmanager
    def _stepping_into(self, container: Any) -> Iterator[None]:
        """Lets a container call this tracer in place of its children."""

        def traced(child: Any) -> Callable[[Any], Any]:
            return lambda value: self.apply(child, value)

        inner = container.transforms
        is_one = find(_CONTAINERS, inner) is not None
        with attribute(container, 'transforms', traced(inner) if is_one else [traced(child) for child in inner]):
            yield

    def _leaf(self, transform: Any, value: Any) -> Any:
        before = image_of(value)
        rule = getattr(transform, 'geometry_rule', None) or find(_RULES, transform)  # a transform may define its own
        self.drawn = {}
        if before is None:
            out = applied(transform, value)
        else:
            size, state = size_of(before), RandomState.now()
            saved = None if rule else _copies(transform, value)
            with _recording(transform) as drawn:
                out = applied(transform, value)
            after, self.drawn = image_of(out), drawn
            source = before if saved is None else image_of(saved[1])
            self.photometry = followed(self.photometry, transform, source, after, rule is not None)
            if self.geometry is not None and size is not None:
                new = size_of(after) or size
                call = TransformCall(transform, size, new, drawn, state)
                found = (
                    None if after is None else _known(rule, call) if rule else _replayed(saved, state, before, after)
                )
                self.geometry = self.geometry.then(found or self._unknown(transform, size, new, after is None))
        if self._observe is not None:
            self._observe(transform, out)
        return out

    def _unknown(self, transform: Any, before: Size, after: Size, several: bool) -> GeometricStep:
        """A step of which only the sizes are right; warns once per transform."""
        name = name_of(transform)
        if name not in self._warned:
            self._warned.add(name)
            log.warning(
                'the transform %s %s: maps cannot be laid over the original image, only over what the network saw',
                name,
                'returns several images' if several else 'moves pixels in a way that could not be determined',
            )
        return replace(resize(before, after), exact=False)


def name_of(transform: Any) -> str:
    """A transform's name for messages."""
    return getattr(transform, '__name__', type(transform).__name__)


def applied(transform: Any, value: Any) -> Any:
    """The transform's result; an InputError that names the transform if it fails."""
    try:
        return transform(value)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f'the transform {name_of(transform)} failed: {message_of(error)}') from error


def _keeps_image(container: Any) -> bool:
    """Whether the children of a container see the image under its usual key; KeyMapper can rename it."""
    mapping = getattr(container, 'mapping', None)
    return mapping is None or mapping.get('img', 'img') == 'img'


def _copies(transform: Any, value: Any) -> tuple[Any, Any] | None:
    """Copies of an unknown transform and its input, made before the call, for a replay."""
    try:
        return copy.deepcopy(transform), copy.deepcopy(value)
    except Exception:  # locks, handles and the like
        return None


def _known(rule: Rule, call: TransformCall) -> GeometricStep | None:
    """A rule's step; None if the transform is not exactly the one that the rule was written for."""
    try:
        step = rule(call)
    except (KeyError, AttributeError, TypeError, IndexError, ValueError):
        return None
    return step if step.after == call.after else None


def _replayed(saved: tuple[Any, Any] | None, state: RandomState, before: Any, after: Any) -> GeometricStep | None:
    if saved is None:
        return None
    transform, value = saved
    image = image_of(value)
    old, new = size_of(image), size_of(after)
    if old is None or new is None:
        return None
    unchanged = type(image) is type(after) and old == new and np.array_equal(image, after)
    if unchanged and after is before:
        return resize(old, new)
    step = replay(transform, state, image, after, lambda t, coded: image_of(t(with_image(value, coded))))
    return resize(old, new) if step is None and unchanged else step


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute inside the context, also one that is a registered torch module."""
    modules = getattr(owner, '_modules', None)
    registered = modules.pop(name) if modules and name in modules else None
    former = owner.__dict__.get(name, owner)  # the owner itself stands for an absent attribute
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if former is owner:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = former
        if registered is not None and modules is not None:
            modules[name] = registered


@contextmanager
def _recording(transform: Any) -> Iterator[dict[str, list[Any]]]:
    """Records what a transform's random methods return while it runs, by the method's name.

    These are mmcv's cached random methods and torchvision's ``get_params``. For the second generation of torchvision's
    transforms it records the parameters that are passed to ``transform``.
    """
    drawn: dict[str, list[Any]] = defaultdict(list)
    names = {*getattr(transform, '_methods_with_randomness', ()), 'get_params'}
    names = {name for name in names if hasattr(transform, name)}
    if type(transform).__module__.startswith('torchvision.transforms.v2'):
        names.add('transform')
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(attribute(transform, name, _recorder(getattr(transform, name), drawn[name], name)))
        yield drawn


def _recorder(method: Callable[..., Any], kept: list[Any], name: str) -> Callable[..., Any]:
    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        kept.append(args[1] if name == 'transform' else result)
        return result

    return recorded
