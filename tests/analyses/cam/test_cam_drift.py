"""Feature drift: a map is compared with what masking the input finds."""

import math

import numpy as np
import pytest
import torch
from dense_networks import CLASSES, TORCHVISION

import vistool as vt
from vistool.analyses.cam.drift import compare, measure_losses
from vistool.errors import InputError
from vistool.results import Heatmap, Heatmaps
from vistool.visualization.facets import facets

BOX = (30.0, 30.0, 60.0, 60.0)


def ring(size=(90, 90)):
    """An object that shows itself at its border only."""
    shown = torch.zeros(1, *size)
    shown[:, 30:60, 30:60] = 1
    shown[:, 40:50, 40:50] = 0
    return shown


def seen(copies):
    """A detector that is as sure as much of the ring is left."""
    whole = ring()
    return ((copies - copies.mean()).clamp_min(0) * whole).sum((1, 2, 3)) / whole.sum()


def note_of(values):
    drift = compare(values.astype(np.float32), BOX, measure_losses(ring(), BOX, seen, 8))
    item = Heatmap(values.astype(np.float32), {'method': 'hirescam'}, metrics=vars(drift))
    (tile,) = facets(Heatmaps('cam', np.zeros((90, 90, 3), np.uint8), (item,))).tiles
    return tile.note, drift


def test_a_map_at_the_center_of_an_object_that_is_seen_at_its_border_is_flagged():
    planted = np.zeros((90, 90))
    planted[41:49, 41:49] = 1
    note, drift = note_of(planted)
    assert note == "drift: evidence lies at the object's center cell, not on it"
    assert drift.agreement < 0.1 and drift.map_center == pytest.approx(1)


def test_a_map_where_masking_finds_the_evidence_is_not_flagged():
    note, drift = note_of(ring()[0].numpy())
    assert note == '' and drift.agreement > 0.9 and drift.masked_center < 0.05


def test_a_map_elsewhere_is_flagged_as_such():
    beside = np.zeros((90, 90))
    beside[62:69, 30:60] = 1
    assert note_of(beside)[0] == 'drift: masking the input finds the evidence elsewhere'


@pytest.mark.parametrize(('background', 'outside', 'flagged'), [(0.1, 0.0, False), (0.1, 1.0, True), (0.0, 1.0, True)])
def test_what_is_strong_outside_the_masked_cells_counts_and_a_faint_background_does_not(background, outside, flagged):
    values = np.maximum(ring()[0].numpy() * (0.15 if outside else 1.0), background)
    values[0:30, 0:15] = max(outside, background)
    note, drift = note_of(values)
    assert (note == 'drift: masking the input finds the evidence elsewhere') is flagged
    inside = values[20:70, 20:70]
    losses = measure_losses(ring(), BOX, seen, 8)
    own = inside.reshape(5, 10, 5, 10).sum((1, 3)) / (inside.sum() + (450 if outside else 0))
    assert drift.agreement == pytest.approx(np.minimum(own, losses / losses.sum()).sum(), abs=1e-6)


def test_what_masking_does_not_change_is_not_judged():
    losses = measure_losses(ring(), BOX, lambda copies: torch.ones(len(copies)), 8)
    assert not losses.any()
    assert math.isnan(compare(np.ones((90, 90), np.float32), BOX, losses).agreement)


def test_a_cell_is_masked_with_the_mean_color_and_all_cells_are():
    copies = []
    measure_losses(ring(), BOX, lambda batch: copies.extend(batch) or torch.zeros(len(batch)), 7)
    assert len(copies) == 26
    changed = torch.stack([(copy != ring()).any(0) | (copy == ring().mean()).any(0) for copy in copies[1:]])
    np.testing.assert_array_equal(changed.sum(0)[20:70, 20:70], 1)
    assert not changed[:, :20].any() and not changed[:, 70:].any()


def test_each_map_of_a_detector_says_how_far_it_agrees():
    image = torch.rand(3, 48, 60, generator=torch.Generator().manual_seed(3))
    model = vt.load(TORCHVISION['retinanet'](), classes=CLASSES)
    result = vt.CAM(['hirescam', 'gradcam'], instances='top1', score_threshold=0.0, verify=True)(model, image)
    for item in result:
        assert {'agreement', 'map_center', 'masked_center'} <= item.metrics.keys()
        assert math.isnan(item.metrics['agreement']) or 0 <= item.metrics['agreement'] <= 1


def test_segmenters_are_not_verified():
    from dense_networks import fcn

    with pytest.raises(InputError, match='verify: is for detectors'):
        vt.CAM(verify=True)(vt.load(fcn(), classes=CLASSES), torch.rand(3, 48, 64))
