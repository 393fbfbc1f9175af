"""What one forward of a photo gives, kept: every view of it without another forward."""

from __future__ import annotations

from typing import Any

import numpy as np

from vistool.data.samples import Sample
from vistool.explore.answers import affine, finite_or_none
from vistool.explore.forward import graph_tensors, storage_bytes
from vistool.explore.seen import Answer, Seen, ViewKind
from vistool.explore.view import View
from vistool.explore.view_attention import AttentionView
from vistool.explore.view_cam import CAMView
from vistool.explore.view_features import ChannelsView, PCAView, SimilarityView
from vistool.explore.view_patches import PatchesView
from vistool.models.model import Model
from vistool.results import Instance


class Reading:
    """One photo as one model sees it, with all its views. Call all methods from the worker's thread.

    Attributes:
        seen: What the views share.
    """

    def __init__(self, model: Model, sample: Sample, layers: tuple[str, ...] = ()) -> None:
        self.seen = seen = Seen(model, sample, layers)
        self._cam = CAMView(seen)
        self._views: dict[str, ViewKind] = {
            'attention': AttentionView(seen),
            'similarity': SimilarityView(seen),
            'pca': PCAView(seen),
            'cam': self._cam,
            'features': ChannelsView(seen),
            'patches': PatchesView(seen),
        }
        self._counted: tuple[tuple[Any, ...], int] = (), 0

    @property
    def nbytes(self) -> int:
        """Memory that it holds, weights of the network aside."""
        sample = self.seen.sample
        held = sample.image.nbytes + (0 if sample.original is None else sample.original.nbytes)
        if not self.seen.has_run:
            return held
        key = tuple(self._cam.recorded)
        if key != self._counted[0] or not self._counted[1]:
            self._counted = key, self._kept_bytes()
        for result in self.seen.results.values():
            held += sum(item.values.nbytes + (0 if item.signed is None else item.signed.nbytes) for item in result.maps)
        return held + self._counted[1]

    def _kept_bytes(self) -> int:
        """Bytes of what the forwards keep, without the weights."""
        kept = self.seen.forward.tensors()
        for recorded in self._cam.recorded.values():
            kept += graph_tensors(recorded)
        weights = {each.untyped_storage().data_ptr() for each in self.seen.model.module.parameters()}
        return storage_bytes(kept, weights)

    def describe(self) -> dict[str, Any]:
        """What a page is told of the photo: its size, scores, objects, and which views there are."""
        read, sample = self.seen.forward, self.seen.sample
        height, width = self.seen.size
        return {
            'picture': 'original' if self.seen.on_original else 'network',
            'width': width,
            'height': height,
            'input': self._input(),
            'scores': read.scores(self.seen.model),
            'score_kind': 'value' if read.readout is not None and read.readout.is_value else 'probability',
            'label': sample.label,
            'instances': [self._instance(one) for one in read.instances],
            'views': {kind: shown.offer() for kind, shown in self._views.items()},
        }

    def answer(self, view: View) -> Answer:
        """The maps of a view.

        Raises:
            InputError: The view is not available, or a parameter is not accepted.
        """
        point = None if view.point is None else self.seen.on_photo(view.point)
        return self._views[view.kind].answer(view, point)

    def _input(self) -> dict[str, Any]:
        height, width = self.seen.sample.image.shape[:2]
        geometry = self.seen.sample.geometry if self.seen.on_original else None
        matrix = np.eye(3) if geometry is None else geometry.matrix
        corners = [[0, 0], [width, 0], [width, height], [0, height]]
        outline = corners if geometry is None else geometry.crop().tolist()
        return {'width': width, 'height': height, 'matrix': affine(matrix), 'outline': outline}

    def _instance(self, one: Instance) -> dict[str, Any]:
        box = one.box if self.seen.on_original else one.seen
        shown = {'number': one.number, 'name': one.name, 'id': one.id, 'score': finite_or_none(one.score)}
        return {**shown, 'box': None if box is None else [float(each) for each in box]}
