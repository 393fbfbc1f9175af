"""Planted faults of annotations are found and named; clean data raise no alarm, random crops included."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from annotated_dataset import write_scenes
from fake_dataset import Mixing
from mmcv.transforms import RandomFlip
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from test_annotations import ANNOTATIONS, LOAD, STEPS, Plain, samples_of
from test_recording import build
from torchvision.transforms import v2

from vistool.data.annotation_checks import static_faults
from vistool.data.annotations import Annotation, Annotations, ObjectMask
from vistool.data.coco_files import CocoFile
from vistool.data.recording import Samples


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    return folder, write_scenes(folder, 6, seed=5)


@TRANSFORMS.register_module(force=True)
class ForgetfulFlip(RandomFlip):
    """mmcv's flip without its boxes, its label map, or its keypoints."""

    def __init__(self, forgets, **kwargs):
        super().__init__(1.0, **kwargs)
        self.forgets = forgets

    def _flip_on_direction(self, results):
        kept = {key: results[key] for key in self.forgets}
        super()._flip_on_direction(results)
        results.update(kept)


@TRANSFORMS.register_module(force=True)
class OwnStep:
    """A transform that vistool has no rule for."""

    def __init__(self, what):
        self.what = what

    def __call__(self, results):
        image, boxes = results['img'], results['gt_bboxes'].copy()
        if self.what == 'mirror the picture':
            image = image[:, ::-1].copy()
        elif self.what == 'enlarge the picture':
            image = image.repeat(2, axis=0).repeat(2, axis=1)
        elif self.what == 'cut the picture':
            image = image[20:, 30:].copy()
        elif self.what == 'move the boxes':
            boxes += 15
        elif self.what == 'shrink the boxes':
            boxes[:, 2:] = boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) / 3
        elif self.what == 'mirror both':
            image = image[:, ::-1].copy()
            boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
        elif self.what == 'drop all but the last':
            results['gt_bboxes_labels'], boxes = results['gt_bboxes_labels'][-1:], boxes[-1:]
        elif self.what == 'exchange objects':
            results['gt_bboxes_labels'], boxes = results['gt_bboxes_labels'][::-1], boxes[::-1]
        return {**results, 'img': image, 'gt_bboxes': boxes}


POINTS = {**ANNOTATIONS, 'with_keypoints': True}


def kinds(record):
    return {(fault.kind, fault.step) for fault in record.faults}


@pytest.mark.parametrize(
    'forgets, word', [('gt_bboxes', 'box'), ('gt_seg_map', 'label map'), ('gt_keypoints', 'keypoints')]
)
@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_what_a_flip_forgets_is_found(scenes, forgets, word, direction):
    steps = [LOAD, POINTS, {'type': 'Resize', 'scale': (240, 180)}, {'type': 'ForgetfulFlip', 'forgets': [forgets]}]
    steps[-1]['direction'] = direction
    for index in range(3):
        record = samples_of(scenes[0], steps).read(index)
        assert kinds(record) == {('does not follow', 'ForgetfulFlip')}
        assert word in record.faults[0].text and 'not follow the image' in record.faults[0].text


@pytest.mark.parametrize('detail', ['steps', 'ends'])
def test_a_flip_that_forgets_nothing_raises_no_alarm(scenes, detail):
    steps = [LOAD, POINTS, {'type': 'ForgetfulFlip', 'forgets': []}]
    assert all(samples_of(scenes[0], steps).read(index, detail=detail).faults == () for index in range(6))


@pytest.mark.parametrize(
    'what',
    ['mirror the picture', 'enlarge the picture', 'cut the picture', 'move the boxes', 'shrink the boxes'],
)
def test_boxes_that_an_unknown_transform_leaves_behind_are_found(scenes, what):
    record = samples_of(scenes[0], [LOAD, ANNOTATIONS, {'type': 'OwnStep', 'what': what}]).read(3)
    assert ('does not follow', 'OwnStep') in kinds(record)


@pytest.mark.parametrize('what', ['mirror both', 'drop all but the last', 'exchange objects', 'nothing'])
def test_unknown_transforms_that_are_right_raise_no_alarm(scenes, what):
    loaded = {'type': 'mmcv.LoadAnnotations', 'with_bbox': True}
    for index in range(6):
        assert samples_of(scenes[0], [LOAD, loaded, {'type': 'OwnStep', 'what': what}]).read(index).faults == ()


@pytest.mark.parametrize('name', STEPS)
def test_clean_pipelines_of_mmcv_raise_no_alarm(scenes, name):
    samples = samples_of(scenes[0], [LOAD, POINTS, *STEPS[name]])
    assert [samples.read(index, repeat).faults for index in range(6) for repeat in range(3)] == [()] * 18


CROPS = [
    v2.ToImage(),
    v2.RandomHorizontalFlip(0.5),
    v2.RandomZoomOut(p=0.5),
    v2.RandomIoUCrop(),
    v2.RandomResizedCrop((96, 128), antialias=True),
    v2.RandomAffine(10, scale=(0.8, 1.2)),
    v2.RandomRotation(15),
    v2.ClampBoundingBoxes(),
    v2.SanitizeBoundingBoxes(min_size=2),
]


def test_random_crops_and_turns_of_torchvision_raise_no_alarm(scenes):
    samples = Samples(Plain(scenes[1], v2.Compose(CROPS)))
    found = [samples.read(index, repeat).faults for index in range(6) for repeat in range(2)]
    assert found == [()] * 12


def flip_without_boxes(image, target):
    return v2.functional.horizontal_flip(image), target


def test_a_joint_function_that_forgets_the_target_is_found(scenes):
    record = Samples(Plain(scenes[1], v2.Compose([v2.ToImage(), flip_without_boxes]))).read(2)
    assert ('does not follow', 'flip_without_boxes') in kinds(record)


def test_boxes_that_are_cropped_away_and_kept_are_found_at_the_end(scenes):
    """Without SanitizeBoundingBoxes empty boxes reach the network."""
    samples = Samples(Plain(scenes[1], v2.Compose([v2.ToImage(), v2.CenterCrop((12, 12))])))
    found = {fault.kind for index in range(6) for fault in samples.read(index).faults}
    assert 'no area' in found and 'does not follow' not in found


FAULTS = {
    'not finite': {'bbox': [10, float('nan'), 40, 30]},
    'swapped corners': {'bbox': [60, 20, 30, 50]},
    'no area': {'bbox': [30, 20, 30, 50]},
    'outside': {'bbox': [170, 20, 190, 50]},
    'beyond the image': {'bbox': [140, 20, 175, 50]},
    'label': {'bbox_label': 4},
    'keypoint outside': {'keypoints': [300, 20, 2, 5, 5, 2, 0, 0, 0]},
}


@pytest.mark.parametrize('kind', FAULTS)
@pytest.mark.parametrize('index', [0, 4])
def test_planted_faults_are_named(scenes, kind, index):
    points = {**ANNOTATIONS, 'with_keypoints': kind == 'keypoint outside'}
    steps = [LOAD, points, {'type': 'mmcv.RandomFlip', 'prob': 1.0}]
    record = samples_of(scenes[0], steps, changes={index: {0: FAULTS[kind]}}).read(index)
    assert kinds(record) == {(kind, '')}
    assert record.faults[0].text.startswith('object 0: ')
    assert samples_of(scenes[0], steps, changes={index: {0: FAULTS[kind]}}).read(1).faults == ()


def test_an_object_that_is_there_twice_is_named(scenes):
    count = len(scenes[1][2].boxes)
    record = samples_of(scenes[0], [LOAD, ANNOTATIONS], changes={2: {count: {}}}).read(2)
    assert kinds(record) == {('duplicate', '')} and f'objects 0 and {count}' in record.faults[0].text


BOX = np.array([10.0, 20, 50, 40])


def mask(left=10, top=20, right=50, bottom=40, size=(60, 80)):
    inside = np.zeros(size, bool)
    inside[top:bottom, left:right] = True
    return ObjectMask.of(inside)


@pytest.mark.parametrize(
    'kind, each',
    [
        ('mask of another size', Annotation(BOX, mask=mask(size=(60, 90)))),
        ('empty mask', Annotation(BOX, mask=mask(right=10))),
        ('mask and box', Annotation(BOX, mask=mask(left=30, right=70))),
        ('mask and box', Annotation(BOX, mask=mask(right=20))),
        ('swapped corners', Annotation(BOX[[2, 1, 0, 3]], mask=mask())),
    ],
)
def test_masks_that_do_not_fit_are_named(kind, each):
    assert {fault.kind for fault in static_faults(Annotations((60, 80), (each,)))} == {kind}


def test_a_mask_that_is_there_twice_is_named():
    twice = Annotations((60, 80), (Annotation(None, mask=mask(), label=1), Annotation(None, mask=mask(), label=1)))
    assert {fault.kind for fault in static_faults(twice)} == {'duplicate'}
    other = Annotations((60, 80), (Annotation(None, mask=mask(), label=1), Annotation(None, mask=mask(), label=2)))
    assert not list(static_faults(other))


def test_masks_that_fit_raise_no_alarm():
    clipped = Annotation(np.array([-20.0, 20, 30, 40]), mask=mask(left=0, right=30))
    loose = Annotation(np.array([9.0, 18, 52, 41]), mask=mask())
    far = Annotation(BOX, mask=mask(), ignored=True, label=-1)
    assert static_faults(Annotations((60, 80), (loose, far)), 3) == []
    assert static_faults(Annotations((60, 80), (clipped,)), 3, loaded=False) == []


@pytest.mark.parametrize(
    'values, kind',
    [
        (np.full((60, 80), 7), 'label'),
        (np.full((60, 80), 255), 'empty label map'),
        (np.ones((30, 80)), 'label map of another size'),
    ],
)
def test_label_maps_that_do_not_fit_are_named(values, kind):
    found = static_faults(Annotations((60, 80), label_map=values.astype(np.int64)), 5)
    assert [fault.kind for fault in found] == [kind]


def test_annotations_that_cannot_be_read_are_named(scenes):
    class Broken(Plain):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return v2.functional.to_image(image), {**target, 'boxes': torch.zeros(2, 3, 4, 5), 'masks': 5}

    (fault,) = Samples(Broken(scenes[1])).read(0).faults
    assert fault.kind == 'unreadable'


def test_objects_of_a_coco_file_that_a_dataset_drops_are_named(tmp_path):
    """MMDetection's CocoDataset keeps only the first of these, and says nothing."""
    boxes = {1: [10, 20, 40, 20], 2: [10, 20, 0, 20], 3: [90, 20, 40, 20], 4: [10, 20, -5, 20], 5: [10, 25, 40, 20]}
    listed = [{'id': k, 'image_id': 7, 'bbox': box, 'category_id': 1 + 8 * (k == 5)} for k, box in boxes.items()]
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({'images': [], 'annotations': listed, 'categories': [{'id': 1, 'name': 'cat'}]}))
    file = CocoFile.of(SimpleNamespace(ann_file=str(path)))
    info = {'img_id': 7, 'height': 60, 'width': 80, 'instances': [{'bbox': [10, 20, 50, 40], 'bbox_label': 0}]}
    faults = file.left_out(info, 'CocoDataset')
    assert [fault.kind for fault in faults] == ['no area', 'outside', 'swapped corners', 'label']
    assert 'annotation 5, which CocoDataset leaves out: category 9' in faults[-1].text
    clean = {**info, 'instances': [{'bbox': [x, y, x + w, y + h]} for x, y, w, h in boxes.values()]}
    assert file.left_out(clean, 'CocoDataset') == () and file.left_out({**info, 'img_id': 8}, 'CocoDataset') == ()


@pytest.mark.parametrize('text', ['', '{', '[]', '{"annotations": 3}', '{"annotations": [{}], "categories": []}'])
def test_files_of_another_form_are_left_alone(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    assert CocoFile.of(SimpleNamespace(ann_file=str(tmp_path / 'a.json'))) is None
    assert CocoFile.of(SimpleNamespace(ann_file=str(tmp_path / 'b.json'))) is None
    assert CocoFile.of(SimpleNamespace()) is None


class SideBySide:
    """The simplest mosaic."""

    def get_indices(self, dataset):
        return [(len(dataset) - 1)]

    def __call__(self, results):
        (other,) = results['mix_results']
        moved = other['gt_bboxes'] + [results['img'].shape[1], 0] * 2
        results['img'] = np.concatenate([results['img'], other['img']], axis=1)
        results['gt_bboxes'] = np.concatenate([results['gt_bboxes'], moved.astype(np.float32)])
        results['gt_bboxes_labels'] = np.concatenate([results['gt_bboxes_labels'], other['gt_bboxes_labels']])
        return results


@pytest.mark.parametrize('detail', ['original', 'ends', 'steps'])
@pytest.mark.parametrize('forgets', [[], ['gt_bboxes']])
def test_mixed_images_have_the_boxes_of_all_and_are_checked_from_there_on(scenes, detail, forgets):
    loaded = {'type': 'mmcv.LoadAnnotations', 'with_bbox': True}
    base = samples_of(scenes[0], []).dataset
    base.pipeline = Compose(build([LOAD, loaded]))
    samples = Samples(Mixing(base, [SideBySide(), ForgetfulFlip(forgets)]))
    record = samples.read(0, detail=detail)
    counts = [len(scenes[1][k].boxes) for k in (0, 5)]
    assert len(record.images[0].annotations.objects) == counts[0]
    assert len(record.images[-1].annotations.objects) == sum(counts)
    if detail == 'steps':
        assert [image.step for image in record.images] == ['original', 'SideBySide', 'ForgetfulFlip']
    assert kinds(record) == ({('does not follow', 'ForgetfulFlip')} if forgets else set())


def _set(key, *place_and_value):
    *place, value = place_and_value

    def change(target):
        target[key][tuple(place)] = value

    return change


def _again(target):
    for key in ('boxes', 'labels', 'masks', 'keypoints'):
        target[key] = torch.cat([target[key], target[key][:1]])


def _wider_masks(target):
    target['masks'] = torch.nn.functional.pad(target['masks'], (0, 7))


PLANTED = {
    'not finite': _set('boxes', 0, 1, float('nan')),
    'swapped corners': lambda target: target['boxes'].copy_(target['boxes'][:, [2, 1, 0, 3]]),
    'no area': lambda target: target['boxes'][0, 3:].copy_(target['boxes'][0, 1:2]),
    'outside': lambda target: target['boxes'][0].add_(torch.tensor([200.0, 0, 200, 0])),
    'beyond the image': _set('boxes', 0, 2, 163.0),
    'label': _set('labels', 0, 9),
    'duplicate': _again,
    'mask of another size': _wider_masks,
    'empty mask': _set('masks', 0, 0),
    'mask and box': lambda target: target['masks'][0].copy_(target['masks'][0].roll(20, 1)),
    'keypoint outside': _set('keypoints', 0, 0, 0, 190.0),
}


class Planted(Plain):
    """Each fault in a sample of its own; the last samples are clean."""

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        target = {key: torch.as_tensor(value.numpy().copy()) for key, value in target.items()}
        centers = (target['boxes'][:, :2] + target['boxes'][:, 2:]) / 2
        target['keypoints'] = torch.cat([centers, torch.full((len(centers), 1), 2.0)], dim=1)[:, None]
        if index < len(PLANTED):
            list(PLANTED.values())[index](target)
        return image, target


def test_each_of_eleven_planted_faults_is_found_and_nothing_else(tmp_path):
    samples = Samples(Planted(write_scenes(tmp_path / 'scenes', len(PLANTED) + 9, seed=11)))
    found = [{fault.kind for fault in samples.read(index).faults} for index in range(len(samples))]
    also = {'beyond the image': {'mask and box'}}  # an edge that is moved leaves its mask
    for kind, kinds_found in zip(PLANTED, found, strict=False):
        assert kind in kinds_found and kinds_found <= {kind} | also.get(kind, set())
    assert found[len(PLANTED) :] == [set()] * 9
