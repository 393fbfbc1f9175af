"""``torchvision::NAME``: a model of torchvision, prepared for as its weights say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vistool.config.configfree import evaluation_config, picture_steps
from vistool.errors import InputError, close_matches

if TYPE_CHECKING:
    from mmengine.config import Config


def torchvision_config(name: str) -> Config:
    """The config of ``torchvision::NAME`` or ``torchvision::NAME.WEIGHTS``: prepared for as its weights say.

    Nothing is downloaded: the weights only say how pictures are prepared. ``WEIGHTS``, such as ``IMAGENET1K_V1``,
    defaults to torchvision's best.

    Raises:
        InputError: If torchvision has no such classifier or weights.
    """
    from torchvision import models

    name, _, tag = name.partition('.')
    known = models.list_models(module=models)
    if name not in known:
        hint = close_matches(name, known) or 'see torchvision.models.list_models()'
        raise InputError(f'torchvision has no classifier {name}', hint=hint, argument='config')
    weights = models.get_model_weights(name)
    if tag and tag not in weights.__members__:
        tags = ', '.join(weights.__members__)
        raise InputError(f'torchvision has no weights {tag} for {name}', accepted=tags, argument='config')
    chosen: Any = weights[tag or 'DEFAULT']
    transform = chosen.transforms()
    side = transform.crop_size[0]
    resize = transform.resize_size
    steps = picture_steps(
        resize[0] if len(resize) == 1 else tuple(resize), (side, transform.crop_size[-1]), transform.interpolation.value
    )
    model = {'type': 'vistool.TorchvisionClassifier', 'model_name': name}
    return evaluation_config(model, steps, transform.mean, transform.std, chosen.meta['categories'])
