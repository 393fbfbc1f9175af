"""Detectors and segmenters of transformers: maps against a backward through the whole network."""

import json

import huggingface_networks as networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_networks import edge, enlarged, scaled
from PIL import Image

import vistool as vt
from vistool.data.derived import ResizeWithin

SIZE = (64, 96)
CLASSES = ('cat', 'dog', 'car', 'bus')


@pytest.fixture(scope='module')
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(7))


def naive_map(modules, output_of, number, cut):
    """HiResCAM at the outputs of modules, averaged; ``cut`` makes maps ``(1, C, h, w)`` of what they return."""
    kept = {}

    def keep(module, args, output):
        kept[module] = output[0] if isinstance(output, tuple) else output

    handles = [module.register_forward_hook(keep) for module in modules]
    with torch.enable_grad():
        output = output_of()
        gradients = torch.autograd.grad(number(output), [kept[module] for module in modules], allow_unused=True)
    for handle in handles:
        handle.remove()
    unit = []
    for module, gradient in zip(modules, gradients, strict=True):
        value = cut(kept[module].detach())
        gradient = torch.zeros_like(value) if gradient is None else cut(gradient)
        unit.append(enlarged(scaled((value * gradient)[0].sum(0).clamp_min(0).numpy().astype(np.float64)), SIZE))
    return scaled(sum(unit) / len(unit))


def as_map(start, stop, height, width):
    return lambda tokens: tokens[:, start:stop].transpose(1, 2).unflatten(2, (height, width))


DETECTORS = {
    'detr': (lambda net: [net.model.encoder.layers[-1]], as_map(0, None, 2, 3), True),
    'rt_detr': (lambda net: list(net.model.decoder_input_proj), lambda maps: maps, False),
    'yolos': (lambda net: [net.vit.encoder.layer[-1].layernorm_before], as_map(1, -6, 8, 12), True),
}


@pytest.mark.parametrize('name', DETECTORS)
def test_map_of_a_query_is_that_of_a_backward_through_the_whole_network(name, image):
    network = networks.built(getattr(networks, name))
    find, cut, softmax = DETECTORS[name]
    result = vt.CAM(instances=[0, 1], score_threshold=0.0, attribute=['class', 'right'])(
        vt.load(network, classes=CLASSES), image
    )
    with torch.no_grad():
        plain = network(pixel_values=image[None])
    shares = plain.logits[0].softmax(-1)[:, :-1] if softmax else plain.logits[0].sigmoid()
    ranking = (shares.amax(1) if softmax else shares.flatten()).argsort(descending=True)
    for item in result:
        place = int(ranking[item.coordinates['instance']])
        query, label = (place, int(shares[place].argmax())) if softmax else divmod(place, 4)

        attribute = item.coordinates.get('attribute', 'class')

        def number(output, query=query, label=label, attribute=attribute):
            logits = output.logits[0, query]
            score = (logits.softmax(-1) if softmax else logits.sigmoid())[label]
            x, y, w, h = output.pred_boxes[0, query]
            box = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * torch.tensor([96, 64, 96, 64])
            return edge(score, box, attribute)

        one = result.instance(item)
        assert one.id == label and one.score == pytest.approx(float(shares[query, label]), abs=1e-5)
        expected = naive_map(find(network), lambda: network(pixel_values=image[None]), number, cut)
        np.testing.assert_allclose(item.values, expected, atol=1e-5)


def test_segformer_is_explained_over_the_enlarged_prediction(image):
    network = networks.built(networks.segformer)
    result = vt.CAM('hirescam', targets='top2')(vt.load(network, classes=CLASSES), image)

    def logits_of():
        logits = network(pixel_values=image[None]).logits
        return F.interpolate(logits, SIZE, mode='bilinear', align_corners=False)[0]

    with torch.no_grad():
        predicted = logits_of().argmax(0)
    for item, target in zip(result, result.targets, strict=True):
        region = predicted == target.id
        expected = naive_map(
            [network.segformer.encoder.layer_norm[-1]], logits_of,
            lambda logits, index=target.id, where=region: logits[index][where].sum(), as_map(0, None, 2, 3),
        )  # fmt: skip
        np.testing.assert_allclose(item.values, expected, atol=1e-5)


def test_mask2former_is_explained_through_its_class_probabilities_times_masks(image):
    network = networks.built(networks.mask2former)
    result = vt.CAM('hirescam')(vt.load(network, classes=CLASSES), image)
    assert result.layers == ('model.pixel_level_module.decoder.mask_projection',)

    def scores_of():
        output = network(pixel_values=image[None])
        shares, masks = output.class_queries_logits[0].softmax(-1)[:, :-1], output.masks_queries_logits[0].sigmoid()
        scores = (shares[:, :, None, None] * masks[:, None]).sum(0)
        return F.interpolate(scores[None], SIZE, mode='bilinear', align_corners=False)[0]

    with torch.no_grad():
        region = scores_of().argmax(0) == result.targets[0].id
    expected = naive_map(
        [network.model.pixel_level_module.decoder.mask_projection], scores_of,
        lambda scores: scores[result.targets[0].id][region].sum(), lambda maps: maps,
    )  # fmt: skip
    np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-5)
    assert expected.max() > 0


def folder_of(network, processor, path):
    network.save_pretrained(path)
    settings = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'do_resize': True, 'resample': 2, **processor}
    (path / 'preprocessor_config.json').write_text(json.dumps(settings))
    return f'hf::{path}'


def test_a_folder_is_read_with_its_own_preprocessing_and_boxes_are_in_pixels_of_the_photo(tmp_path):
    from transformers import DetrImageProcessor

    size = {'shortest_edge': 64, 'longest_edge': 90}
    model = vt.load(folder_of(networks.built(networks.detr), {'size': size, 'do_normalize': True}, tmp_path))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 150, 3), np.uint8))
    photo.save(tmp_path / 'photo.png')
    sample = model.read(tmp_path / 'photo.png')
    given = model.batch([sample])
    processor = DetrImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    expected = processor(images=photo, return_tensors='pt')['pixel_values']
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)
    result = vt.CAM(instances='top1', score_threshold=0.0)(model, sample)
    with torch.no_grad():
        output = model.module(given)
    found = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(100, 150)])[0]
    best = found['boxes'][found['scores'].argmax()]
    assert result.instances[0].box == pytest.approx(best.tolist(), abs=1e-2)
    assert result.instances[0].name.startswith('LABEL_')


@pytest.mark.parametrize('size', [(100, 150), (150, 100), (64, 64), (30, 300), (333, 121)])
def test_sizes_are_those_of_transformers(size):
    from transformers.models.detr.image_processing_detr import get_resize_output_image_size

    blank = np.zeros((*size, 3), np.uint8)
    resized = ResizeWithin(shortest=64, longest=90)({'img': blank})['img']
    expected = get_resize_output_image_size(blank, 64, 90, input_data_format='channels_last')
    assert resized.shape[:2] == tuple(expected)
