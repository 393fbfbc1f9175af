"""What pictures show of images that are not photos of 8 bits, and that networks get the same whatever is shown."""

import logging

import cv2
import numpy as np
import pytest
import tifffile
from mmengine import Config
from PIL import Image

from vistool.data.display import Display, Shown, automatic_range
from vistool.data.images import photo_size, read_photo
from vistool.data.photometry import compared, pixels_of
from vistool.data.pipelines import Pipeline, build_pipeline
from vistool.data.recording import Samples
from vistool.errors import InputError

RNG = np.random.default_rng(0)
SMOOTH = np.linspace(0, 1, 40 * 60).reshape(40, 60)  # dark above, bright below


def scaled(low, high, kind):
    return (low + (high - low) * SMOOTH).astype(kind)


def bands(count, kind=np.uint16, top=4095):
    return np.stack([scaled(0, top * (k + 1) / count, kind) for k in range(count)], axis=2)


def seen(values, display=None):
    """A file's values as a person sees them, and the words that go with them."""
    photo = read_photo(values)
    shown = (display or Display()).shown(photo.values)
    return pixels_of(photo, shown), shown.describe()


@pytest.mark.parametrize(
    'values, low, high',
    [
        (scaled(0, 4000, np.uint16), 0, 4095),  # 12 bits in 16
        (scaled(0, 1000, np.uint16), 0, 1023),
        (scaled(0, 65535, np.uint16), 0, 65535),
        (scaled(0, 4000, np.float32).round(), 0, 4095),  # to_float32
        (scaled(0, 0.9, np.float64), 0, 1),  # reflectance
        (scaled(0, 1, np.float16), 0, 1),
        (scaled(0, 250, np.int32), 0, 255),
        (SMOOTH > 0.5, 0, 1),
    ],
)
def test_nominal_ranges(values, low, high):
    assert automatic_range(values.ravel()) == (low, high)


@pytest.mark.parametrize(
    'values',
    [
        scaled(-1000, 3000, np.int16),  # Hounsfield units
        np.where(SMOOTH > 0.999, 60000, SMOOTH * 3000).astype(np.uint16),  # a few saturated pixels
        scaled(0, 0.12, np.float32),  # dark reflectance
        scaled(-40, -2, np.float32),  # decibels
        scaled(1e6, 1.1e6, np.float64),
        scaled(3, 5, np.uint8).astype(np.int64),
    ],
)
def test_other_ranges_are_percentiles_and_nothing_is_black_or_white_all_over(values):
    low, high = automatic_range(values.ravel())
    assert np.allclose((low, high), np.percentile(values, (0.5, 99.5)))
    pixels, words = seen(values)
    assert 100 < pixels.mean() < 155 and words.startswith('shown ')


def test_one_value_everywhere_is_gray():
    for value in (7, -3, 0.0, 70000):
        pixels, _ = seen(np.full((4, 5), value, np.float32))
        assert len(np.unique(pixels)) == 1


def test_what_is_said():
    assert seen(scaled(0, 4000, np.uint16))[1] == 'shown 0–4095'
    assert seen(bands(8))[1] == 'shown 0–4095 · bands 1–3 of 8'
    chosen = Display.of('0,4095', '4,3,2')
    assert seen(bands(8), chosen)[1] == 'shown 0–4095 · bands 4, 3, 2 of 8'
    assert seen(bands(2), Display.of(None, 2))[1] == 'shown 0–4095 · band 2 of 2'
    assert seen(scaled(-1000, 1000, np.int16), Display.of((-500, 500)))[1] == 'shown −500 to 500 · 50% clipped'
    assert seen(np.zeros((4, 4, 3), np.uint8))[1] == ''
    hole = scaled(0, 1, np.float32)
    hole[:4] = np.nan
    pixels, words = seen(hole)
    assert words == 'shown 0–1 · 10% not finite' and (pixels[:4] == 0).all()


def test_bands_and_ranges_are_exact():
    values = bands(8)
    pixels, _ = seen(values, Display.of('0,4095', '7,1,4'))
    np.testing.assert_array_equal(pixels, np.rint(values[..., [6, 0, 3]] / 4095 * 255).astype(np.uint8))
    pixels, _ = seen(values, Display.of('10%,90%', '8'))
    low, high = np.percentile(values[..., 7], (10, 90))
    expected = np.clip(np.rint((values[..., 7] - low) * 255 / (high - low)), 0, 255)
    np.testing.assert_allclose(pixels[..., 1], expected, atol=1)


@pytest.mark.parametrize('text', ['', '1', '1,2,3', '5,1', 'a,b', '1%,2', '0%,101%', 'nan,1', '0,inf', '-1%,50%'])
def test_ranges_that_are_none(text):
    with pytest.raises(InputError, match='display_range: .*accepted: auto, LO,HI'):
        Display.of(text)


@pytest.mark.parametrize('text', ['', '0', '1,2', '1,2,3,4', 'red', '-1', '4,3,²', '1.5'])
def test_bands_that_are_none(text):
    with pytest.raises(InputError, match='bands: .*accepted: one number or three'):
        Display.of(None, text)


def test_a_band_that_the_image_lacks():
    with pytest.raises(InputError, match='bands: no band 9 in an image of 8; accepted: 1 to 8'):
        Display.of(None, 9).shown(bands(8))


TYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float16', 'float32', 'float64']


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize(
    'count, planar', [(1, 'contig'), (2, 'contig'), (3, 'separate'), (4, 'contig'), (8, 'separate')]
)
def test_tiffs_of_any_type_and_number_of_bands(tmp_path, kind, count, planar):
    values = (RNG.random((9, 13, count)) * 100).astype(kind)
    stored = values[..., 0] if count == 1 else values if planar == 'contig' else values.transpose(2, 0, 1)
    more = {} if count == 1 else {'planarconfig': planar}
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='minisblack', **more)
    found = read_photo(tmp_path / 'a.tif').values
    expected = np.repeat(values, 3, axis=2) if kind == 'uint8' and count == 1 else values
    np.testing.assert_array_equal(found, expected)
    assert photo_size(tmp_path / 'a.tif') == (9, 13)


def test_tiffs_written_without_a_word_about_bands(tmp_path):
    values = bands(8)
    tifffile.imwrite(tmp_path / 'last.tif', values)  # 40 pages of 60 × 8, as far as the file says
    tifffile.imwrite(tmp_path / 'first.tif', values.transpose(2, 0, 1))
    for name in ('last.tif', 'first.tif'):
        for channels in (8, None):
            np.testing.assert_array_equal(read_photo(tmp_path / name, channels).values, values)


def test_near_infrared_is_not_alpha(tmp_path):
    photo = RNG.integers(0, 256, (9, 13, 4), dtype=np.uint8)
    for name, extra in (('nir', 'unspecified'), ('alpha', 'unassalpha')):
        tifffile.imwrite(tmp_path / f'{name}.tif', photo, photometric='rgb', extrasamples=[extra])
    near = read_photo(tmp_path / 'nir.tif')
    np.testing.assert_array_equal(near.values, photo)
    shown = Display().shown(near.values)
    assert shown.describe() == 'bands 1–3 of 4'
    np.testing.assert_array_equal(pixels_of(near, shown), photo[..., :3])
    composited = read_photo(tmp_path / 'alpha.tif').values
    weight = photo[..., 3:] / 255
    np.testing.assert_allclose(composited, photo[..., :3] * weight + 255 * (1 - weight), atol=1)


def test_sixteen_bits_in_a_color_png(tmp_path):
    values = RNG.integers(0, 4096, (9, 13, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), values[..., ::-1])
    np.testing.assert_array_equal(read_photo(tmp_path / 'a.png').values, values)
    half = np.dstack([values, np.full((9, 13), 32768, np.uint16)])
    cv2.imwrite(str(tmp_path / 'b.png'), half[..., [2, 1, 0, 3]])
    np.testing.assert_allclose(read_photo(tmp_path / 'b.png').values, values / 2 + 65535 / 2, atol=1)


def test_arrays_in_files(tmp_path):
    values = bands(8)
    np.save(tmp_path / 'a.npy', values)
    np.savez(tmp_path / 'b.npz', img=values, other=np.zeros(3))
    np.savez(tmp_path / 'c.npz', one=values.transpose(2, 0, 1))
    for name in ('a.npy', 'b.npz', 'c.npz'):
        np.testing.assert_array_equal(read_photo(tmp_path / name).values, values)
    np.savez(tmp_path / 'd.npz', x=values, y=values)
    np.save(tmp_path / 'e.npy', np.array([{}], object), allow_pickle=True)
    (tmp_path / 'f.npy').write_bytes((tmp_path / 'a.npy').read_bytes()[:200])
    (tmp_path / 'g.npz').write_text('hello')
    for name, words in (('d.npz', '2 arrays: x, y'), ('e.npy', 'pickle'), ('f.npy', 'cannot'), ('g.npz', 'cannot')):
        with pytest.raises(InputError, match=words) as caught:
            read_photo(tmp_path / name)
        assert str(caught.value).count(name) == 1 and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'shape, channels', [((8, 30, 8), 8), ((8, 30, 8), None), ((3, 30, 3), 3), ((90, 30, 70), None)]
)
def test_axes_that_cannot_be_told_apart_are_asked_for(shape, channels):
    values = np.zeros(shape, np.float32)
    with pytest.raises(InputError, match="say it with axes='HWC' or axes='CHW'"):
        read_photo(values, channels)
    assert read_photo(values, channels, 'HWC').values.shape == shape
    assert read_photo(values, channels, 'CHW').values.shape == (shape[1], shape[2], shape[0])


@pytest.mark.parametrize(
    'shape, channels, expected',
    [
        ((8, 30, 40), 8, (30, 40, 8)),
        ((4, 30, 8), 8, (4, 30, 8)),  # a thin image
        ((8, 30, 4), 8, (30, 4, 8)),
        ((3, 30, 8), 3, (30, 8, 3)),
        ((3, 30, 40), None, (30, 40, 3)),
        ((2, 30, 3), None, (2, 30, 3)),
        ((50, 40, 12), None, (50, 40, 12)),
        ((12, 300, 400), None, (300, 400, 12)),
    ],
)
def test_axes_as_the_network_declares_them(shape, channels, expected):
    assert read_photo(np.zeros(shape, np.float32), channels).values.shape == expected


PIPELINES = {
    'color': [{'type': 'LoadImageFromFile'}],
    'gray': [{'type': 'LoadImageFromFile', 'color_type': 'grayscale'}],
    'raw': [{'type': 'LoadImageFromFile', 'color_type': 'unchanged', 'to_float32': True}],
    'tifffile': [{'type': 'LoadImageFromFile', 'imdecode_backend': 'tifffile', 'to_float32': True}],
}


def pipeline_of(name, channels=3, **more):
    steps = [*PIPELINES[name], {'type': 'Resize', 'scale': (30, 20)}, {'type': 'PackInputs'}]
    mean = {'mean': [1600.0] * channels, 'std': [900.0] * channels, 'type': 'ImgDataPreprocessor'}
    return build_pipeline(
        Config({'default_scope': 'mmpretrain', 'test_pipeline': steps, **more}), data_preprocessor=mean
    )


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A 12-bit radiograph, signed TIFF, reflectance, eight bands, RGB and near infrared, each a gradient."""
    folder = tmp_path_factory.mktemp('files')
    cv2.imwrite(str(folder / 'radiograph.png'), scaled(0, 4000, np.uint16))
    tifffile.imwrite(folder / 'signed.tif', scaled(-1000, 3000, np.int16))
    tifffile.imwrite(folder / 'reflectance.tif', scaled(0, 0.9, np.float32))
    tifffile.imwrite(folder / 'eight.tif', bands(8), photometric='minisblack', planarconfig='contig')
    tifffile.imwrite(folder / 'nir.tif', bands(4), photometric='rgb', extrasamples=['unspecified'])
    return folder


@pytest.mark.parametrize(
    'name, file, channels, words',
    [
        ('color', 'radiograph.png', 3, 'shown 0–4095'),
        ('gray', 'radiograph.png', 1, 'shown 0–4095'),
        ('raw', 'radiograph.png', 1, 'shown 0–4095'),  # to_float32, mean 1600
        ('tifffile', 'signed.tif', 1, 'shown −979 to 2979'),
        ('color', 'signed.tif', 3, 'shown −979 to 2979'),
        ('tifffile', 'reflectance.tif', 1, 'shown 0–1'),
        ('color', 'reflectance.tif', 3, 'shown 0–1'),
        ('tifffile', 'eight.tif', 8, 'shown 0–4095 · bands 1–3 of 8'),
        ('tifffile', 'nir.tif', 4, 'shown 0–4095 · bands 1–3 of 4'),
        ('color', 'nir.tif', 3, 'shown 0–4095 · bands 1–3 of 4'),
    ],
)
def test_photo_and_view_are_visible_and_the_network_gets_the_same(files, name, file, channels, words):
    pipeline = pipeline_of(name, channels)
    plain = pipeline.read(files / file)
    assert plain.shown.describe() == words
    brightest = 3 / plain.shown.count if plain.shown.count > 3 else 1  # band k of C ends at k / C of the range
    for image in (plain.original, plain.image):
        assert np.ptp(image) > 215 * brightest
    assert abs(plain.original.mean() - plain.image.mean()) < 9
    for display in (Display.of('0,100'), Display.of('20%,30%', '1')):
        pipeline.display = display
        other = pipeline.read(files / file)
        assert other.data['inputs'].dtype == plain.data['inputs'].dtype
        assert other.data['inputs'].numpy().tobytes() == plain.data['inputs'].numpy().tobytes()
        assert not np.array_equal(other.original, plain.original)


def test_the_display_of_a_config(files):
    pipeline = pipeline_of('tifffile', 8, display={'range': [0, 2000], 'bands': [4, 3, 2]})
    assert pipeline.read(files / 'eight.tif').shown.describe().startswith('shown 0–2000 · bands 4, 3, 2 of 8')
    with pytest.raises(InputError, match="config: display: unknown 'band'"):
        pipeline_of('tifffile', 8, display={'band': 1})


def test_what_a_loader_of_eight_bits_cannot_give(files, caplog):
    with pytest.raises(InputError, match='has 8 bands.*accepted: 1 to 4 bands; use a loader that keeps them') as caught:
        pipeline_of('color').read(files / 'eight.tif')
    assert str(caught.value).count('eight.tif') == 1
    with caplog.at_level(logging.WARNING, 'vistool'):
        pipeline_of('color').read(files / 'nir.tif')
        pipeline_of('color').read(files / 'radiograph.png')
    assert 'does not get band 4' in caplog.text and '0 to 15 of 255' in caplog.text


def test_arrays_of_any_type_reach_the_network_as_they_are():
    values = bands(8, np.float32)
    for source in (values, values.transpose(2, 0, 1)):
        sample = pipeline_of('raw', 8).read(source)
        assert sample.data['inputs'].shape == (8, 20, 30) and sample.shown.count == 8
        expected = cv2.resize(values, (30, 20), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(sample.data['inputs'].numpy().transpose(1, 2, 0), expected)
    rgb = bands(3)
    sample = pipeline_of('raw').read(rgb)  # mmcv's loaders promise blue first
    np.testing.assert_array_equal(
        sample.data['inputs'][0].numpy(), cv2.resize(rgb[..., 2].astype(np.float32), (30, 20))
    )
    np.testing.assert_allclose(sample.image, cv2.resize(sample.original, (30, 20)), atol=2)


class LoadOwn:
    """A loader of a user's own: some bands, another scale, another type."""

    def __init__(self, chosen, scale=1.0, offset=0.0, curve=1.0):
        self.chosen, self.scale, self.offset, self.curve = chosen, scale, offset, curve

    def __call__(self, results):
        image = tifffile.imread(results['img_path']).astype(np.float32)[..., [band - 1 for band in self.chosen]]
        return {**results, 'img': image**self.curve * self.scale + self.offset, 'img_shape': image.shape[:2]}


def pack(results):
    import torch

    return {'inputs': torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))}


@pytest.fixture
def noisy(tmp_path):
    """Eight bands that are all different."""
    values = (RNG.random((30, 40, 8)) * np.arange(1, 9) * 500).astype(np.uint16)
    tifffile.imwrite(tmp_path / 'noise.tif', values, photometric='minisblack', planarconfig='contig')
    return tmp_path / 'noise.tif', values


@pytest.mark.parametrize('chosen', [[1, 2, 3, 4, 5, 6, 7, 8], [4, 3, 2], [8, 1, 5], [6]])
@pytest.mark.parametrize('scale, offset', [(1.0, 0.0), (1e-4, 0.0), (1 / 900, -1.5)])
def test_the_users_own_loader_is_compared_with_the_file(noisy, chosen, scale, offset):
    path, values = noisy
    sample = Pipeline([LoadOwn(chosen, scale, offset), pack], display=Display.of('0,4000')).read(path)
    drawn = chosen[:3]
    assert sample.shown.bands == tuple(drawn)
    np.testing.assert_allclose(sample.image, sample.original, atol=1)
    np.testing.assert_array_equal(
        sample.original[..., 0], np.clip(np.rint(values[..., drawn[0] - 1] / 4000 * 255), 0, 255)
    )


def test_a_loader_whose_values_are_not_the_files_is_shown_by_itself(noisy, caplog):
    with caplog.at_level(logging.INFO, 'vistool'):
        sample = Pipeline([LoadOwn([1, 2, 3], curve=0.2), pack]).read(noisy[0])
    assert 'cannot be traced back to the file' in caplog.text
    assert np.ptp(sample.image) > 200 and np.ptp(sample.original) > 80


def test_compared_finds_order_and_rounding():
    stored = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    found = compared((stored[..., ::-1] >> 8).astype(np.uint8), stored)
    assert found.bgr and found.bands is None and np.allclose(found.gain, 256, rtol=0.01)
    assert compared(RNG.random((20, 30, 3)), stored) is None
    assert compared(stored[:10], stored) is None


def dataset(files, name, file, **loader):
    from mmengine.dataset import BaseDataset

    class Few(BaseDataset):
        def load_data_list(self):
            return [{'img_path': str(files / file), 'gt_label': 0}] * 2

    steps = [{**PIPELINES[name][0], **loader}, {'type': 'Resize', 'scale': (30, 20)}, {'type': 'PackInputs'}]
    from vistool.data.pipelines import build_transforms

    return Few(pipeline=build_transforms(steps, 'mmpretrain'), serialize_data=False)


@pytest.mark.parametrize(
    'name, file, channels, words',
    [
        ('raw', 'radiograph.png', 1, 'shown 0–4095'),
        ('tifffile', 'signed.tif', 1, 'shown −979 to 2979'),
        ('tifffile', 'eight.tif', 8, 'shown 0–4095 · bands 1–3 of 8'),
        ('tifffile', 'nir.tif', 4, 'shown 0–4095 · bands 1–3 of 4'),
    ],
)
def test_datasets_are_shown_likewise(files, name, file, channels, words):
    preprocessor = {'mean': [1600.0] * channels, 'std': [900.0] * channels}
    record = Samples(dataset(files, name, file), preprocessor).read(0)
    assert record.shown.describe() == words
    for image in record.images:
        assert image.pixels.std() > 20
    chosen = Samples(dataset(files, name, file), preprocessor, display=Display.of('0,100')).read(0)
    assert chosen.data['inputs'].numpy().tobytes() == record.data['inputs'].numpy().tobytes()
    assert chosen.images[0].pixels.mean() > record.images[0].pixels.mean()


def test_pil_images_of_sixteen_bits():
    image = Image.fromarray(scaled(0, 4000, np.uint16))
    sample = pipeline_of('color').read(image)
    assert sample.shown.describe() == 'shown 0–4095' and np.ptp(sample.original) > 200


@pytest.mark.parametrize(
    'name, file, channels, names',
    [
        ('raw', 'radiograph.png', 1, ('gray',)),
        ('tifffile', 'eight.tif', 8, tuple(f'band {n}' for n in range(1, 9))),
        ('color', 'radiograph.png', 3, ('red', 'green', 'blue')),
    ],
)
def test_a_report_names_the_channels_that_there_are(files, name, file, channels, names):
    import vistool as vt
    from vistool.analyses.dataset import DatasetReport

    mean = [float(200 * (k + 1)) for k in range(channels)]
    samples = Samples(dataset(files, name, file), {'mean': mean, 'std': [500.0] * channels})
    summary = DatasetReport()(samples, [0, 1])
    values = samples.read(0).data['inputs'].double().numpy()
    np.testing.assert_allclose(summary.found[:, 0], values.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(summary.expected[:, 0], mean[::-1] if channels == 3 else mean)  # red first
    assert [key for key in summary.rows[0] if key.endswith('_mean')] == [f'{each}_mean' for each in names]
    assert any(each in summary.verdict for each in names)
    assert vt.render(summary)


@pytest.mark.parametrize('shape', [(5, 6, 1), (5, 6, 3), (3000, 3000, 1)])
def test_an_image_without_a_finite_value_is_an_error_of_that_image(shape):
    values = np.full(shape, np.nan, np.float32)
    with pytest.raises(InputError, match='no value of the image is finite'):
        Display().shown(values)


def test_a_single_finite_value_is_found_wherever_it_is():
    values = np.full((3000, 3000, 1), np.nan, np.float32)
    values[1, 1] = 7
    shown = Display().shown(values)
    assert shown.low < 7 < shown.high
    assert shown.missing == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('dtype', ['bool', 'int8', 'uint32', 'int32', 'int64', 'uint64', 'float16', 'longdouble'])
def test_an_array_of_a_type_that_opencv_does_not_resize_reaches_the_network_as_fractions(tmp_path, dtype):
    values = np.tile(np.array([[0, 1], [1, 0]]), (8, 8)).astype(dtype)
    np.save(tmp_path / 'a.npy', values)
    steps = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (16, 16)}, {'type': 'PackInputs'}]
    pipeline = build_pipeline(Config({'default_scope': 'mmpretrain', 'test_pipeline': steps}))
    sample = pipeline.read(tmp_path / 'a.npy')
    np.testing.assert_array_equal(sample.data['inputs'][0].numpy(), values.astype(np.float64))


@pytest.mark.parametrize(
    ('low', 'high', 'text'),
    [(1.39e36, 9.96e37, '1.39e36–9.96e37'), (0.0, 4294967295.0, '0–4294967295'), (1e-32, 1e-30, '1e−32–1e−30')],
)
def test_a_range_of_any_size_is_short(low, high, text):
    assert Shown(low, high).describe() == f'shown {text}'
