"""Views of features: similarity to the point, principal components, and the channels that are strongest there."""

from __future__ import annotations

from typing import Any, ClassVar

from vistool.analyses.featmap import FeatureMaps
from vistool.analyses.featmap.pca import Basis, learn_basis
from vistool.analyses.featmap.reductions import find_cell, top_channels
from vistool.errors import InputError
from vistool.explore.seen import Answer, Seen, point_text, position_of
from vistool.explore.view import Drawing, View
from vistool.network.features import Feature
from vistool.results import Heatmaps


class _FeatureView:
    """What views of features share.

    Attributes:
        least: Channels that a layer needs.
    """

    least: ClassVar[int] = 1

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def offer(self) -> dict[str, Any]:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        found = self.seen.forward.features
        layers = [
            {'name': each.name, 'grid': list(each.maps.shape[2:]), 'channels': each.maps.shape[1]} for each in found
        ]
        if not found or all(each.maps.shape[1] < self.least for each in found):
            why = self.seen.forward.no_features or 'no layer has three channels'
            return {'available': False, 'why': why, 'layers': [], 'layer': 0}
        return {'available': True, 'layers': layers, 'layer': self.seen.forward.last}

    def feature(self, view: View) -> Feature:
        """What the layer gave that a view asks for.

        Raises:
            InputError: There is none.
        """
        found = self.seen.forward.features
        if not found:
            raise InputError(self.seen.forward.no_features, parameter='view')
        return found[position_of(view.layer, found, self.seen.forward.last)]

    def drawn(self, analysis: FeatureMaps, feature: Feature) -> Heatmaps:
        """The maps of the photo at one layer."""
        return analysis.drawn(self.seen.model, [self.seen.sample], [feature])[0]


class SimilarityView(_FeatureView):
    """The cosine of every position to the point."""

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        if point is None:
            raise InputError('similarity needs a point', accepted='x and y in pixels of the picture', parameter='x')
        feature = self.feature(view)
        analysis = FeatureMaps((feature.name,), similar_to=(point,))
        drawing = Drawing('vis_featmap', {'layers': [feature.name], 'similar_to': [point_text(point)]})
        return self.seen.answered(self.drawn(analysis, feature), drawing, view)


class PCAView(_FeatureView):
    """The first three principal components as colors."""

    least = 3

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen)
        self._bases: dict[str, Basis] = {}

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        feature = self.feature(view)
        if feature.name not in self._bases:
            self._bases[feature.name] = learn_basis(self.seen.model, [[feature]], False)
        analysis = FeatureMaps((feature.name,), 'pca', basis=self._bases[feature.name])
        drawing = Drawing('vis_featmap', {'layers': [feature.name], 'reduction': ['pca']})
        key = 'pca', feature.name
        return self.seen.answered(self.seen.kept(key, lambda: self.drawn(analysis, feature)), drawing, view)


class ChannelsView(_FeatureView):
    """Channels: those that are named, or the strongest at the point."""

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        feature = self.feature(view)
        maps = feature.maps[0]
        count = min(view.count, len(maps))
        channels = list(view.channels)
        parameters = {'layers': [feature.name]}
        if not channels and point is None:
            analysis = FeatureMaps((feature.name,), topk=count)
            return self.seen.answered(
                self.drawn(analysis, feature), Drawing('vis_featmap', {**parameters, 'topk': [str(count)]}), view
            )
        if not channels and point is not None:
            row, column = find_cell(point, self.seen.sample, (maps.shape[1], maps.shape[2]))
            channels = top_channels(maps[:, row : row + 1, column : column + 1], count, 'mean')
        drawing = Drawing('vis_featmap', {**parameters, 'channels': [str(channel) for channel in channels]})
        return self.seen.answered(self.drawn(FeatureMaps((feature.name,), channels=channels), feature), drawing, view)
