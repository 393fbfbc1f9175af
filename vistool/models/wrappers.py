"""Networks of torchvision and Hugging Face as models for configs, beside mmpretrain's ``TimmClassifier``.

In a config they are ``type='vistool.TorchvisionClassifier'`` and ``type='vistool.HuggingFaceClassifier'``. A config for
other tools than vistool's imports them with ``custom_imports = dict(imports=['vistool.registry'])``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmpretrain.models import HuggingFaceClassifier as _HuggingFaceClassifier
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from vistool.registry import MODELS


@MODELS.register_module()
class TorchvisionClassifier(BaseClassifier):
    """A classifier of ``torchvision.models``, with the interface of mmpretrain's classifiers.

    Its state dict has torchvision's own names, so torchvision's checkpoints load unchanged, and its own load there.

    Args:
        model_name: A name that ``torchvision.models.get_model`` accepts.
        *args: Passed on to the model.
        loss: Config of the classification loss, or the loss itself.
        train_cfg: ``augments`` are batch augmentations for training.
        data_preprocessor: Config of the data preprocessor; mmpretrain's ``ClsDataPreprocessor`` if it has no type.
        init_cfg: See mmengine's ``BaseModule``.
        **kwargs: Passed on to the model (``num_classes``, …).
    """

    def __init__(
        self,
        model_name: str,
        *args: Any,
        loss: Mapping[str, Any] | nn.Module | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        from torchvision.models import get_model

        preprocessor = {'type': 'mmpretrain.ClsDataPreprocessor', **(data_preprocessor or {})}
        if train_cfg is not None and 'augments' in train_cfg:
            preprocessor['batch_augments'] = train_cfg
        super().__init__(init_cfg=init_cfg, data_preprocessor=preprocessor)
        self.num_classes = kwargs.get('num_classes')
        self.model = get_model(model_name, *args, weights=None, **kwargs)
        loss = {'type': 'mmpretrain.CrossEntropyLoss', 'loss_weight': 1.0} if loss is None else loss
        self.loss_module = loss if isinstance(loss, nn.Module) else MODELS.build(dict(loss))
        self._register_state_dict_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None, mode: str = 'tensor') -> Any:
        """Scores, losses or predictions.

        Args:
            inputs: ``(B, C, H, W)``, normalized.
            data_samples: With labels for ``loss``; filled in by ``predict``.
            mode: ``'tensor'`` gives the scores ``(B, classes)``, ``'loss'`` a dict, ``'predict'`` data samples.
        """
        if mode == 'tensor':
            return self.model(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise RuntimeError(f'unknown mode {mode!r}; accepted: tensor, loss, predict')

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """The last feature map ``(B, C, h, w)`` of models with a separate feature extractor."""
        features = getattr(self.model, 'features', None)
        if features is None:
            raise NotImplementedError(f"torchvision's {type(self.model).__name__} has no separate feature extractor")
        return features(inputs)

    def loss(self, inputs: Tensor, data_samples: Sequence[DataSample] | None) -> dict[str, Tensor]:
        """The classification loss of a batch; labels may be one-hot scores."""
        scores = self.model(inputs)
        scores = scores if isinstance(scores, Tensor) else scores[0]  # Inception returns auxiliary scores in training
        if not data_samples:
            raise ValueError('the loss needs data samples with labels')
        if 'gt_score' in data_samples[0]:
            target = torch.stack([sample.gt_score for sample in data_samples])
        else:
            target = torch.cat([sample.gt_label for sample in data_samples])
        return {'loss': self.loss_module(scores, target)}

    def predict(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None) -> list[DataSample]:
        """Data samples with ``pred_score``, softmax over the classes, and ``pred_label``."""
        shares = F.softmax(self.model(inputs), dim=1)
        samples = [DataSample() for _ in shares] if data_samples is None else list(data_samples)
        for sample, share in zip(samples, shares, strict=True):
            sample.set_pred_score(share).set_pred_label(share.argmax().detach())
        return samples


@MODELS.register_module()
class HuggingFaceClassifier(_HuggingFaceClassifier):
    """mmpretrain's wrapper of ``transformers`` models, which also takes checkpoints in the form they have on the Hub.

    Their names are those of the version of transformers that wrote them, and may be those of a backbone alone;
    transformers itself maps them to the model.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with _quiet():  # it warns of labels in a backbone's config that num_labels=0 contradicts
            super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(_translate)


@MODELS.register_module()
class HuggingFaceBackbone(BaseClassifier):
    """A backbone of ``transformers`` of which it has no classifier, such as DINOv3.

    Its state dict has the names of transformers.

    Args:
        model_name: A folder with a ``config.json``.
        data_preprocessor: Config of the data preprocessor; mmpretrain's ``ClsDataPreprocessor`` if it has no type.
        init_cfg: See mmengine's ``BaseModule``.
        **kwargs: Changes to the config.
    """

    head = None

    def __init__(
        self, model_name: str, data_preprocessor: Mapping[str, Any] | None = None, init_cfg: Any = None, **kwargs: Any
    ) -> None:
        from transformers import AutoConfig, AutoModel

        preprocessor = {'type': 'mmpretrain.ClsDataPreprocessor', **(data_preprocessor or {})}
        super().__init__(init_cfg=init_cfg, data_preprocessor=preprocessor)
        with _quiet():
            self.model = AutoModel.from_config(AutoConfig.from_pretrained(model_name, **kwargs))
        self._register_state_dict_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        self.register_load_state_dict_pre_hook(_translate)

    def forward(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None, mode: str = 'tensor') -> Any:
        """What transformers returns: ``last_hidden_state`` and, where the network has one, ``pooler_output``.

        Args:
            inputs: ``(B, C, H, W)``, normalized.
            data_samples: Not used.
            mode: ``'tensor'``.
        """
        if mode == 'tensor':
            return self.model(inputs)
        raise RuntimeError(f'mode {mode!r} needs a head; accepted: tensor')

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """The last hidden state."""
        return self.model(inputs).last_hidden_state

    def loss(self, inputs: Tensor, data_samples: Sequence[DataSample] | None) -> dict[str, Tensor]:
        """Not available without a head."""
        raise NotImplementedError('a backbone has no loss')

    def predict(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None) -> list[DataSample]:
        """Not available without a head."""
        raise NotImplementedError('a backbone predicts nothing')


class _Wrapped(BaseModel):
    """A network of another library that is no classifier, as ``self.model``; its state dict has the library's names."""

    def __init__(self, data_preprocessor: Mapping[str, Any] | None, init_cfg: Any) -> None:
        super().__init__({'type': 'mmpretrain.ClsDataPreprocessor', **(data_preprocessor or {})}, init_cfg)
        self._register_state_dict_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None, mode: str = 'tensor') -> Any:
        """What the library's network returns.

        Args:
            inputs: ``(B, C, H, W)``, after the data preprocessor.
            data_samples: Not used.
            mode: ``'tensor'``; for losses the library's own training is there.
        """
        if mode == 'tensor':
            return self.model(inputs)
        raise RuntimeError(f'mode {mode!r} is for training and evaluation; accepted: tensor')


class _TorchvisionWrapped(_Wrapped):
    """A network that ``torchvision.models.get_model`` builds, with random weights.

    Args:
        model_name: Its name there.
        num_classes: With the background, as torchvision counts; default: of torchvision's own weights.
        data_preprocessor: Config of the data preprocessor; mmpretrain's ``ClsDataPreprocessor`` if it has no type.
        init_cfg: See mmengine's ``BaseModule``.
        **kwargs: Passed on to the model.
    """

    usual_classes = 0

    def __init__(
        self,
        model_name: str,
        num_classes: int | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        from torchvision.models import get_model

        super().__init__(data_preprocessor, init_cfg)
        self.num_classes = num_classes or self.usual_classes
        options = {'weights': None, 'weights_backbone': None, 'num_classes': self.num_classes, **kwargs}
        self.model = get_model(model_name, **options)


@MODELS.register_module()
class TorchvisionDetector(_TorchvisionWrapped):
    """A detector of ``torchvision.models.detection``, which resizes and normalizes RGB images in [0, 1] itself."""

    usual_classes = 91


@MODELS.register_module()
class TorchvisionSegmenter(_TorchvisionWrapped):
    """A semantic segmenter of ``torchvision.models.segmentation``."""

    usual_classes = 21


class _HuggingFaceWrapped(_Wrapped):
    """A network of transformers, built from the ``config.json`` of a folder."""

    auto = ''

    def __init__(
        self, model_name: str, data_preprocessor: Mapping[str, Any] | None = None, init_cfg: Any = None, **kwargs: Any
    ) -> None:
        import transformers

        super().__init__(data_preprocessor, init_cfg)
        config = transformers.AutoConfig.from_pretrained(model_name, **kwargs)
        if getattr(config, 'use_pretrained_backbone', False):
            config.use_pretrained_backbone = False  # the checkpoint holds the backbone; nothing is downloaded
        with _quiet():
            self.model = getattr(transformers, self.auto).from_config(config)
        self.register_load_state_dict_pre_hook(_translate)


@MODELS.register_module()
class HuggingFaceDetector(_HuggingFaceWrapped):
    """A detector of ``transformers`` (DETR, RT-DETR, YOLOS, …); arguments as :class:`HuggingFaceBackbone` has them."""

    auto = 'AutoModelForObjectDetection'


@MODELS.register_module()
class HuggingFaceSegmenter(_HuggingFaceWrapped):
    """A semantic segmenter of ``transformers`` (SegFormer, …)."""

    auto = 'AutoModelForSemanticSegmentation'


@MODELS.register_module()
class HuggingFaceUniversalSegmenter(_HuggingFaceWrapped):
    """A segmenter of ``transformers`` that predicts masks with classes (MaskFormer, Mask2Former)."""

    auto = 'AutoModelForUniversalSegmentation'


def _without_prefix(module: nn.Module, state_dict: Any, prefix: str, metadata: Any) -> Any:
    pattern = f'^{re.escape(prefix)}model\\.'
    return type(state_dict)((re.sub(pattern, prefix, name), value) for name, value in state_dict.items())


def _with_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        state_dict[f'{prefix}model.{name.removeprefix(prefix)}'] = state_dict.pop(name)


def _translate(module: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Renames a checkpoint's tensors as the installed transformers does, keeping the wrapper's prefix.

    Runs after mmpretrain's hook, which puts ``model.`` before every name.
    """
    own = f'{prefix}model.'
    model: Any = module.model
    given = {name.removeprefix(own): value for name, value in state_dict.items() if name.startswith(own)}
    if not given or given.keys() <= model.state_dict().keys():
        return
    translated, unused = _loaded_by_transformers(model, given)
    if translated:
        for name in given:
            del state_dict[own + name]
        state_dict.update({own + name: value for name, value in translated.items()})
        state_dict.update({own + name: given[name] for name in unused if name in given})


def _loaded_by_transformers(model: Any, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that transformers uses from a checkpoint, by the model's names, and the names that it cannot use."""
    with _quiet():
        loaded, report = type(model).from_pretrained(
            None, config=model.config, state_dict=given, output_loading_info=True, ignore_mismatched_sizes=True
        )
    mismatched = {entry[0] for entry in report['mismatched_keys']}
    absent = {*report['missing_keys'], *mismatched}
    taken = {name: value for name, value in loaded.state_dict().items() if name not in absent}
    return taken, [*report['unexpected_keys'], *mismatched]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences messages and progress bars of transformers; vistool reports what was loaded."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
