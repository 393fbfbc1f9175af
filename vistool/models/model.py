"""Config + checkpoint → a model in eval mode that reads images."""

from __future__ import annotations

import importlib
import inspect
import logging
import operator
import os
import re
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vistool.data.datasets import OLD_DATA, class_name, refuse_old_form
from vistool.data.display import NO_PHOTO, STAND_IN, Display
from vistool.data.images import ImageLike
from vistool.data.inputs import drawn_of
from vistool.data.pipelines import MultiPipeline, Pipeline, build_pipeline
from vistool.data.samples import Sample, preprocess
from vistool.environment import warn_of_environment, without_import_notices
from vistool.errors import InputError, cause_of, close_matches, counted, message_of, param
from vistool.models.checkpoints.reading import Checkpoint, read_checkpoint
from vistool.models.checkpoints.unpickling import TRUST_HINT, weights_only
from vistool.models.checkpoints.weights import load_weights
from vistool.models.classes import OWN, Chosen, check_names, dataset_classes, fitting_names, resolve_classes
from vistool.models.configs import Source, require_model, resolve
from vistool.models.head_width import fit_head
from vistool.network.capture import borrowed, made_on, remembered
from vistool.network.inputs import run_network, with_shared
from vistool.network.layers import unwrapped
from vistool.network.outputs import (
    Hints,
    OutputName,
    Readout,
    ScoreReader,
    candidates,
    default_scores,
    find_readout,
    output_count,
    written,
)
from vistool.network.stages import module_tree
from vistool.network.tensors import (
    NetworkInput,
    find_image,
    float_tensors,
    input_size,
    map_rows,
    map_tensors,
    no_image,
    rows,
    tensors,
)

if TYPE_CHECKING:
    from mmengine import Config

log = logging.getLogger('vistool')
_building = threading.RLock()
"""Held while a pipeline is built: its steps import what registers them."""
T = TypeVar('T')

FEW_VALUES = 4
"""As many values of a regression are explained where none is named."""

RANDOM = 'none'
"""The checkpoint that stands for random weights."""

_CPU = torch.device('cpu')
"""Where networks are built and images are read, whatever ``torch.set_default_device`` says."""


@dataclass
class Model:
    """A network with its preprocessing and its class names.

    Attributes:
        module: The network. One that the caller made stays in its mode and on its device between analyses.
        name: Short name for files and captions: the stem of the config.
        config: The config that it was built from; None for a plain module.
        classes: Class names by id, or None.
        device: The device that analyses run it on.
        checkpoint: Its weights; None for random weights or a plain module.
        transform: For a plain module: PIL image → input tensor ``(C, H, W)``.
        adapt_to_input: Called with the model and each batch of inputs; see :mod:`vistool.models.input_size`.
        output: Which tensor of the network's output holds the scores: ``'logits'``, ``1``, ``'heads.main'``; None: the
            config's ``output``, else it is found, see :func:`vistool.network.outputs.find_readout`.
        activation: What the scores mean: ``'softmax'`` (classes), ``'sigmoid'`` (independent labels; of a single
            number, two classes), ``'none'`` (a value, or probabilities already); None: the config's ``activation``,
            else ``'auto'``.
        named_by: The parameter with which the caller gave ``classes``; ``''`` where they were found.
    """

    module: nn.Module = field(repr=False)
    name: str = 'model'
    config: Config | None = field(default=None, repr=False)
    classes: tuple[str, ...] | None = field(default=None, repr=False)
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    checkpoint: Checkpoint | None = None
    transform: Callable[[Any], Tensor] | None = None
    adapt_to_input: Callable[[Model, NetworkInput], None] | None = None
    output: OutputName = None
    activation: str | None = None
    named_by: str = ''
    _cache: dict[str, tuple[Hashable, int, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _pipeline: Pipeline | MultiPipeline | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def pipeline(self) -> Pipeline | MultiPipeline:
        """The test pipeline of the config and its data preprocessor; one per input if there are several inputs.

        It is built at first use, which is in a thread that reads images: the others wait for it.
        """
        with _building:
            if self._pipeline is None:
                self._pipeline = self._built_pipeline()
            return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Pipeline | MultiPipeline) -> None:
        self._pipeline = pipeline

    def _built_pipeline(self) -> Pipeline | MultiPipeline:
        if self.config is not None:
            built = build_pipeline(self.config, data_preprocessor=self.data_preprocessor)
            if isinstance(built, Pipeline) and built.channels is None:
                first = next((each for each in self.module.modules() if isinstance(each, nn.Conv2d)), None)
                built.channels = None if first is None else first.in_channels
            return built
        if self.transform is None:
            raise InputError(
                f'{self.name} has no preprocessing, so it cannot read an image',
                hint='give load() a transform, or pass a tensor to the analysis',
            )
        return Pipeline([self.transform], takes_images=True)

    @property
    def data_preprocessor(self) -> nn.Module | None:
        """The data preprocessor that is built into the model, or None."""
        return getattr(self.module, 'data_preprocessor', None)

    def read(
        self,
        image: ImageLike,
        *,
        seed: int = 0,
        index: int = 0,
        name: str | None = None,
        info: dict[str, Any] | None = None,
    ) -> Sample:
        """Runs the test pipeline on an image.

        Args:
            image: A path, a PIL image, or an array: uint8 RGB ``(H, W, 3)``, or any type and number of bands.
            seed: Seeds, with ``index``, whatever random transforms draw.
            index: Position of the image in the run.
            name: Output stem; default: the file's.
            info: What a dataset knows about the image, such as ``gt_label``.
        """
        with made_on(_CPU):
            return self.pipeline.read(image, seed=seed, index=index, name=name, info=info)

    def use_display(self, display: Display) -> None:
        """Sets how images that are not photos of 8 bits are shown from here on; the network gets the same.

        Args:
            display: What it leaves open stays as the config's ``display`` says.
        """
        pipelines = self.pipeline.pipelines.values() if isinstance(self.pipeline, MultiPipeline) else [self.pipeline]
        for pipeline in pipelines:
            pipeline.display = display.over(pipeline.display)

    def use_files(self, files: Mapping[str, Path], drawn: str | None = None) -> None:
        """For a network with several inputs: sets their files, and the input on which maps are drawn.

        Args:
            files: Input name → file, or folder with a file of the main image's name.
            drawn: Input name; default: the first with an exact geometry.

        Raises:
            InputError: There is no such input.
        """
        if not files and drawn is None:
            return
        if not isinstance(self.pipeline, MultiPipeline):
            raise InputError(
                f'{self.name} takes one input',
                hint='several inputs are named in the config: inputs = dict(NAME=dict(pipeline=[…]), …)',
                parameter='files' if files else 'draw_on',
            )
        self.pipeline = self.pipeline.with_files(files, drawn)

    def batch(self, samples: Sequence[Sample]) -> NetworkInput:
        """The network input for ``samples``: a tensor ``(B, C, H, W)``, or a tuple or dict of tensors.

        Raises:
            InputError: The samples differ in size, or the network cannot take their size.
        """
        with made_on(self.device):
            inputs: NetworkInput = preprocess(samples, self.data_preprocessor, self.device)
        if all(sample.shown.known for sample in samples):
            inputs = _in_type_of_weights(self.module, inputs)
        if self.adapt_to_input:
            self.adapt_to_input(self, inputs)
        return inputs

    @property
    def weights_source(self) -> str:
        """Where the weights come from, as it was given: a path, a URL, ``demo://NAME``, or ``'none'``."""
        return RANDOM if self.checkpoint is None else self.checkpoint.source

    @property
    def weights_name(self) -> str:
        """Short name of the weights, for file names: ``'best_epoch_3'``, ``'none'``."""
        return PurePath(self.weights_source.removeprefix('demo://')).stem

    @contextmanager
    def precision(self, amp: bool) -> Iterator[None]:
        """Mixed precision inside the context if ``amp`` is true: fp16 on CUDA, bf16 elsewhere."""
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
        version = sum(0 if tensor.is_inference() else tensor._version for tensor in self.module.parameters())
        known = self._cache.get(name)
        if known is None or known[:2] != (key, version):
            known = self._cache[name] = key, version, compute()
        value: T = known[2]
        return value

    @property
    def output_hints(self) -> Hints:
        """What is known about the output: from the caller, else from the config.

        Raises:
            InputError: The activation is unknown.
        """
        config = self.config or {}
        output = self.output if self.output is not None else config.get('output')
        activation = self.activation if self.activation is not None else config.get('activation', 'auto')
        return Hints(output, str(activation).lower(), self.classes, config)

    def readout(
        self, output: Any, count: int, inputs: NetworkInput | None = None, *, value: bool = False
    ) -> Readout | None:
        """Which tensor of the network's output holds the scores, and what they mean; found at the first output.

        Args:
            output: What the network returned for ``count`` images.
            count: How many images.
            inputs: Its input, in case the network has to run again to see how the scores are computed.
            value: Whether a target says that the network gives a value; a single number is then not taken for a class.

        Returns:
            None for a network that gives no scores.

        Raises:
            InputError: The choice of the user does not fit, or two tensors may hold the scores.
        """
        hints = replace(self.output_hints, value=value)

        def rerun() -> Any:
            one = map_tensors(_leaf, rows(inputs, 0, 1)) if inputs is not None else None
            with torch.enable_grad():
                return None if one is None else run_network(self.module, one)

        shapes = tuple((each.place, each.scores.shape[1]) for each in candidates(output, count))
        key = (hints.output, hints.activation, hints.names, value, shapes)
        return remembered(self.module, 'readout', key, lambda: find_readout(self.module, output, count, hints, rerun))

    def scores(
        self, output: Any, count: int, inputs: NetworkInput | None = None, *, value: bool = False
    ) -> Tensor | None:
        """The scores ``(count, C)`` in an output where it is clear which they are, else None; see :meth:`readout`."""
        try:
            found = self.readout(output, count, inputs, value=value)
        except InputError:
            return None
        return default_scores(output, count) if found is None else found.scores(output, count)

    def score_reader(self, inputs: NetworkInput | None = None, *, value: bool = False) -> ScoreReader:
        """:meth:`scores` for layer search, which is shared by all analyses that read the same scores."""
        find = partial(self.scores, inputs=inputs, value=value)
        return ScoreReader(find, (self.output_hints.output, self.classes, value))

    def names_of(self, readout: Readout) -> tuple[str, ...] | None:
        """Names of what the scores are about, by id; None where they are unknown.

        Class names of another number are dropped, since they would be wrong. Values without names are numbered.

        Raises:
            InputError: The caller gave class names of another number.
        """
        if readout.is_value and readout.classes == 1:
            return (readout.name,)
        if self.classes is not None and (self.named_by or self.config is None):
            check_names(self.name, self.classes, readout.classes, self.named_by or 'classes')
        self.classes = fitting_names(self.name, [self.classes], readout.classes)
        if readout.is_value and self.classes is None:
            return tuple(f'value {number}' for number in range(readout.classes))
        return self.classes

    def class_name(self, index: int) -> str:
        """The first synonym of a class, ``'tabby'`` of ``'tabby, tabby cat'``; ``'class 281'`` if it has no name."""
        return class_name(index, self.classes)

    def provenance(self) -> dict[str, Any]:
        """Config, checkpoint and the hash of its file, as plain JSON values."""
        return {
            'config': self.name,
            'checkpoint': self.checkpoint.source if self.checkpoint else None,
            'sha256': self.checkpoint.sha256 if self.checkpoint else None,
        }


@without_import_notices()
def load(
    config_or_module: str | os.PathLike[str] | nn.Module | Source,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    output: OutputName = None,
    activation: str | None = None,
    trust_checkpoint: bool = False,
    seed: int = 0,
) -> Model:
    """Builds a model and loads its weights.

    Args:
        config_or_module: A config file, ``mmpretrain::…``, a model name, a run directory, ``timm::NAME``,
            ``torchvision::NAME``, ``hf::FOLDER`` (see :func:`vistool.models.configs.resolve`), or an ``nn.Module``. A
            module is left unchanged: analyses run it in eval mode and restore it afterwards.
        checkpoint: A path, URL, ``demo://NAME``, or ``'none'`` for random weights; default: the run directory's, else
            the config's ``load_from``.
        device: ``'cpu'``, ``'cuda:0'``, …; None means the CPU, or for a module the device that it is on. A module on
            another device is moved for each analysis and moved back afterwards, which takes time.
        options: Changes to the config, ``{'model.backbone.depth': 18}``.
        transform: For a plain module: PIL image → input tensor ``(C, H, W)``.
        classes: Class names by id; default: the checkpoint's, else the dataset's.
        output: Which tensor of the network's output holds the scores: ``'logits'``, ``1``, ``'heads.main'``; default:
            the config's ``output``, else it is found.
        activation: What the scores mean: ``'auto'``, ``'softmax'``, ``'sigmoid'`` or ``'none'``, see :class:`Model`;
            default: the config's ``activation``, else ``'auto'``.
        trust_checkpoint: Whether the pickle of the checkpoint may run code.
        seed: Seed of random weights.

    Raises:
        InputError: Something cannot be found, built or loaded.
    """
    warn_of_environment()
    if isinstance(config_or_module, nn.Module):
        module = unwrapped(config_or_module)
        own = next((parameter.device for parameter in module.parameters()), _CPU)
        names, target = tuple(classes or ()) or None, own if device is None else find_device(device)
        model = Model(module, type(module).__name__, classes=names, device=target, transform=transform)
    else:
        if not isinstance(config_or_module, (str, os.PathLike, Source)):
            require_module(config_or_module)
        target = find_device('cpu' if device is None else device)
        source = config_or_module if isinstance(config_or_module, Source) else resolve(config_or_module, options)
        weights = _weights(source, checkpoint, trust_checkpoint)
        source, module = _built(source, weights, seed, trust_checkpoint)
        module.to(target).eval()
        count = output_count(module)
        if classes and count is not None:
            check_names(source.name, classes, count, 'classes')
        known = [classes, weights.classes if weights is not None else None, dataset_classes(source.config)]
        names = fitting_names(source.name, known, count)
        model = Model(module, source.name, source.config, names, target, weights)
    model.output, model.activation, model.named_by = output, activation, 'classes' if classes else ''
    _ = model.output_hints  # an unknown activation is an error now
    return model


def _weights(source: Source, checkpoint: str | os.PathLike[str] | None, trust: bool) -> Checkpoint | None:
    """The weights that were asked for, or those of the config; None for random ones.

    Raises:
        InputError: None are named, or they cannot be read.
    """
    wanted = os.fspath(checkpoint) if checkpoint else source.checkpoint
    if wanted is None:
        raise InputError(
            f'none given, and {source.name} has no load_from',
            accepted="a path, a URL, demo://NAME, or 'none' for random weights",
            parameter='checkpoint',
        )
    if wanted == RANDOM:
        log.warning("%s: random weights, as requested with 'none': the maps are meaningless", source.name)
        return None
    return read_checkpoint(wanted, trust=trust)


def _built(source: Source, weights: Checkpoint | None, seed: int, trust: bool) -> tuple[Source, nn.Module]:
    """The network with its weights, and its config, whose head has as many classes as the checkpoint."""
    module = build_module(source, seed, trust)
    if weights is not None:
        fitted = fit_head(source, module, weights)
        if fitted is not None:
            source, module = fitted, build_module(fitted, seed, trust)
            log.info('%s: the head has the %s classes of the checkpoint', source.name, output_count(module))
        load_weights(module, weights)
    return source, module


def find_device(name: str | torch.device) -> torch.device:
    """The device called ``name``; an InputError if this machine has no such device."""
    try:
        device = torch.device(name)
        if device.type == 'meta':
            raise NotImplementedError('its tensors hold no values')
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = ['cpu', *(f'cuda:{index}' for index in range(torch.cuda.device_count()))]
        raise InputError(f'no device {str(name)!r} here', accepted=', '.join(available), parameter='device') from error
    return device


def build_module(source: Source, seed: int = 0, trust: bool = False) -> nn.Module:
    """Builds the network of a config through the registry of its ``default_scope``, with random weights.

    Files that the model itself loads (timm's ``checkpoint_path``) are read as checkpoints are: without running code.

    Args:
        source: The config.
        seed: Of random weights.
        trust: Whether pickles may run code.

    Raises:
        InputError: The config has no model, or the model cannot be built.
    """
    from mmengine.registry import MODELS

    from vistool.registry import in_scope, near_names  # also registers vistool's own models

    config = source.config
    spec = require_model(source).copy()
    if config.get('data_preprocessor') is not None:
        spec.setdefault('data_preprocessor', config.data_preprocessor)
    own_file = spec.pop('checkpoint_path', None) if str(spec['type']).endswith('TimmClassifier') else None
    with in_scope(config), made_on(_CPU), torch.random.fork_rng([]), weights_only(not trust):
        torch.manual_seed(seed)
        try:
            apart = None if _takes_preprocessor(spec['type']) else spec.pop('data_preprocessor', None)
            with _unset_memory_is_nan():
                module = MODELS.build(spec)
            _initialize_unset_parameters(module)
            if apart is not None:
                module.data_preprocessor = MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **apart})
        except InputError:
            raise
        except Exception as error:  # a model's constructor can raise anything
            # newer versions of timm wrap PyTorch's error; the advice of both is about their own arguments
            if not trust and (isinstance(error, UnpicklingError) or isinstance(error.__cause__, UnpicklingError)):
                problem = f'the model of {source.name} loads a file that is damaged or could run code when loaded'
                raise InputError(problem, hint=TRUST_HINT, parameter='config') from error
            refuse_old_form(config, OLD_DATA, 'default_scope, model and test_dataloader', source.name)
            if unknown := re.search(r'([^\s\'"]+) is not in the \w+::model registry', message_of(error)):
                raise _unknown_class(unknown[1], source, near_names(unknown[0])) from error
            raise InputError(
                f'the model of {source.name} cannot be built: {cause_of(error)}',
                hint=f"check 'model' in the config and {param('options')}",
                parameter='config',
            ) from error
    if own_file:
        load_weights(module, read_checkpoint(str(own_file), trust))
    return module


def _unknown_class(name: str, source: Source, near: str) -> InputError:
    """The error for a class of a config that no registry has and no module defines."""
    from vistool.registry import is_data, scope_hint

    module, _, own = name.rpartition('.')
    problem = f'the model of {source.name} needs the class {name}, which is not registered'
    if lacking := scope_hint(name, source.config.get('default_scope')):
        return InputError(problem, hint=lacking, parameter='config')
    if is_data(source.config):
        return InputError(problem, accepted='a registered class', hint=near, parameter='config')
    imported = (source.config.get('custom_imports') or {}).get('imports', ())
    places = [each for each in imported if hasattr(sys.modules.get(each), own)]
    accepted = f"a registered class, or one of your own with its module: type='{(places or ['my_module'])[0]}.{own}'"
    if module:
        problem, accepted, near = f'the model of {source.name} needs {name}, and {_lacks(module, own)}', '', ''
        if module in sys.modules:
            known = [key for key, value in vars(sys.modules[module]).items() if isinstance(value, type)]
            near = close_matches(own, known)
    return InputError(problem, accepted=accepted, hint=near, parameter='config')


def _lacks(module: str, name: str) -> str:
    """Why a module does not give a class. A registry says only that it does not know it."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.partition('.')[0]:
            return f'no module {module} is in this folder or on PYTHONPATH'
        return f'{module} cannot be imported: {message_of(error)}'
    except Exception as error:  # a module of the user's can raise anything
        return f'{module} cannot be imported: {cause_of(error)}'
    return f'{module} has no {name}'


@contextmanager
def _unset_memory_is_nan() -> Iterator[None]:
    """Tensors that are made without values hold NaN, so that those that nobody sets afterwards can be told.

    ``torch.use_deterministic_algorithms`` does the same and imports torch._inductor.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode('warn')
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _initialize_unset_parameters(module: nn.Module) -> None:
    """Gives random values to parameters that the constructor left unset (NaN), as training would.

    MMDetection's detectors with deformable attention set ``level_embed`` in ``init_weights``, which mmengine's Runner
    calls before it trains. It is called here too, without the checkpoints that ``init_cfg`` names. What is unset even
    then is drawn from a normal distribution of standard deviation 0.02.
    """

    def unset() -> list[Tensor]:
        lazy = nn.parameter.UninitializedParameter
        found = [each.data for each in module.parameters() if not isinstance(each, lazy)]
        found = [each for each in found if each.is_floating_point() and each.numel() and not each.is_meta]
        return [each for each in found if each.reshape(-1)[[0, -1]].isnan().any()]

    initialize = getattr(module, 'init_weights', None)
    if callable(initialize) and unset():
        for each in module.modules():
            wanted: Any = getattr(each, 'init_cfg', None)
            if wanted:
                wanted = [wanted] if isinstance(wanted, dict) else wanted
                vars(each)['init_cfg'] = [one for one in wanted if 'Pretrained' not in str(one.get('type'))]
        initialize()
    for values in unset():
        nn.init.normal_(values, std=0.02)


def _takes_preprocessor(kind: Any) -> bool:
    """Whether a model class takes a data preprocessor; a user's plain ``nn.Module`` usually does not."""
    from mmengine.registry import MODELS

    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if not isinstance(kind, type):
        return True  # a function, or an unknown name, which the registry will report
    parameters = inspect.signature(kind).parameters
    named = 'data_preprocessor' in parameters
    return named or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


Subject: TypeAlias = Sample | Sequence[Sample] | ImageLike | Sequence[ImageLike] | NetworkInput
"""A sample, several samples as one batch, or the network's input itself."""

ClassChoice: TypeAlias = int | str
"""A class id, a class name, ``'topN'``, or ``'label'`` for the ground truth."""

Targets: TypeAlias = ClassChoice | Tensor | Sequence[ClassChoice] | Sequence[Sequence[ClassChoice] | Tensor]
"""Classes for all images of a batch (one, several, or a tensor of ids), or one list of classes for each image."""


def require_module(network: object) -> None:
    """Raises an InputError for what people take for a network and is not an ``nn.Module``."""
    if isinstance(network, nn.Module):
        return
    kind = type(network).__name__
    if isinstance(network, type) and issubclass(network, nn.Module):
        raise InputError(f'{network.__name__} is a class, not a network', hint=f'create it: {network.__name__}(…)')
    if kind in ('ScriptFunction', 'ExportedProgram'):
        raise InputError(
            f'{kind} does not run its layers in Python, so they cannot be watched',
            accepted='the nn.Module that it was made from, with the same weights',
        )
    raise InputError(
        f'{getattr(network, "__name__", kind)} is not a network', accepted='a model from load(), or an nn.Module'
    )


def as_model(model: Model | nn.Module) -> Model:
    """``model`` itself; a plain module becomes a model without preprocessing, on the device of its parameters.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(model, Model):
        return model
    require_module(model)
    model = unwrapped(model)
    parameter = next(model.parameters(), None)
    return Model(model, type(model).__name__, device=parameter.device if parameter is not None else torch.device('cpu'))


def as_samples(subject: Subject, model: Model | None = None) -> tuple[list[Sample], bool]:
    """One sample, several, or network inputs without a file, as a list of samples.

    Args:
        subject: A ``Sample``, a list of them; a photo (a path, a PIL image, an array) or a list of photos, which the
            model's pipeline reads; or the network's input: a tensor ``(C, H, W)`` or ``(B, C, H, W)``, or a
            tuple or dict of such. Inputs that all images share are told from the others by
            :func:`~vistool.network.inputs.with_shared`.
        model: The model, which may have to run for that; without it, tensors as long as the batch belong to its images.

    Returns:
        The samples, and whether the subject was a single one.

    Raises:
        InputError: If it is something else, or holds no image.
    """
    if isinstance(subject, Sample):
        return [subject], True
    if isinstance(subject, (list, tuple)) and subject and all(isinstance(item, Sample) for item in subject):
        return list(subject), False
    if _is_photo(subject):
        return [_read(subject, model, 0)], True
    if isinstance(subject, (list, tuple)) and subject and all(map(_is_photo, subject)):
        return [_read(photo, model, index) for index, photo in enumerate(subject)], False
    found = list(tensors(subject))
    if isinstance(subject, (list, tuple, Mapping)) and not len(subject):
        raise InputError('an empty batch', accepted='one image or more')
    if not found or not isinstance(subject, (Tensor, Mapping, tuple, list)):
        raise InputError(
            f'cannot analyze {type(subject).__name__}',
            accepted='a photo, a sample from model.read(), a list of them, or a tensor (C, H, W) or (B, C, H, W)',
        )
    batch = find_image(subject)
    image = batch if batch is not None else _single_image(subject)
    if image is None or any(tensor.ndim > 4 and tensor.is_floating_point() for tensor in found):
        raise no_image(subject)
    if batch is not None and not len(batch):
        raise InputError('an empty batch', accepted='one image or more')
    if image.dtype == torch.uint8:
        log.warning('a uint8 tensor goes into the network as the floats 0 to 255; nothing normalizes it before')
    network = unwrapped(model.module) if model is not None else None
    if network is not None:
        subject = with_shared(network, subject, None if batch is None else len(batch))
    if batch is None:
        return [_sample(subject, image.shape[1:], 0)], True
    images = (map_rows(operator.itemgetter(index), subject) for index in range(len(batch)))
    return [_sample(data, batch.shape[2:], index) for index, data in enumerate(images)], False


def _is_photo(subject: object) -> bool:
    return isinstance(subject, (str, os.PathLike, np.ndarray, Image.Image))


def _read(photo: Any, model: Model | None, index: int) -> Sample:
    """A photo as the model's pipeline reads it."""
    if model is None or (model.config is None and model.transform is None):
        raise InputError(
            f'{model.name if model else "the network"} has no preprocessing, so it cannot read a photo',
            hint='model = vistool.load(network, transform=…), with a function from PIL image to tensor',
        )
    return model.read(photo, index=index, name=None if isinstance(photo, (str, os.PathLike)) else str(index))


def _single_image(subject: NetworkInput) -> Tensor | None:
    """The image ``(C, H, W)`` among inputs without a batch axis: of the drawn input, else the first."""
    drawn = drawn_of(subject)
    within: Any = subject if drawn is None else subject[drawn]  # type: ignore[index]
    return next((tensor for tensor in tensors(within) if tensor.ndim == 3 and tensor.shape[-1] > 1), None)


def _sample(data: object, size: Sequence[int], index: int) -> Sample:
    """A sample without a file: its photo is not known, so a medium gray stands in for it."""
    gray = np.full((*size, 3), STAND_IN, np.uint8)
    return Sample(
        data=data, image=gray, original=None, geometry=None, path=None, name=str(index), label=None, index=index,
        shown=NO_PHOTO,
    )  # fmt: skip


def _in_type_of_weights(module: nn.Module, inputs: NetworkInput) -> NetworkInput:
    """What a pipeline made of photos, which is float32, in the type of a network that has float64, float16 or bfloat16.

    A network whose weights have several types may convert its input itself: it gets it as it is.
    """
    first = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    if first == torch.float32 or {each.dtype for each in module.parameters() if each.is_floating_point()} != {first}:
        return inputs
    return map_tensors(lambda tensor: tensor.to(first) if tensor.dtype == torch.float32 else tensor, inputs)


def _leaf(tensor: Tensor) -> Tensor:
    one = tensor.detach().clone()
    return one.requires_grad_() if one.is_floating_point() else one


def same_for_all(targets: Targets) -> list[ClassChoice] | None:
    """Targets as one list for all images of a batch; None if each image has a list of its own."""
    if isinstance(targets, Tensor):
        return [int(index) for index in targets.reshape(-1)] if targets.ndim < 2 else None
    if isinstance(targets, (int, str, np.integer)):
        return [_choice(targets)]
    if targets is None:
        return []
    if not isinstance(targets, Iterable):
        raise InputError(
            f'{targets!r} does not name classes', accepted='ids, names, or a list of them', parameter='targets'
        )
    nested = [(isinstance(each, Tensor) and each.ndim > 0) or isinstance(each, (list, tuple)) for each in targets]
    if any(nested):
        if not all(nested):
            raise InputError(
                'single targets and lists of targets are mixed',
                accepted='targets for all images, or one list for each image',
                parameter='targets',
            )
        return None
    return [_choice(each) for each in targets]


def own_predictions(targets: Targets) -> bool:
    """Whether each of several models is asked for its own prediction, by ``'own'``.

    Raises:
        InputError: Other targets are asked for as well: they would not correspond.
    """
    shared = same_for_all(targets) or []
    own = [isinstance(each, str) and each.strip().lower() == OWN for each in shared]
    if any(own) and not all(own):
        raise InputError("'own' stands alone", hint='leave out the other classes', parameter='targets')
    return bool(own) and all(own)


def words_of(targets: Targets, count: int) -> list[str]:
    """How each of ``count`` classes was asked for where that does not name it: ``'top1'``, ``'label'``; else ``''``."""
    words: list[str] = []
    for each in (same_for_all(targets) or ['top1']) if same_for_all(targets) is not None else []:
        text = str(each).strip().lower()
        ranking = re.fullmatch(r'top[- ]?(\d{1,4})', text)
        words += (
            [f'top{place + 1}' for place in range(int(ranking[1]))] if ranking else [text * (text in ('label', OWN))]
        )
    return words if len(words) == count else [''] * count  # classes asked for twice stand once


def _choice(target: object) -> ClassChoice:
    return target if isinstance(target, str) else int(target)  # type: ignore[call-overload]


def sign_of(given: str | int) -> int:
    """1 for ``'+'`` or 1, −1 for ``'-'`` or −1.

    Raises:
        InputError: If it is something else.
    """
    signs = {'+': 1, '1': 1, '+1': 1, 'positive': 1, '-': -1, '-1': -1, 'negative': -1}
    if str(given).lower() not in signs:
        raise InputError(f'{given!r} is not a sign', accepted='+, -', parameter='score_sign')
    return signs[str(given).lower()]


def names_value(targets: Targets) -> bool:
    """Whether the value of a regression is asked for, by ``'value'`` or ``'-value'``."""
    shared = same_for_all(targets)
    chosen = shared if shared is not None else [each for own in targets for each in same_for_all(own) or []]  # type: ignore[union-attr]
    return any(isinstance(each, str) and each.strip().lower() in ('value', '-value') for each in chosen)


def resolve_targets(
    targets: Targets, scores: Tensor, names: Sequence[str] | None, labels: Sequence[int | None]
) -> Chosen:
    """The classes to explain for each image of a batch.

    Args:
        targets: Classes for all images, or one list for each; none means the predicted class.
        scores: ``(B, C)``.
        names: Class names by id, or None.
        labels: Ground truth per image, None where unknown.

    Raises:
        InputError: If an id, a name or the number of lists is wrong.
    """
    shared = same_for_all(targets)
    if shared is not None:
        return Chosen.decoded(resolve_classes(shared, scores, names, labels))
    lists = list(targets)  # type: ignore[arg-type]
    if len(lists) != len(scores):
        raise InputError(
            f'{counted(len(lists), "list")} of targets for {counted(len(scores), "image")}',
            accepted='one list for each image of the batch',
            parameter='targets',
        )
    rows = [
        resolve_classes(same_for_all(own) or [], scores[image : image + 1], names, labels[image : image + 1])[0]
        for image, own in enumerate(lists)
    ]
    most = max(len(row) for row in rows)
    asked = torch.stack([torch.arange(most) < len(row) for row in rows])
    classes = torch.stack([torch.cat([row, row[:1].expand(most - len(row))]) for row in rows])
    return Chosen.decoded(classes, None if bool(asked.all()) else asked)


def explained(model: Model, readout: Readout, targets: Targets, scores: Tensor, labels: Sequence[int | None]) -> Chosen:
    """The classes or values to explain for each image of a batch; see :func:`resolve_targets`.

    By default these are the predicted class, or every value, if there are few. ``'value'`` names the only one.

    Raises:
        InputError: If one does not exist, or the network gives many values and none is named.
    """
    names = model.names_of(readout)
    if readout.is_value:
        shared = same_for_all(targets)
        if shared == []:
            if readout.classes > FEW_VALUES:
                raise InputError(
                    f'{model.name} gives {readout.classes} values, and none is named',
                    accepted=f'0 to {readout.classes - 1}',
                    parameter='targets',
                )
            targets = list(range(readout.classes))
        elif shared is not None and readout.classes == 1 and names is not None:
            targets = [re.sub('value$', names[0], each) if isinstance(each, str) else each for each in shared]
    return resolve_targets(targets, scores, names, labels)


def preview_model(model: Model | nn.Module, subject: Subject | None = None) -> str:
    """The modules of a network, one a line, by the names that ``layers`` takes.

    Args:
        model: A loaded model, or any module.
        subject: A sample, or the network's input. Where it is given, the network runs on its first image, and each
            line also says the shape of the module's output, how often it ran, and whether it is a stage.

    Raises:
        InputError: If the network does not take the input.
    """
    model = as_model(model)
    if subject is None:
        return str(unwrapped(model.module))
    samples, _ = as_samples(subject, model)
    inputs = model.batch(samples[:1])
    with model.borrowed():
        tree = module_tree(model.module, inputs)
        return '\n'.join([*tree, *output_lines(model, inputs)])


def output_lines(model: Model, inputs: NetworkInput) -> list[str]:
    """One line per tensor of a network's output: its path, its shape, and what it is taken for.

    Args:
        model: The model.
        inputs: Its input, of one image.
    """
    with model.borrowed(), torch.no_grad():
        output, count = run_network(model.module, inputs), input_size(inputs)[1]
        try:
            readout = model.readout(output, count, inputs)
            told = 'no scores' if readout is None else ''
        except InputError as error:
            readout, told = None, f'{error.problem}; accepted: {error.accepted}'
    lines = []
    for place, tensor in float_tensors(output):
        name = f'output {written(place)}'.strip()
        line = f'{name}: {"×".join(map(str, tensor.shape[1:])) or "scalar"}'
        lines.append(f'{line}  ← {readout.words}' if readout is not None and readout.place == place else line)
    return [*lines, *([f'output: {told}'] if told else [])]
