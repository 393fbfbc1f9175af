"""What a transform drew, in the words that stand above its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

NOT_APPLIED = 'not applied'

#: What the magnitude of an augmentation is called, by the transform's name.
_MAGNITUDES = {
    'Rotate': 'angle', 'Posterize': 'bits', 'Solarize': 'threshold', 'SolarizeAdd': 'amount', 'GaussianBlur': 'radius',
}  # fmt: skip
_JITTER = ('brightness', 'contrast', 'saturation', 'hue')


def described(transform: Any, drawn: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """The parameters that a transform drew in its last call, each a line; empty for one that drew none.

    Args:
        transform: The transform.
        drawn: Return values of its random methods, by name.
    """
    if drawn.get('random_disable') and drawn['random_disable'][-1]:
        return (NOT_APPLIED,)
    if hasattr(transform, 'aug'):
        return _albumentations(transform.aug)
    if 'transform' in drawn and not drawn['transform'] and hasattr(transform, 'p'):
        return (NOT_APPLIED,)
    lines: list[str] = []
    for name, values in drawn.items():
        if not values or name in ('random_disable', 'transform') or (name == 'random_magnitude' and _turned(drawn)):
            continue
        rule = _RULES.get(name)
        lines += rule(transform, values[-1]) if rule else _generic({name.strip('_'): values[-1]})
    if drawn.get('transform') and isinstance(drawn['transform'][-1], Mapping):
        lines += _generic(drawn['transform'][-1])
    return tuple(lines)


def _turned(drawn: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the magnitude was given a random sign, which is then what counts."""
    return bool(drawn.get('random_negative'))


def _direction(transform: Any, value: Any) -> list[str]:
    return [str(value) if value is not None else 'no flip']


def _box(transform: Any, value: Any) -> list[str]:
    top, left, height, width = (int(each) for each in value[:4])
    return [f'{width}×{height} at ({left}, {top})']


def _magnitude(transform: Any, value: Any) -> list[str]:
    return [f'{_MAGNITUDES.get(type(transform).__name__, "magnitude")} {_text(value)}']


def _jittered(transform: Any, value: Any) -> list[str]:
    parts = [f'{name} {_text(each)}' for name, each in zip(_JITTER, value[1:], strict=True) if each is not None]
    return parts or ['nothing to change']


def _grey(transform: Any, value: Any) -> list[str]:
    return ['grey' if value < transform.prob else NOT_APPLIED]


def _scale(transform: Any, value: Any) -> list[str]:
    value = value[0] if isinstance(value, (tuple, list)) and isinstance(value[0], (tuple, list)) else value
    return [f'scale {_text(value)}']


def _place(transform: Any, value: Any) -> list[str]:
    return [f'at ({value[1]}, {value[0]})']


def _params(transform: Any, value: Any) -> list[str]:
    """What torchvision's first generation (and mmpretrain's children of it) returns from ``get_params``."""
    name, values = type(transform).__name__, value if isinstance(value, (tuple, list)) else (value,)
    if name == 'ColorJitter':
        return _jittered(transform, values)
    if name == 'RandomAffine':
        return _generic(dict(zip(('angle', 'shift', 'scale', 'shear'), values, strict=True)))
    if len(values) >= 4 and all(isinstance(each, (int, np.integer)) for each in values[:4]):
        return _box(transform, values)
    if len(values) == 1:
        return [f'{"angle" if "Rotation" in name else "sigma" if "Blur" in name else "drawn"} {_text(values[0])}']
    return []


_RULES: dict[str, Callable[[Any, Any], list[str]]] = {
    '_choose_direction': _direction,
    'rand_crop_params': _box,
    'random_patch': _box,
    'random_magnitude': _magnitude,
    'random_negative': _magnitude,
    '_rand_params': _jittered,
    '_random_prob': _grey,
    '_random_select': _scale,
    '_random_scale': _scale,
    'rand_translate_params': _place,
    'get_params': _params,
}


def _albumentations(aug: Any) -> tuple[str, ...]:
    """The augmentations of an albumentations pipeline that ran: each keeps the parameters of its last call."""
    ran = [type(each).__name__ for each in _leaves(aug) if getattr(each, 'params', None)]
    return tuple(ran) or (NOT_APPLIED,)


def _leaves(aug: Any) -> list[Any]:
    inner = getattr(aug, 'transforms', None)
    return [leaf for each in inner for leaf in _leaves(each)] if inner else [aug]


def _generic(values: Mapping[str, Any]) -> list[str]:
    """Named numbers; what is no small number is left out."""
    return [f'{name.replace("_", " ")} {text}' for name, value in values.items() if (text := _text(value))]


def _text(value: Any) -> str:
    """A number or a few, short; ``''`` for anything else."""
    if hasattr(value, 'detach'):
        value = value.detach().cpu().numpy()
    if isinstance(value, (bool, np.bool_, str)):
        return str(value)
    if isinstance(value, (int, float, np.integer, np.floating)):
        return f'{value:.3g}' if isinstance(value, (float, np.floating)) else str(value)
    if isinstance(value, (tuple, list, np.ndarray)):
        flat = np.asarray(value, dtype=object).reshape(-1) if not isinstance(value, np.ndarray) else value.reshape(-1)
        parts = [_text(each) for each in flat.tolist()] if 0 < flat.size <= 4 else []
        return f'({", ".join(parts)})' if parts and all(parts) and len(parts) > 1 else ''.join(parts)
    return ''
