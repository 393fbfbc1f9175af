"""Which images an argument names, what they are called, and batches."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistool.data.datasets import LabeledFiles
from vistool.data.samples import Item, Sample, find_inputs, preprocess
from vistool.errors import InputError
from vistool.visualization.files import encode_pixels


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 3)).save(path) if path.suffix.lower() in ('.jpg', '.png', '.tif') else path.write_text('x')


def named(items):
    return {item.name: item.path.name for item in items}


def test_one_file(tmp_path):
    make(tmp_path, 'cat.jpg')
    (item,) = find_inputs(tmp_path / 'cat.jpg')
    assert (item.path, item.name) == (tmp_path / 'cat.jpg', 'cat')


def test_a_folder_is_walked_and_sub_folders_are_kept(tmp_path):
    make(tmp_path, 'b/cat.JPG', 'a/x/cat.png', 'dog.tif', 'notes.txt', '.hidden.png', '.git/z.png')
    items = find_inputs(str(tmp_path))
    assert [item.name for item in items] == ['a/x/cat', 'b/cat', 'dog']
    assert [item.path for item in items] == [tmp_path / 'a/x/cat.png', tmp_path / 'b/cat.JPG', tmp_path / 'dog.tif']


def test_equal_stems_stay_apart(tmp_path):
    make(tmp_path, 'cat.jpg', 'cat.png', 'dog.png', 'CAT.tif')
    assert named(find_inputs(tmp_path)) == {
        'cat.jpg': 'cat.jpg', 'cat.png': 'cat.png', 'CAT.tif': 'CAT.tif', 'dog': 'dog.png',
    }  # fmt: skip


def test_names_differ_even_on_file_systems_that_ignore_case(tmp_path):
    make(tmp_path, 'a.png', 'A.png', 'a.PNG')
    names = [item.name.lower() for item in find_inputs(tmp_path)]
    assert len(set(names)) == len(names)


def test_globs(tmp_path):
    make(tmp_path, 'a/x/1.png', 'a/y/1.png', 'a/2.jpg', 'a/3.txt')
    assert named(find_inputs(f'{tmp_path}/a/**/*.png')) == {'x/1': '1.png', 'y/1': '1.png'}
    assert [item.name for item in find_inputs(f'{tmp_path}/a/*')] == ['2']
    with pytest.raises(InputError, match='no image matches the pattern'):
        find_inputs(f'{tmp_path}/a/*.bmp')


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    make(tmp_path, 'cat[1].png')
    assert named(find_inputs(tmp_path / 'cat[1].png')) == {'cat[1]': 'cat[1].png'}


def test_lists(tmp_path, monkeypatch):
    make(tmp_path, 'list/a/1.png', 'list/b/1.png', 'here/2.png')
    text = '# photos\n\na/1.png\n  b/1.png  \na/1.png\nmissing.png\nhere/2.png\n'
    (tmp_path / 'list' / 'all.txt').write_text(text)
    monkeypatch.chdir(tmp_path)
    items = find_inputs('list/all.txt')
    assert [item.name for item in items] == ['list/a/1', 'list/b/1', 'list/missing', 'here/2']
    assert [item.path.exists() for item in items] == [True, True, False, True]


def test_lists_that_name_nothing(tmp_path):
    (tmp_path / 'none.txt').write_text('# nothing\n\n')
    with pytest.raises(InputError, match='names no image'):
        find_inputs(tmp_path / 'none.txt')
    (tmp_path / 'gone.txt').write_text('gone.png\n')
    with pytest.raises(InputError, match='none of the files'):
        find_inputs(tmp_path / 'gone.txt')


@pytest.mark.parametrize(
    ('text', 'labels'),
    [
        ('path,label\na/1.png,3\n"b, c/2.png",tabby\n', ['3', 'tabby']),
        ('a/1.png,3\n"b, c/2.png","king penguin, Aptenodytes"\n', ['3', 'king penguin, Aptenodytes']),  # no header
        ('\ufeffid;File;split;Class\r\n7;a/1.png;val;cat\r\n8;b, c/2.png;val;\r\n', ['cat', None]),
        ('fold\tfilename\n1\ta/1.png\n2\tb, c/2.png\n', [None, None]),
        ('a/1.png\n\n"b, c/2.png"\n', [None, None]),
    ],
)
def test_tables_of_paths_and_classes(tmp_path, text, labels):
    make(tmp_path, 'a/1.png', 'b, c/2.png')
    (tmp_path / 'labels.csv').write_text(text, encoding='utf-8')
    items = find_inputs(tmp_path / 'labels.csv')
    assert [item.name for item in items] == ['a/1', 'b, c/2']
    assert [item.label for item in items] == labels


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('1,a/1.png,3\n', 'has 3 columns, and its first row does not say which of them has the paths'),
        ('path,label\n,3\n', 'row 2: no path'),
        ('path,label\n', 'names no image'),
        ('', 'names no image'),
        ('photo,label\na/1.jpg,3\n', 'none of the files listed'),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path, text, said):
    (tmp_path / 'labels.csv').write_text(text)
    with pytest.raises(InputError, match=said):
        find_inputs(tmp_path / 'labels.csv')


@pytest.mark.parametrize(
    ('piped', 'names'),
    [
        (b'# photos\na/1.png\n\n  b/1.png, tabby\r\nmissing.png\na/1.png\n', ['a/1', 'b/1', 'missing']),
        (b'a/1.png\0b/two\nlines.png\0', ['a/1', 'b/two\\nlines']),  # of find -print0
    ],
)
def test_a_dash_is_a_list_on_standard_input(tmp_path, monkeypatch, piped, names):
    make(tmp_path, 'a/1.png', 'b/1.png', 'b/two\nlines.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(piped)))
    items = find_inputs('-')
    assert [item.name for item in items] == names
    assert [item.path.exists() for item in items] == [name != 'missing' for name in names]
    assert items[1].label == ('tabby' if b'tabby' in piped else None)


def test_a_dash_without_a_list_is_told(monkeypatch):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'')))
    with pytest.raises(InputError, match='the list on standard input names no image'):
        find_inputs('-')
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'gone.png\n')))
    with pytest.raises(InputError, match='none of the files listed on standard input exists'):
        find_inputs('-')
    monkeypatch.setattr('sys.stdin', None)
    with pytest.raises(InputError, match='nothing is piped into it'):
        find_inputs('-')


def test_a_dash_is_refused_where_processes_share_the_standard_input(monkeypatch):
    """Each would read a part of the list."""
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'a.png\n')))
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(InputError, match=r'2 processes share the standard input; accepted: a \.txt list'):
        find_inputs('-')
    assert sys.stdin.read() == 'a.png\n'


def test_a_dash_reads_text_that_replaces_the_standard_input(tmp_path, monkeypatch):
    make(tmp_path, 'a/1.png')
    monkeypatch.setattr('sys.stdin', io.StringIO(f'{tmp_path}/a/1.png\n'))
    assert [item.path for item in find_inputs('-')] == [tmp_path / 'a' / '1.png']


def test_missing_and_empty(tmp_path):
    make(tmp_path, 'coffee.png')
    with pytest.raises(InputError, match=r'did you mean coffee\.png\?'):
        find_inputs(tmp_path / 'cofee.png')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='no image in the folder'):
        find_inputs(tmp_path / 'empty')


def test_linked_folders_end(tmp_path):
    make(tmp_path, 'a/1.png')
    os.symlink(tmp_path / 'a', tmp_path / 'a' / 'again', target_is_directory=True)
    assert len(find_inputs(tmp_path)) == 1


def sample(data):
    return Sample(data, np.zeros((4, 6, 3), np.uint8))


def test_plain_tensors_tuples_and_dicts_are_stacked():
    a, b = torch.rand(3, 4, 6), torch.rand(3, 4, 6)
    torch.testing.assert_close(preprocess([sample(a), sample(b)], None, 'cpu'), torch.stack([a, b]))
    pair = preprocess([sample((a, b)), sample((b, a))], None, 'cpu')
    torch.testing.assert_close(pair, (torch.stack([a, b]), torch.stack([b, a])))
    both = preprocess([sample({'rgb': a, 'depth': b})], None, 'cpu')
    torch.testing.assert_close(both, {'rgb': a[None], 'depth': b[None]})
    bytes_ = torch.zeros(3, 4, 6, dtype=torch.uint8)
    assert preprocess([sample(bytes_)], None, 'cpu').dtype == torch.float32


def test_different_sizes_are_an_error():
    with pytest.raises(InputError, match='different sizes in one batch: 3x4x6, 3x5x6'):
        preprocess([sample(torch.rand(3, 4, 6)), sample(torch.rand(3, 5, 6))], None, 'cpu')


@pytest.mark.parametrize('kind', ['ClsDataPreprocessor', 'SelfSupDataPreprocessor', 'ImgDataPreprocessor'])
def test_data_preprocessors_normalize_and_pad(kind):
    import mmengine.model
    import mmpretrain.models

    cls = getattr(mmpretrain.models, kind, None) or getattr(mmengine.model, kind)
    mean, std = [123.0, 116.0, 103.0], [58.0, 57.0, 56.0]
    swap = {'bgr_to_rgb': True} if kind == 'ImgDataPreprocessor' else {'to_rgb': True}
    module = cls(mean=mean, std=std, pad_size_divisor=4, pad_value=1, **swap)
    module.train()
    images = [torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8) for _ in range(2)]
    data = [{'inputs': image, 'data_samples': object()} for image in images]
    batch = preprocess([sample(d) for d in data], module, 'cpu')
    rgb = torch.stack(images).flip(1).float()
    expected = (rgb - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(batch[..., :5, :6], expected)
    assert module.training
    if kind != 'SelfSupDataPreprocessor':
        assert batch.shape == (2, 3, 8, 8)
        assert (batch[..., 5:, :] == 1).all()
        assert (batch[..., 6:] == 1).all()
    assert all(d['inputs'] is image for d, image in zip(data, images, strict=True))


def test_importing_inputs_is_quick():
    code = 'import sys, vistool.data.samples; assert not {"torch", "cv2", "matplotlib", "mmengine"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2])


def test_a_list_says_the_class_of_an_image_after_a_comma(tmp_path):
    make(tmp_path, 'a.png', 'b.png', 'c,d.png', 'e.png,7')
    (tmp_path / 'all.txt').write_text('a.png,tabby\nb.png , 3\nc,d.png\ne.png,7\nabsent.png,x y\n')
    items = find_inputs(tmp_path / 'all.txt')
    labels = {item.path.name: item.label for item in items}
    assert labels == {'a.png': 'tabby', 'b.png': '3', 'c,d.png': None, 'e.png,7': None, 'absent.png': 'x y'}


def test_classes_of_listed_files_are_looked_up(tmp_path):
    items = [Item(tmp_path / name, name, word) for name, word in (('a', 'cup'), ('b', '0'), ('c', None))]
    files = LabeledFiles(items, ('tabby, tabby cat', 'cup'))
    assert [files.label(index) for index in range(3)] == [1, 0, None]
    assert [item.label for item in files] == [1, 0, None] and len(files) == 3 and files[1:][0].label == 0
    for word in ('cop', '2', '-1'):
        with pytest.raises(InputError, match=r'^images: no class'):
            LabeledFiles([Item(tmp_path, 'a', word)], ('tabby', 'cup'))


def test_results_of_earlier_runs_are_not_photos(tmp_path, caplog):
    caplog.set_level('INFO', 'vistool')
    for name in ('a.png', 'b.png', 'a_gradcam.png', 'out/a_gradcam.png', 'out/sheets/1.png', 'own/a_gradcam.png'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(path)
    entry = json.dumps({'name': 'a', 'files': [{'name': 'a_gradcam.png', 'bytes': 1, 'crc32': '0'}]})
    for folder in (tmp_path, tmp_path / 'out'):
        (folder / 'run.json').write_text('{}')
        (folder / 'manifest.jsonl').write_text(f'{entry}\n{{"name": "b"\n[]\n')  # cut off, and of another kind
    assert [item.path.relative_to(tmp_path).as_posix() for item in find_inputs(tmp_path)] == [
        'a.png', 'b.png', 'own/a_gradcam.png',
    ]  # fmt: skip
    assert 'results of earlier runs' in caplog.text
    assert [item.path.name for item in find_inputs(tmp_path / 'out')] == ['1.png']


def test_pictures_without_a_run_are_not_photos_either(tmp_path, caplog):
    """Beside the photos and below them, in any case; the numbers beside such a picture are not an array to read."""
    caplog.set_level('INFO', 'vistool')
    drawn = encode_pixels(np.zeros((8, 8, 3), np.uint8), '.png')
    make(tmp_path, 'a.png', 'b.jpg', 'sub/c.png')
    for name in ('a_heat.png', 'sub/patches/c.PNG', 'only/a.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(drawn)
    np.savez(tmp_path / 'only/a.npz', image=np.zeros((8, 8, 3), np.uint8))
    assert [item.name for item in find_inputs(tmp_path)] == ['a', 'b', 'sub/c']
    assert f'results of earlier runs in {tmp_path} are left out, such as {tmp_path}/a_heat.png' in caplog.text
    with pytest.raises(InputError, match='no image in the folder'):
        find_inputs(tmp_path / 'only')
    assert [item.name for item in find_inputs(tmp_path / 'a_heat.png')] == ['a_heat']  # named by itself: it is meant


def test_links_to_nothing_are_told_of(tmp_path, caplog):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    for name in ('b.png', 'c.png', 'notes.md'):
        (tmp_path / name).symlink_to('moved')
    assert [item.path.name for item in find_inputs(tmp_path)] == ['a.png']
    assert f'{tmp_path}: 2 links lead to nothing, such as {tmp_path}/b.png' in caplog.text
