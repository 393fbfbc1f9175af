"""Each picture of the pipeline is the array that a plain loop over the transforms gives, under the same seed."""

import copy
import random

import numpy as np
import pytest
import torch
from fake_dataset import photo, write_photos
from mmengine import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from vistool.analyses.dataset import BrowseDataset
from vistool.data.recording import Samples
from vistool.data.transforms import applied
from vistool.errors import InputError

LOAD, PACK = {'type': 'LoadImageFromFile'}, {'type': 'PackInputs'}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    return folder, write_photos(folder, 4)


def samples_of(folder, pipeline, seed=0, **dataset):
    described = {'type': 'FakeDataset', 'folder': str(folder), 'pipeline': pipeline, **dataset}
    return Samples.of(Config({'default_scope': 'mmpretrain', 'train_dataloader': {'dataset': described}}), seed=seed)


def sow(seed, index):
    """The documented seeding, written out again."""
    words = np.random.SeedSequence([seed, index, 0]).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def build(steps):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [TRANSFORMS.build(step) for step in copy.deepcopy(steps)]


def rgb(results):
    return results['img'][..., ::-1].copy()


def plain_loop(path, steps, seed, index):
    """A picture after every step that leaves one."""
    transforms, results, pictures = build(steps), {'img_path': str(path), 'gt_label': 0}, []
    sow(seed, index)
    for transform in transforms:
        results = transform(results)
        if 'img' in results:
            pictures.append(rgb(results))
    return pictures, results


PIPELINES = {
    'imagenet': [
        {'type': 'RandomResizedCrop', 'scale': 64},
        {'type': 'RandomFlip', 'prob': 0.5},
        {'type': 'ColorJitter', 'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'hue': 0.1},
        {
            'type': 'Lighting',
            'eigval': [55.4, 4.8, 1.1],
            'eigvec': [[-0.6, 0.7, 0.4], [-0.6, 0, -0.8], [-0.6, -0.7, 0.4]],
        },
        {'type': 'RandomErasing', 'erase_prob': 0.7, 'mode': 'rand'},
    ],
    'cifar': [{'type': 'RandomCrop', 'crop_size': 100, 'padding': 4}, {'type': 'RandomFlip', 'prob': 0.5}],
    'test': [{'type': 'ResizeEdge', 'scale': 72, 'edge': 'short'}, {'type': 'CenterCrop', 'crop_size': 64}],
    'policy operations': [
        {'type': 'Rotate', 'magnitude_range': (0, 30), 'magnitude_std': 'inf', 'prob': 0.6},
        {'type': 'Posterize', 'bits': 4, 'prob': 0.5},
        {'type': 'Shear', 'magnitude': 0.2, 'prob': 0.5},
        {'type': 'GaussianBlur', 'magnitude_range': (0.1, 2.0), 'magnitude_std': 'inf', 'prob': 0.5},
        {'type': 'Cutout', 'shape': 20, 'prob': 0.5},
        {'type': 'RandomGrayscale', 'prob': 0.5, 'keep_channels': True},
    ],
}


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('seed, index', [(0, 0), (0, 3), (7, 1)])
def test_every_step_is_what_a_plain_loop_gives(photos, name, seed, index):
    folder, paths = photos
    steps = [LOAD, *PIPELINES[name], PACK]
    record = samples_of(folder, steps, seed).read(index)
    expected, results = plain_loop(paths[index], steps, seed, index)
    assert [image.step for image in record.images] == ['original', *[step['type'] for step in PIPELINES[name]]]
    for image, picture in zip(record.images, expected, strict=True):
        np.testing.assert_array_equal(image.pixels, picture, err_msg=image.step)
    np.testing.assert_array_equal(record.data['inputs'].numpy(), results['inputs'].numpy())


def test_normalized_images_are_shown_as_they_were(photos):
    folder, _ = photos
    normalize = {'type': 'Normalize', 'mean': [120.0, 110.0, 100.0], 'std': [60.0, 50.0, 55.0], 'to_rgb': True}
    record = samples_of(folder, [LOAD, normalize, PACK]).read(0)
    assert [image.step for image in record.images] == ['original', 'Normalize']
    np.testing.assert_array_equal(record.images[1].pixels, record.original)
    ends = samples_of(folder, [LOAD, normalize, PACK]).read(0, detail='ends')
    np.testing.assert_array_equal(ends.images[-1].pixels, ends.original)


def test_random_apply_shows_what_ran_or_that_nothing_did(photos):
    folder, paths = photos
    jitter = {'type': 'ColorJitter', 'brightness': 0.4}
    steps = [LOAD, {'type': 'RandomApply', 'prob': 0.5, 'transforms': [jitter]}, PACK]
    samples, ran = samples_of(folder, steps), 0
    for repeat in range(12):
        record = samples.read(1, repeat)
        expected, _ = plain_loop(paths[1], steps, repeat, 1)
        applied = not np.array_equal(expected[0], expected[1])
        assert [image.step for image in record.images] == ['original', 'ColorJitter' if applied else 'nothing']
        assert record.images[1].within == 'RandomApply'
        np.testing.assert_array_equal(record.images[-1].pixels, expected[1])
        ran += applied
    assert 0 < ran < 12


def test_each_view_is_followed(photos):
    folder, paths = photos
    first = [{'type': 'RandomResizedCrop', 'scale': 48}, {'type': 'RandomFlip', 'prob': 0.5}]
    second = [{'type': 'RandomResizedCrop', 'scale': 32}, {'type': 'Solarize', 'thr': 128, 'prob': 0.5}]
    steps = [LOAD, {'type': 'MultiView', 'num_views': [2, 1], 'transforms': [first, second]}, PACK]
    record = samples_of(folder, steps).read(2)
    loader, branches = build([LOAD])[0], [build(first), build(second)]
    sow(0, 2)
    results = loader({'img_path': str(paths[2])})
    expected = [('original', None, rgb(results))]
    for view, transforms in enumerate([branches[0], branches[0], branches[1]]):
        branch = copy.deepcopy(results)
        for transform in transforms:
            branch = transform(branch)
            expected.append((type(transform).__name__, view, rgb(branch)))
    assert [(image.step, image.view) for image in record.images] == [each[:2] for each in expected]
    for image, (_, _, picture) in zip(record.images, expected, strict=True):
        np.testing.assert_array_equal(image.pixels, picture)


@pytest.mark.parametrize('policy', [{'type': 'AutoAugment', 'policies': 'imagenet'}, 'timm_increasing'])
def test_policies_show_the_operations_that_ran(photos, policy):
    folder, paths = photos
    if isinstance(policy, str):
        policy = {'type': 'RandAugment', 'policies': policy, 'num_policies': 2, 'total_level': 10, 'magnitude_level': 9}
    steps = [LOAD, policy, PACK]
    samples, shown = samples_of(folder, steps), set()
    for repeat in range(10):
        record = samples.read(0, repeat)
        expected, _ = plain_loop(paths[0], steps, repeat, 0)
        np.testing.assert_array_equal(record.images[-1].pixels, expected[-1])
        assert len(record.images) <= 3 and all(image.parameters != ('not applied',) for image in record.images)
        shown |= {image.step for image in record.images}
    assert len(shown) > 4


def columns_of(row):
    """The steps of a row, those that a container drew with its name."""
    return [tuple(tile.coordinates[key] for key in ('within', 'step') if key in tile.coordinates) for tile in row]


def test_what_a_container_draws_keeps_its_columns_over_samples_and_draws(photos):
    """Two policies in a row, an optional step between them: a column is one step of the pipeline, whatever is drawn."""
    folder, _ = photos
    flips = [{'type': 'RandomFlip', 'prob': prob} for prob in (0.0, 0.5)]
    policy = {'type': 'RandAugment', 'policies': [{'type': 'Rotate', 'angle': 5}, {'type': 'Invert'}],
              'num_policies': 2, 'total_level': 10, 'magnitude_level': 5}  # fmt: skip
    policy['policies'] = [{**each, 'prob': 0.5} for each in policy['policies']]
    maybe = {'type': 'RandomApply', 'transforms': [{'type': 'Solarize', 'thr': 9}], 'prob': 0.5}
    steps = [LOAD, policy, maybe, policy, flips[0], PACK]
    grid = BrowseDataset(mode='pipeline', repeats=4, sheet=(3, 1))(samples_of(folder, steps), range(3))
    rows = [columns_of(row) for row in grid.rows]
    assert len(rows) == 12 and len({len(row) for row in rows}) == 1
    for column in zip(*rows, strict=True):
        assert len({step[0] for step in column}) == 1  # the step, or the container
    seen = {step for row in rows for step in row}
    assert {('RandAugment', 'nothing'), ('RandAugment', 'Invert'), ('RandomApply', 'nothing')} <= seen
    for row, names in zip(grid.rows, rows, strict=True):
        for before, tile, name in zip(row[:-1], row[1:], names[1:], strict=True):
            if name[-1] == 'nothing':
                assert not tile.parameters
                np.testing.assert_array_equal(before.pixels, tile.pixels)


def test_views_with_other_steps_keep_their_own_columns(photos):
    folder, _ = photos
    policy = {
        'type': 'RandomChoice',
        'transforms': [[{'type': 'Solarize', 'thr': 9}], [{'type': 'Invert', 'prob': 1.0}] * 2],
    }
    views = {'type': 'MultiView', 'num_views': [1, 1], 'transforms': [[policy], [{'type': 'Solarize', 'thr': 9}]]}
    grid = BrowseDataset(mode='pipeline', repeats=6)(samples_of(folder, [LOAD, views, PACK]), [0])
    rows = [columns_of(row) for row in grid.rows]
    assert {len(row) for row in rows[0::2]} == {3} and {len(row) for row in rows[1::2]} == {2}
    assert {row[1] for row in rows[0::2]} == {('RandomChoice', 'Solarize'), ('RandomChoice', 'Invert')}
    assert {row[1] for row in rows[1::2]} == {('Solarize',)}


def test_albumentations_and_torchvision_in_the_pipeline(photos):
    folder, paths = photos
    steps = [
        LOAD,
        {'type': 'torchvision/RandomAffine', 'degrees': 20},
        {'type': 'torchvision/ColorJitter', 'brightness': 0.5},
        PACK,
    ]
    steps[1:1] = [{'type': 'NumpyToPIL', 'to_rgb': True}]
    steps[-1:] = [{'type': 'PILToNumpy', 'to_bgr': True}, PACK]
    record = samples_of(folder, steps).read(0)
    assert [image.step for image in record.images] == ['original', 'RandomAffine', 'ColorJitter']
    assert record.images[1].parameters[0].startswith('angle') and 'brightness' in record.images[2].parameters[0]
    results = {'img_path': str(paths[0]), 'gt_label': 0}
    sow(0, 0)
    for transform in build(steps[:-1]):
        results = transform(results)
    np.testing.assert_array_equal(record.images[-1].pixels, rgb(results))
    albumentations = {'type': 'Albumentations', 'transforms': [{'type': 'HorizontalFlip', 'p': 1.0}]}
    record = samples_of(folder, [LOAD, albumentations, PACK]).read(0)
    assert record.images[1].parameters == ('HorizontalFlip',)
    np.testing.assert_array_equal(record.images[1].pixels, record.original[:, ::-1])


def test_masks_are_drawn(photos):
    folder, _ = photos
    steps = [
        LOAD,
        {'type': 'RandomResizedCrop', 'scale': 192},
        {
            'type': 'SimMIMMaskGenerator',
            'input_size': 192,
            'mask_patch_size': 32,
            'model_patch_size': 4,
            'mask_ratio': 0.6,
        },
        PACK,
    ]
    record = samples_of(folder, steps).read(0)
    before, masked = record.images[-2].pixels, record.images[-1].pixels
    hidden = (before != masked).any(-1)
    cells = hidden.reshape(6, 32, 6, 32).mean((1, 3))
    assert ((cells > 0.9) | (cells == 0)).all() and (cells > 0.9).sum() == 22  # ceil(36 * 0.6)


def test_arrays_in_memory_and_the_channel_order(photos):
    folder, _ = photos
    steps = [{'type': 'RandomFlip', 'prob': 0.0}, PACK]
    record = samples_of(folder, steps, arrays=True).read(1)
    np.testing.assert_array_equal(record.original, photo(1, (32, 32)))
    described = {'type': 'FakeDataset', 'folder': str(folder), 'arrays': True, 'pipeline': steps}
    config = Config({'default_scope': 'mmpretrain', 'val_dataloader': {'dataset': described}})
    swapped = Samples.of(config, 'val', channel_order='BGR').read(1)
    np.testing.assert_array_equal(swapped.original, photo(1, (32, 32))[..., ::-1])


class Drop:
    """Throws away one photograph in two draws, and always the second."""

    def __call__(self, results):
        return None if results['img_path'].endswith('photo_1.jpg') else results


def test_a_refetched_sample_shows_its_own_original(photos):
    folder, paths = photos
    if 'Drop' not in TRANSFORMS.module_dict:
        TRANSFORMS.register_module(name='Drop', module=Drop)
    samples = samples_of(folder, [LOAD, {'type': 'Drop'}, {'type': 'RandomFlip', 'prob': 0.0}, PACK])
    assert samples.read(0).refetched is None
    record = samples.read(1)
    assert record.refetched in (0, 2, 3) and record.path == paths[record.refetched]
    np.testing.assert_array_equal(record.original, samples.read(record.refetched).original)
    assert record.label == record.refetched % 3


def test_reading_annotations_runs_no_pipeline(photos):
    folder, _ = photos
    if 'Explode' not in TRANSFORMS.module_dict:
        TRANSFORMS.register_module(name='Explode', module=Explode)
    samples = samples_of(folder, [{'type': 'Explode'}])
    assert [samples.label(index) for index in range(4)] == [0, 1, 2, 0]
    with pytest.raises(ValueError, match=r'photo_2\.jpg: the transform Explode failed: boom'):
        samples.read(2)


def test_the_strict_keys_of_albumentations_are_answered_with_the_version_that_works():
    """mmseg's ``Albu`` passes all entries of a sample, and albumentations 1.4 refuses those that it does not know."""

    def strict(results):
        raise ValueError('Key img_path is not in available keys.')

    with pytest.raises(InputError, match=r"strict failed: Key img_path is not.*pip install 'albumentations<1\.4'"):
        applied(strict, {})


class Explode:
    def __call__(self, results):
        raise RuntimeError('boom')


def test_global_random_states_stay(photos):
    folder, _ = photos
    samples = samples_of(folder, [LOAD, *PIPELINES['imagenet'], PACK])
    np.random.seed(5)
    expected = np.random.RandomState(5).rand()
    samples.read(0)
    assert np.random.rand() == expected


def test_only_the_loader_runs_for_originals(photos):
    folder, _ = photos
    if 'Explode' not in TRANSFORMS.module_dict:
        TRANSFORMS.register_module(name='Explode', module=Explode)
    record = samples_of(folder, [LOAD, {'type': 'Explode'}]).read(0, detail='original')
    assert [image.step for image in record.images] == ['original']
