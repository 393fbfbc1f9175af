"""Every kind of image file against the pixels it was written from, and one-line errors for what is none."""

from __future__ import annotations

import logging
import os
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

from vistool.data.decoders import decoding
from vistool.data.images import read_image, read_photo, to_rgb
from vistool.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def spread(gray):
    return np.repeat(gray[:, :, None], 3, axis=2)


def test_rgb_png_is_exact(tmp_path):
    Image.fromarray(RGB).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), RGB)


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tif', 'webp', 'ppm'])
def test_lossless_formats(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f'a.{suffix}', **({'lossless': True} if suffix == 'webp' else {}))
    np.testing.assert_array_equal(read_image(str(tmp_path / f'a.{suffix}')), RGB)


def test_gray_and_bilevel(tmp_path):
    Image.fromarray(GREY).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), spread(GREY))
    Image.fromarray(GREY > 128).save(tmp_path / 'b.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'b.png'), spread((GREY > 128).astype(np.uint8) * 255))


def test_transparency_lies_over_white(tmp_path):
    alpha = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / 'a.png')
    a = alpha[..., None] / 255
    expected = RGB * a + 255 * (1 - a)
    np.testing.assert_allclose(read_image(tmp_path / 'a.png'), expected, atol=1)
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / 'b.png')
    np.testing.assert_allclose(read_image(tmp_path / 'b.png'), spread(GREY) * a + 255 * (1 - a), atol=1)


def test_palette_with_and_without_transparency(tmp_path):
    indices = np.tile(np.arange(4, dtype=np.uint8), (6, 3))
    image = Image.fromarray(indices).convert('P')
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)
    image = Image.frombytes('P', indices.shape[::-1], indices.tobytes())
    image.putpalette(palette.reshape(-1).tolist())
    image.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), palette[indices])
    image.save(tmp_path / 'b.png', transparency=3)
    palette[3] = 255
    np.testing.assert_array_equal(read_image(tmp_path / 'b.png'), palette[indices])


def test_transparent_color_of_an_rgb_png(tmp_path):
    Image.fromarray(RGB).save(tmp_path / 'a.png', transparency=tuple(int(v) for v in RGB[3, 4]))
    expected = RGB.copy()
    expected[np.abs(RGB.astype(int) - RGB[3, 4]).max(axis=-1) == 0] = 255
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), expected)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bit_gray_is_scaled(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 65536, (9, 13), dtype=np.uint16)
    values[0, :2] = 0, 65535
    Image.fromarray(values).save(tmp_path / f'a.{suffix}')
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(read_image(tmp_path / f'a.{suffix}'), spread(expected.astype(np.uint8)))


def test_16_bit_color_is_scaled(tmp_path):
    import cv2

    values = np.random.default_rng(0).integers(0, 65536, (9, 13, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), values[..., ::-1])
    np.testing.assert_allclose(read_image(tmp_path / 'a.png'), values / 257, atol=1)


@pytest.mark.parametrize('values,expected', [
    (np.linspace(0, 1, 12, dtype=np.float32), np.linspace(0, 255, 12)),
    (np.linspace(0, 255, 12, dtype=np.float32), np.linspace(0, 255, 12)),
    (np.linspace(0, 65535, 12, dtype=np.int32), np.linspace(0, 255, 12)),
    (np.arange(12, dtype=np.int32), np.arange(12)),
])  # fmt: skip
def test_float_and_32_bit_files(tmp_path, values, expected):
    Image.fromarray(values.reshape(3, 4)).save(tmp_path / 'a.tif')
    np.testing.assert_allclose(read_image(tmp_path / 'a.tif')[..., 1].ravel(), expected, atol=0.51)


def test_values_without_a_known_range_are_spread_with_a_warning(tmp_path, caplog):
    Image.fromarray(np.linspace(-2, 5, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / 'a.tif')
    with caplog.at_level(logging.WARNING, 'vistool'):
        image = read_image(tmp_path / 'a.tif')
    assert (image.min(), image.max(), len(caplog.records)) == (0, 255, 1)


def test_cmyk_jpeg_looks_as_it_was(tmp_path):
    smooth = np.zeros((32, 32, 3), np.uint8)
    smooth[:16] = 200, 40, 30
    smooth[16:] = 20, 90, 210
    Image.fromarray(smooth).convert('CMYK').save(tmp_path / 'a.jpg', quality=98)
    np.testing.assert_allclose(read_image(tmp_path / 'a.jpg').astype(int), smooth, atol=12)


@pytest.mark.parametrize('orientation,undo', [
    (1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (4, np.flipud),
    (5, lambda a: a.transpose(1, 0, 2)), (6, lambda a: np.rot90(a, -1)),
    (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)), (8, np.rot90),
])  # fmt: skip
def test_exif_orientation(tmp_path, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), undo(RGB))


@pytest.mark.parametrize('suffix', ['gif', 'webp', 'png', 'tif'])
def test_a_file_of_several_pictures_gives_its_first_and_says_so(tmp_path, caplog, suffix):
    frames = [Image.new('RGB', (8, 6), color) for color in ('red', 'blue')]
    path = tmp_path / f'a.{suffix}'
    frames[0].save(path, save_all=True, append_images=frames[1:], **({'lossless': True} if suffix == 'webp' else {}))
    with caplog.at_level(logging.INFO, 'vistool'):
        assert (read_image(path) == [255, 0, 0]).all()
    assert caplog.messages == [f'{path}: picture 1 of 2']


def test_a_single_picture_says_nothing(tmp_path, caplog):
    Image.fromarray(RGB).save(tmp_path / 'a.webp')
    with caplog.at_level(logging.INFO, 'vistool'):
        read_image(tmp_path / 'a.webp')
    assert not caplog.messages


@pytest.mark.parametrize(
    'head', [b'II*\0', b'MM\0*', b'\xff\xd8\xff\xe0', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'RIFF\0\0\0\0WEBP']
)
def test_what_begins_like_an_image_is_damaged_and_not_unknown(tmp_path, head, capfd):
    (tmp_path / 'a.bin').write_bytes(head + bytes(range(40)))
    with pytest.raises(InputError, match=r'a\.bin (is damaged or cut off|cannot be read)'):
        read_image(tmp_path / 'a.bin')
    assert capfd.readouterr().err == ''


def test_a_cut_off_file_of_eight_bands_is_damaged_and_libraries_stay_silent(tmp_path, capfd):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((20, 30, 8), np.uint16), photometric='minisblack')
    whole = (tmp_path / 'a.tif').read_bytes()
    (tmp_path / 'a.tif').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r'a\.tif is damaged or cut off'):
        read_photo(tmp_path / 'a.tif')
    assert capfd.readouterr().err == ''


def test_values_that_are_not_finite_reach_the_network_as_0_and_are_counted(tmp_path, caplog):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    values[1, 1:] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / 'a.tif')
    with caplog.at_level(logging.WARNING, 'vistool'):
        image = read_image(tmp_path / 'a.tif')
    assert not image[1, 1:].any()
    assert '3 of 12 values are not finite; the network gets 0 for them' in caplog.text


@pytest.mark.parametrize('name', ['a\nb.png', 'a\rb.png', 'a\tb.png', 'a\x1b[31mb.png', 'a\u2028b.png'])
@pytest.mark.parametrize('content', [b'', b'\x89PNG\r\n\x1a\n', b'some text'])
def test_a_name_with_control_characters_is_written_escaped_on_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / name)
    assert repr(name)[1:-1] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def fails(path, *words):
    with pytest.raises(InputError) as caught:
        read_image(path)
    text = str(caught.value)
    assert '\n' not in text
    assert all(word in text for word in (path.name, *words)), text


def test_what_is_no_image(tmp_path):
    Image.fromarray(RGB).save(tmp_path / 'cat.png')
    fails(tmp_path / 'cta.png', 'no such file', 'did you mean cat.png?')
    fails(tmp_path / 'nowhere' / 'cat.png', 'no such file')
    (tmp_path / 'folder').mkdir()
    fails(tmp_path / 'folder', 'is a folder')
    (tmp_path / 'empty.jpg').touch()
    fails(tmp_path / 'empty.jpg', '0 bytes')
    (tmp_path / 'text.jpg').write_text('hello there\n' * 5)
    fails(tmp_path / 'text.jpg', 'a text file')
    (tmp_path / 'noise.jpg').write_bytes(bytes(range(256)) * 4)
    fails(tmp_path / 'noise.jpg', 'not an image')


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'gif', 'tif'])
@pytest.mark.parametrize('part', [0.1, 0.5, 0.9])
def test_cut_off_files(tmp_path, suffix, part):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    fails(path)


def test_arrays_are_checked():
    np.testing.assert_array_equal(read_photo(GREY).values, spread(GREY))
    np.testing.assert_array_equal(read_photo(RGB).values, RGB)
    np.testing.assert_array_equal(read_photo(RGB.transpose(2, 0, 1)).values, RGB)
    for wrong in (RGB[None], RGB[:0], RGB.astype(complex), RGB.astype(str), np.array(None)):
        with pytest.raises(InputError, match='accepted: numbers of shape'):
            read_photo(wrong)


def test_pil_images_go_the_same_way():
    np.testing.assert_array_equal(to_rgb(Image.fromarray(GREY)), spread(GREY))


def damaged_fax(path):
    """A bilevel TIFF in which some bytes are wrong: libtiff prints a line for each row that it cannot read."""
    Image.fromarray(GREY > 128).resize((80, 80)).save(path, compression='group4')
    data = bytearray(path.read_bytes())
    data[20:60:4] = bytes(10)
    path.write_bytes(data)


def test_what_libtiff_prints_of_a_damaged_file_is_one_warning(tmp_path, caplog, capfd):
    damaged_fax(tmp_path / 'a.tif')
    read_photo(tmp_path / 'a.tif')
    (record,) = caplog.records
    assert 'a.tif is damaged, but could be decoded: Fax4Decode' in record.getMessage()
    assert capfd.readouterr().err == ''


def test_what_opencv_prints_of_a_damaged_file_is_one_warning(tmp_path, caplog, capfd):
    import cv2

    Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))).save(tmp_path / 'a.jpg')
    data = bytearray((tmp_path / 'a.jpg').read_bytes())
    data[-400:-390] = bytes(10)
    with decoding('a.jpg'):
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
    assert 'a.jpg is damaged, but could be decoded: Corrupt JPEG data' in caplog.text
    assert capfd.readouterr().err == ''


def test_a_file_that_cannot_be_decoded_is_an_error_and_nothing_else(tmp_path, caplog, capfd):
    Image.fromarray(RGB).save(tmp_path / 'a.tif', compression='jpeg')
    data = (tmp_path / 'a.tif').read_bytes()
    (tmp_path / 'a.tif').write_bytes(data.replace(b'\xff\xdb', b'\xff\xfe'))
    with pytest.raises(InputError, match='a.tif is damaged or cut off'):
        read_photo(tmp_path / 'a.tif')
    assert not caplog.records and capfd.readouterr().err == ''


def test_files_decoded_at_a_time_share_a_warning_and_standard_error_comes_back(caplog, capfd):
    started, done = threading.Barrier(2), threading.Barrier(2)

    def decode(name):
        with decoding(name):
            started.wait(10)
            os.write(2, f'{name} is bad\n'.encode())
            done.wait(10)

    threads = [threading.Thread(target=decode, args=(name,)) for name in ('one', 'two')]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    (record,) = caplog.records
    assert {'one', 'two'} < set(record.getMessage().split()) and '(and 1 more)' in record.getMessage()
    os.write(2, b'still here')
    assert capfd.readouterr().err == 'still here'
