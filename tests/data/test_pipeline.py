"""A config's pipeline on one file: the picture as the network saw it, the geometry, the seeds, the fallbacks."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms as T
from mmengine.config import Config
from PIL import Image
from torchvision.transforms import v2

from vistool.data.pipelines import Pipeline, build_pipeline, build_transforms
from vistool.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (61, 84, 3), dtype=np.uint8)
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
LOAD, PACK = {'type': 'LoadImageFromFile'}, {'type': 'PackInputs'}


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(RGB).save(tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


def config(*steps, scope='mmpretrain', **more):
    return Config({'default_scope': scope, 'test_dataloader': {'dataset': {'pipeline': list(steps)}}, **more})


def resized(image, size):
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


RESIZE = {'type': 'Resize', 'scale': (32, 48)}
SMALL = resized(RGB, (48, 32))
TO_PIL = {'type': 'NumpyToPIL', 'to_rgb': True}


class Divide:
    """A step of the user's own that brings bytes to 0-1."""

    def __call__(self, results):
        results['img'] = results['img'].astype(np.float32) / 255
        return results


@pytest.mark.parametrize('steps', [
    [LOAD, RESIZE, PACK],
    [{**LOAD, 'to_float32': True}, PACK],
    [{**LOAD, 'imdecode_backend': 'pillow'}, RESIZE, PACK],
    [LOAD, RESIZE, {'type': 'Normalize', 'mean': MEAN, 'std': STD, 'to_rgb': True}, PACK],
    [LOAD, RESIZE, {'type': 'Normalize', 'mean': MEAN[::-1], 'std': STD[::-1], 'to_rgb': False}, PACK],
    [LOAD, RESIZE, TO_PIL, {'type': 'torchvision/ToTensor'}, PACK],
    [LOAD, RESIZE, TO_PIL, {'type': 'torchvision/PILToTensor'}, PACK],
    [LOAD, RESIZE, TO_PIL, {'type': 'torchvision/ToTensor'},
     {'type': 'torchvision/Normalize', 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}, PACK],
    [LOAD, RESIZE, TO_PIL, {'type': 'torchvision/PILToTensor'},
     {'type': 'torchvision/ConvertImageDtype', 'dtype': 'float'}, PACK],
    [LOAD, RESIZE, TO_PIL, {'type': 'PILToNumpy', 'to_bgr': True}, PACK],
    [LOAD, RESIZE, {'type': 'NumpyToPIL'}, {'type': 'PILToNumpy', 'dtype': 'float32'}, PACK],
    [LOAD, RESIZE, TO_PIL, {'type': 'torchvision/ToTensor'}, {'type': 'torchvision/ToPILImage'}, PACK],
    [LOAD, RESIZE, Divide(), PACK],
    [LOAD, RESIZE, {'type': 'Transpose', 'keys': ['img'], 'order': [2, 0, 1]}, {'type': 'Collect', 'keys': ['img']}],
], ids=lambda steps: '-'.join(s['type'] if isinstance(s, dict) else 'Divide' for s in steps[1:-1]))  # fmt: skip
def test_the_image_is_recovered_exactly(steps, photo):
    built = build_transforms(steps, 'mmpretrain')
    sample = Pipeline(built).read(photo)
    np.testing.assert_array_equal(sample.image, SMALL if RESIZE in steps else RGB)
    np.testing.assert_array_equal(sample.original, RGB)
    assert sample.geometry.exact
    np.testing.assert_allclose(sample.geometry.crop()[2], [84, 61])


@pytest.mark.parametrize('transform', [
    T.Compose([T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]),
    T.ToTensor(), T.PILToTensor(),
    v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])]),
    v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=False)]),
], ids=['normalize', 'tensor', 'bytes', 'v2', 'v2 unscaled'])  # fmt: skip
def test_plain_torchvision_transforms(transform, photo):
    sample = Pipeline([transform], takes_images=True).read(photo)
    np.testing.assert_array_equal(sample.image, RGB)
    torch.testing.assert_close(torch.as_tensor(sample.data), torch.as_tensor(transform(Image.fromarray(RGB))))


def test_timm_transform(photo):
    import timm.data

    transform = timm.data.create_transform(32, crop_pct=0.9)
    sample = Pipeline([transform], takes_images=True).read(photo)
    expected = T.Compose(transform.transforms[:2])(Image.fromarray(RGB))
    np.testing.assert_array_equal(sample.image, np.array(expected))
    assert sample.geometry.exact


@pytest.mark.parametrize('swap', [False, True])
def test_padding_of_the_data_preprocessor_is_part_of_the_image(photo, swap):
    from mmpretrain.models import ClsDataPreprocessor

    module = ClsDataPreprocessor(mean=MEAN, std=STD, to_rgb=swap, pad_size_divisor=32, pad_value=0.5)
    pipeline = Pipeline(build_transforms([LOAD, PACK], 'mmpretrain'), module)
    sample = pipeline.read(photo)
    batch = module({'inputs': sample.data['inputs'][None]})['inputs'][0]
    shown = batch * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    shown = shown.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(sample.image, shown if swap else shown[..., ::-1])
    assert sample.geometry.network_size == (64, 96)
    expected = np.ones((64, 96), bool)
    expected[:61, :84] = False
    np.testing.assert_array_equal(sample.geometry.invalid, expected)


def test_configs_describe_their_data_preprocessor(photo):
    steps = (LOAD, {'type': 'ResizeEdge', 'scale': 50, 'edge': 'short'}, {'type': 'CenterCrop', 'crop_size': 48}, PACK)
    described = {'type': 'ClsDataPreprocessor', 'mean': MEAN, 'std': STD, 'to_rgb': True, 'pad_size_divisor': 32}
    for where in ({'data_preprocessor': described}, {'model': {'data_preprocessor': described}}):
        sample = build_pipeline(config(*steps, **where)).read(photo)
        edge = resized(RGB, (50, int(50 * 84 / 61)))
        top, left = (round((n - 48) / 2) for n in edge.shape[:2])
        np.testing.assert_array_equal(sample.image[:48, :48], edge[top : top + 48, left : left + 48])
        assert sample.image.shape == (64, 64, 3)
        np.testing.assert_array_equal(sample.image[50, 50], np.rint(MEAN).astype(int))  # a normalized 0 is the mean


def test_gray_loaders_and_gray_networks(photo):
    gray = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
    for steps in ([{**LOAD, 'color_type': 'grayscale'}, PACK], [{**LOAD, 'color_type': 'grayscale'}, RESIZE, PACK]):
        sample = build_pipeline(config(*steps)).read(photo)
        expected = gray if len(steps) == 2 else resized(gray, (48, 32))
        np.testing.assert_array_equal(sample.image, np.repeat(expected[..., None], 3, axis=2))
        assert sample.data['inputs'].shape[0] == 1


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('flag', ['color', 'color_ignore_orientation'])
def test_exif_orientation_and_loaders_that_ignore_it(tmp_path, orientation, flag):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'a.png'
    Image.fromarray(RGB).save(path, exif=exif)
    sample = build_pipeline(config({**LOAD, 'color_type': flag}, PACK)).read(path)
    h, w = sample.image.shape[:2]
    if flag == 'color_ignore_orientation':
        np.testing.assert_array_equal(sample.image, RGB)
    rows, columns = np.random.default_rng(1).integers(0, 60, (2, 50))
    x, y = sample.geometry.to_original(np.stack([columns + 0.5, rows + 0.5], axis=-1)).T
    inside = (rows < h) & (columns < w)
    seen = sample.original[np.floor(y).astype(int)[inside], np.floor(x).astype(int)[inside]]
    np.testing.assert_array_equal(seen, sample.image[rows[inside], columns[inside]])
    assert sample.original.shape[:2] == ((84, 61) if orientation > 4 else (61, 84))


def test_a_loader_that_keeps_raw_values(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (9, 13), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / 'a.png')
    steps = ({**LOAD, 'color_type': 'unchanged'}, {'type': 'Resize', 'scale': (13, 9)}, PACK)
    sample = build_pipeline(config(*steps)).read(tmp_path / 'a.png')
    np.testing.assert_array_equal(sample.data['inputs'][0].numpy(), values)
    np.testing.assert_array_equal(sample.image[..., 0], np.rint(values / 257))


class LoadMine:
    """A user's own loader, which gives BGR like mmcv's."""

    def __call__(self, results):
        results['img'] = cv2.imread(results['img_path'])
        return results


def test_a_custom_loader_is_called_as_it_is(photo):
    transforms = [LoadMine(), *build_transforms([RESIZE, PACK], 'mmpretrain')]
    for source in (photo, RGB):  # an array needs no loader
        sample = Pipeline(transforms).read(source)
        np.testing.assert_array_equal(sample.image, SMALL)
        assert sample.geometry.exact


@pytest.mark.parametrize('swap', [False, True])
def test_pipelines_without_a_loader_get_what_their_data_preprocessor_expects(photo, swap):
    """Datasets that hold arrays (CIFAR) have no loader; the network's channel 0 must be red either way."""
    described = {'type': 'ClsDataPreprocessor', 'mean': MEAN, 'std': STD, 'to_rgb': swap}
    sample = build_pipeline(config(PACK, model={'data_preprocessor': described})).read(photo)
    np.testing.assert_array_equal(sample.image, RGB)
    np.testing.assert_array_equal(sample.data['inputs'][2 if swap else 0].numpy(), RGB[..., 0])


def test_the_network_gets_the_same_tensor_as_from_openmmlab(photo):
    from mmengine.dataset import Compose

    steps = [LOAD, {'type': 'ResizeEdge', 'scale': 48, 'edge': 'short', 'backend': 'pillow'}, PACK]
    theirs = Compose(build_transforms(steps, 'mmpretrain'))({'img_path': str(photo)})
    sample = build_pipeline(config(*steps)).read(photo)
    assert torch.equal(sample.data['inputs'], theirs['inputs'])
    assert sample.data['data_samples'].img_path == str(photo)
    assert sample.data['data_samples'].ori_shape == (61, 84)


def test_every_kind_of_source_gives_the_same(photo):
    pipeline = build_pipeline(config(LOAD, RESIZE, PACK))
    samples = [pipeline.read(source) for source in (photo, str(photo), Image.open(photo), RGB)]
    for sample in samples:
        assert torch.equal(sample.data['inputs'], samples[0].data['inputs'])
        np.testing.assert_array_equal(sample.original, RGB)
    assert [sample.name for sample in samples] == ['photo', 'photo', 'image', 'image']
    assert samples[0].path == photo
    assert samples[3].path is None
    assert pipeline.read(photo, name='a/b').name == 'a/b'


def test_steps_that_need_a_datasets_labels_are_left_out(photo):
    class LoadAnnotations:
        def __call__(self, results):
            raise KeyError('instances')

    transforms = build_transforms([LOAD, LoadAnnotations(), RESIZE, PACK], 'mmpretrain')
    np.testing.assert_array_equal(Pipeline(transforms).read(photo).image, SMALL)


def test_what_a_dataset_knows_reaches_the_sample(photo):
    sample = build_pipeline(config(LOAD, RESIZE, PACK)).read(photo, index=7, info={'gt_label': 3})
    assert (sample.label, sample.index) == (3, 7)
    assert build_pipeline(config(LOAD, RESIZE, PACK)).read(photo).label is None


def random_crop(kind):
    """A crop of 480 pixels, padded where the image is smaller, then resized to 224."""
    if kind == 'torchvision':
        steps = [T.RandomCrop(480, pad_if_needed=True), T.Resize((224, 224)), T.ToTensor(), T.Normalize([0.5], [0.5])]
        return Pipeline([T.Compose(steps)], takes_images=True)
    crop = {'type': 'RandomCrop', 'crop_size': 480, 'pad_if_needed': True}
    return build_pipeline(config(LOAD, crop, {'type': 'Resize', 'scale': 224, 'backend': 'pillow'}, PACK))


@pytest.mark.parametrize('kind', ['torchvision', 'mmpretrain'])
@pytest.mark.parametrize('size', [(300, 451), (700, 900), (510, 300)])
def test_a_random_pipeline_is_repeated_by_its_seed(kind, size):
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), dtype=np.uint8)
    pipeline = random_crop(kind)
    one, two = pipeline.read(image, seed=298), pipeline.read(image, seed=298)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.geometry.matrix, two.geometry.matrix)
    others = [pipeline.read(image, seed=seed, index=index) for seed, index in ((299, 0), (298, 1), (300, 2))]
    assert any(not np.array_equal(one.image, other.image) for other in others)
    assert one.geometry.network_size == (224, 224)


@pytest.mark.parametrize('kind', ['torchvision', 'mmpretrain'])
def test_the_padding_of_a_random_pipeline_is_invalid(kind):
    image = np.full((300, 451, 3), 255, np.uint8)
    sample = random_crop(kind).read(image, seed=298)
    mask, white = sample.geometry.invalid, sample.image[..., 0] > 127
    assert 0 < mask.mean() < 1
    assert (mask == white).mean() < 0.01  # only where the border runs through a pixel
    assert sample.geometry.crop()[:, 1].min() < 0
    back, covered = sample.geometry.warp(sample.image.astype(np.float32))
    assert (back[covered] > 127).mean() > 0.99  # all but the pixels along the border


def test_global_random_states_are_left_as_they_are(photo):
    pipeline = build_pipeline(config(LOAD, {'type': 'RandomCrop', 'crop_size': 20}, {'type': 'ColorJitter'}, PACK))

    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    pipeline.read(photo, seed=5)
    with pytest.raises(InputError):
        build_pipeline(config(LOAD, {'type': 'RandomFlip', 'prob': 0.5}, lambda results: 1 / 0)).read(photo)
    assert draws() == first


def test_pipelines_hide_in_dataset_wrappers(photo):
    inner = {'type': 'ImageNet', 'pipeline': [LOAD, RESIZE, PACK]}
    for wrapped in ({'dataset': inner}, {'datasets': [inner, inner]}, {'dataset': {'dataset': inner}}):
        made = Config({'default_scope': 'mmpretrain', 'test_dataloader': {'dataset': wrapped}})
        np.testing.assert_array_equal(build_pipeline(made).read(photo).image, SMALL)


@pytest.mark.parametrize('keys', [
    {'val_dataloader': {'dataset': {'pipeline': [LOAD, RESIZE, PACK]}}},
    {'test_pipeline': [LOAD, RESIZE, PACK]},
    {'test_dataloader': None, 'val_dataloader': {'dataset': {'pipeline': [LOAD, RESIZE, PACK]}}},
])  # fmt: skip
def test_the_pipeline_is_looked_for(keys, photo):
    made = Config({'default_scope': 'mmcls', **keys})
    np.testing.assert_array_equal(build_pipeline(made).read(photo).image, SMALL)


@pytest.mark.parametrize('size,shape', [(None, (224, 224)), (32, (32, 32)), ((48, 32), (48, 32))])
def test_without_a_pipeline_the_models_input_size_is_used(photo, caplog, size, shape):
    with caplog.at_level(logging.WARNING, 'vistool'):
        backbone = {} if size is None else {'img_size': size}
        sample = build_pipeline(Config({'model': {'backbone': backbone}})).read(photo)
    assert 'no test pipeline' in caplog.text
    assert sample.image.shape[:2] == shape
    assert sample.geometry.exact
    assert sample.geometry.invalid is None
    middle = sample.geometry.to_original([[shape[1] / 2, shape[0] / 2]])[0]
    np.testing.assert_allclose(middle, [42, 30.5], atol=1)
    assert sample.data['inputs'].shape == (3, *shape)


def test_a_config_without_a_scope_uses_mmcv(photo):
    made = Config({'test_pipeline': [LOAD, RESIZE, {'type': 'ImageToTensor', 'keys': ['img']}]})
    np.testing.assert_array_equal(build_pipeline(made).read(photo).image, SMALL)


@pytest.mark.parametrize('normalized', [False, True])
def test_a_config_without_a_pipeline_says_what_the_network_gets(photo, caplog, normalized):
    settings = {'data_preprocessor': {'mean': [0.0] * 3, 'std': [255.0] * 3, 'to_rgb': True}} if normalized else {}
    build_pipeline(Config({'default_scope': 'mmpretrain', 'model': {'type': 'my.Net'}, **settings}))
    assert 'no test pipeline: images are resized and center-cropped to 224x224' in caplog.text
    assert ('the network gets values from 0 to 255, blue first' in caplog.text) is not normalized


def test_errors_name_the_step(photo, tmp_path):
    with pytest.raises(InputError, match='pipeline step Unheard cannot be built'):
        build_pipeline(config(LOAD, {'type': 'Unheard'}))
    with pytest.raises(InputError, match="PackInputs cannot be built.*; the config needs default_scope = 'mmpretrain'"):
        build_pipeline(Config({'test_pipeline': [LOAD, PACK]}))
    with pytest.raises(InputError, match=r'photo\.png: the transform RandomCrop failed'):
        build_pipeline(config(LOAD, TO_PIL, {'type': 'torchvision/RandomCrop', 'size': 500}, PACK)).read(photo)
    np.save(tmp_path / 'floats.npy', np.zeros((30, 40, 3), np.float32))
    pillow = {'type': 'ResizeEdge', 'scale': 8, 'backend': 'pillow', 'edge': 'short'}
    with pytest.raises(InputError, match="ResizeEdge failed.*uint8.*; .*backend='cv2'"):
        build_pipeline(config(LOAD, pillow, PACK)).read(tmp_path / 'floats.npy')
    with pytest.raises(InputError, match='no such file'):
        build_pipeline(config(LOAD, PACK)).read(tmp_path / 'none.png')
    with pytest.raises(InputError, match='discarded the image'):
        build_pipeline(config(LOAD, lambda results: None, PACK)).read(photo)
    with pytest.raises(InputError, match='not an image'):
        build_pipeline(config(LOAD, lambda results: {'img': 'lost'})).read(photo)


def test_each_step_can_be_observed(photo):
    seen = []
    steps = [LOAD, {'type': 'Compose', 'transforms': [RESIZE, {'type': 'RandomFlip', 'prob': 1.0}]}, PACK]
    build_pipeline(config(*steps)).read(photo, observe=lambda t, value: seen.append(type(t).__name__))
    assert seen == ['Resize', 'RandomFlip', 'PackInputs']


def test_unknown_data_preprocessors_are_measured(photo, caplog):
    class Mine(torch.nn.Module):
        device = torch.device('cpu')

        def forward(self, data, training=False):
            return {'inputs': torch.nn.functional.pad(data['inputs'].float(), (0, 4, 0, 3))}

    with caplog.at_level(logging.WARNING, 'vistool'):
        sample = Pipeline(build_transforms([LOAD, PACK], 'mmpretrain'), Mine()).read(photo)
    assert 'Mine is not a known data preprocessor' in caplog.text
    assert sample.geometry.network_size == (64, 88)
    np.testing.assert_array_equal(sample.image[:61, :84], RGB)
    assert sample.geometry.invalid.sum() == 64 * 88 - 61 * 84


def test_several_views_show_the_first_without_geometry(photo, caplog):
    step = {'type': 'MultiView', 'num_views': 2, 'transforms': [[RESIZE]]}
    with caplog.at_level(logging.WARNING, 'vistool'):
        sample = build_pipeline(config(LOAD, step, PACK)).read(photo)
    np.testing.assert_array_equal(sample.image, SMALL)
    assert sample.geometry.exact is False
    assert 'several images' in caplog.text


def test_demo_photo_end_to_end():
    path = Path(__file__).parents[2] / 'demo' / 'coffee.png'
    edge, center = {'type': 'ResizeEdge', 'scale': 256, 'edge': 'short'}, {'type': 'CenterCrop', 'crop_size': 224}
    steps = (LOAD, edge, center, PACK)
    sample = build_pipeline(config(*steps)).read(path)
    back, covered = sample.geometry.warp(sample.image.astype(np.float32))
    assert covered.mean() == pytest.approx((350 * 350) / (400 * 600), abs=0.01)
    assert np.abs(back - sample.original)[covered].mean() < 12
