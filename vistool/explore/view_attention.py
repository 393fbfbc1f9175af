"""The view of attention: raw or by a method over the layers, from the point, the class token or all positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vistool.analyses.attention import METHODS, Attention
from vistool.analyses.attention.aggregation import require_multiplied
from vistool.errors import InputError
from vistool.explore.seen import Answer, Seen, point_text, position_of
from vistool.explore.view import Drawing, View

_CLASS_METHODS = ('grad-rollout', 'legrad')


class AttentionView:
    """The attention that the forward recorded."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        recorded = self.seen.forward.attention
        if not recorded.layers:
            raise InputError(recorded.why, parameter='view')
        numbers = sorted(recorded.layers)
        method = view.method or 'raw'
        parameters: dict[str, list[str]] = {} if method == 'raw' else {'method': [method]}
        query: Any = [point] if point is not None else view.query or ()
        attention = Attention(method=method, queries=query)
        if method == 'raw':
            layer = numbers[position_of(view.layer, numbers, len(numbers) - 1)]
            attention = replace(attention, layers=(layer,), heads=(view.head,))
            parameters |= {'layers': [str(layer)], 'heads': [view.head]}
        if method in _CLASS_METHODS and view.target is not None:
            attention = replace(attention, targets=(view.target,))
            parameters['targets'] = [str(view.target)]
        if method == 'legrad':
            attention = replace(attention, queries=())
        elif point is not None or view.query:
            parameters['queries'] = [view.query if point is None else point_text(point)]
        drawing = Drawing('vis_attention', parameters)
        if method == 'raw':
            return self.seen.answered(attention.explain(self.seen.model, recorded), drawing, view)
        key = repr(attention)
        if method in _CLASS_METHODS:
            result = self.seen.kept(key, lambda: attention(self.seen.model, self.seen.sample))
        else:
            result = self.seen.kept(key, lambda: attention.explain(self.seen.model, recorded))
        return self.seen.answered(result, drawing, view)

    def offer(self) -> dict[str, Any]:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        recorded = self.seen.forward.attention
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
        for name in METHODS:
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
        if method in _CLASS_METHODS and self.seen.forward.readout is None:
            return 'the network gives no class scores'
        try:
            require_multiplied(self.seen.forward.attention, method)
        except InputError as error:
            return error.problem
        return ''
