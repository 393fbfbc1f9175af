"""Boxes, masks and label maps on their picture: where the lines run, their colors, and what is left out."""

import numpy as np
import pytest

from vistool.data.annotations import Annotation, Annotations, ObjectMask
from vistool.results import GridImage, ImageGrid
from vistool.visualization.annotations import AnnotationDrawing, class_color
from vistool.visualization.grids import grid_scene
from vistool.visualization.scene import Box, PathItem, TextItem
from vistool.visualization.style import Style

PAGE = Style().page(vector=False)
TILE = Box(100.0, 50.0, 400.0, 300.0)
GRAY = np.full((60, 80, 3), 128, np.uint8)
BOX = np.array([10.0, 20, 50, 40])
CLASSES = ('cat', 'dog, hound', 'cup')


def items(*objects, label_map=None):
    found = list(AnnotationDrawing(Annotations((60, 80), objects, label_map), CLASSES).items(TILE, PAGE))
    paths = [each for each in found if isinstance(each, PathItem) and each.color != (0, 0, 0)]
    return paths, [each for each in found if isinstance(each, TextItem)]


def test_a_box_lies_at_its_place_in_the_color_of_its_class_with_its_name():
    (line,), (name,) = items(Annotation(BOX, label=1))
    assert line.points == ((150, 150), (350, 150), (350, 250), (150, 250))
    assert line.color == name.ground == class_color(1) and name.text == 'dog'
    assert class_color(0) != class_color(1) != class_color(2)


@pytest.mark.parametrize('kind', ['ignored', 'crowd'])
def test_ignored_and_crowd_ones_are_dashed_and_say_so(kind):
    lines, (name,) = items(Annotation(BOX, label=0, **{kind: True}))
    assert len(lines) > 20 and all(len(line.points) == 2 for line in lines)
    assert name.text == f'cat ({kind})'


def test_a_small_box_is_drawn_large_enough_to_be_seen():
    (line,), _ = items(Annotation(np.array([10.0, 20, 10.2, 20.1]), label=0))
    spans = np.ptp(np.array(line.points), 0)
    assert (spans >= 5).all() and np.array(line.points).mean(0) == pytest.approx([150.5, 150.25])


def test_small_boxes_are_drawn_over_large_ones_and_named_first():
    large, small = Annotation(np.array([5.0, 5, 75, 55]), label=0), Annotation(BOX, label=2)
    lines, names = items(small, large)
    assert [line.color for line in lines] == [class_color(0), class_color(2)]
    assert [name.text for name in names] == ['cup', 'cat']


def test_names_do_not_cover_each_other():
    _, names = items(*(Annotation(BOX + shift, label=0) for shift in range(6)))
    places = {(name.x, name.y) for name in names}
    assert 1 <= len(names) < 6 and len(places) == len(names)


@pytest.mark.parametrize('box', [[np.nan, 0, 5, 5], [np.inf, 0, 5, 5]])
def test_a_box_that_is_not_finite_is_not_drawn(box):
    assert items(Annotation(np.array(box), label=0)) == ([], [])


def test_a_turned_box_keeps_its_corners():
    corners = np.array([[40.0, 10], [60, 30], [40, 50], [20, 30]])
    (line,), _ = items(Annotation(np.array([20.0, 10, 60, 50]), corners, label=0))
    assert line.points == ((300, 100), (400, 200), (300, 300), (200, 200))


def test_keypoints_are_dots_rings_or_nothing():
    points = np.array([[10.0, 10, 2], [20, 20, 1], [30, 30, 0]])
    lines, _ = items(Annotation(keypoints=points, label=0))
    centers = [np.array(line.points).mean(0) for line in lines[1::2]]
    np.testing.assert_allclose(centers, [[150, 100], [200, 150]])
    assert np.ptp(np.array(lines[3].points)[:, 0]) > np.ptp(np.array(lines[1].points)[:, 0])


def test_masks_are_translucent_with_a_full_rim():
    inside = np.zeros((60, 80), bool)
    inside[20:40, 10:50] = True
    drawing = AnnotationDrawing(Annotations((60, 80), (Annotation(mask=ObjectMask.of(inside), label=2),)))
    painted = drawing.paint(GRAY, (60, 80))
    assert (painted[~inside] == 128).all() and (painted[20, 10:50] == class_color(2)).all()
    np.testing.assert_array_equal(painted[30, 30], np.rint(0.6 * 128 + 0.4 * np.array(class_color(2))))
    doubled = drawing.paint(GRAY, (120, 160))
    assert ((doubled != 128).any(2) == inside.repeat(2, 0).repeat(2, 1)).all()


def test_label_maps_have_the_colors_of_the_dataset_and_names():
    label_map = np.zeros((60, 80), np.int64)
    label_map[:, 40:], label_map[:10] = 1, 255
    palette = ((200, 0, 0), (0, 0, 200), (0, 200, 0))
    painted = AnnotationDrawing(Annotations((60, 80), (), label_map), CLASSES, palette).paint(GRAY, (60, 80))
    assert painted[30, 10].tolist() == [164, 64, 64] and painted[30, 60].tolist() == [64, 64, 164]
    assert set(painted[:10].ravel().tolist()) == {51, 128}  # ignored pixels are hatched
    _, names = items(label_map=label_map)
    assert {name.text for name in names} == {'cat', 'dog'}


def test_a_grid_says_what_is_wrong_on_the_tile():
    image = GridImage(GRAY, annotations=Annotations((60, 80), (Annotation(BOX, label=0),)), remark='object 0: no area')
    scene = grid_scene(ImageGrid(((image,),), classes=CLASSES), PAGE)
    assert {'object 0: no area', 'cat'} <= {text.text for text in scene.texts}


def test_the_background_of_a_label_map_is_not_tinted():
    label_map = np.zeros((60, 80), np.int64)
    label_map[20:40, 20:40] = 1
    drawing = AnnotationDrawing(Annotations((60, 80), (), label_map), ('background', 'cat'))
    assert ((drawing.paint(GRAY, (60, 80)) != 128).any(2) == (label_map == 1)).all()
    assert [each.text for each in drawing.items(TILE, PAGE) if isinstance(each, TextItem)] == ['cat']


def test_a_skeleton_joins_keypoints_that_are_both_labeled():
    keypoints = np.array([[10.0, 20, 2], [50, 40, 1], [30, 30, 0]])
    annotations = Annotations((60, 80), (Annotation(None, label=0, keypoints=keypoints),))
    drawing = AnnotationDrawing(annotations, CLASSES, (), ((0, 1), (1, 2), (0, 7)))
    lines = [each for each in drawing.items(TILE, PAGE) if isinstance(each, PathItem) and len(each.points) == 2]
    assert [line.points for line in lines if line.color == class_color(0)] == [((150, 150), (350, 250))]
