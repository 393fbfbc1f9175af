"""Where the objects of an image are: annotations of all kinds and folders of masks, against naive versions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistool.data.geometry import Geometry, affine, crop, erase, flip, resize
from vistool.data.samples import Sample
from vistool.data.truth import MaskFolder, Truth, polygon_mask, read_mask, truth_of
from vistool.errors import InputError

SIZE = (5, 6)


def box(left, top, right, bottom, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_boxes_of_a_class_are_joined_and_the_ignored_are_left_out():
    found = truth_of(
        {
            'instances': [
                {'bbox': [0, 0, 2, 2], 'bbox_label': 3},
                {'bbox': [4, 3, 6, 5], 'bbox_label': 3, 'ignore_flag': 0},
                {'bbox': [2, 2, 4, 4], 'bbox_label': 1},
                {'bbox': [0, 0, 6, 5], 'bbox_label': 3, 'ignore_flag': 1},
            ]
        },
        SIZE,
    )
    assert found.source == 'boxes' and found.labeled
    np.testing.assert_array_equal(found.mask(3), box(0, 0, 2, 2) | box(4, 3, 6, 5))
    np.testing.assert_array_equal(found.mask(1), box(2, 2, 4, 4))
    np.testing.assert_array_equal(found.mask(), found.mask(3) | found.mask(1))
    assert not found.mask(2).any()  # a class that is not in the image: nothing to hit


@pytest.mark.parametrize('wrap', [np.array, torch.tensor, list, lambda boxes: type('Boxes', (), {'tensor': boxes})()])
def test_boxes_may_be_in_any_container_and_without_classes(wrap):
    boxes = [[1.0, 1.0, 3.0, 2.0], [3.4, 0.0, 4.6, 1.0]]
    found = truth_of({'gt_bboxes': wrap(boxes), 'gt_bboxes_labels': np.array([0, 2])}, SIZE)
    np.testing.assert_array_equal(found.mask(2), box(3, 0, 5, 1))  # the centers 3.5 and 4.5 lie inside
    unnamed = truth_of({'gt_bboxes': wrap(boxes)}, SIZE)
    assert not unnamed.labeled
    np.testing.assert_array_equal(unnamed.mask(7), box(1, 1, 3, 2) | box(3, 0, 5, 1))


def test_an_image_without_objects_has_an_empty_mask():
    for info in ({'instances': []}, {'gt_bboxes': np.zeros((0, 4))}, {}):
        assert not truth_of(info, SIZE).mask(1).any()


def inside_naively(x, y, corners):
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 > y) != (y1 > y) and x > x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


@pytest.mark.parametrize('seed', range(6))
def test_polygons_hold_the_pixels_whose_center_is_inside(seed):
    generator = np.random.default_rng(seed)
    parts = [generator.uniform(-3, 15, (count, 2)) for count in (3, 7)]
    expected = [
        [any(inside_naively(x + 0.5, y + 0.5, part.tolist()) for part in parts) for x in range(13)] for y in range(11)
    ]
    np.testing.assert_array_equal(polygon_mask([part.ravel().tolist() for part in parts], (11, 13)), expected)


def run_lengths(mask):
    counts, value, run = [], False, 0
    for each in mask.T.ravel().tolist():
        if each != value:
            counts, value, run = [*counts, run], each, 0
        run += 1
    return [*counts, run]


def compressed(counts):
    """COCO's text, written from the description of its format."""
    text = ''
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits, left = left & 31, left >> 5
            more = left != (-1 if bits & 16 else 0)
            text += chr(bits + 32 * more + 48)
    return text


@pytest.mark.parametrize('seed', range(4))
def test_run_lengths_are_read_in_all_their_forms(seed):
    mask = np.random.default_rng(seed).random((40, 60)) < (0.001, 0.02, 0.5, 0.97)[seed]
    counts = run_lengths(mask)
    for form in (counts, compressed(counts), compressed(counts).encode()):
        found = truth_of({'instances': [{'mask': {'size': [40, 60], 'counts': form}, 'bbox_label': 4}]}, (40, 60))
        np.testing.assert_array_equal(found.mask(4), mask)


def test_masks_go_before_boxes():
    bitmap, polygon = box(1, 1, 2, 2), [[2.0, 2.0, 5.0, 2.0, 5.0, 4.0, 2.0, 4.0]]
    for masks in ([bitmap, polygon], type('Masks', (), {'masks': [bitmap.astype(np.uint8), polygon]})()):
        found = truth_of({'gt_masks': masks, 'gt_labels': [1, 2], 'gt_bboxes': [[0, 0, 6, 5]] * 2}, SIZE)
        assert found.source == 'masks'
        np.testing.assert_array_equal(found.mask(1), bitmap)
        np.testing.assert_array_equal(found.mask(2), box(2, 2, 5, 4))


def test_label_maps_give_a_region_for_each_class(tmp_path):
    ids = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
    picture = Image.fromarray(ids, 'L').convert('P')
    picture.putdata(ids.ravel().tolist())
    picture.putpalette([90, 90, 90, 255, 0, 0, 0, 255, 0] + [7] * 759)
    picture.save(tmp_path / 'map.png')
    for info in ({'seg_map_path': str(tmp_path / 'map.png')}, {'gt_sem_seg': ids}, {'gt_seg_map': torch.tensor(ids)}):
        found = truth_of(info, (2, 3), background=0)
        np.testing.assert_array_equal(found.mask(2), ids == 2)
        np.testing.assert_array_equal(found.mask(), (ids == 1) | (ids == 2))  # neither background nor void
    shifted = truth_of({'gt_sem_seg': ids, 'reduce_zero_label': True}, (2, 3))
    np.testing.assert_array_equal(shifted.mask(1), ids == 2)
    np.testing.assert_array_equal(shifted.mask(), (ids == 1) | (ids == 2))
    mapped = truth_of({'gt_sem_seg': ids, 'label_map': {1: 2, 2: 1}}, (2, 3))
    np.testing.assert_array_equal(mapped.mask(1), ids == 2)
    colors = np.stack([ids, ids * 0 + 1, ids * 0], -1)
    segments = [{'id': 256 + 2, 'category': 9}, {'id': 256 + 255, 'category': 4}]
    panoptic = truth_of({'gt_seg_map': colors, 'segments_info': segments}, (2, 3))
    np.testing.assert_array_equal(panoptic.mask(9), ids == 2)
    with pytest.raises(InputError, match='the label map has colors; accepted: a class id for each pixel'):
        truth_of({'gt_seg_map': colors}, (2, 3))


@pytest.mark.parametrize(
    ('info', 'message'),
    [
        ({'instances': [], 'height': 6, 'width': 5}, 'the annotations are of an image of 6×5 pixels .* has 5×6'),
        ({'gt_bboxes': [[0, 0, 1]]}, 'a box of 3 numbers; accepted: left, top, right, bottom'),
        ({'gt_bboxes': [[0, 0, 1, 1]], 'gt_labels': [1, 2]}, 'gt_labels has 2 labels for 1 object'),
        ({'gt_masks': [np.ones((2, 2))]}, 'a mask of 2×2 for an image of 5×6'),
        ({'instances': [{'mask': {'size': [5, 6], 'counts': [7]}}]}, 'a run-length encoding does not fill its image'),
    ],
)
def test_annotations_that_do_not_fit_are_one_line(info, message):
    with pytest.raises(InputError, match=message) as caught:
        truth_of(info, SIZE).mask()
    assert '\n' not in str(caught.value)


def seen_naively(geometry, mask):
    h, w = geometry.network_size
    found = np.zeros((h, w), bool)
    for row in range(h):
        for column in range(w):
            if geometry.invalid is not None and geometry.invalid[row, column]:
                continue
            place = geometry.to_original([[column + 0.5, row + 0.5]])[0]
            x, y = np.floor(place if geometry.field is None else geometry.field[row, column]).astype(int)
            found[row, column] = 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0] and mask[y, x]
    return found


def test_the_network_sees_the_mask_where_it_sees_the_photo():
    generator = np.random.default_rng(0)
    mask = generator.random((9, 14)) < 0.4
    start = Geometry.identity((9, 14))
    grown = start.then(resize((9, 14), (18, 28))).then(crop((18, 28), (12, 20), 3, -2)).then(flip((12, 20), True))
    turned = start.then(affine((9, 14), (10, 10), [[0.8, -0.6, 4], [0.6, 0.8, -3]]))
    for geometry in (start, grown, turned, turned.then(erase((10, 10), [(2, 3, 4, 4)]))):
        np.testing.assert_array_equal(geometry.seen(mask), seen_naively(geometry, mask))
    y, x = np.mgrid[:9, :14]
    field = np.stack([x + 0.5 + np.sin(y), y + 0.5], -1)
    bent = start.then(dataclasses.replace(resize((9, 14), (9, 14)), field=field))
    np.testing.assert_array_equal(bent.seen(mask), seen_naively(bent, mask))
    truth = Truth((9, 14), truth_of({'gt_masks': [mask]}, (9, 14)).regions)
    sample = Sample(None, np.zeros((12, 20, 3), np.uint8), geometry=grown, truth=truth)
    np.testing.assert_array_equal(sample.inside(), grown.seen(mask))
    unknown = dataclasses.replace(sample, geometry=dataclasses.replace(grown, exact=False))
    with pytest.raises(InputError, match='not known where the network sees the pixels'):
        unknown.inside()


def photo(path, size=(8, 10), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, exif=exif)
    return path


def write(path, mask, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(mask, np.uint8) * 200).save(path, **more)


MASK = box(2, 1, 6, 4, (8, 10))


def test_a_mask_has_the_stem_of_its_photo_and_its_sub_folder_where_stems_repeat(tmp_path):
    first, second = photo(tmp_path / 'photos/a/x.jpg'), photo(tmp_path / 'photos/b/x.jpg')
    write(tmp_path / 'masks/a/x.png', MASK)
    write(tmp_path / 'masks/b/x.bmp', ~MASK)
    folder = MaskFolder(tmp_path / 'masks')
    folder.check([first, second])
    np.testing.assert_array_equal(folder.truth(first, (8, 10)).mask(5), MASK)  # of whatever class
    np.testing.assert_array_equal(folder.truth(second, (8, 10)).mask(), ~MASK)
    flat = tmp_path / 'flat'
    write(flat / 'x.png', MASK)
    np.testing.assert_array_equal(MaskFolder(flat).truth(first, (8, 10)).mask(), MASK)
    with pytest.raises(InputError, match=r'x.png is the only mask for .*a.x.jpg and .*b.x.jpg; lay the masks'):
        MaskFolder(flat).check([first, second])


@pytest.mark.parametrize('orientation', [1, 3, 5, 6, 8])
def test_a_mask_lies_as_its_photo_does(tmp_path, orientation):
    path = photo(tmp_path / 'p.jpg', (8, 10), orientation)
    size = (10, 8) if orientation >= 5 else (8, 10)
    upright = np.random.default_rng(0).random(size) < 0.5
    write(tmp_path / 'upright/p.png', upright)
    np.testing.assert_array_equal(MaskFolder(tmp_path / 'upright').truth(path, size).mask(), upright)
    turn = {1: None, 3: Image.ROTATE_180, 5: Image.TRANSPOSE, 6: Image.ROTATE_90, 8: Image.ROTATE_270}[orientation]
    stored = Image.fromarray(upright.astype(np.uint8) * 255)
    stored = stored if turn is None else stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / 'tagged').mkdir()
    stored.save(tmp_path / 'tagged/p.png', exif=exif)
    np.testing.assert_array_equal(MaskFolder(tmp_path / 'tagged').truth(path, size).mask(), upright)
    if orientation >= 5:  # drawn by a tool that knows nothing of EXIF
        (tmp_path / 'plain').mkdir()
        stored.save(tmp_path / 'plain/p.png')
        folder = MaskFolder(tmp_path / 'plain')
        folder.check([path])
        np.testing.assert_array_equal(folder.truth(path, size).mask(), upright)


def test_what_is_not_zero_is_inside_whatever_the_kind_of_file(tmp_path):
    values = np.where(MASK, 1, 0).astype(np.uint8)
    white = np.full((8, 10, 3), 255, np.uint8)
    Image.fromarray(values).save(tmp_path / 'one.png')
    Image.fromarray(MASK).save(tmp_path / 'bit.png')
    Image.fromarray(values.astype(np.uint16) * 300).save(tmp_path / 'deep.png')
    Image.fromarray(np.stack([values * 0, values * 9, values * 0], -1)).save(tmp_path / 'green.png')
    Image.fromarray(np.dstack([white * MASK[..., None], white[..., :1]])).save(tmp_path / 'opaque.png')
    Image.fromarray(np.dstack([white, MASK * np.uint8(255)])).save(tmp_path / 'cutout.png')
    palette = Image.fromarray(values, 'L').convert('P')
    palette.putdata(values.ravel().tolist())
    palette.putpalette([10, 20, 30, 0, 0, 0])
    palette.save(tmp_path / 'palette.png')
    Image.fromarray(values * 255).resize((100, 80), Image.NEAREST).save(tmp_path / 'jpeg.jpg', quality=60)
    np.save(tmp_path / 'array.npy', values.astype(np.float32))
    Image.fromarray(values).save(tmp_path / 'tiff.tif')
    for path in sorted(tmp_path.iterdir()):
        found = read_mask(path)
        expected = np.repeat(np.repeat(MASK, 10, 0), 10, 1) if path.suffix == '.jpg' else MASK
        np.testing.assert_array_equal(found, expected, err_msg=path.name)


@pytest.mark.parametrize(
    ('prepare', 'message'),
    [
        (lambda folder: folder.rmdir(), 'masks: .*masks. is not a folder; accepted: a folder of masks'),
        (lambda folder: None, 'masks: no image in the folder'),
        (lambda folder: write(folder / 'other.png', MASK), 'masks: .* has no mask for 1 of 1 image: p.jpg; acc'),
        (lambda folder: write(folder / 'p.png', MASK[:4]), 'masks: .*p.png has 10×4 pixels, its photo 10×8; accepted'),
        (lambda folder: (folder / 'p.png').write_bytes(b'nothing'), 'masks: .*p.png is .*accepted: an image file'),
        (
            lambda folder: [write(folder / name, MASK) for name in ('p.png', 'p.bmp')],
            'masks: p.jpg has several masks: p.bmp, p.png; keep one',
        ),
    ],
)
def test_masks_that_do_not_fit_are_one_line_before_any_work(tmp_path, prepare, message):
    path = photo(tmp_path / 'p.jpg')
    folder = tmp_path / 'masks'
    folder.mkdir()
    prepare(folder)
    with pytest.raises(InputError, match=message) as caught:
        MaskFolder(folder).check([path])
    assert '\n' not in str(caught.value)


def test_a_mask_that_is_cut_off_is_found_when_it_is_read(tmp_path):
    path = photo(tmp_path / 'p.jpg', (80, 100))
    write(tmp_path / 'masks/p.png', np.random.default_rng(0).random((80, 100)) < 0.5)
    data = (tmp_path / 'masks/p.png').read_bytes()
    Path(tmp_path / 'masks/p.png').write_bytes(data[:300])
    with pytest.raises(InputError, match='masks: .*p.png is damaged or cut off'):
        MaskFolder(tmp_path / 'masks').truth(path, (80, 100))
