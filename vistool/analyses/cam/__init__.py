"""Class activation maps: which pixels are the evidence for a class.

The table of methods is in :mod:`~vistool.analyses.cam.methods`, what they explain in
:mod:`~vistool.analyses.cam.targets`, and the forward that most of them share in :mod:`~vistool.network.forward`.
"""

from __future__ import annotations

import inspect
import logging
import os
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vistool.analyses.base import MapAnalysis, followed_targets
from vistool.analyses.cam import baselines, gradcam_adapter, maps, perturbation  # noqa: F401 (they register methods)
from vistool.analyses.cam.drift import verified
from vistool.analyses.cam.instances import Followed, Found, Instances, InstanceTarget, instance_targets
from vistool.analyses.cam.measuring import Measuring
from vistool.analyses.cam.methods import (
    METHODS,
    Key,
    Method,
    Needs,
    Probe,
    find_methods,
    register_cam,
    register_perturbation_cam,
    titles_of,
)
from vistool.analyses.cam.regions import Regions, RegionTarget, region_targets
from vistool.analyses.cam.report import Drawn, MapMeasured, Report
from vistool.analyses.cam.targets import ClassTarget, Score, ScoreTarget, Target, custom_target, similarity_target
from vistool.data.samples import Sample
from vistool.errors import InputError, close_matches, counted, naming, param
from vistool.metrics import Needs as MetricNeeds
from vistool.metrics import Protocol, Truths, find_metrics, find_protocol
from vistool.models.model import (
    Model,
    Subject,
    Targets,
    as_model,
    as_samples,
    explained,
    names_value,
    own_predictions,
    resolve_targets,
    same_for_all,
    sign_of,
    words_of,
)
from vistool.network.capture import hidden_parts
from vistool.network.detection import Adapter, Frame, find_detector
from vistool.network.forward import Forward, Layer, UnsuitedLayer, better_layer, forward, layers_to_explain
from vistool.network.inputs import varied
from vistool.network.layer_search import searched
from vistool.network.layers import find_call, layer_names, network_name, require_layers, words_for
from vistool.network.outputs import CHOOSE, Readout, ScoreReader, absence, pooled_features
from vistool.network.segmentation import Segmenter, find_segmenter
from vistool.network.tensors import NetworkInput, Size, input_size, token_hints
from vistool.registry import ANALYSES
from vistool.results import Heatmaps, Measure

__all__ = ['CAM', 'METHODS', 'Method', 'Needs', 'Probe', 'register_cam', 'register_perturbation_cam']

log = logging.getLogger('vistool')
FUSIONS = ('mean', 'max', 'none')
_OF_DETECTORS = ('instances', 'score_threshold', 'box', 'attribute', 'verify')
_OF_SEGMENTERS = ('point', 'region')
_OF_CLASSES = ('aug_smooth', 'reference', 'score', 'contrast', 'score_sign')
"""Fields that are for one kind of network only: what finds objects, what finds regions, what scores whole images."""

SignedMaps = dict[Key, list[Tensor]]
"""Signed maps ``(B, h, w)`` by method and target: one per layer, or one for all layers."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """One forward of a batch with its graph behind the target layers: maps of other classes need a backward alone.

    Attributes:
        model: The model.
        samples: The batch.
        inputs: The network's input.
        views: Likewise, of all augmented views.
        layers: The target layers by name.
        read: Finds the scores.
        run: What the forward gave.
        readout: What the scores mean; None where it is unclear and nothing asks for it.
    """

    model: Model
    samples: Sequence[Sample]
    inputs: NetworkInput
    views: NetworkInput
    layers: Mapping[str, nn.Module]
    read: ScoreReader
    run: Forward
    readout: Readout | None


@ANALYSES.register_module()
@dataclass(frozen=True)
class CAM(MapAnalysis):
    """Class activation maps of several methods and classes from one forward.

    Attributes:
        methods: A name or several from :data:`~vistool.analyses.cam.methods.METHODS`, case-insensitive; ``'all'`` means
            those that share the forward. None means GradCAM; for detectors HiResCAM, as GradCAM's weights are means
            over all places, and a prediction has one (Zhao and Chan, ODAM, ICLR 2023).
        targets: Class ids (also as a tensor), class names, ``'topN'`` or ``'label'``, for all images of a batch; or one
            list of them for each image. None means the predicted class, or the config's ``cam_target``; models compared
            with this one explain the same class, or, with ``'own'``, what each of them predicts. A minus before a name
            asks for the evidence against it: ``'-tabby'``, ``'-value'``.
        layers: Target layers in dotted form (``'backbone.layers[-1].ln1'``) or as modules of the network, one or
            several; none means the default for the network. ``'backbone.layer4#1'`` is a layer's first call.
        aug_smooth: Average over six variants: mirrored or not, times 0.9, 1 and 1.1.
        eigen_smooth: Take the first principal component of the weighted activations instead of their sum.
        extra_tokens: Number of tokens before the grid, or ``(before, after)``, if it cannot be found by looking.
        tokens: True if the layers' output is to be read as tokens.
        layer_fusion: ``'mean'`` or ``'max'`` over several layers, or ``'none'``: a column for each.
        reference: An image (a path, a sample, or a tensor ``(C, H, W)``); the score is then the similarity of features
            to its own.
        score: A score that is not a class score: a callable ``(output, samples) → (n,)``, or ``dict(type='Name', …)``
            for one in :data:`~vistool.registry.CAM_TARGETS`.
        contrast: Classes that FinerCAM contrasts the target with; none means the three with the nearest scores.
        score_sign: ``'-'`` for the evidence against each target, ``'+'`` for the evidence for it.
        seed: Of RandomCAM and the random baseline.
        metrics: What to measure of each map, by the names in :data:`~vistool.metrics.METRICS`; none by default.
        protocol: How metrics are measured: a name from :data:`~vistool.metrics.PROTOCOLS`, or a protocol of your own.
        truth: Where the object is, for metrics of localization: a mask ``(H, W)`` at the network's input size, nonzero
            inside, or one for each image of a batch (None for those without). Without one, as the samples know it: a
            run over a dataset, or with ``masks``, tells them.
        copies: How many changed copies of an image run at once for metrics.
        instances: Of a detector's predictions those to explain: ``'top5'``, ``'all'``, or their numbers in the order of
            their scores, from 0; of the classes that ``targets`` name, if it names any. Another detector's predictions
            (:class:`~vistool.analyses.cam.instances.Followed`): the same objects as this one predicts them.
        score_threshold: A detector's predictions with a lower score are left out.
        box: Left, top, right and bottom in pixels of the original: the prediction that matches it best is explained.
        attribute: What of a prediction is explained: ``'class'``, ``'left'``, ``'top'``, ``'right'``, ``'bottom'`` or
            ``'box'``, one or several.
        point: ``(x, y)`` in pixels of the original: the pixel of a segmentation to explain.
        region: The region of a segmentation to explain: a picture of the original's size, nonzero inside, or an array.
        verify: Whether each map of a detector is compared with what masking the input finds, which takes 26 further
            forwards for each prediction.
    """

    methods: str | Sequence[str] = ()
    targets: Targets = ()
    layers: str | nn.Module | Sequence[str | nn.Module] = ()
    aug_smooth: bool = False
    eigen_smooth: bool = False
    extra_tokens: int | Sequence[int] | None = None
    tokens: bool | None = None
    layer_fusion: Literal['mean', 'max', 'none'] = 'mean'
    reference: str | Path | Sample | NetworkInput | None = None
    score: Score | Mapping[str, Any] | None = None
    contrast: Targets = ()
    score_sign: str | int = '+'
    seed: int = 0
    metrics: str | Sequence[str] = ()
    protocol: str | Protocol = 'vistool'
    truth: Truths = None
    copies: int = field(default=32, compare=False)
    instances: str | int | Sequence[int | str] | Followed = 'top5'
    score_threshold: float = 0.3
    box: Sequence[float] | None = None
    attribute: str | Sequence[str] = 'class'
    point: Sequence[float] | None = None
    region: str | Path | NDArray[Any] | None = None
    verify: bool = False

    @overload
    def __call__(self, model: Model | nn.Module, subject: Sample) -> Heatmaps: ...

    @overload
    def __call__(self, model: Model | nn.Module, subject: Sequence[Sample]) -> list[Heatmaps]: ...

    @overload
    def __call__(self, model: Model | nn.Module, subject: NetworkInput) -> Heatmaps | list[Heatmaps]: ...

    def __call__(self, model: Model | nn.Module, subject: Subject) -> Heatmaps | list[Heatmaps]:
        """Explains one sample or a batch.

        Args:
            model: A loaded model, or any module. It is used in eval mode and comes back as it was.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's input
                itself: a tensor ``(C, H, W)`` (one result) or ``(B, C, H, W)`` (a list), or a tuple or dict of such for
                a network with several inputs.

        Returns:
            :class:`~vistool.results.Heatmaps` of kind ``cam``, or a list of them. Maps are float32 in [0, 1] at the
            network's input size.

        Raises:
            InputError: If a method, class or layer does not exist or does not fit the model.
        """
        model = as_model(model)
        samples, single = as_samples(subject, model)
        methods = find_methods(self.for_model(model).methods)
        self._check_options()
        self._measuring.check(methods)
        self._measuring.check_truth(samples)
        with model.borrowed():
            results = self._explain(model, samples, methods)
        return results[0] if single else results

    @property
    def _measuring(self) -> Measuring:
        protocol = find_protocol(self.protocol)
        return Measuring(find_metrics(self.metrics, protocol), protocol, self.truth, self.copies)

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names."""
        variants = [name for name in ('aug_smooth', 'eigen_smooth') if getattr(self, name)]
        variants += ['against'] if sign_of(self.score_sign) < 0 else []
        variants += [self.layer_fusion] if self.layer_fusion != 'mean' else []
        variants += [f'like-{Path(self.reference).stem}'] if isinstance(self.reference, (str, os.PathLike)) else []
        methods = [self.methods] if isinstance(self.methods, str) else self.methods
        return [name.lower() for name in methods], same_for_all(self.targets) or [], words_for(self.layers), variants

    @property
    def measures(self) -> Sequence[str]:
        """Names of the metrics that are measured of each map."""
        return list(self._measuring.metrics)

    @property
    def needs_truth(self) -> Sequence[str]:
        """The metrics that need samples that know where the objects are."""
        return self._measuring.needs(MetricNeeds.TRUTH) if self.truth is None else []

    def finds_objects(self, model: Model) -> bool:
        """Whether the model is a detector."""
        return find_detector(model.module) is not None

    def check(self, model: Model) -> None:
        """Checks the names of methods and layers, and what cannot be combined.

        Raises:
            InputError: If something is wrong whatever the images are.
        """
        methods = find_methods(self.for_model(model).methods)
        self._check_options()
        self._measuring.check(methods)

    def for_model(self, model: Model) -> CAM:
        """The same with the default method for the kind of the network, where none is named."""
        if self.methods:
            return self
        return replace(self, methods=('gradcam',) if find_detector(model.module) is None else ('hirescam',))

    def follow(self, results: Sequence[Heatmaps], model: Model) -> CAM:
        """The same for another model: each image with the classes that its result shows, or the model's own prediction.

        Layers that were named are kept if the other model has them; otherwise its own default is used.

        Of another detector those predictions are explained that are the same objects: of the same class name, with the
        largest IoU, from 0.5 up.

        Raises:
            InputError: The first model finds objects and the other does not, or the other way around.
        """
        objects = [each for result in results for each in result.instances if each.box is not None]
        is_detector = find_detector(model.module) is not None
        if is_detector != bool(objects):
            raise InputError(
                f'{model.name} is {"" if is_detector else "not "}a detector, and the first model is '
                f'{"" if objects else "not "}one',
                hint='compare detectors with detectors',
                parameter='compare',
            )
        targets = [] if own_predictions(self.targets) else followed_targets(results, model)
        names = list(results[0].layers) if self.layers and results else []
        if not isinstance(self.layers, nn.Module) and all(isinstance(name, str) for name in self.layers):
            names = layer_names(model.module, self.layers)
        try:
            layers = [find_call(model.module, name)[0] for name in names]
        except InputError:
            layers = []
            log.warning('%s has no layer %s: its default is used', model.name, ', '.join(names))
        if is_detector:
            shown = [dict.fromkeys(map(result.instance, result)) for result in results]
            followed = Followed(
                [[one for one in each if one is not None] for each in shown], self.score_threshold, self._attributes
            )
            return replace(self, layers=layers, targets=(), box=None, instances=followed)
        if not any(targets):
            return replace(self, layers=layers)
        return replace(self, targets=targets, layers=layers, score_sign='+')  # the targets say which sign they have

    def _explain(self, model: Model, samples: Sequence[Sample], methods: Mapping[str, Method]) -> list[Heatmaps]:
        if (found := find_detector(model.module) or find_segmenter(model.module)) is not None:
            if isinstance(found, Segmenter):
                self._refuse(_OF_DETECTORS, f'is for detectors, and {model.name} is a segmenter')
            else:
                self._refuse(_OF_SEGMENTERS, f'is for segmenters, and {model.name} is a detector')
            self._refuse(_OF_CLASSES, f'is for networks that score whole images; {model.name} finds objects or regions')
            return self._dense(model, found, samples, methods)
        packages = 'torchvision, transformers, mmdet or mmseg'
        self._refuse(
            (*_OF_DETECTORS, *_OF_SEGMENTERS), f'{model.name} is neither a detector nor a segmenter of {packages}'
        )
        return self._recorded(model, samples, methods, keep=False)[1]

    def record(self, model: Model, sample: Sample, run: Callable[[], Any] | None = None) -> tuple[Recorded, Heatmaps]:
        """The maps of one sample, and the forward that they come from, for :meth:`explain`.

        Args:
            model: The model.
            sample: The sample.
            run: Runs the network once on the sample, where something else watches that run as well; see
                :func:`~vistool.network.forward.forward`.

        Raises:
            InputError: See :meth:`__call__`; the model finds objects or regions, which have no recording.
        """
        with model.borrowed():
            if find_detector(model.module) is not None or find_segmenter(model.module) is not None:
                raise InputError(f'{model.name} finds objects or regions', accepted='a network that scores images')
            methods = find_methods(self.for_model(model).methods)
            recorded, (result,) = self._recorded(model, [sample], methods, keep=True, run=run)
        return recorded, result

    def explain(self, recorded: Recorded) -> Heatmaps:
        """The maps of a recorded sample, at the layers of the recording, without another forward.

        Methods that run the network themselves have no recording.
        """
        methods = find_methods(self.for_model(recorded.model).methods)
        with torch.inference_mode(False), torch.enable_grad():
            return self._explained(recorded, methods, keep=True)[0]

    def _recorded(
        self,
        model: Model,
        samples: Sequence[Sample],
        methods: Mapping[str, Method],
        keep: bool,
        run: Callable[[], Any] | None = None,
    ) -> tuple[Recorded, list[Heatmaps]]:
        """One forward and its results; a default layer that turns out not to be suited is replaced by a better one."""
        inputs = model.batch(samples)
        read = self._reader(model, inputs, samples)
        layers = self._layers(model, methods, inputs, read)

        def explained_at(
            layers: Mapping[str, nn.Module], run: Callable[[], Any] | None = None
        ) -> tuple[Recorded, list[Heatmaps]]:
            recorded = self._forward(model, samples, methods, inputs, layers, read, run)
            return recorded, self._explained(recorded, methods, keep)

        try:
            return explained_at(layers, run)
        except UnsuitedLayer as error:
            if self.layers:
                raise
            better = better_layer(model.module, inputs, read, next(iter(layers)), error)
            if better is None:  # then it is not the fault of a parameter that nobody gave
                raise InputError(f'{error.problem}; it is the default for this network', hint=error.hint) from error
            return explained_at(dict([find_call(model.module, better)]))

    def _forward(
        self,
        model: Model,
        samples: Sequence[Sample],
        methods: Mapping[str, Method],
        inputs: NetworkInput,
        layers: Mapping[str, nn.Module],
        read: ScoreReader,
        run: Callable[[], Any] | None = None,
    ) -> Recorded:
        views = varied(model.module, inputs, maps.BRIGHTNESS) if self.aug_smooth else inputs
        gradients = any(entry.gradients for entry in methods.values())
        hints = token_hints(self.extra_tokens, self.tokens)
        with forward(model.module, views, layers, gradients=gradients, hints=hints, read=read, run=run) as found:
            readout = self._readout(model, found, views, methods)
            return Recorded(model, samples, inputs, views, layers, read, found, readout)

    def _explained(self, recorded: Recorded, methods: Mapping[str, Method], keep: bool) -> list[Heatmaps]:
        """The results of a forward; ``keep``: its graph is kept for others."""
        model, samples, run = recorded.model, recorded.samples, recorded.run
        inputs, views, layers, read = recorded.inputs, recorded.views, recorded.layers, recorded.read
        size, _ = input_size(inputs)
        readout = recorded.readout
        scores = None if readout is None else readout.scores(run.output, run.count)[: len(samples)].detach()
        targets = self._targets(model, samples, readout, scores)
        if not targets and any(entry.shows_class for entry in methods.values()):
            raise _headless(model, methods, run.output)
        signed = shared_maps(run, methods, targets, self.eigen_smooth, keep)
        values = [target.values(run.output, run.count) for target in targets]
        drawn = self._drawn(model, views, run, layers, methods, targets, signed, size)
        numbers = None if scores is None or readout is None else readout.numbers(scores).cpu()
        settings, measuring = self._settings(), self._measuring
        measures, measured = {}, []
        if measuring.metrics:
            again = [self._again(model, each, layers, methods, targets, read) for each in measuring.noisy(inputs)]
            measured = measuring.measure(model, samples, inputs, targets, drawn, again)
            by_class = any(isinstance(target, ClassTarget) for target in targets)
            settings |= measuring.entry(readout if by_class else None)
            measures = {name: metric.told for name, metric in measuring.metrics.items()}
        names = [layer.label for layer in run.layers]
        unchecked = [layer.label for layer in run.layers if layer.layout.unchecked]
        report = Report(
            model, methods, names, targets, readout, numbers, values, drawn, settings, measures, measured,
            unchecked=unchecked,
        )  # fmt: skip
        return [report.result(index, sample) for index, sample in enumerate(samples)]

    def _dense(
        self, model: Model, found: Adapter | Segmenter, samples: Sequence[Sample], methods: Mapping[str, Method]
    ) -> list[Heatmaps]:
        """The maps of a detector's predictions or a segmenter's regions: one forward, one small backward for each."""
        inputs = found.prepared(model.batch(samples), samples)
        size, _ = input_size(inputs)
        layers = self._dense_layers(model, found, inputs, size)
        gradients = any(entry.gradients for entry in methods.values())
        given = self.extra_tokens
        hints = token_hints(found.extra_tokens if given is None and not self.layers else given, self.tokens)
        with (
            found.watching(),
            forward(model.module, inputs, layers, gradients=gradients, hints=hints, dense=True) as run,
        ):
            targets, known, frame = self._dense_targets(model, found, run.output, samples, size)
            signed = shared_maps(run, methods, targets, self.eigen_smooth)
            values = [target.values(run.output, run.count) for target in targets]
        drawn = self._drawn(model, inputs, run, layers, methods, targets, signed, size, frame)
        settings = {**self._settings(), 'score_threshold': self.score_threshold}
        settings |= {} if isinstance(self.instances, Followed) else {'instances': self.instances}
        measures, measured, told = self._dense_measured(model, found, samples, inputs, targets, drawn)
        names = [layer.label for layer in run.layers]
        report = Report(
            model, methods, names, targets, None, None, values, drawn, settings | told, measures, measured,
            known.instances, known.missed,
        )  # fmt: skip
        return [report.result(index, sample) for index, sample in enumerate(samples)]

    def _dense_targets(
        self, model: Model, found: Adapter | Segmenter, output: Any, samples: Sequence[Sample], size: Size
    ) -> tuple[Sequence[InstanceTarget] | Sequence[RegionTarget], Found, Frame | None]:
        """What is explained, all that a detector or segmenter found, and what of its input is the image."""
        if isinstance(found, Segmenter):
            regions = Regions(self.point, self.region)
            logits = found.logits(output, size)
            targets, every = region_targets(model, found, logits, samples, regions, self.targets)
            return targets, Found(every, [], []), None
        predicted = found.read(output, len(samples), size)
        wanted = self._instances
        explained, known = instance_targets(model, found, predicted, samples, wanted, self.targets, size)
        return explained, known, predicted.frame

    def _dense_measured(
        self,
        model: Model,
        found: Adapter | Segmenter,
        samples: Sequence[Sample],
        inputs: NetworkInput,
        targets: Sequence[InstanceTarget | RegionTarget],
        drawn: Mapping[Key, Sequence[Drawn]],
    ) -> tuple[dict[str, Measure], list[dict[tuple[Key, int], MapMeasured]], dict[str, Any]]:
        """The metrics that were asked for, what they are for each map, and what the provenance says of them."""
        measures: dict[str, Measure] = {}
        parts, told = [], {}
        detector = None if isinstance(found, Segmenter) else found
        if self.verify and detector is not None:
            measures['agreement'] = Measure('agree', 'higher')
            parts.append(verified(model, detector, inputs, targets, drawn, self.copies))
        if (measuring := self._measuring).metrics:
            measuring.check_dense()
            parts.append(measuring.measure(model, samples, inputs, targets, drawn, [], detector))
            measures |= {name: metric.told for name, metric in measuring.metrics.items()}
            scored = 'mean probability over the region' if detector is None else 'IoU · score of the same object'
            entry = measuring.entry(None)
            told = {**entry, 'protocol': {**entry['protocol'], 'scored': scored}}
        return measures, [_joined(each) for each in zip(*parts, strict=True)], told

    @property
    def _attributes(self) -> list[str]:
        return [self.attribute] if isinstance(self.attribute, str) else list(self.attribute)

    @property
    def _instances(self) -> Instances | Followed:
        if isinstance(self.instances, Followed):
            return self.instances
        return Instances(self.instances, self.score_threshold, self.box, self._attributes)

    def _dense_layers(
        self, model: Model, found: Adapter | Segmenter, inputs: NetworkInput, size: Size
    ) -> dict[str, nn.Module]:
        """The layers of a detector or segmenter: those that were named, its own default, or one found by search."""
        with naming('layers'):
            names = layer_names(model.module, self.layers) or found.layers()
            names = names or layers_to_explain(model.module, inputs, found.reader(size))
            if not names:
                raise InputError(
                    f'no default layer is known for {network_name(model.module)}',
                    hint=f'name one (list all with {param("preview_model")})',
                    parameter='layers',
                )
            return dict(find_call(model.module, name) for name in names)

    def _refuse(self, names: Sequence[str], problem: str) -> None:
        """Refuses options that mean nothing for the kind of the network."""
        defaults = {each.name: each.default for each in fields(CAM)}
        for name in names:
            if _differs(getattr(self, name), defaults[name]):
                raise InputError(problem, hint='leave it out', parameter=name)

    def _drawn(
        self,
        model: Model,
        views: NetworkInput,
        run: Forward,
        layers: Mapping[str, nn.Module],
        methods: Mapping[str, Method],
        targets: Sequence[Target],
        signed: SignedMaps,
        size: Size,
        frame: Frame | None = None,
    ) -> dict[Key, list[Drawn]]:
        """The finished maps of all methods, those that run the network themselves included."""
        probe = Probe(model.module, views, run.layers, layers, None, self.eigen_smooth, self.seed)
        signed = signed | own_maps(probe, methods, targets)
        return self._finish(signed, [layer.label for layer in run.layers], size, frame)

    def _again(
        self,
        model: Model,
        inputs: NetworkInput,
        layers: Mapping[str, nn.Module],
        methods: Mapping[str, Method],
        targets: Sequence[Target],
        read: ScoreReader,
    ) -> dict[Key, list[Drawn]]:
        """The maps of a batch with noise on its image, for the targets of the batch without."""
        views = varied(model.module, inputs, maps.BRIGHTNESS) if self.aug_smooth else inputs
        gradients = any(entry.gradients for entry in methods.values())
        hints = token_hints(self.extra_tokens, self.tokens)
        with forward(model.module, views, layers, gradients=gradients, hints=hints, read=read) as run:
            signed = shared_maps(run, methods, targets, self.eigen_smooth)
        return self._drawn(model, views, run, layers, methods, targets, signed, input_size(inputs)[0])

    def _reader(self, model: Model, inputs: NetworkInput, samples: Sequence[Sample]) -> ScoreReader:
        """What finds the scores in the model's output, or what stands for them, where they may be missing."""
        value, size = names_value(self.targets), input_size(inputs)[0]
        if self.reference is not None:
            return ScoreReader(lambda output, count: pooled_features(output, size), 'pooled features')
        custom = self._custom(model)
        if custom is not None and not self._has_targets:
            target = self._custom_target(custom, samples)
            return ScoreReader(lambda output, count: target.score(output, torch.arange(count))[:, None], _key(custom))
        return model.score_reader(inputs, value=value)

    def _readout(
        self, model: Model, run: Forward, inputs: NetworkInput, methods: Mapping[str, Method]
    ) -> Readout | None:
        """What the output means; None where it is unclear and nothing asks for it."""
        try:
            return model.readout(run.output, run.count, inputs, value=names_value(self.targets))
        except InputError as error:
            own = self.reference is not None or self._custom(model) is not None
            if self._has_targets or (not own and any(entry.shows_class for entry in methods.values())):
                raise
            log.info('no score is shown: %s', error)
            return None

    def _custom(self, model: Model) -> Score | Mapping[str, Any] | None:
        """The score of the user's own, if one is named."""
        return self.score if self.score is not None else (model.config or {}).get('cam_target')

    def _custom_target(self, custom: Score | Mapping[str, Any], samples: Sequence[Sample]) -> ScoreTarget:
        """The target of :meth:`_custom`; errors name what it came from."""
        return custom_target(custom, samples, 'cam_target' if self.score is None else 'score')

    def _check_options(self) -> None:
        token_hints(self.extra_tokens)
        if isinstance(chosen := self._instances, Instances):
            chosen.check()
        Regions(self.point, self.region).check()
        sign_of(self.score_sign)
        if self.layer_fusion not in FUSIONS:
            raise InputError(
                f'unknown fusion {self.layer_fusion!r}',
                accepted=', '.join(FUSIONS),
                hint=close_matches(str(self.layer_fusion), FUSIONS),
                parameter='layer_fusion',
            )
        if self.reference is not None and (self._has_targets or self.score is not None):
            raise InputError(
                f'cannot be combined with {param("targets")}',
                hint='with a reference, similarity is explained, not a class',
                parameter='reference',
            )

    @property
    def _has_targets(self) -> bool:
        return same_for_all(self.targets) != []

    def _layers(
        self, model: Model, methods: Mapping[str, Method], inputs: NetworkInput, read: ScoreReader
    ) -> dict[str, nn.Module]:
        if all(Needs.NO_LAYER in entry.needs for entry in methods.values()):
            return {}
        require_layers(model.module)
        with naming('layers'):
            names = layer_names(model.module, self.layers)
        names = names or layers_to_explain(model.module, inputs, read)
        if not names and (joined := searched(model.module, inputs, read).joined):
            raise InputError(
                joined,
                accepted='a network that runs the layer once for each of them, or a layer outside of that part',
                parameter='layers',
            )
        if not names:
            raise InputError(
                f'no default layer is known for {network_name(model.module)}: at {_pixels(inputs)} none gives a map of '
                f'several positions that a score depends on{hidden_parts(model.module)}',
                hint=f'take larger images, or name a layer (list all with {param("preview_model")})',
            )
        with naming('layers'):
            found = dict(find_call(model.module, name) for name in names)
        if every := next((name for name in found if name.endswith('#all')), None):
            raise InputError(f'{every!r}: a map is of one call', accepted='LAYER#1, LAYER#2, …', parameter='layers')
        return found

    def _targets(
        self, model: Model, samples: Sequence[Sample], readout: Readout | None, scores: Tensor | None
    ) -> Sequence[Target]:
        """The rows of the figure; none for a network that gives no class scores if no other score is named."""
        if self.reference is not None:
            with naming('reference', 'images'):
                return [similarity_target(model, self.reference, samples)]
        custom = self._custom(model)
        if custom is not None and not self._has_targets:
            return [self._custom_target(custom, samples)]
        if scores is None or readout is None:
            return []
        labels = [sample.label for sample in samples]
        chosen = explained(model, readout, self.targets, scores, labels)
        contrast = None
        if same_for_all(self.contrast) != []:
            with naming('contrast', 'targets'):
                contrast = resolve_targets(self.contrast, scores, model.classes, labels).ids
        signs = chosen.signs * sign_of(self.score_sign)
        words = words_of(self.targets, chosen.ids.shape[1])
        return [
            ClassTarget(
                column,
                scores,
                readout,
                signs[:, number],
                contrast,
                None if chosen.asked is None else chosen.asked[:, number],
                words[number],
            )
            for number, column in enumerate(chosen.ids.unbind(1))
        ]

    def _finish(
        self, signed: SignedMaps, layers: Sequence[str], size: Size, frame: Frame | None = None
    ) -> dict[Key, list[Drawn]]:
        columns: list[tuple[Key, str, list[Tensor]]] = []
        for key, by_layer in signed.items():
            if self.layer_fusion == 'none' and len(by_layer) > 1:
                columns += [(key, layer, [one]) for layer, one in zip(layers, by_layer, strict=True)]
            else:
                columns.append((key, '', by_layer))
        drawn: dict[Key, list[Drawn]] = {key: [] for key in signed}
        with torch.no_grad():
            within = size if frame is None else frame.size
            fusion: Literal['mean', 'max'] = 'max' if self.layer_fusion == 'max' else 'mean'
            finished = maps.finish_all([by_layer for _, _, by_layer in columns], within, fusion)
            for (key, layer, by_layer), (unit, ranges) in zip(columns, finished, strict=True):
                drawn[key].append(self._draw(by_layer, unit, ranges, layer, size, frame))
        return drawn

    def _draw(
        self,
        signed: Sequence[Tensor],
        unit: Tensor,
        ranges: Tensor | None,
        layer: str,
        size: Size,
        frame: Frame | None,
    ) -> Drawn:
        """The finished maps of a method and target, on their way out of the device."""
        if frame is not None:
            unit = maps.resized(unit[:, : frame.valid[0], : frame.valid[1]], size)
        if self.aug_smooth:
            unit, ranges = maps.merge(unit), None
        alone = signed[0].float().cpu().numpy() if len(signed) == 1 and not self.aug_smooth else None
        limits = None if ranges is None else ranges.float().cpu().numpy()
        return Drawn(unit.float().cpu().numpy(), limits, layer, alone)

    def _settings(self) -> dict[str, Any]:
        return {
            'aug_smooth': self.aug_smooth,
            'eigen_smooth': self.eigen_smooth,
            'extra_tokens': self.extra_tokens,
            'layer_fusion': self.layer_fusion,
            'similar': same_for_all(self.contrast) or [],
        }


def _pixels(inputs: NetworkInput) -> str:
    (height, width), _ = input_size(inputs)
    return f'{height}×{width} pixels'


def _key(score: Score | Mapping[str, Any]) -> Hashable:
    """What tells a score from others, without keeping it alive: it may hold the network."""
    if isinstance(score, Mapping):
        return repr(score)
    try:
        return weakref.WeakMethod(score) if inspect.ismethod(score) else weakref.ref(score)
    except TypeError:
        return id(score)


def shared_maps(
    run: Forward, methods: Mapping[str, Method], targets: Sequence[Target], eigen: bool, keep: bool = False
) -> SignedMaps:
    """The maps of the methods that one forward serves, with one backward for each score.

    Args:
        run: The forward.
        methods: The methods.
        targets: What they explain.
        eigen: Whether a principal component is taken instead of the sum over channels.
        keep: Whether the graph is kept for further scores.
    """
    values = [layer.map(layer.value) for layer in run.layers]
    weighting = {name: method for name, method in methods.items() if method.run is None}
    signed: SignedMaps = {
        (name, None): [
            method(value, None, eigen, layer.value.dtype) for layer, value in zip(run.layers, values, strict=True)
        ]
        for name, method in weighting.items()
        if not method.gradients
    }
    kinds = dict.fromkeys(method.score for method in weighting.values() if method.gradients)
    asked = [(number, target, kind) for number, target in enumerate(targets) for kind in kinds]
    rows = torch.arange(run.count)
    for step, (number, target, kind) in enumerate(asked):
        score = target.pullback(run.output, rows) if kind is None else kind(target, run.output, rows).sum()
        gradients = run.gradients(score, last=not keep and step + 1 == len(asked))
        laid_out = [layer.map(gradient) for layer, gradient in zip(run.layers, gradients, strict=True)]
        reached = [bool(gradient.any()) for gradient in laid_out]
        for name, method in weighting.items():
            if method.gradients and method.score is kind:
                signed[name, number] = []
                for layer, value, gradient, any_ in zip(run.layers, values, laid_out, reached, strict=True):
                    drawn = method(value, gradient, eigen, layer.value.dtype) if any_ else value[:, 0] * 0
                    signed[name, number].append(drawn)
                    _tell_of_rounding(method, layer, value, gradient, drawn)
    return signed


def _tell_of_rounding(method: Method, layer: Layer, value: Tensor, gradient: Tensor, drawn: Tensor) -> None:
    """Prints for how many images a map is nothing but rounding errors, and which method has evidence at the layer."""
    empty = ~drawn.flatten(1).any(1)
    if not bool(empty.any()):
        return
    empty &= gradient.flatten(1).any(1)
    if not bool(empty.any()):
        return
    others = (METHODS[name] for name in ('gradcam', 'layercam') if METHODS[name] is not method)
    works = [
        other.title
        for other in others
        if other(value[empty], gradient[empty], dtype=layer.value.dtype).flatten(1).any(1).all()
    ]
    log.warning(
        '%s at %s: no evidence above rounding for %d of %s, because %s; %s',
        method.title,
        layer.name,
        int(empty.sum()),
        counted(len(drawn), 'image'),
        _why_nothing(method, value[empty], gradient[empty], layer.value.dtype),
        f'{works[0]} has some at this layer' if works else f'choose another layer with {param("layers")}',
    )


def _why_nothing(method: Method, value: Tensor, gradient: Tensor, dtype: torch.dtype) -> str:
    """Why maps are nothing but rounding errors."""
    assert method.weigh is not None
    weighted = method.weigh(value, gradient)
    summed = weighted.sum(1).flatten(1)
    if bool((summed.amax(1) - summed.amin(1) < summed.abs().amax(1) / 2).all()):
        return 'its values are equal at every position'
    if maps.above_rounding(weighted.sum(1), weighted, dtype).any():
        return 'the weights of its channels are sums over the positions that cancel'
    return 'its terms cancel at every position'


def own_maps(probe: Probe, methods: Mapping[str, Method], targets: Sequence[Target]) -> SignedMaps:
    """The maps of the methods that run the network themselves."""
    signed: SignedMaps = {}
    for name, method in methods.items():
        if method.run is None:
            continue
        if method.is_baseline and targets:
            found = method.run(probe)
            signed |= {(name, number): found for number in range(len(targets))}
            continue
        if not method.shows_class:
            signed[name, None] = method.run(probe)
            continue
        for number, target in enumerate(targets):
            signed[name, number] = method.run(replace(probe, target=target))
    return signed


def _joined(parts: Sequence[Mapping[tuple[Key, int], MapMeasured]]) -> dict[tuple[Key, int], MapMeasured]:
    """What was measured of the maps of an image by several means, as one."""
    found: dict[tuple[Key, int], MapMeasured] = {}
    for part in parts:
        for place, each in part.items():
            before = found.get(place, MapMeasured({}, None))
            truth = before.truth if each.truth is None else each.truth
            found[place] = MapMeasured({**before.metrics, **each.metrics}, truth)
    return found


def _differs(given: object, default: object) -> bool:
    """Whether a field was given; a list of one stands for its item, and an empty one for nothing."""
    if isinstance(given, (list, tuple)):
        given = given[0] if len(given) == 1 and isinstance(default, str) else tuple(given)
    if default is None or isinstance(given, Tensor):
        return given is not None
    return given != default


def _headless(model: Model, methods: Mapping[str, Method], output: Any) -> InputError:
    wanting = ', '.join(entry.title for entry in methods.values() if entry.shows_class)
    return InputError(
        f'{wanting} needs class scores, and {model.name} gives none ({absence(model.module, output)})',
        accepted=titles_of(lambda entry: not entry.shows_class),
        hint=f'or give an image to compare with ({param("reference", "IMG")}), or {CHOOSE}',
        parameter='methods',
    )
