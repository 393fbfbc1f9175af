"""Detectors: the map of a prediction is that of its own number, differentiated through the whole network."""

from dataclasses import replace

import dense_networks
import numpy as np
import pytest
import torch
from dense_networks import CLASSES, TORCHVISION, edge, naive_maps

import vistool as vt
from vistool.errors import InputError
from vistool.network.detection import Detections, find_detector, matching

SIZE = (48, 60)


@pytest.fixture(scope='module')
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(3))


def model_of(network):
    return vt.load(network, classes=CLASSES)


def oracle(network, image, layers, numbers, fuse='mean'):
    """The maps of several numbers of one forward through the whole network."""
    prepared = network.transform([image])[0]
    frame, valid = prepared.tensors.shape[-2:], prepared.image_sizes[0]
    return naive_maps(network, lambda: network([image])[0], layers, numbers, SIZE, frame, valid, fuse)


def number_of(index, attribute='class'):
    """What the oracle differentiates: of the prediction with this place among the scores."""

    def number(found):
        order = int(found['scores'].argsort(descending=True)[index])
        return edge(found['scores'][order], found['boxes'][order], attribute)

    return number


@pytest.mark.parametrize('name', TORCHVISION)
def test_map_of_a_prediction_is_that_of_a_backward_through_the_whole_network(name, image):
    network = TORCHVISION[name]()
    attributes = ['class', 'left', 'box']
    result = vt.CAM(instances=[0, 2], score_threshold=0.0, attribute=attributes)(model_of(network), image)
    levels = [layer.partition('[')[2].rstrip(']') for layer in result.layers]
    layers = [(network.backbone.fpn, level) for level in levels]
    expected = oracle(network, image, layers, [number_of(index, each) for index in (0, 2) for each in attributes])
    for item, wanted in zip(result, expected, strict=True):
        assert wanted.max() > 0 or 'attribute' in item.coordinates  # an edge on the image's border is cut off there
        np.testing.assert_allclose(item.values, wanted, atol=1e-5, err_msg=f'{item.coordinates}')


@pytest.mark.parametrize('keys', [(), ('fine',), ('fine', 'coarse')])
def test_a_backbone_without_pyramid_may_name_its_levels_as_it_likes(keys, image):
    network = dense_networks.without_pyramid(keys)
    result = vt.CAM(instances=[0, 1], score_threshold=0.0)(model_of(network), image)
    levels = [(network.backbone, key) for key in keys] or [(network.backbone, None)]
    for item, wanted in zip(result, oracle(network, image, levels, [number_of(0), number_of(1)]), strict=True):
        assert wanted.max() > 0
        np.testing.assert_allclose(item.values, wanted, atol=1e-5)
    assert result.layers == (('backbone',) if len(keys) < 2 else ('backbone[0]', 'backbone[1]'))


def test_layers_are_fused_or_stand_alone(image):
    network = TORCHVISION['faster_rcnn']()
    cam = vt.CAM(layers=['backbone.stages[1]', 'backbone.fpn[0]'], instances=[1], score_threshold=0.0)
    layers = [(network.backbone.stages[1], None), (network.backbone.fpn, '0')]
    fused = replace(cam, layer_fusion='max')(model_of(network), image)
    (expected,) = oracle(network, image, layers, [number_of(1)], 'max')
    np.testing.assert_allclose(fused.maps[0].values, expected, atol=1e-5)
    apart = replace(cam, layer_fusion='none')(model_of(network), image)
    for item, layer in zip(apart, layers, strict=True):
        np.testing.assert_allclose(item.values, oracle(network, image, [layer], [number_of(1)])[0], atol=1e-5)


def test_a_prediction_of_another_level_has_no_map_and_that_is_said(image, caplog):
    network = TORCHVISION['retinanet']()
    result = vt.CAM(layers='backbone.fpn[3]', instances='top3', score_threshold=0.0)(model_of(network), image)
    assert not result.to_array().any()
    assert 'a score does not depend on backbone.fpn[3]: it comes from another level' in caplog.text


def test_images_of_a_batch_keep_their_own_predictions(image):
    model = model_of(TORCHVISION['fcos']())
    other = image.flip(-1).sqrt()
    cam = vt.CAM(instances='top2', score_threshold=0.0)
    together = cam(model, torch.stack([image, other]))
    for one, alone in zip(together, (cam(model, image), cam(model, other)), strict=True):
        np.testing.assert_allclose(one.to_array(), alone.to_array(), atol=1e-4)
        assert one.instances[0].box == pytest.approx(alone.instances[0].box, abs=1e-2)


def test_classes_boxes_and_numbers_choose_predictions(image):
    model = model_of(TORCHVISION['retinanet']())
    every = vt.CAM(instances='all', score_threshold=0.0)(model, image)
    assert len(every.maps) == len(every.instances) > 5
    name = every.instances[3].name
    own = vt.CAM(instances='all', score_threshold=0.0, targets=[name])(model, image)
    assert {own.instance(item).name for item in own} == {name}
    assert [t.name for t in own.targets] == [f'#{i.number} {i.name}' for i in every.instances if i.name == name]
    near = [edge + 0.3 for edge in every.instances[4].box]
    boxed = vt.CAM(score_threshold=0.0, box=near)(model, image)
    assert [item.coordinates['instance'] for item in boxed] == [4]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'instances': 'best'},
            "instances: 'best' is not the number of a prediction; accepted: topN or all alone, or numbers and ranges",
        ),
        ({'instances': [900]}, 'instances: no prediction 900; accepted: 0 ('),
        ({'score_threshold': 2.0}, 'score_threshold: 2 is not a score'),
        ({'score_threshold': 0.999}, 'score_threshold: RetinaNet predicts nothing with a score of at least 0.999'),
        ({'box': (5, 5, 2, 9)}, 'box: 5,5,2,9 is not a box'),
        ({'box': (900, 900, 950, 950), 'score_threshold': 0.0}, 'box: no prediction overlaps this box'),
        ({'attribute': 'width'}, "attribute: unknown attribute 'width'; accepted: class, left"),
        ({'targets': 'zebra', 'score_threshold': 0.0}, "targets: no class 'zebra'"),
    ],
)
def test_what_cannot_be_explained_is_said(options, message, image):
    with pytest.raises(InputError) as caught:
        vt.CAM(**options)(model_of(TORCHVISION['retinanet']()), image)
    assert str(caught.value).startswith(message)


def test_options_of_detectors_are_refused_for_classifiers():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(InputError, match='is neither a detector nor a segmenter'):
        vt.CAM(box=(0, 0, 4, 4))(network, torch.rand(3, 8, 8))


def test_a_prediction_without_graph_and_without_equal_raw_output_is_an_error():
    found = Detections([torch.tensor([0.5])], [torch.tensor([1])], [torch.tensor([[0.0, 0.0, 4.0, 4.0]])])
    with pytest.raises(InputError, match='cannot be traced back'):
        found.pullbacks([(0, 0)], 'class')


def test_a_prediction_is_matched_by_its_score_and_its_box():
    scores = torch.tensor([0.5, 0.7, 0.5, 0.5])
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5], [8, 8, 12, 12], [20, 20, 24, 24]])
    assert matching(scores, boxes, torch.tensor(0.5), torch.tensor([8.0, 8, 12, 12.001])) == 2
    assert matching(scores, boxes, torch.tensor(0.5), torch.tensor([1.0, 1, 5, 5])) is None
    assert matching(scores, boxes, torch.tensor(0.6), torch.tensor([1.0, 1, 5, 5])) is None


def test_a_head_whose_norms_average_over_the_level_is_evaluated_as_a_whole(image):
    """FCOS normalizes by groups, so no window gives a prediction's value; RetinaNet's head here is local."""
    for name, local in (('fcos', False), ('retinanet', True)):
        network = TORCHVISION[name]()
        detector = find_detector(network)
        with torch.no_grad(), detector.watching():
            output = network([image])
        found = detector.read(output, 1, SIZE)
        with torch.enable_grad():
            ((_, gradient),) = found.pullbacks([(0, 0)], 'class')[0]
        assert (bool(gradient[0].any(0).all())) is not local


def test_masks_of_predictions_are_kept(image):
    result = vt.CAM(score_threshold=0.0, instances='top1')(model_of(dense_networks.mask_rcnn()), image)
    assert all(each.mask.shape == SIZE for each in result.instances)
