"""The boxes, masks and label maps after every step are those that a plain loop over the transforms gives."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from annotated_dataset import write_scenes
from mmengine import Config
from PIL import Image
from test_recording import build, sow
from torchvision import tv_tensors
from torchvision.transforms import v2

from vistool.data.annotation_trail import Trail
from vistool.data.annotations import annotations_of
from vistool.data.datasets import skeleton_of
from vistool.data.recording import Samples

LOAD = {'type': 'LoadImageFromFile'}
ANNOTATIONS = {'type': 'mmcv.LoadAnnotations', 'with_bbox': True, 'with_label': True, 'with_seg': True}
STEPS = {
    'resize and flip': [{'type': 'Resize', 'scale': (200, 170)}, {'type': 'mmcv.RandomFlip', 'prob': 1.0}],
    'crop': [{'type': 'mmcv.CenterCrop', 'crop_size': (100, 90)}, {'type': 'Pad', 'size': (120, 120)}],
    'random': [
        {'type': 'RandomResize', 'scale': (160, 128), 'ratio_range': (0.5, 2.0), 'keep_ratio': True},
        {'type': 'mmcv.RandomFlip', 'prob': [0.4, 0.3, 0.2], 'direction': ['horizontal', 'vertical', 'diagonal']},
    ],
}


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    return folder, write_scenes(folder)


def samples_of(folder, steps, seed=0, **dataset):
    described = {'type': 'WrittenScenes', 'folder': str(folder), 'pipeline': steps, **dataset}
    return Samples.of(Config({'default_scope': 'mmpretrain', 'train_dataloader': {'dataset': described}}), seed=seed)


def boxes_in(image):
    return np.array([each.box for each in image.annotations.objects])


@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('index', [0, 2])
def test_annotations_after_each_step_are_those_of_a_plain_loop(scenes, name, index):
    folder, _ = scenes
    steps = [LOAD, ANNOTATIONS, *STEPS[name]]
    samples = samples_of(folder, steps, seed=3)
    record = samples.read(index)
    results, expected = samples.info(index), []
    sow(3, index)
    for transform in build(steps):
        results = transform(results)
        if 'gt_bboxes' in results:
            expected.append((results['gt_bboxes'].copy(), results['gt_seg_map'].copy()))
    assert [image.step for image in record.images] == [
        'original', *(step['type'].removeprefix('mmcv.') for step in STEPS[name])
    ]  # fmt: skip
    for image, (boxes, label_map) in zip(record.images, expected, strict=True):
        np.testing.assert_array_equal(boxes_in(image), boxes.astype(np.float64))
        np.testing.assert_array_equal(image.annotations.label_map, label_map)
        assert image.annotations.size == image.pixels.shape[:2]
    assert record.faults == ()


@pytest.mark.parametrize('detail', ['original', 'ends'])
def test_the_loaded_image_has_its_annotations_in_every_mode(scenes, detail):
    folder, written = scenes
    record = samples_of(folder, [LOAD, {'type': 'mmcv.RandomFlip', 'prob': 1.0}, ANNOTATIONS]).read(1, detail=detail)
    np.testing.assert_array_equal(boxes_in(record.images[0]), written[1].boxes)
    np.testing.assert_array_equal(record.images[0].annotations.label_map, written[1].mask)


@pytest.mark.parametrize('loader', [[ANNOTATIONS], []], ids=['loaded last', 'never loaded'])
def test_annotations_of_the_original_are_moved_to_the_picture(scenes, loader):
    """mmdet's and mmseg's test pipelines load them after the resize, in pixels of the original."""
    folder, written = scenes
    steps = [LOAD, {'type': 'Resize', 'scale': (320, 384)}, {'type': 'mmcv.RandomFlip', 'prob': 1.0}, *loader]
    record = samples_of(folder, steps).read(0)
    scaled = written[0].boxes * [2, 3, 2, 3]
    mirrored = np.stack([320 - scaled[:, 2], scaled[:, 1], 320 - scaled[:, 0], scaled[:, 3]], axis=1)
    np.testing.assert_array_equal(boxes_in(record.images[0]), written[0].boxes)
    np.testing.assert_allclose(boxes_in(record.images[-1]), mirrored)
    if loader:
        enlarged = written[0].mask.repeat(3, axis=0).repeat(2, axis=1)[:, ::-1]
        np.testing.assert_array_equal(record.images[-1].annotations.label_map, enlarged)
    assert record.faults == ()


class Plain(torch.utils.data.Dataset):
    """The form of torchvision's detection tutorial."""

    classes = ('background', 'circle', 'square', 'triangle')

    def __init__(self, scenes, transforms=None):
        self.scenes, self.transforms = scenes, transforms

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        each = self.scenes[index]
        image, masks = Image.fromarray(each.image), [each.mask * 0 for _ in each.boxes]
        for mask, (left, top, right, bottom) in zip(masks, each.boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = each.mask[top:bottom, left:right] > 0
        target = {
            'boxes': tv_tensors.BoundingBoxes(each.boxes, format='XYXY', canvas_size=each.mask.shape),
            'labels': torch.tensor(each.labels),
            'masks': tv_tensors.Mask(np.stack(masks).astype(np.uint8)),
        }
        return (image, target) if self.transforms is None else self.transforms(image, target)


def test_joint_transforms_of_torchvision_are_followed_step_by_step(scenes):
    _, written = scenes
    steps = [v2.ToImage(), v2.RandomHorizontalFlip(1.0), v2.Resize((64, 100)), v2.RandomCrop((60, 60))]
    record = Samples(Plain(written, v2.Compose(steps))).read(2)
    assert [image.step for image in record.images] == ['original', 'RandomHorizontalFlip', 'Resize', 'RandomCrop']
    sow(0, 2)
    image, target = steps[0](*Plain(written)[2])
    for step, shown in zip(steps[1:], record.images[1:], strict=True):
        image, target = step(image, target)
        np.testing.assert_array_equal(boxes_in(shown), target['boxes'].double().numpy())
        for each, mask in zip(shown.annotations.objects, target['masks'].numpy(), strict=True):
            assert each.mask.inside.sum() == (mask > 0).sum()
        np.testing.assert_array_equal(shown.pixels, np.asarray(v2.functional.to_pil_image(image)))
    assert record.label == tuple(sorted(set(written[2].labels.tolist())))
    assert type(record.data) is tuple


def reference_flip(image, target):
    """A transform of torchvision's references: a function of both, without tv_tensors."""
    width = image.width
    boxes = torch.as_tensor(target['boxes']).clone()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), {'boxes': boxes, 'labels': target['labels']}


def test_joint_transforms_of_a_users_own_are_followed(scenes):
    _, written = scenes
    record = Samples(Plain(written, reference_flip)).read(0)
    assert [image.step for image in record.images] == ['original', 'reference_flip']
    boxes = written[0].boxes
    np.testing.assert_allclose(boxes_in(record.images[1])[:, [0, 2]], 160 - boxes[:, [2, 0]])
    assert record.faults == ()


def test_a_dataset_without_transforms_shows_what_it_returns(scenes):
    _, written = scenes
    record = Samples(Plain(written)).read(1)
    np.testing.assert_array_equal(boxes_in(record.images[-1]), written[1].boxes)


class RotatedBoxes:
    """As mmrotate's: center, width, height, angle in radians."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)


BOX = [10.0, 20.0, 50.0, 40.0]
MASK = np.zeros((60, 80), np.uint8)
MASK[20:40, 10:50] = 1
POLYGON = [10, 20, 50, 20, 50, 40, 10, 40]
INFO = {'bbox': [10, 20, 40, 20], 'category_id': 7, 'iscrowd': 1, 'segmentation': [POLYGON]}
VOC = {'name': 'cat', 'difficult': '1', 'bndbox': {'xmin': '10', 'ymin': '20', 'xmax': '50', 'ymax': '40'}}
TURNED = torch.tensor([[30.0, 30.0, 20.0, 40.0, np.pi / 2]])
PACKED = SimpleNamespace(bboxes=torch.tensor([BOX]), labels=torch.tensor([7]))
FORMS = {
    'arrays': {'gt_bboxes': np.array([BOX], np.float32), 'gt_bboxes_labels': np.array([7])},
    'mmdet': {
        'gt_bboxes': SimpleNamespace(tensor=torch.tensor([BOX]), __len__=lambda: 1),
        'gt_bboxes_labels': np.array([7]),
        'gt_masks': SimpleNamespace(masks=MASK[None], height=60, width=80),
    },
    'polygons': {'gt_masks': SimpleNamespace(masks=[[np.array(POLYGON, float)]], height=60, width=80)},
    'rotated': {'gt_bboxes': RotatedBoxes(TURNED), 'gt_bboxes_labels': np.array([7])},
    'width and height': (
        None,
        {'boxes': tv_tensors.BoundingBoxes([[10.0, 20, 40, 20]], format='XYWH', canvas_size=(60, 80))},
    ),
    'center': (None, {'boxes': tv_tensors.BoundingBoxes([[30.0, 30, 40, 20]], format='CXCYWH', canvas_size=(60, 80))}),
    'raw coco': (None, [INFO]),
    'raw voc': (None, {'annotation': {'object': [VOC]}}),
    'raw kitti': (None, [{'type': 'Car', 'bbox': BOX}]),
    'instances': {'instances': [{'bbox': BOX, 'bbox_label': 7, 'ignore_flag': 1, 'mask': [POLYGON]}]},
    'packed': {
        'data_samples': SimpleNamespace(
            gt_instances=SimpleNamespace(bboxes=torch.tensor([BOX]), labels=torch.tensor([7]))
        )
    },
    'packed, ignored': {'data_samples': SimpleNamespace(ignored_instances=SimpleNamespace(bboxes=torch.tensor([BOX])))},
    'mmpose': {'bbox': np.array([BOX]), 'keypoints': np.array([[[12, 22], [40, 30]]]), 'keypoints_visible': [[1, 0]]},
}
if hasattr(tv_tensors.BoundingBoxFormat, 'CXCYWHR'):  # since torchvision 0.23
    turned = tv_tensors.BoundingBoxes([[30.0, 30, 40, 20, 0]], format='CXCYWHR', canvas_size=(60, 80))
    FORMS['rotated degrees'] = None, {'boxes': turned}


@pytest.mark.parametrize('form', FORMS)
def test_annotations_are_read_in_every_form(form):
    value = FORMS[form]
    if isinstance(value, dict) and form == 'mmdet':
        value = {**value, 'gt_bboxes': RotatedBoxes(torch.tensor([BOX]))}  # any class with a tensor of four columns
    found = annotations_of(value, (60, 80))
    (each,) = found.objects
    np.testing.assert_allclose(each.extent, BOX, atol=1e-4)
    assert each.label in (None, 7, 'cat', 'Car')
    assert each.ignored == (form in ('instances', 'packed, ignored', 'raw voc')) and each.crowd == (form == 'raw coco')
    if each.mask is not None:
        np.testing.assert_array_equal(each.mask.box, BOX)
        assert each.mask.inside.all()
    if form == 'mmpose':
        np.testing.assert_array_equal(each.keypoints, [[12, 22, 2], [40, 30, 0]])
    assert (each.corners is not None) == form.startswith('rotated')


def test_what_mmpose_packs_are_the_originals_so_those_of_the_step_before_hold():
    trail = Trail()
    trail.take('TopdownAffine', {'keypoints': np.array([[[6.0, 11.0], [20.0, 15.0]]])}, (30, 40))
    packed = SimpleNamespace(
        gt_instances=SimpleNamespace(keypoints=np.array([[[12.0, 22.0], [40.0, 30.0]]])),
        gt_instance_labels=SimpleNamespace(keypoint_labels=torch.zeros(1, 2, 2)),
    )
    trail.take('PackPoseInputs', {'inputs': torch.zeros(3, 30, 40), 'data_samples': packed}, (30, 40))
    np.testing.assert_array_equal(trail.now.objects[0].keypoints[:, :2], [[6, 11], [20, 15]])


@pytest.mark.parametrize(
    'value',
    [
        (Image.new('RGB', (80, 60)), Image.fromarray(MASK)),
        (None, tv_tensors.Mask(MASK)),
        {'gt_seg_map': MASK},
        {'data_samples': SimpleNamespace(gt_sem_seg=SimpleNamespace(data=torch.tensor(MASK)[None]))},
    ],
)
def test_label_maps_are_read_in_every_form(value):
    np.testing.assert_array_equal(annotations_of(value, (60, 80)).label_map, MASK)


@pytest.mark.parametrize('value', [{'img': MASK}, (MASK, 3), MASK, {'gt_label': 1}, (MASK, {'label': 1}), None])
def test_samples_without_annotations_have_none(value):
    assert annotations_of(value, (60, 80)) is None


def test_each_of_several_frames_has_its_own_boxes(scenes):
    """MMDetection's tracking pipelines keep a list with a part for each frame."""

    class Frames(Plain):
        metainfo = {'classes': Plain.classes}

        def __init__(self, written, pipeline):
            super().__init__(written)
            self.pipeline = pipeline

        def __getitem__(self, index):
            parts = [self.scenes[index], self.scenes[index + 1]]
            boxes, labels = ([getattr(each, name) for each in parts] for name in ('boxes', 'labels'))
            images = [each.image.copy() for each in parts]
            return self.pipeline({'img': images, 'gt_bboxes': boxes, 'gt_bboxes_labels': labels})

    record = Samples(Frames(scenes[1], lambda results: results)).read(0)
    first, second = (image for image in record.images if image.step == 'original')
    np.testing.assert_array_equal(boxes_in(first), scenes[1][0].boxes)
    np.testing.assert_array_equal(boxes_in(second), scenes[1][1].boxes)
    assert record.faults == ()


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (SimpleNamespace(metainfo={'skeleton_links': [(0, 1), (1, 2)]}), ((0, 1), (1, 2))),
        (
            SimpleNamespace(
                metainfo={
                    'keypoint_info': {0: {'name': 'nose', 'id': 0}, 1: {'name': 'eye', 'id': 1}},
                    'skeleton_info': {0: {'link': ('eye', 'nose'), 'id': 0}},
                }
            ),
            ((1, 0),),
        ),
        (SimpleNamespace(coco=SimpleNamespace(cats={1: {'skeleton': [[1, 2], [2, 3]]}, 2: {}})), ((0, 1), (1, 2))),
        (SimpleNamespace(coco=SimpleNamespace(cats={1: {'skeleton': [[1, 2]]}, 2: {'skeleton': [[1, 3]]}})), ()),
        (SimpleNamespace(dataset=SimpleNamespace(metainfo={'skeleton_links': [(2, 0)]})), ((2, 0),)),
        (SimpleNamespace(metainfo={'skeleton_links': ['nose-eye', 3]}), ()),
    ],
)
def test_a_skeleton_is_read_as_mmpose_and_coco_write_it(dataset, expected):
    assert skeleton_of(dataset) == expected
