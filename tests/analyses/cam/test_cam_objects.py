"""Detectors beside a dataset that knows the objects, and beside another detector."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_networks import CLASSES, TORCHVISION

import vistool as vt
from vistool.analyses.cam.instances import match
from vistool.data.truth import truth_of
from vistool.errors import InputError
from vistool.network.inputs import run_network
from vistool.results import Instance

SIZE = (48, 60)


def prediction(number, label, box, score=0.9):
    return Instance(number, CLASSES[label], label, score, box, box)


def known(*objects, ignored=()):
    every = [{'bbox': box, 'bbox_label': label, 'ignore_flag': 0} for label, box in objects]
    every += [{'bbox': box, 'bbox_label': 1, 'ignore_flag': 1} for box in ignored]
    return truth_of({'instances': every}, (100, 100))


A, B, C = (0, 0, 20, 20), (40, 40, 60, 60), (70, 0, 90, 20)


@pytest.mark.parametrize(
    ('found', 'truth', 'kinds', 'missed'),
    [
        ([(1, A)], known((1, A)), ['true positive'], []),
        ([(1, A), (1, A)], known((1, A)), ['true positive', 'false positive'], []),  # found twice
        ([(2, A)], known((1, A)), ['false positive'], [A]),  # of another class
        ([(1, (0, 0, 20, 10.1))], known((1, A)), ['true positive'], []),  # just more than half
        ([(1, (0, 0, 20, 9.9))], known((1, A)), ['false positive'], [A]),
        ([(1, A)], known((1, B), (2, C)), ['false positive'], [B, C]),
        ([(1, A), (1, B)], known((1, B), ignored=[(0, 0, 30, 30)]), ['', 'true positive'], []),  # on a crowd
        ([(1, A)], known(), ['false positive'], []),  # an image without objects
        ([(1, A)], None, [''], []),  # nobody knows
    ],
)
def test_predictions_are_matched_with_objects(found, truth, kinds, missed):
    predictions = [prediction(number, *each) for number, each in enumerate(found)]
    told, lost, objects = match(predictions, truth, CLASSES)
    assert [each.kind for each in told] == kinds
    assert [each.box for each in lost] == missed and all(each.kind == 'miss' for each in lost)
    assert sorted(objects) == [each.number for each in told if each.kind == 'true positive']


def test_the_surest_prediction_takes_the_object_it_covers_best():
    near, far = (1, 0, 21, 20), (3, 0, 23, 20)
    told, lost, _ = match([prediction(0, 1, far), prediction(1, 1, near)], known((1, A), (1, near)), CLASSES)
    assert [each.kind for each in told] == ['true positive', 'true positive'] and not lost
    assert told[0].iou == pytest.approx(18 / 22) and told[1].iou == pytest.approx(19 / 21)


@pytest.fixture(scope='module')
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(3))


def test_a_detector_beside_itself_gives_the_same_maps(image):
    model = vt.load(TORCHVISION['retinanet'](), classes=CLASSES)
    cam = vt.CAM('hirescam', instances=[1, 3], score_threshold=0.0)
    samples = [vt.Sample(image, np.zeros((*SIZE, 3), np.uint8))]
    (joined,) = cam.compare([model, model], [samples, samples], ['one', 'other'])
    own = joined.sel(model='one').to_array()
    np.testing.assert_array_equal(own, joined.sel(model='other').to_array())
    assert own.any() and [item.coordinates['instance'] for item in joined] == [1, 1, 3, 3]


def test_objects_that_another_detector_does_not_find_have_no_map_there(image, caplog):
    model = vt.load(TORCHVISION['retinanet'](), classes=CLASSES)
    first = vt.CAM('hirescam', instances=[0, 2], score_threshold=0.0)(model, [vt.Sample(image, _photo())])
    moved = replace(first[0].instances[0], box=(900.0, 900.0, 950.0, 950.0))
    changed = [replace(first[0], instances=(moved, *first[0].instances[1:]))]
    follower = vt.CAM('hirescam', instances=[0, 2], score_threshold=0.0).follow(changed, model)
    (second,) = follower(model, [vt.Sample(image, _photo())])
    assert [item.coordinates['instance'] for item in second] == [2]
    assert second.instance(second.maps[0]).box == pytest.approx(first[0].instances[2].box)
    assert f'predicts no {moved.name} where #0 is' in caplog.text
    lost = [replace(changed[0], instances=(moved,), maps=changed[0].maps[:1])]
    (nothing,) = replace(follower.follow(lost, model))(model, [vt.Sample(image, _photo())])
    assert not nothing.maps


def test_a_detector_is_not_compared_with_a_classifier(image):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    detector = vt.load(TORCHVISION['fcos'](), classes=CLASSES)
    results = vt.CAM('hirescam', instances='top1', score_threshold=0.0)(detector, [vt.Sample(image, _photo())])
    with pytest.raises(InputError, match='is not a detector, and the first model is one'):
        vt.CAM('hirescam').follow(results, vt.load(network))


def test_predictions_of_several_images_are_not_taken_for_a_video(image):
    class Few(torch.nn.Module):
        def forward(self, images):
            return [{'boxes': torch.zeros(2, 4), 'scores': torch.zeros(2)} for _ in images]

    assert len(run_network(Few(), torch.stack([image] * 8))) == 8


def _photo():
    return np.zeros((*SIZE, 3), np.uint8)
