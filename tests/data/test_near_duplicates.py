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


def naive(images, distance):
    """All pairs, each as the unmirrored one unless the mirrored one is nearer."""
    found = {}
    for one, other in combinations(images, 2):
        ways = [(int((one.bits != other.bits).sum()), False)]
        ways.append((min(int((a.bits != b.mirrored).sum()) for a, b in ((one, other), (other, one))), True))
        for apart, mirrored in sorted(ways):
            second = other.thumbnail[:, ::-1] if mirrored else other.thumbnail
            if apart <= distance and np.corrcoef(one.thumbnail.ravel(), second.ravel())[0, 1] >= 0.9:
                found[one.index, other.index] = apart, mirrored
                break
    return found


@pytest.mark.parametrize('distance', [0, 4, 12])
def test_mirrored_and_equal_images_of_two_phases_are_the_pairs_of_a_naive_search(distance):
    rng = np.random.default_rng(distance)
    centers = rng.random((4, 64)) < 0.5
    thumbnails = rng.random((4, 16, 16)).astype(np.float32)
    images = []
    for k in range(60):
        bits, mirror = centers[k % 4].copy(), centers[(k + 1) % 4].copy()
        if k % 3:  # the others are equal
            bits[rng.choice(64, rng.integers(0, 5), replace=False)] ^= True
            mirror[rng.choice(64, rng.integers(0, 5), replace=False)] ^= True
        thumbnail = thumbnails[k % 4] if k % 5 else thumbnails[(k + 1) % 4][:, ::-1]
        images.append(HashedImage(k, ('train', 'val')[k % 2], f'{k}', bits, mirror, thumbnail))
    found = near_duplicates(images, distance)
    assert {(pair.first.index, pair.second.index): (pair.distance, pair.mirrored) for pair in found} == naive(
        images, distance
    )
    order = [(not pair.leaks, pair.distance) for pair in found]
    assert order == sorted(order)


def test_thousands_of_equal_images_are_each_named_without_all_their_pairs(caplog):
    """A dataset of 5,000 equal frames, of which a copy leaks, and 1,000 photos of which one does."""
    rng = np.random.default_rng(0)
    bits, thumbnail = rng.random((1001, 64)) < 0.5, rng.random((1001, 16, 16)).astype(np.float32)

    def image(index, phase, center):
        name = f'{phase} {index}'
        return HashedImage(index, phase, name, bits[center], ~bits[center], thumbnail[center])

    images = [image(k, 'train', 0) for k in range(5000)]
    images += [image(5000 + k, 'train', 1 + k) for k in range(1000)]
    images += [image(0, 'val', 7), image(1, 'val', 0)]
    found = near_duplicates(images)
    named = {index for pair in found for index in (pair.first.index, pair.second.index) if not pair.leaks}
    assert named == set(range(5000)) and len(found) <= 20 * 5002
    leaks = [(pair.first.index, pair.second.index) for pair in found if pair.leaks]
    assert (5006, 0) in leaks and {second for _, second in leaks} == {0, 1} and len(leaks) == 21
    assert 'only 20 near-duplicates of each are listed' in caplog.text
