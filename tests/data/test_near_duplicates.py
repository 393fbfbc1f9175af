"""Copies of photos that were scaled, compressed, brightened or mirrored are found; different photos are not."""

import io
from itertools import combinations

import image_hash
import numpy as np
import pytest
from fake_dataset import photo
from PIL import Image

from vistool.data.near_duplicates import HashedImage, hashed, near_duplicates


@pytest.fixture(autouse=True)
def imagehash(monkeypatch):
    """The installed package, else the same algorithm."""
    try:
        import imagehash  # noqa: F401
    except ModuleNotFoundError:
        monkeypatch.setitem(__import__('sys').modules, 'imagehash', image_hash)


def jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality)
    return np.asarray(Image.open(buffer))


def resized(pixels, size):
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


COPIES = {
    'the same': lambda pixels: pixels,
    'compressed': lambda pixels: jpeg(pixels, 30),
    'half as large': lambda pixels: resized(pixels, (80, 60)),
    'stretched': lambda pixels: resized(pixels, (224, 224)),
    'brighter': lambda pixels: (pixels * 0.6 + 90).astype(np.uint8),
    'cropped by two pixels': lambda pixels: pixels[2:-2, 2:-2],
    'mirrored': lambda pixels: pixels[:, ::-1].copy(),
}


@pytest.mark.parametrize('copy', COPIES)
def test_a_copy_in_another_phase_is_a_leak(copy):
    train = [hashed(photo(k), k, 'train', f'{k}.jpg') for k in range(40)]
    val = [hashed(photo(100 + k), k, 'val', f'{k}.jpg') for k in range(20)]
    val.append(hashed(COPIES[copy](photo(17)), 20, 'val', 'copy.jpg'))
    (pair,) = near_duplicates([*train, *val])
    assert pair.leaks and pair.mirrored == (copy == 'mirrored')
    assert (pair.first.phase, pair.first.index, pair.second.phase, pair.second.index) == ('train', 17, 'val', 20)
    assert 'train #17 (17.jpg) and val #20 (copy.jpg)' in pair.text


def test_a_sample_that_a_dataset_repeats_is_not_its_own_copy():
    repeated = [hashed(photo(k % 3), k, 'train', f'{k % 3}.jpg') for k in range(9)]
    assert near_duplicates(repeated) == []
    (pair,) = near_duplicates([*repeated, hashed(photo(1), 9, 'train', 'other name.jpg')])
    assert not pair.leaks and (pair.first.index, pair.second.index) == (1, 9)


def test_the_same_file_in_two_phases_is_a_leak():
    images = [hashed(photo(0), 0, phase, 'a.jpg') for phase in ('train', 'val')]
    assert [pair.leaks for pair in near_duplicates(images)] == [True]


def test_plain_images_with_equal_hashes_are_not_duplicates():
    """A spot on black: the hash sees little of where it is, the thumbnail sees it."""
    images = []
    for place in range(6):
        pixels = np.zeros((120, 160, 3), np.uint8)
        pixels[10 + 15 * place : 20 + 15 * place, 20:30] = 255
        images.append(hashed(pixels, place, 'train'))
    assert near_duplicates(images, 16) == []


@pytest.mark.parametrize('distance', [0, 1, 4, 9])
def test_no_pair_within_the_distance_is_missed(distance):
    """Compared with all pairs, on random bits around a few centers."""
    rng = np.random.default_rng(distance)
    centers, thumbnail = rng.random((5, 64)) < 0.5, rng.random((16, 16)).astype(np.float32)
    images = []
    for k in range(60):
        bits = centers[k % 5].copy()
        bits[rng.choice(64, rng.integers(0, 8), replace=False)] ^= True
        images.append(HashedImage(k, 'train', f'{k}', bits, ~bits, thumbnail))
    found = {(pair.first.index, pair.second.index): pair.distance for pair in near_duplicates(images, distance)}
    expected = {
        (a.index, b.index): int((a.bits != b.bits).sum())
        for a, b in combinations(images, 2)
        if (a.bits != b.bits).sum() <= distance
    }
    assert found == expected and (not distance or expected)
