"""Every image of a batch gets the map that it gets alone."""

import numpy as np
import pytest
from PIL import Image

import vistool as vt


@pytest.fixture(scope='module')
def samples():
    """37 photos of different sizes as a trained network reads them, and the network."""
    model = vt.load('configs/efficientnet_lite/efficientnet-lite0_in1k.py')
    photos = [Image.open(f'demo/{name}').convert('RGB') for name in ('coffee.png', 'chelsea.png', 'rocket.jpg')]
    sizes = np.random.default_rng(0).integers(60, 300, (37, 2)).tolist()
    return model, [model.read(photos[n % 3].resize(tuple(size)), index=n) for n, size in enumerate(sizes)]


@pytest.mark.slow
def test_all_images_in_batches_give_what_they_give_alone(samples):
    model, images = samples
    cam = vt.CAM(['gradcam', 'layercam', 'eigencam', 'eigengradcam'])
    together = [result for start in range(0, 37, 7) for result in cam(model, images[start : start + 7])]
    for result, image in zip(together, images, strict=True):
        alone = cam(model, image)
        assert alone.provenance['targets'][0]['id'] == result.provenance['targets'][0]['id']
        for a, b in zip(result.maps, alone.maps, strict=True):
            np.testing.assert_allclose(a.values, b.values, atol=1e-5)
