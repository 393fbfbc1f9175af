"""One forward of a photo, watched from every side: attention, features, scores, predictions and the graph of CAM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from vistool.analyses.attention.capture import RecordedAttention, prepare, record, require_patch
from vistool.analyses.cam import CAM, Recorded
from vistool.analyses.cam.instances import instances_of
from vistool.data.datasets import class_name
from vistool.data.samples import Sample
from vistool.errors import InputError
from vistool.explore.answers import finite_or_none
from vistool.models.model import Model
from vistool.network.detection import Adapter, find_detector
from vistool.network.features import Feature, Kept, features, recorded_layers
from vistool.network.layers import TargetLayer, find_target_layers, unwrapped
from vistool.network.outputs import Readout, output_count
from vistool.network.segmentation import find_segmenter
from vistool.network.stages import block_layers
from vistool.network.tensors import NetworkInput, input_size, tensors
from vistool.results import Heatmaps, Instance

MOST_SCORES = 100
SURE = 0.3
"""Predictions with a lower score are not shown, as in vis_cam."""
MOST_FEATURES = 1 << 26
"""Feature values that are kept of one photo; of networks with more the stages alone are kept."""


@dataclass(frozen=True, eq=False)
class Forward:
    """What one forward gave.

    Attributes:
        inputs: The network's input.
        attention: Its attention.
        features: What every stage and block gave, in the order of the forward.
        last: Which of them is the last stage.
        no_features: Why there are none.
        readout: What the scores mean; None where there are none.
        numbers: ``(C,)``, probabilities or values.
        detector: Reads a detector's predictions; None for other networks.
        instances: Those predictions.
        segmenter: Whether the network finds regions.
        explained: The graph behind the default target layer with the map of the predicted class; None without one.
    """

    inputs: NetworkInput
    attention: RecordedAttention
    features: Sequence[Feature]
    last: int
    no_features: str
    readout: Readout | None
    numbers: Tensor | None
    detector: Adapter | None
    instances: Sequence[Instance]
    segmenter: bool
    explained: tuple[Recorded, Heatmaps] | None

    def scores(self, model: Model) -> list[dict[str, Any]]:
        """The highest scores, or the first values, as a page lists them."""
        if self.numbers is None or self.readout is None:
            return []
        names = model.names_of(self.readout)
        order = self.numbers.argsort(descending=True, stable=True).tolist()
        order = list(range(len(order))) if self.readout.is_value else order
        return [
            {'id': index, 'name': class_name(index, names), 'score': finite_or_none(float(self.numbers[index]))}
            for index in order[:MOST_SCORES]
        ]

    def tensors(self) -> list[Tensor]:
        """The tensors that it keeps."""
        kept = list(tensors(self.inputs)) + [feature.maps for feature in self.features]
        for layer in self.attention.layers.values():
            op = layer.op
            kept += [each for each in (op.query, op.key, op.weights, op.bias) if each is not None]
        return kept


def run_once(model: Model, sample: Sample, layers: Sequence[str] = ()) -> Forward:
    """Runs a network on one photo, and keeps attention, features, scores and predictions of that one forward.

    For a classifier, the graph behind the default target layer is kept as well, with the map of the predicted class.
    What has to be found out about a network first, such as its stages, is found out once.

    Args:
        model: The model.
        sample: The photo.
        layers: Target layers of CAM; none: the default.

    Raises:
        InputError: The network fails, or the photo is smaller than a patch.
    """
    with model.borrowed():
        module, inputs = model.module, model.batch([sample])
        require_patch(model, inputs)
        detector = find_detector(module)
        if detector is not None:
            inputs = detector.prepared(inputs, [sample])
        prepare(module, inputs)  # else CAM, which watches the run below, would count its forward too
        targets, last, why = _target_layers(module, inputs)
        once = _Once(model, sample, inputs, targets, detector)
        segmenter = detector is None and find_segmenter(module) is not None
        explained = None
        if detector is None and not segmenter and output_count(module) is not None:
            with suppress(InputError):  # the view says why when it is asked for
                explained = CAM(layers=tuple(layers)).record(model, sample, once.run)
        attention = once.attention
        if targets:
            feature_maps, why = _features(model, inputs, targets, once.kept)
        else:
            feature_maps = []
        readout = numbers = None
        if detector is None and not segmenter:
            readout, numbers = _scores(model, attention.output, inputs)
    last_stage = next((n for n, each in enumerate(feature_maps) if each.layer == last), len(feature_maps) - 1)
    kept = replace(attention, output=None)
    return Forward(
        inputs, kept, feature_maps, last_stage, why, readout, numbers, detector, once.instances, segmenter, explained
    )


def _target_layers(module: nn.Module, inputs: NetworkInput) -> tuple[list[TargetLayer], str, str]:
    """The layers whose features are kept, the last stage among them, and why there are none."""
    root = unwrapped(module)
    try:
        names, last = block_layers(root, inputs, MOST_FEATURES)
        return find_target_layers(root, names), last, ''
    except InputError as error:
        return [], '', error.problem


class _Once:
    """One run of a network, watched from every side."""

    def __init__(
        self,
        model: Model,
        sample: Sample,
        inputs: NetworkInput,
        targets: Sequence[TargetLayer],
        detector: Adapter | None,
    ) -> None:
        self.model, self.sample, self.inputs, self.targets, self.detector = model, sample, inputs, targets, detector
        self.kept: Sequence[Kept] = ()
        self.instances: list[Instance] = []
        self._attention: RecordedAttention | None = None

    @property
    def attention(self) -> RecordedAttention:
        """The attention; the network runs for it where it has not run."""
        if self._attention is None:
            self.run()
        assert self._attention is not None
        return self._attention

    def run(self) -> Any:
        """Runs the network and keeps what it gives; returns its output."""
        module, detector = self.model.module, self.detector
        watching = nullcontext() if detector is None else detector.watching()
        with watching, recorded_layers(unwrapped(module), self.targets) as kept:
            attention = self._attention = record(module, self.inputs, self.sample)
            if detector is not None:
                found = detector.read(attention.output, 1, input_size(self.inputs)[0])
                self.instances = instances_of(self.model, found, 0, self.sample, SURE)
        self.kept = kept
        return attention.output


def _scores(model: Model, output: Any, inputs: NetworkInput) -> tuple[Readout | None, Tensor | None]:
    try:
        readout = model.readout(output, 1, inputs)
    except InputError:  # unclear which of several tensors: the options of the command say it
        return None, None
    if readout is None:
        return None, None
    return readout, readout.numbers(readout.scores(output, 1))[0].detach().float().cpu()


def _features(
    model: Model, inputs: NetworkInput, targets: Sequence[TargetLayer], kept: Sequence[Kept]
) -> tuple[list[Feature], str]:
    """The maps of the layers that give one, and why there are none."""
    found: list[Feature] = []
    why = ''
    for target in targets:
        try:
            found += features(model.module, inputs, [target], None, kept, model.score_reader(inputs))
        except InputError as error:
            why = error.problem
    return found, '' if found else why


def graph_tensors(recorded: Recorded) -> list[Tensor]:
    """The tensors that a recorded forward keeps alive through its graph."""
    found = [layer.value for layer in recorded.run.layers]
    found += [recorded.run.scores] if recorded.run.scores is not None else []
    waiting: list[Any] = [tensor.grad_fn for tensor in found if tensor.grad_fn is not None]
    seen = set(map(id, waiting))
    while waiting:
        node = waiting.pop()
        for name in dir(node):
            if name.startswith('_saved_'):
                try:
                    saved = getattr(node, name)
                except RuntimeError:  # freed, or changed in place since
                    continue
                found += [each for each in (saved if isinstance(saved, (list, tuple)) else [saved]) if _is_tensor(each)]
        for before, _ in node.next_functions:
            if before is not None and id(before) not in seen:
                seen.add(id(before))
                waiting.append(before)
    return found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def storage_bytes(kept: Iterable[Tensor], beside: set[int]) -> int:
    """Bytes of the storages of tensors, each once, without those at the addresses ``beside``."""
    storages = {}
    for tensor in kept:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in beside:
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
