"""Who is answered, what is refused, and what an answer never says."""

import io
import struct
import threading
import zipfile
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from explorer import ADDRESS, PORT, png
from PIL import Image

from vistool.explore import photos


@pytest.fixture
def photo(client):
    return client.upload(png(), 'shared.png')


@pytest.mark.parametrize('path', ['/', '/state', '/wrong-token/state', '/wrong-token/', '//state', '/../state'])
def test_without_the_token_nothing_is_answered(client, path):
    answer = client.http.get(path)
    assert answer.status_code == 403 and 'token' in answer.json()['error']


def test_a_token_that_is_longer_or_shorter_is_wrong(client):
    for token in (client.server.token[:-1], client.server.token + 'x', client.server.token.upper(), 'ü' * 32):
        assert client.http.get(f'/{token}/state').status_code == 403


@pytest.mark.parametrize(
    'host', ['evil.example', f'evil.example:{PORT}', '127.0.0.1', '127.0.0.1:1', f'localhost.evil.example:{PORT}', '']
)
def test_another_host_is_refused(client, host):
    answer = client.get('state', {'host': host})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    'headers',
    [
        {'origin': 'http://evil.example'},
        {'origin': 'null'},
        {'origin': f'https://127.0.0.1:{PORT}'},
        {'origin': f'http://localhost:{PORT}'},
        {'sec-fetch-site': 'cross-site'},
        {'sec-fetch-site': 'same-site'},
    ],
)
def test_requests_of_other_pages_are_refused(client, headers):
    assert client.get('state', headers).status_code == 403
    assert client.post(png(), headers=headers).status_code == 403


def test_a_link_to_the_page_may_be_followed_from_anywhere(client):
    headers = {'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate'}
    assert client.get('', headers).headers['content-type'].startswith('text/html')
    assert client.get('state', headers).status_code == 403
    assert client.get('page/..').headers['content-type'].startswith('text/html')  # the client resolves it
    without_slash = client.http.get(f'/{client.server.token}', follow_redirects=False)
    assert without_slash.status_code == 307 and without_slash.headers['location'] == f'/{client.server.token}/'


@pytest.mark.parametrize(('name', 'size', 'small'), [('a.png', (480, 320), (160, 107)), ('a.jpg', (90, 60), (90, 60))])
def test_a_thumbnail_is_small_and_needs_no_model(client, name, size, small, monkeypatch):
    file = io.BytesIO()
    Image.new('RGB', size, 'teal').save(file, 'PNG' if name.endswith('png') else 'JPEG')
    photo = client.upload(file.getvalue(), name)
    monkeypatch.setattr(client.server.worker, 'submit', None)
    shown = Image.open(io.BytesIO(client.get(f'photos/{photo}/thumbnail').content))
    assert shown.format == 'JPEG' and shown.size == small


@pytest.mark.parametrize('channels', [(), (3,)])
def test_a_thumbnail_of_16_bits_is_the_picture_that_commands_show(client, channels):
    values = np.resize((np.arange(60 * 90, dtype=np.uint16) * 12), (60, 90, *channels))
    photo = client.upload(cv2.imencode('.png', values)[1].tobytes(), 'deep.png')
    assert client.get(f'photos/{photo}/thumbnail').content == client.get(f'photos/{photo}/picture').content


def test_the_page_itself_is_answered(client):
    for headers in ({}, {'origin': ADDRESS}, {'sec-fetch-site': 'same-origin'}, {'sec-fetch-site': 'none'}):
        assert client.get('state', headers).status_code == 200
    local = {'host': f'localhost:{PORT}', 'origin': f'http://localhost:{PORT}'}
    assert client.get('state', local).status_code == 200


@pytest.mark.parametrize(
    'path',
    [
        'page/../../../setup.cfg',
        'page/..%2f..%2fserver.py',
        'page/%2e%2e/server.py',
        'page/server.py',
        'page/',
        'page//etc/passwd',
        'photos/../state/picture',
        '%00',
        'nothing',
    ],
)
def test_only_the_files_of_the_page_are_served(client, path):
    answer = client.http.get(f'/{client.server.token}/{path}')
    assert answer.status_code in (403, 404) and 'error' in answer.json()  # 403: the client resolved the dots itself


def test_every_answer_has_the_headers_of_a_page_on_its_own(client, photo):
    asked = [client.get('state'), client.get('nothing'), client.http.get('/'), client.get(f'photos/{photo}/picture')]
    for answer in asked:
        headers = answer.headers
        assert headers['content-security-policy'].startswith("default-src 'none'; script-src 'self'")
        assert 'unsafe' not in headers['content-security-policy']
        assert headers['x-content-type-options'] == 'nosniff' and headers['x-frame-options'] == 'DENY'
        assert headers['referrer-policy'] == 'no-referrer' and headers['cross-origin-resource-policy'] == 'same-origin'
        assert 'access-control-allow-origin' not in headers and 'server' not in headers
        assert 'set-cookie' not in headers and 'cache-control' in headers
    assert asked[0].headers['cache-control'] == 'no-store'


def test_methods_that_are_not_answered(client):
    assert client.http.post(f'/{client.server.token}/state').status_code == 405
    assert client.http.delete(f'/{client.server.token}/map').status_code == 405


# --- uploads ---------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png_bomb(side=30_000):
    """A PNG of a few kilobytes that says it has 900 megapixels."""
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(bytes(100_000))) + chunk(b'IEND', b'')


def tiff_bomb():
    """A TIFF of a few kilobytes that says it has 400 megapixels of float32."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.float32))
    data = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        for name in ('ImageWidth', 'ImageLength'):
            tag = opened.pages[0].tags[name]
            kind = '<H' if tag.dtype.name == 'SHORT' else '<I'
            place = tag.valueoffset
            data = data[:place] + struct.pack(kind, 20_000) + data[place + struct.calcsize(kind) :]
    return data


def array_bomb():
    """A .npz whose one array would take 3 GB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive, archive.open('img.npy', 'w') as member:
        np.lib.format.write_array_header_1_0(
            member, {'descr': '<f4', 'fortran_order': False, 'shape': (30_000, 30_000)}
        )
        member.write(bytes(1000))
    return file.getvalue()


@pytest.mark.parametrize(
    ('data', 'name'),
    [(png_bomb(), 'bomb.png'), (png_bomb(12_000), 'b.png'), (tiff_bomb(), 'bomb.tif'), (array_bomb(), 'bomb.npz')],
    ids=['900 megapixels', '144 megapixels', 'a TIFF', 'an archive'],
)
def test_a_bomb_is_refused_by_its_head(client, data, name, monkeypatch):
    monkeypatch.setattr(type(client.server.session), 'reading', lambda *args: pytest.fail('it was decoded'))
    answer = client.post(data, name)
    assert answer.status_code == 413 and name in answer.json()['error']


@pytest.mark.parametrize(
    ('data', 'name'),
    [
        (b'', 'empty.png'),
        (b'text, not an image', 'text.png'),
        (bytes(range(256)) * 10, 'noise.jpg'),
        (png()[:-200], 'cut.png'),
        (png()[:30], 'head.png'),
        (png(), 'photo.txt'),
        (png(), 'photo.exe'),
        (b'II*\0' + bytes(20), 'cut.tif'),
        (b'PK\x03\x04' + bytes(40), 'cut.npz'),
        (b'\x93NUMPY' + bytes(40), 'cut.npy'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_is_not_an_image_is_refused_in_one_line(client, data, name):
    answer = client.post(data, name)
    error = answer.json()['error']
    assert answer.status_code == 415 and '\n' not in error and name in error
    assert str(client.server.session.folder) not in error
    assert len(list(client.server.session.folder.iterdir())) == len(client.server.session.photos._uploads)


def test_too_many_bytes_are_refused_and_nothing_is_left(client, monkeypatch):
    monkeypatch.setattr('vistool.explore.server.MOST_BYTES', 100_000)
    before = sorted(client.server.session.folder.iterdir())
    answer = client.post(bytes(300_000), 'large.png')
    assert answer.status_code == 413 and 'large.png' in answer.json()['error']
    assert sorted(client.server.session.folder.iterdir()) == before


@pytest.mark.parametrize(
    ('given', 'kept'),
    [
        ('../../etc/passwd.png', 'passwd.png'),
        ('C:\\photos\\cat.png', 'cat.png'),
        ('-o.png', '-o.png'),
        ('a b\'"$(x).png', 'a b\'"$(x).png'),
        ('новый год.png', 'новый год.png'),
        ('line\nbreak\x00.png', 'linebreak.png'),
        ('x' * 400 + '.png', 'x' * 116 + '.png'),
    ],
)
def test_names_of_files_are_names_alone(client, given, kept):
    answer = client.post(png(), given).json()
    assert answer['name'] == kept
    header, _ = client.map('pca', answer['id'])
    assert header['command'].startswith('vis_featmap ')
    folder = client.server.session.folder
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in folder.rglob('*'))
    assert client.figure('pca', answer['id'], format='png')[:4] == b'\x89PNG'


def test_a_photo_of_16_bits_and_a_turned_one_are_read_as_commands_read_them(client):
    file = io.BytesIO()
    Image.fromarray((np.arange(60 * 90, dtype=np.uint16) * 12).reshape(60, 90)).save(file, 'PNG')
    answer = client.post(file.getvalue(), 'deep.png').json()
    assert (answer['width'], answer['height']) == (90, 60)
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(png((60, 90)))).save(turned, 'JPEG', exif=exif)
    answer = client.post(turned.getvalue(), 'turned.jpg').json()
    assert (answer['width'], answer['height']) == (60, 90)
    picture = Image.open(io.BytesIO(client.get(f'photos/{answer["id"]}/picture').content))
    assert picture.size == (60, 90)


def test_a_forgotten_photo_is_gone(client):
    photo = client.upload(png())
    client.describe(photo)
    assert client.http.delete(f'/{client.server.token}/photos/{photo}').status_code == 204
    for answer in (client.get(f'photos/{photo}/describe'), client.get('map', photo=photo, view='pca')):
        assert answer.status_code == 404 and 'choose it again' in answer.json()['error']
    assert client.http.delete(f'/{client.server.token}/photos/{photo}').status_code == 404
    assert not any(place[0] == photo for place in client.server.session._readings)


def test_uploads_are_told_to_a_page_that_knows_them(client):
    first, other, gone = (client.upload(png((40, 40), seed), f'{seed}.png') for seed in range(3))
    client.http.delete(f'/{client.server.token}/photos/{gone}')
    told = client.get('state', uploads=f'{other},{gone},{other},u999,../x,').json()['photos']
    assert told == [{'id': other, 'name': '1.png'}]
    assert first not in client.get('state').text


def test_uploads_are_bounded(client, monkeypatch):
    monkeypatch.setattr(photos, 'MOST_UPLOADS', 3)
    ids = [client.upload(png((40, 40), seed)) for seed in range(6)]
    assert client.get(f'photos/{ids[0]}/picture').status_code == 404
    assert client.get(f'photos/{ids[-1]}/picture').status_code == 200
    assert len(list(client.server.session.folder.iterdir())) == 3


def test_what_is_kept_of_photos_is_bounded(client, monkeypatch):
    monkeypatch.setattr('vistool.explore.session.MOST_MEMORY', 1)
    first, second = client.upload(png((50, 50))), client.upload(png((50, 60)))
    client.describe(first)
    client.describe(second)
    assert list(client.server.session._readings) == [(second, 0)]
    header, _ = client.map('similarity', first, x=20, y=20)  # read again
    assert header['photo'] == first


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'asked',
    [
        {'view': 'nothing'},
        {'view': 'similarity'},
        {'view': 'similarity', 'x': 20},
        {'view': 'similarity', 'x': 'nan', 'y': 3},
        {'view': 'similarity', 'x': '1e9', 'y': 3},
        {'view': 'similarity', 'x': 3000, 'y': 3},
        {'view': 'attention', 'layer': 99},
        {'view': 'attention', 'layer': -1},
        {'view': 'attention', 'head': 99},
        {'view': 'attention', 'head': 'all'},
        {'view': 'attention', 'method': 'nothing'},
        {'view': 'attention', 'query': 'elsewhere'},
        {'view': 'cam', 'method': 'nothing'},
        {'view': 'cam', 'target': 99},
        {'view': 'cam', 'target': 'x' * 500},
        {'view': 'features', 'channel': '0,99999'},
        {'view': 'features', 'channel': 'a'},
        {'view': 'features', 'count': 'many'},
        {'view': 'attention', 'model': 7},
        {'view': 'attention', 'model': 'x'},
    ],
    ids=lambda value: ' '.join(f'{key}={text}' for key, text in value.items())[:40],
)
def test_bad_requests_are_one_line(client, photo, asked):
    answer = client.get('map', photo=photo, **asked)
    told = answer.json()
    assert answer.status_code == 400 and told['error'] and '\n' not in told['error'], told
    assert client.get('map', photo=photo, view='pca').status_code == 200


def test_a_format_that_is_not_written(client, photo):
    assert client.get('figure', photo=photo, view='pca', format='exe').status_code == 400


def test_a_fault_is_one_line_without_a_path(client, photo, monkeypatch):
    def fail(*args):
        raise RuntimeError('in /home/somebody/secret/file.py: no\nmore')

    monkeypatch.setattr(type(client.server.session), 'map', fail)
    answer = client.get('map', photo=photo, view='pca')
    assert answer.status_code == 500 and '/home' not in answer.text and 'RuntimeError' in answer.json()['error']


def test_two_tabs_with_two_photos_do_not_disturb_each_other(client):
    ids = [client.upload(png(seed=seed)) for seed in (5, 6)]
    alone = [client.map('similarity', photo, x=30, y=30)[1][0] for photo in ids]
    wrong = []

    def click(photo, expected, tab):
        for _ in range(20):
            answer = client.get('map', view='similarity', photo=photo, x=30, y=30, tab=tab)
            if answer.status_code != 200:
                wrong.append(answer.status_code)
            elif not np.array_equal(np.frombuffer(answer.content[-expected.nbytes :], '<f4'), expected.ravel()):
                wrong.append(photo)

    threads = [threading.Thread(target=click, args=(ids[n], alone[n], f'tab{n}')) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(entry['id'] not in ids for entry in client.get('state').json()['photos'])


def test_the_color_maps_are_those_of_figures(client):
    names = client.get('state').json()['colormaps']
    tables = np.frombuffer(client.get('page/colormaps.bin').content, np.uint8).reshape(len(names), 256, 3)
    from vistool.visualization.style import lookup_table

    for name, table in zip(names, tables, strict=True):
        np.testing.assert_array_equal(table, lookup_table(name))
