"""Segmenters: the map of a class is that of the sum of its scores over its predicted region."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_networks import CLASSES, fcn, naive_maps
from PIL import Image

import vistool as vt
from vistool.errors import InputError

SIZE = (48, 64)


@pytest.fixture(scope='module')
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def model():
    return vt.load(fcn(), classes=CLASSES)


def logits_of(network, image):
    return network(image[None])['out'][0]


def oracle(network, image, number):
    layer = [(network.backbone, 'out')]
    return naive_maps(network, lambda: logits_of(network, image), layer, [number], SIZE, SIZE, SIZE)[0]


def test_a_class_is_explained_over_its_predicted_region(model, image):
    with torch.no_grad():
        predicted = logits_of(model.module, image).argmax(0)
    present = [name for index, name in enumerate(CLASSES) if bool((predicted == index).any())]
    assert len(present) > 1
    result = vt.CAM('hirescam', targets=present)(model, image)
    for item, name in zip(result, present, strict=True):
        index = CLASSES.index(name)
        region = predicted == index
        expected = oracle(model.module, image, lambda logits, i=index, where=region: logits[i][where].sum())
        np.testing.assert_allclose(item.values, expected, atol=1e-5)
        np.testing.assert_array_equal(result.instance(item).mask, region.numpy())
        assert item.coordinates['target'] == name


def test_by_default_the_largest_region_that_is_not_background_is_explained(model, image):
    with torch.no_grad():
        predicted = logits_of(model.module, image).argmax(0)
    areas = torch.bincount(predicted.flatten(), minlength=4)
    result = vt.CAM()(model, image)
    assert result.targets[0].id == int(areas[1:].argmax()) + 1
    ranked = vt.CAM(targets='top4')(model, image)
    assert len(ranked.maps) == int((areas > 0).sum())


def test_a_point_explains_one_pixel(model, image):
    result = vt.CAM('hirescam', point=(20, 7))(model, image)
    with torch.no_grad():
        index = int(logits_of(model.module, image)[:, 7, 20].argmax())
    expected = oracle(model.module, image, lambda logits: logits[index, 7, 20])
    np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-5)
    assert result.targets[0].id == index


def test_a_mask_is_a_region_of_the_users_own(model, image, tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[10:20, 30:50] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    for given in (mask, str(tmp_path / 'mask.png')):
        result = vt.CAM('hirescam', targets='square', region=given)(model, image)
        expected = oracle(model.module, image, lambda logits: logits[2, 10:20, 30:50].sum())
        np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-5)


def test_a_mask_in_a_jpeg_file_is_read_as_other_masks_are(model, image, tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[8:24, 24:48] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.jpg', quality=60)  # which rings around the edges
    sharp, blurred = (
        vt.CAM('hirescam', targets='square', region=given)(model, image) for given in (mask, str(tmp_path / 'mask.jpg'))
    )
    np.testing.assert_array_equal(sharp.maps[0].values, blurred.maps[0].values)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'point': (64, 3)}, 'point: 64,3 is outside what the network sees; accepted: a point of the image (64×48)'),
        ({'point': (float('nan'), 3)}, 'point: nan,3 is outside what the network sees'),
        ({'point': (3, float('inf'))}, 'point: 3,inf is outside what the network sees'),
        ({'point': (1, 2, 3)}, 'point: (1, 2, 3) is not a point'),
        ({'region': np.zeros((3, 3))}, 'region: the picture is 3×3; accepted: 64×48, as the image'),
        ({'region': np.zeros(SIZE)}, 'region: no nonzero pixel is in what the network sees'),
        ({'point': (1, 2), 'region': np.ones(SIZE)}, 'region: cannot be combined with point'),
        ({'targets': 'zebra'}, "targets: no class 'zebra'"),
    ],
)
def test_what_cannot_be_explained_is_said(options, message, model, image):
    with pytest.raises(InputError) as caught:
        vt.CAM(**options)(model, image)
    assert str(caught.value).startswith(message)


def test_a_class_that_is_predicted_nowhere_is_an_error_that_lists_those_that_are(model, image):
    model.module.classifier[-1].bias.data[3] = -1e4
    with pytest.raises(InputError, match='triangle is not predicted anywhere here; accepted: '):
        vt.CAM(targets='triangle')(model, image)


def test_maps_of_queries_are_read_as_class_scores():
    """MaskFormer's semantic inference, by loops."""
    from vistool.network.segmentation import Segmenter, find_segmenter

    rng = torch.Generator().manual_seed(0)
    classes, masks = torch.randn(1, 3, 5, generator=rng), torch.randn(1, 3, 4, 4, generator=rng)
    output = {'class_queries_logits': classes, 'masks_queries_logits': masks}
    found = Segmenter(torch.nn.Identity(), '', 'transformers').logits(output, (8, 8))
    naive = torch.zeros(4, 4, 4)
    for query in range(3):
        for index in range(4):
            naive[index] += classes[0, query].softmax(0)[index] * masks[0, query].sigmoid()
    expected = F.interpolate(naive[None], (8, 8), mode='bilinear', align_corners=False)
    torch.testing.assert_close(found, expected)
    assert find_segmenter(torch.nn.Identity()) is None
