"""What one forward of a photo gives, kept: every view of it without another forward."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from vistool.analyses.attention import METHODS as ATTENTION_METHODS
from vistool.analyses.attention import Attention
from vistool.analyses.attention.aggregation import require_multiplied
from vistool.analyses.attention.capture import RecordedAttention, record, require_patch
from vistool.analyses.cam import CAM, METHODS, Recorded
from vistool.analyses.cam.instances import instances_of
from vistool.analyses.cam.methods import Method, Needs, find_methods
from vistool.analyses.featmap import FeatureMaps
from vistool.analyses.featmap.pca import Basis, learn_basis
from vistool.analyses.featmap.reductions import find_cell, top_channels
from vistool.analyses.patches import caption
from vistool.data.datasets import class_name
from vistool.data.samples import Sample
from vistool.errors import InputError
from vistool.explore.answers import affine, finite_or_none, map_entries, token_at
from vistool.explore.view import Drawing, View, number
from vistool.models.model import Model
from vistool.network.capture import remembered
from vistool.network.detection import Adapter, find_detector
from vistool.network.embedding import Embedding, find_embedding
from vistool.network.features import Feature, Kept, features, recorded_layers
from vistool.network.forward import layers_to_explain
from vistool.network.layers import TargetLayer, find_target_layers, layer_names, unwrapped
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
_MOST_RESULTS = 24
_MOST_RECORDED = 4
"""Graphs behind layers of CAM that are kept of one photo."""
_CLASS_METHODS = ('grad-rollout', 'legrad')


@dataclass(frozen=True, eq=False)
class Answer:
    """The maps of a view.

    Attributes:
        result: The maps; None for a view without any.
        entries: What the header says of each.
        drawing: The command that draws them.
        token: The cell under the point, or None.
        note: One line about them, or None.
    """

    result: Heatmaps | None
    entries: list[dict[str, Any]]
    drawing: Drawing
    token: dict[str, Any] | None = None
    note: str | None = None


class Reading:
    """One photo as one model sees it. Call all methods from the worker's thread.

    Attributes:
        model: The model.
        sample: The photo, read.
        layers: Layers of CAM that are shown first; none: the default.
        on_original: Whether maps can be laid over the original; else pages show what the network saw.
    """

    def __init__(self, model: Model, sample: Sample, layers: tuple[str, ...] = ()) -> None:
        self.model, self.sample, self.layers = model, sample, layers
        geometry = sample.geometry
        self.on_original = (
            sample.original is not None and geometry is not None and geometry.exact and geometry.field is None
        )
        self._read: _Forward | None = None
        self._counted: tuple[tuple[Any, ...], int] = (), 0
        self._recorded: dict[Any, Recorded] = {}
        self._bases: dict[str, Basis] = {}
        self._results: OrderedDict[Any, Heatmaps] = OrderedDict()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture that the page shows."""
        return self.picture.shape[0], self.picture.shape[1]

    @property
    def picture(self) -> np.ndarray:
        """The picture that the page shows, uint8 ``(H, W, 3)`` RGB."""
        original = self.sample.original
        return original if self.on_original and original is not None else self.sample.image

    @property
    def nbytes(self) -> int:
        """Memory that it holds, weights of the network aside."""
        sample = self.sample
        held = sample.image.nbytes + (0 if sample.original is None else sample.original.nbytes)
        for result in self._results.values():
            held += sum(item.values.nbytes + (0 if item.signed is None else item.signed.nbytes) for item in result.maps)
        key = (self._read is None, *self._recorded)
        if key != self._counted[0]:
            self._counted = key, self._kept_bytes()
        return held + self._counted[1]

    def _kept_bytes(self) -> int:
        """Bytes of what the forwards keep, without the weights."""
        if self._read is None:
            return 0
        kept = self._read.tensors()
        for recorded in self._recorded.values():
            kept += graph_tensors(recorded)
        weights = {each.untyped_storage().data_ptr() for each in self.model.module.parameters()}
        return storage_bytes(kept, weights)

    @property
    def read(self) -> _Forward:
        """What the forward gave; the network runs at the first call."""
        if self._read is None:
            self._read = run_once(self.model, self.sample, self.layers)
            if self._read.explained is not None:
                self._recorded[self.layers, True], result = self._read.explained
                self._results[_cam_key(CAM(methods=('gradcam',), layers=self.layers))] = result
        return self._read

    def describe(self) -> dict[str, Any]:
        """What a page is told of the photo: its size, scores, objects, and which views there are."""
        read, sample = self.read, self.sample
        height, width = self.size
        return {
            'picture': 'original' if self.on_original else 'network',
            'width': width,
            'height': height,
            'input': self._input(),
            'scores': read.scores(self.model),
            'score_kind': 'value' if read.readout is not None and read.readout.is_value else 'probability',
            'label': sample.label,
            'instances': [self._instance(one) for one in read.instances],
            'views': {
                'attention': self._attention_view(),
                'similarity': self._feature_view(),
                'pca': self._feature_view(least=3),
                'cam': self._cam_view(),
                'features': self._feature_view(),
                'patches': self._patches_view(),
            },
        }

    def answer(self, view: View) -> Answer:
        """The maps of a view.

        Raises:
            InputError: The view is not available, or a parameter is not accepted.
        """
        point = None if view.point is None else self._on_photo(view.point)
        draw = {
            'attention': self._attention,
            'similarity': self._similarity,
            'pca': self._pca,
            'cam': self._cam,
            'features': self._features,
            'patches': self._patches,
        }[view.kind]
        return draw(view, point)

    # --- attention ---------------------------------------------------------------------------------------------------

    def _attention(self, view: View, point: tuple[float, float] | None) -> Answer:
        recorded = self.read.attention
        if not recorded.layers:
            raise InputError(recorded.why, parameter='view')
        numbers = sorted(recorded.layers)
        method = view.method or 'raw'
        parameters: dict[str, list[str]] = {} if method == 'raw' else {'method': [method]}
        query: Any = [point] if point is not None else view.query or ()
        attention = Attention(method=method, queries=query)
        if method == 'raw':
            layer = numbers[_position(view.layer, numbers, len(numbers) - 1)]
            attention = replace(attention, layers=(layer,), heads=(view.head,))
            parameters |= {'layers': [str(layer)], 'heads': [view.head]}
        if method in _CLASS_METHODS and view.target is not None:
            attention = replace(attention, targets=(view.target,))
            parameters['targets'] = [str(view.target)]
        if method == 'legrad':
            attention = replace(attention, queries=())
        elif point is not None or view.query:
            parameters['queries'] = [view.query if point is None else _text(point)]
        drawing = Drawing('vis_attention', parameters)
        if method == 'raw':
            return self._answered(attention.explain(self.model, recorded), drawing, view)
        key = repr(attention)
        if method in _CLASS_METHODS:
            result = self._kept(key, lambda: attention(self.model, self.sample))
        else:
            result = self._kept(key, lambda: attention.explain(self.model, recorded))
        return self._answered(result, drawing, view)

    def _attention_view(self) -> dict[str, Any]:
        recorded = self.read.attention
        if not recorded.layers:
            return {'available': False, 'why': recorded.why, 'layers': [], 'layer': 0, 'methods': []}
        layers = []
        for index, layer in sorted(recorded.layers.items()):
            queries = layer.layout.query_grid
            layers.append(
                {
                    'name': layer.op.name,
                    'number': index,
                    'heads': layer.op.shape[1],
                    'grid': list(layer.layout.grid),
                    'queries': None if queries is None else list(queries),
                }
            )
        methods = []
        for name in ATTENTION_METHODS:
            why = self._why_not(name)
            told = {'name': name, 'title': name, 'needs_target': name in _CLASS_METHODS, 'query': name != 'legrad'}
            methods.append({**told, 'available': not why, **({'why': why} if why else {})})
        last = recorded.layers[max(recorded.layers)]
        prefixed = last.layout.query_grid is not None and last.layout.query_prefix > 0
        return {
            'available': True,
            'layers': layers,
            'layer': len(layers) - 1,
            'methods': methods,
            'class_token': bool(prefixed and recorded.has_class_token) or last.op.shape[2] == 1,
        }

    def _why_not(self, method: str) -> str:
        """Why attention cannot be shown by a method; ``''`` where it can."""
        if method == 'raw':
            return ''
        if method in _CLASS_METHODS and self.read.readout is None:
            return 'the network gives no class scores'
        try:
            require_multiplied(self.read.attention, method)
        except InputError as error:
            return error.problem
        return ''

    # --- features ----------------------------------------------------------------------------------------------------

    def _feature(self, view: View) -> Feature:
        found = self.read.features
        if not found:
            raise InputError(self.read.no_features, parameter='view')
        return found[_position(view.layer, found, self.read.last)]

    def _similarity(self, view: View, point: tuple[float, float] | None) -> Answer:
        if point is None:
            raise InputError('similarity needs a point', accepted='x and y in pixels of the picture', parameter='x')
        feature = self._feature(view)
        analysis = FeatureMaps((feature.name,), similar_to=(point,))
        drawing = Drawing('vis_featmap', {'layers': [feature.name], 'similar_to': [_text(point)]})
        return self._answered(self._drawn(analysis, feature), drawing, view)

    def _pca(self, view: View, point: tuple[float, float] | None) -> Answer:
        feature = self._feature(view)
        if feature.name not in self._bases:
            self._bases[feature.name] = learn_basis(self.model, [[feature]], False)
        analysis = FeatureMaps((feature.name,), 'pca', basis=self._bases[feature.name])
        drawing = Drawing('vis_featmap', {'layers': [feature.name], 'reduction': ['pca']})
        key = 'pca', feature.name
        return self._answered(self._kept(key, lambda: self._drawn(analysis, feature)), drawing, view)

    def _features(self, view: View, point: tuple[float, float] | None) -> Answer:
        feature = self._feature(view)
        maps = feature.maps[0]
        count = min(view.count, len(maps))
        channels = list(view.channels)
        parameters = {'layers': [feature.name]}
        if not channels and point is None:
            analysis = FeatureMaps((feature.name,), topk=count)
            return self._answered(
                self._drawn(analysis, feature), Drawing('vis_featmap', {**parameters, 'topk': [str(count)]}), view
            )
        if not channels and point is not None:
            row, column = find_cell(point, self.sample, (maps.shape[1], maps.shape[2]))
            channels = top_channels(maps[:, row : row + 1, column : column + 1], count, 'mean')
        drawing = Drawing('vis_featmap', {**parameters, 'channels': [str(channel) for channel in channels]})
        return self._answered(self._drawn(FeatureMaps((feature.name,), channels=channels), feature), drawing, view)

    def _drawn(self, analysis: FeatureMaps, feature: Feature) -> Heatmaps:
        return analysis.drawn(self.model, [self.sample], [feature])[0]

    def _feature_view(self, least: int = 1) -> dict[str, Any]:
        found = self.read.features
        layers = [
            {'name': each.name, 'grid': list(each.maps.shape[2:]), 'channels': each.maps.shape[1]} for each in found
        ]
        if not found or all(each.maps.shape[1] < least for each in found):
            why = self.read.no_features or 'no layer has three channels'
            return {'available': False, 'why': why, 'layers': [], 'layer': 0}
        return {'available': True, 'layers': layers, 'layer': self.read.last}

    # --- CAM ---------------------------------------------------------------------------------------------------------

    def _cam(self, view: View, point: tuple[float, float] | None) -> Answer:
        names = self._cam_layers
        position = _position(view.layer, names, 0)
        chosen = self.layers if position == 0 else (names[position],)
        method = view.method or self._default_method
        entry = next(iter(find_methods(method).values()))
        parameters: dict[str, list[str]] = {'methods': [entry.title]}
        parameters |= {'layers': list(chosen)} if chosen else {}
        cam = CAM(methods=(method,), layers=chosen)
        if self.read.detector is not None:
            if why := self._why_no_cam(entry):
                raise InputError(why, parameter='methods')
            number_of = 0 if view.instance is None else view.instance
            cam = replace(cam, instances=(number_of,))
            parameters['instances'] = [str(number_of)]
        elif self.read.segmenter and point is not None:
            cam = replace(cam, point=point)
            parameters['point'] = [_text(point)]
        elif view.target is not None and entry.shows_class:
            cam = replace(cam, targets=(view.target,))
            parameters['targets'] = [str(view.target)]
        result = self._kept(_cam_key(cam), lambda: self._explained(cam, entry))
        return self._answered(result, Drawing('vis_cam', parameters), view)

    def _explained(self, cam: CAM, method: Method) -> Heatmaps:
        """The maps of a class: from a forward that was kept, where one serves the method."""
        apart = method.run is not None or Needs.NO_LAYER in method.needs
        if apart or self.read.detector is not None or self.read.segmenter:
            return cam(self.model, self.sample)
        recorded = self._recorded.get((cam.layers, True)) or self._recorded.get((cam.layers, method.gradients))
        if recorded is not None:
            return cam.explain(recorded)
        recorded, result = cam.record(self.model, self.sample)
        self._recorded[cam.layers, method.gradients] = recorded
        while len(self._recorded) > _MOST_RECORDED:  # the first is the default layer's
            del self._recorded[list(self._recorded)[1]]
        return result

    @property
    def _default_method(self) -> str:
        if self.read.detector is not None:
            return 'hirescam'
        return 'gradcam' if self.read.readout is not None or self.read.segmenter else 'eigencam'

    @cached_property
    def _cam_layers(self) -> list[str]:
        """The default layers joined to one name, then every other layer."""
        read = self.read
        module, inputs = self.model.module, read.inputs
        with self.model.borrowed():
            if self.layers:
                names = layer_names(module, self.layers)
            elif read.detector is not None:
                names = read.detector.layers()
            elif read.segmenter and (segmenter := find_segmenter(module)) is not None:
                names = segmenter.layers()
            else:
                names = layers_to_explain(module, inputs, self.model.score_reader(inputs))
        others = [feature.name for feature in read.features if [feature.name] != names]
        return [' + '.join(names) or 'default', *others]

    def _cam_view(self) -> dict[str, Any]:
        grids = {feature.name: list(feature.maps.shape[2:]) for feature in self.read.features}
        methods: list[dict[str, Any]] = []
        for name, method in METHODS.items():
            why = self._why_no_cam(method)
            entry: dict[str, Any] = {
                'name': name,
                'title': method.title,
                'needs_target': method.shows_class,
                'available': not why,
            }
            slow = method.run is not None and not method.is_baseline
            methods.append({**entry, **({'why': why} if why else {}), 'slow': slow})
        layers = [{'name': name, 'grid': grids.get(name)} for name in self._cam_layers]
        default = self._default_method
        usable = any(entry['available'] for entry in methods)
        told = {'methods': methods, 'method': default, 'layers': layers, 'layer': 0}
        return {'available': usable, **({} if usable else {'why': methods[0]['why']}), **told}

    def _why_no_cam(self, method: Method) -> str:
        """Why a method does not fit the network; ``''`` where it does."""
        read = self.read
        if read.detector is not None:
            if not read.instances:
                return f'the detector predicts nothing with a score of at least {SURE:g}'
            explains = method.gradients and method.score is None
            return '' if explains else 'maps of a detector explain a prediction, by its gradients'
        if method.shows_class and read.readout is None and not read.segmenter:
            return 'the network gives no class scores'
        return ''

    # --- patches -----------------------------------------------------------------------------------------------------

    def _patches(self, view: View, point: tuple[float, float] | None) -> Answer:
        embedding = self._embedding
        if isinstance(embedding, InputError):
            raise embedding.under('view')
        note = caption(embedding.grid, embedding.special)
        if view.point is None:
            return Answer(None, [], Drawing('vis_patches'), None, note)
        token = token_at(self._patch_matrix(embedding), embedding.grid.shape, view.point)
        chosen = {'highlight': [str(token['number'])]} if token['inside'] else {}
        return Answer(None, [], Drawing('vis_patches', chosen), token, note)

    def _patch_matrix(self, embedding: Embedding) -> np.ndarray:
        """From ``(column, row)`` of patches to the picture; patches that overlap are as large as their stride."""
        grid = embedding.grid
        (down, across), (patch_down, patch_across) = grid.stride, grid.patch
        top, left = grid.start[0] + (patch_down - down) / 2, grid.start[1] + (patch_across - across) / 2
        cells = np.array([[across, 0.0, left], [0.0, down, top], [0.0, 0.0, 1.0]])
        geometry = self.sample.geometry if self.on_original else None
        return cells if geometry is None else geometry.matrix @ cells

    @property
    def _embedding(self) -> Embedding | InputError:
        """How photos of this size are cut, or why they are not; found out once for each size."""
        module, inputs = self.model.module, self.read.inputs

        def find() -> Embedding | InputError:
            try:
                return find_embedding(module, inputs)
            except InputError as error:
                return error

        shapes = tuple(tuple(tensor.shape) for tensor in tensors(inputs))
        return remembered(module, 'patches explored', shapes, find)

    def _patches_view(self) -> dict[str, Any]:
        embedding = self._embedding
        if isinstance(embedding, InputError):
            return {'available': False, 'why': str(InputError(embedding.problem)), 'grid': None, 'prefix': 0}
        matrix = affine(self._patch_matrix(embedding))
        note, prefix = caption(embedding.grid, embedding.special), len(embedding.special)
        return {'available': True, 'grid': list(embedding.grid.shape), 'prefix': prefix, 'note': note, 'matrix': matrix}

    # --- shared ------------------------------------------------------------------------------------------------------

    def _answered(self, result: Heatmaps, drawing: Drawing, view: View) -> Answer:
        entries = map_entries(result, self.on_original)
        token = None
        if view.point is not None and entries:
            first = entries[0]
            grid = (first['height'], first['width'])
            if view.kind in ('attention', 'similarity', 'features'):
                token = token_at(_as_matrix(first['matrix']), grid, view.point)
        return Answer(result, entries, drawing, token)

    def _kept(self, key: Any, compute: Callable[[], Heatmaps]) -> Heatmaps:
        """A result that was computed before, or ``compute()``; the latest are kept."""
        if key in self._results:
            self._results.move_to_end(key)
            return self._results[key]
        result = self._results[key] = compute()
        if len(self._results) > _MOST_RESULTS:
            self._results.popitem(last=False)
        return result

    def _on_photo(self, point: tuple[float, float]) -> tuple[float, float]:
        """A pixel of the picture as commands name it: in pixels of the photo."""
        geometry = self.sample.geometry
        if self.on_original or geometry is None:
            return point
        (x, y), *_ = geometry.to_original([[point[0] + 0.5, point[1] + 0.5]])
        return round(float(x) - 0.5, 2), round(float(y) - 0.5, 2)

    def _input(self) -> dict[str, Any]:
        height, width = self.sample.image.shape[:2]
        geometry = self.sample.geometry if self.on_original else None
        matrix = np.eye(3) if geometry is None else geometry.matrix
        corners = [[0, 0], [width, 0], [width, height], [0, height]]
        outline = corners if geometry is None else geometry.crop().tolist()
        return {'width': width, 'height': height, 'matrix': affine(matrix), 'outline': outline}

    def _instance(self, one: Instance) -> dict[str, Any]:
        box = one.box if self.on_original else one.seen
        shown = {'number': one.number, 'name': one.name, 'id': one.id, 'score': finite_or_none(one.score)}
        return {**shown, 'box': None if box is None else [float(each) for each in box]}


@dataclass(frozen=True, eq=False)
class _Forward:
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


def run_once(model: Model, sample: Sample, layers: Sequence[str] = ()) -> _Forward:
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
    return _Forward(
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


def _cam_key(cam: CAM) -> tuple[Any, ...]:
    """What a page can change of a CAM."""
    return cam.methods, cam.layers, cam.instances, cam.targets, cam.point


def _position(wanted: int | None, entries: Sequence[Any], default: int) -> int:
    if wanted is None:
        return default
    if wanted >= len(entries):
        raise InputError(f'no layer {wanted}', accepted=f'0 to {len(entries) - 1}', parameter='layer')
    return wanted


def _text(point: tuple[float, float]) -> str:
    return ','.join(number(each) for each in point)


def _as_matrix(numbers: Sequence[float]) -> np.ndarray:
    a, b, c, d, e, f = numbers
    return np.array([[a, c, e], [b, d, f], [0.0, 0.0, 1.0]])
