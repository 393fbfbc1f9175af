"""Images whose shape makes a resize explode, and reads that need little memory beside the image."""

import numpy as np
import pytest
import torch
from mmengine import Config
from PIL import Image
from torchvision import transforms as T

from vistool.data.pipelines import Pipeline, build_pipeline
from vistool.data.transforms import planned_size
from vistool.errors import InputError

THIN = np.zeros((1, 30000, 3), np.uint8)


def config(*steps):
    return Config({'default_scope': 'mmpretrain', 'test_pipeline': [{'type': 'LoadImageFromFile'}, *steps]})


@pytest.mark.parametrize(
    'step',
    [
        {'type': 'ResizeEdge', 'scale': 224, 'edge': 'short'},
        {'type': 'Resize', 'scale_factor': 200.0},
        {'type': 'ResizeEdge', 'scale': 300, 'edge': 'height'},
    ],
)
def test_a_resize_that_explodes_is_an_error_of_the_image_before_it_happens(step):
    pipeline = build_pipeline(config(step, {'type': 'PackInputs'}))
    called = []
    resize = pipeline.transforms[1]
    resize.transform = lambda results: called.append(results)
    with pytest.raises(InputError, match='enlarges 30000×1 pixels to .*accepted: up to 178 million pixels; crop'):
        pipeline.read(THIN)
    assert not called


def test_torchvisions_too():
    pipeline = Pipeline([T.Resize(256), T.CenterCrop(224), T.ToTensor()], takes_images=True)
    with pytest.raises(InputError, match='Resize enlarges 30000×1'):
        pipeline.read(THIN)
    assert pipeline.read(np.zeros((40, 50, 3), np.uint8)).data.shape == (3, 224, 224)


class Grow:
    """A transform of unknown kind."""

    def __call__(self, results):
        return {**results, 'img': np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20000, 20000, 3))}


def test_an_unknown_transform_is_bounded_after_it():
    with pytest.raises(InputError, match='Grow enlarges 8×8 pixels to 20000×20000'):
        Pipeline([Grow()]).read(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize('size', [(37, 53), (1, 400), (400, 1), (1, 1)])
def test_planned_sizes_are_those_that_come_out(size):
    image = np.zeros((*size, 3), np.uint8)
    for step in (
        {'type': 'ResizeEdge', 'scale': 24, 'edge': 'short'},
        {'type': 'ResizeEdge', 'scale': 24, 'edge': 'long'},
        {'type': 'ResizeEdge', 'scale': 24, 'edge': 'width'},
        {'type': 'Resize', 'scale_factor': (2.0, 3.0)},
    ):
        pipeline = build_pipeline(config(step, {'type': 'PackInputs'}))
        planned = planned_size(pipeline.transforms[1], size)
        try:
            found = pipeline.read(image).data['inputs'].shape[1:]
        except InputError as error:
            assert 'Resize' in str(error)  # OpenCV refuses sizes of zero
            continue
        np.testing.assert_allclose(found, planned, atol=1)
    resized = T.Resize(24)(Image.fromarray(image))
    np.testing.assert_allclose(resized.size[::-1], planned_size(T.Resize(24), size), atol=1)
    assert planned_size(torch.nn.Identity(), size) is None
