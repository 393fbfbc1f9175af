"""The view of CAM: what speaks for a class, an object or a region."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from vistool.analyses.cam import CAM, METHODS, Recorded
from vistool.analyses.cam.methods import Method, Needs, find_methods
from vistool.errors import InputError
from vistool.explore.forward import SURE
from vistool.explore.seen import Answer, Seen, point_text, position_of
from vistool.explore.view import Drawing, View
from vistool.network.forward import layers_to_explain
from vistool.network.layers import layer_names
from vistool.network.segmentation import find_segmenter
from vistool.results import Heatmaps

_MOST_RECORDED = 4
"""Graphs behind layers of CAM that are kept of one photo."""


class CAMView:
    """Maps of classes, from graphs that are kept behind the target layers: another class needs a backward alone."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    @cached_property
    def recorded(self) -> dict[tuple[Any, bool], Recorded]:
        """The graphs, by layers and whether they have gradients; the first is that of the photo's own forward."""
        explained = self.seen.forward.explained
        return {} if explained is None else {(self.seen.layers, True): explained[0]}

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        names = self._layers
        position = position_of(view.layer, names, 0)
        chosen = self.seen.layers if position == 0 else (names[position],)
        method = view.method or self._default_method
        entry = next(iter(find_methods(method).values()))
        parameters: dict[str, list[str]] = {'methods': [entry.title]}
        parameters |= {'layers': list(chosen)} if chosen else {}
        cam = CAM(methods=(method,), layers=chosen)
        if self.seen.forward.detector is not None:
            if why := self._why_no_cam(entry):
                raise InputError(why, parameter='methods')
            number_of = 0 if view.instance is None else view.instance
            cam = replace(cam, instances=(number_of,))
            parameters['instances'] = [str(number_of)]
        elif self.seen.forward.segmenter and point is not None:
            cam = replace(cam, point=point)
            parameters['point'] = [point_text(point)]
        elif view.target is not None and entry.shows_class:
            cam = replace(cam, targets=(view.target,))
            parameters['targets'] = [str(view.target)]
        result = self.seen.kept(_key(cam), lambda: self._explained(cam, entry))
        return self.seen.answered(result, Drawing('vis_cam', parameters), view)

    def _explained(self, cam: CAM, method: Method) -> Heatmaps:
        """The maps of a class: from a forward that was kept, where one serves the method."""
        apart = method.run is not None or Needs.NO_LAYER in method.needs
        if apart or self.seen.forward.detector is not None or self.seen.forward.segmenter:
            return cam(self.seen.model, self.seen.sample)
        explained = self.seen.forward.explained
        if explained is not None and _key(cam) == _key(CAM(methods=('gradcam',), layers=self.seen.layers)):
            return explained[1]
        recorded = self.recorded.get((cam.layers, True)) or self.recorded.get((cam.layers, method.gradients))
        if recorded is not None:
            return cam.explain(recorded)
        recorded, result = cam.record(self.seen.model, self.seen.sample)
        self.recorded[cam.layers, method.gradients] = recorded
        others = [key for key in self.recorded if key != (self.seen.layers, True)]  # the default layer's stays
        for key in others[: max(0, len(self.recorded) - _MOST_RECORDED)]:
            del self.recorded[key]
        return result

    @property
    def _default_method(self) -> str:
        if self.seen.forward.detector is not None:
            return 'hirescam'
        return 'gradcam' if self.seen.forward.readout is not None or self.seen.forward.segmenter else 'eigencam'

    @cached_property
    def _layers(self) -> list[str]:
        """The default layers joined to one name, then every other layer."""
        read = self.seen.forward
        module, inputs = self.seen.model.module, read.inputs
        with self.seen.model.borrowed():
            if self.seen.layers:
                names = layer_names(module, self.seen.layers)
            elif read.detector is not None:
                names = read.detector.layers()
            elif read.segmenter and (segmenter := find_segmenter(module)) is not None:
                names = segmenter.layers()
            else:
                names = layers_to_explain(module, inputs, self.seen.model.score_reader(inputs))
        others = [feature.name for feature in read.features if [feature.name] != names]
        return [' + '.join(names) or 'default', *others]

    def offer(self) -> dict[str, Any]:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        grids = {feature.name: list(feature.maps.shape[2:]) for feature in self.seen.forward.features}
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
        layers = [{'name': name, 'grid': grids.get(name)} for name in self._layers]
        default = self._default_method
        usable = any(entry['available'] for entry in methods)
        told = {'methods': methods, 'method': default, 'layers': layers, 'layer': 0}
        return {'available': usable, **({} if usable else {'why': methods[0]['why']}), **told}

    def _why_no_cam(self, method: Method) -> str:
        """Why a method does not fit the network; ``''`` where it does."""
        read = self.seen.forward
        if read.detector is not None:
            if not read.instances:
                return f'the detector predicts nothing with a score of at least {SURE:g}'
            explains = method.gradients and method.score is None
            return '' if explains else 'maps of a detector explain a prediction, by its gradients'
        if method.shows_class and read.readout is None and not read.segmenter:
            return 'the network gives no class scores'
        return ''


def _key(cam: CAM) -> tuple[Any, ...]:
    """What a page can change of a CAM."""
    return cam.methods, cam.layers, cam.instances, cam.targets, cam.point
