"""Config + checkpoint → a model in eval mode that reads images and tells its scores."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from vistool.data.pipelines import MultiPipeline, Pipeline, build_pipeline
from vistool.data.samples import Sample, preprocess
from vistool.environment import warn_of_overwritten_packages
from vistool.errors import InputError, cause_of, param
from vistool.models.checkpoints.reading import Checkpoint, read_checkpoint
from vistool.models.checkpoints.weights import load_weights
from vistool.models.classes import dataset_classes, fitting_names
from vistool.models.configs import Source, require_model, resolve
from vistool.network.capture import borrowed
from vistool.network.outputs import class_scores, has_classes, output_count, probabilities

if TYPE_CHECKING:
    from mmengine import Config

__all__ = [
    'Model',
    'build_module',
    'class_scores',
    'dataset_classes',
    'find_device',
    'has_classes',
    'load',
    'probabilities',
]

log = logging.getLogger('vistool')
T = TypeVar('T')

RANDOM = 'none'
"""The checkpoint argument that asks for random weights."""


@dataclass
class Model:
    """A network with what is needed to feed it and to name what it says.

    Attributes:
        module: The network. One that the caller made stays in its mode and on its device between analyses.
        name: Short name for files and captions (the config's stem).
        config: The config it was built from, or None for a plain module.
        classes: Class names by id, or None.
        device: Where analyses run it.
        checkpoint: Where its weights came from; None for random weights or a plain module.
        transform: For a plain module, what turns a PIL image into its input tensor.
        fit: Called with the model and each batch of inputs, where images of any size are read.
    """

    module: nn.Module
    name: str = 'model'
    config: Config | None = None
    classes: tuple[str, ...] | None = None
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    checkpoint: Checkpoint | None = None
    transform: Callable[[Any], Tensor] | None = None
    fit: Callable[[Model, Any], None] | None = None
    _cache: dict[str, tuple[Hashable, int, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def pipeline(self) -> Pipeline | MultiPipeline:
        """The test pipeline of the config, followed by its data preprocessor; one per input where there are several."""
        if self.config is not None:
            return build_pipeline(self.config, data_preprocessor=self.data_preprocessor)
        if self.transform is None:
            raise InputError(
                f'{self.name} has no preprocessing, so it cannot read an image',
                hint='give load() a transform, or hand the analysis a tensor',
            )
        return Pipeline([self.transform], takes_images=True)

    @property
    def data_preprocessor(self) -> nn.Module | None:
        """The config's data preprocessor as built into the model, or None."""
        return getattr(self.module, 'data_preprocessor', None)

    def read(
        self,
        image: Any,
        *,
        seed: int = 0,
        index: int = 0,
        name: str | None = None,
        info: dict[str, Any] | None = None,
    ) -> Sample:
        """Runs the test pipeline on an image.

        Args:
            image: A path, a PIL image or an RGB uint8 array ``(H, W, 3)``.
            seed: With ``index`` decides whatever random transforms draw.
            index: Position of the image in the run.
            name: Output stem; default: the file's.
            info: What a dataset knows of it besides, such as ``gt_label``.
        """
        return self.pipeline.read(image, seed=seed, index=index, name=name, info=info)

    def use_files(self, files: Mapping[str, Path], drawn: str | None = None) -> None:
        """For a network with several inputs: which have files of their own, and on which one maps are drawn.

        Args:
            files: Input name → file, or folder with a file of the main image's name.
            drawn: Input name; default: the first that keeps the photo's places.
        """
        if not files and drawn is None:
            return
        if not isinstance(self.pipeline, MultiPipeline):
            raise InputError(
                f'{self.name} takes one input',
                hint='its config would name them: inputs = dict(NAME=dict(pipeline=[…]), …)',
                parameter='files' if files else 'draw_on',
            )
        self.pipeline = self.pipeline.with_files(files, drawn)

    def batch(self, samples: Sequence[Sample]) -> Any:
        """The network input for ``samples``: a tensor ``(B, C, H, W)``, or a tuple or dict of tensors."""
        inputs = preprocess(samples, self.data_preprocessor, self.device)
        if self.fit:
            self.fit(self, inputs)
        return inputs

    @property
    def weights_name(self) -> str:
        """A short name of the weights, for figures that compare checkpoints: ``'best_epoch_3'``, ``'none'``."""
        if self.checkpoint is None:
            return RANDOM
        return PurePath(self.checkpoint.source.removeprefix('demo://')).stem

    @contextmanager
    def precision(self, amp: bool) -> Iterator[None]:
        """Mixed precision inside the context where ``amp`` is true: fp16 on CUDA, bf16 elsewhere."""
        kind = torch.float16 if self.device.type == 'cuda' else torch.bfloat16
        with torch.autocast(self.device.type, kind, enabled=amp):
            yield

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Locks the network and prepares it for analysis, on :attr:`device`; afterwards it is as it was before."""
        while True:
            module = self.module
            with borrowed(module, self.device):
                if self.module is module:  # else it was replaced while another thread held the lock
                    yield
                    return

    def clear_cache(self) -> None:
        """Drops all cached values; to be called when the module itself is replaced."""
        self._cache.clear()

    def cached(self, name: str, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of ``compute``, called again only when ``key`` or the weights change.

        Args:
            name: The name of the value; only the latest value of each name is kept.
            key: Whatever else the value depends on.
            compute: Computes the value.
        """
        version = sum(tensor._version for tensor in self.module.parameters())
        known = self._cache.get(name)
        if known is None or known[:2] != (key, version):
            known = self._cache[name] = key, version, compute()
        value: T = known[2]
        return value

    def fit_classes(self, count: int) -> None:
        """Forgets class names that are not as many as the network's outputs: they would name the wrong things."""
        self.classes = fitting_names(self.name, [self.classes], count)

    def class_name(self, index: int) -> str:
        """The first synonym of a class («tabby» of «tabby, tabby cat»), or ``'class 281'`` where names are unknown."""
        if self.classes is None or index >= len(self.classes):
            return f'class {index}'
        return self.classes[index].split(',')[0].strip()

    def provenance(self) -> dict[str, Any]:
        """What a provenance says of the model: config, checkpoint and its hash."""
        return {
            'config': self.name,
            'checkpoint': self.checkpoint.source if self.checkpoint else None,
            'sha256': self.checkpoint.sha256 if self.checkpoint else None,
        }


def load(
    spec: str | nn.Module | Source,
    checkpoint: str | None = None,
    *,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    trust_checkpoint: bool = False,
    seed: int = 0,
) -> Model:
    """Builds a model and loads its weights.

    Args:
        spec: A config file, ``mmpretrain::…``, a model name, a run's folder, ``timm::NAME``, ``torchvision::NAME``,
            ``hf::FOLDER`` (see ``resolve``), or an ``nn.Module`` that is ready to use. A module stays as it is:
            analyses run it in eval mode, and afterwards it is as they found it.
        checkpoint: A path, URL, ``demo://NAME``, or ``'none'`` for random weights. Left out: the run folder's, else the
            config's ``load_from``.
        device: ``'cpu'``, ``'cuda:0'``, …; None means the CPU, and for a module the device that it is on. A module on
            another device is moved for each analysis call and moved back afterwards, which takes time: move it yourself
            if you can.
        options: Changes to the config, as ``--cfg-options`` makes them.
        transform: For a plain module: PIL image → input tensor ``(C, H, W)``.
        classes: Class names by id; otherwise the checkpoint's, then the dataset's.
        trust_checkpoint: Whether the checkpoint's pickle may run code.
        seed: Of random weights.

    Raises:
        InputError: If something cannot be found, built or loaded.
    """
    warn_of_overwritten_packages()
    if isinstance(spec, nn.Module) and device is None:
        device = next((parameter.device for parameter in spec.parameters()), None)
    target = find_device('cpu' if device is None else device)
    if isinstance(spec, nn.Module):
        names = tuple(classes) if classes else None
        return Model(spec, type(spec).__name__, None, names, target, None, transform)
    source = spec if isinstance(spec, Source) else resolve(spec, options)
    wanted = checkpoint or source.checkpoint
    if wanted is None:
        raise InputError(
            f'none given, and {source.name} names none (load_from)',
            accepted="a path, a URL, demo://NAME, or 'none' for random weights",
            parameter='checkpoint',
        )
    if wanted == RANDOM:
        log.warning('%s: random weights, as asked for with «none»: what is drawn means nothing', source.name)
        weights = None
    else:
        weights = read_checkpoint(wanted, trust=trust_checkpoint)
    module = build_module(source, seed)
    if weights is not None:
        load_weights(module, weights)
    module.to(target)
    module.eval()
    known = [classes, weights.classes if weights is not None else None, dataset_classes(source.config)]
    names = fitting_names(source.name, known, output_count(module))
    return Model(module, source.name, source.config, names, target, weights)


def find_device(name: str | torch.device) -> torch.device:
    """The device called ``name``; an InputError where this machine has no such device."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = ['cpu', *(f'cuda:{index}' for index in range(torch.cuda.device_count()))]
        raise InputError(f'no device {str(name)!r} here', accepted=', '.join(available), parameter='device') from error
    return device


def build_module(source: Source, seed: int = 0) -> nn.Module:
    """Builds the network of a config through the registry of its ``default_scope``, with random weights.

    Raises:
        InputError: If the config has no model or the model cannot be built.
    """
    from mmengine.registry import MODELS, DefaultScope

    import vistool.registry  # noqa: F401  brings in vistool's own models

    config = source.config
    spec = require_model(source).copy()
    if config.get('data_preprocessor') is not None:
        spec.setdefault('data_preprocessor', config.data_preprocessor)
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine'), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        try:
            apart = None if _takes_preprocessor(spec['type']) else spec.pop('data_preprocessor', None)
            module = MODELS.build(spec)
            if apart is not None:
                module.data_preprocessor = MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **apart})
            return module
        except (
            KeyError,
            TypeError,
            ValueError,
            AssertionError,
            ImportError,
            AttributeError,
            FileNotFoundError,
        ) as error:
            raise InputError(
                f'the model of {source.name} cannot be built: {cause_of(error)}',
                hint=f"check 'model' in the config and {param('options')}",
                parameter='config',
            ) from error


def _takes_preprocessor(kind: Any) -> bool:
    """Whether a model class can be given a data preprocessor; a user's plain ``nn.Module`` mostly cannot."""
    from mmengine.registry import MODELS

    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if not isinstance(kind, type):
        return True  # unknown, which building it will tell, or a function
    parameters = inspect.signature(kind).parameters
    named = 'data_preprocessor' in parameters
    return named or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
