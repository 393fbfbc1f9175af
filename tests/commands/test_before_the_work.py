"""What can be known to be wrong before the work is refused before it, and leaves nothing behind."""

import json
import shutil

import pytest
from command_line import files, runner
from PIL import Image

from vistool.commands import (
    browse_dataset,
    options,
    vis_attention,
    vis_cam,
    vis_featmap,
    vis_lr,
    vis_patches,
    vis_tsne,
)
from vistool.errors import InputError

cam, attention, featmap = map(runner, (vis_cam.main, vis_attention.main, vis_featmap.main))
patches, browse, lr, tsne = map(runner, (vis_patches.main, browse_dataset.main, vis_lr.main, vis_tsne.main))


def refused(capsys, command, *words):
    """The single line of an error with exit code 2 and nothing on stdout."""
    code, out, err = command(capsys, *words)
    errors = [line for line in err.splitlines() if line.startswith('error: ')]
    assert code == 2 and out == '' and len(errors) == 1, (code, out, err)
    return errors[0]


VIT = ['things/vit.py', 'none']


@pytest.mark.parametrize(
    ('command', 'options', 'named'),
    [
        (cam, ['--target-layers', 'nowhere'], '--target-layers'),
        (cam, ['--target-category', 'no such class'], '--target-category'),
        (cam, ['--method', 'NoCAM'], '--method'),
        (cam, ['--layer-fusion', 'median'], '--layer-fusion'),
        (cam, ['--reference', 'things/broken.png'], '--reference'),
        (cam, ['--target-layers', 'backbone.layers.0.ln1#7'], '--target-layers'),
        (attention, ['--query', '99999'], '--query'),
        (attention, ['--layers', '17'], '--layers'),
        (attention, ['--target-layers', '17'], '--target-layers'),
        (featmap, ['--channels', '4000'], '--channels'),
        (featmap, ['--topk', '4000'], '--topk'),
    ],
)
@pytest.mark.parametrize('images', ['things/folder', 'things/mixed'])  # the first image of the second is broken
def test_a_wrong_choice_over_many_images_leaves_no_run(capsys, here, command, options, named, images):
    assert named in refused(capsys, command, images, *VIT, '-o', 'out', *options)
    assert files(here) == []


def test_the_corrected_command_runs_after_a_broken_image_and_a_wrong_class(capsys, here):
    refused(capsys, cam, 'things/mixed', *VIT, '-o', 'out', '--target-category', 'no such class')
    code, out, err = cam(capsys, 'things/mixed', *VIT, '-o', 'out')
    assert code == 1 and len(out.splitlines()) == 2 and 'unfinished' not in err
    entries = [json.loads(line) for line in (here / 'out/manifest.jsonl').read_text().splitlines()]
    assert [bool(entry['error']) for entry in entries] == [True, False, False]


@pytest.mark.parametrize(
    'sheet', ['sheet', 'sheet.tif', 'things/good.png/sheet.pdf', 'things', 'a\nb.png', 'a' * 300 + '.png']
)
def test_a_sheet_that_cannot_be_written_is_refused_before_the_work(capsys, here, sheet):
    assert '--sheet' in refused(capsys, cam, 'things/folder', *VIT, '-o', 'out', '--sheet', sheet)
    assert files(here) == []


@pytest.mark.parametrize('option', ['-o', '--panels'])
@pytest.mark.parametrize('value', ['a\nb', 'a\x00b', 'a' * 300, 'things/good.png/x'])
def test_places_that_cannot_be_written_are_refused_on_one_line(capsys, here, option, value):
    name = '--panels' if option == '--panels' else '--out'
    assert f'error: {name}: ' in refused(capsys, cam, 'things/good.png', *VIT, option, value)
    assert files(here) == []


@pytest.mark.parametrize('name', ['panels.npz', 'sub/x.PNG', 'x.tiff'])
def test_a_folder_that_is_called_like_a_file_is_refused(capsys, here, name):
    line = refused(capsys, cam, 'things/good.png', *VIT, '-o', 'out', '--panels', name)
    assert '--panels' in line and 'ends like a' in line and files(here) == []


@pytest.mark.parametrize(
    ('texts', 'named'),
    [
        ({'a.py': b"_base_ = 'a.py'"}, 'a.py has no end'),
        ({'a.py': b"_base_ = ['b.py']", 'b.py': b"_base_ = ['a.py']"}, 'a.py has no end'),
        ({'a.py': b'\xff\xfe\x00bad'}, 'a.py is not UTF-8 text'),
    ],
)
def test_configs_that_cannot_be_read_to_their_end_are_one_line(capsys, here, texts, named):
    for name, text in texts.items():
        (here / name).write_bytes(text)
    assert named in refused(capsys, cam, 'things/good.png', 'a.py', 'none')


def said(command, *words):
    parser = command.build_parser()
    with pytest.raises(InputError) as caught:
        parser.parse(words)
    return caught.value.line(parser.spelling)


@pytest.mark.parametrize(
    ('command', 'words', 'start'),
    [
        (vis_cam, ['--similar=--'], "--similar: '--' is not a value; accepted: --similar CLASS"),
        (vis_cam, ['-o=--'], "--out: '--' is not a value"),
        (vis_cam, ['--save-path='], '--save-path: an empty value; accepted: --save-path PATH'),
        (vis_attention, ['--layers', ''], '--layers: an empty value'),
        (vis_cam, ['--seed', '²'], "--seed: '²' is not a whole number"),
        (vis_cam, ['--seed', '9' * 5000], '--seed: '),
        (vis_patches, ['--pad', '²'], "--pad: '²' is not a number"),
        (vis_cam, ['none', '--sheet', '3', '1'], "--sheet: unrecognized argument '1' after it; accepted: --sheet FILE"),
        (vis_cam, ['--width'], '--width: expected one argument; accepted: --width W'),
        (vis_cam, ['--amp=3'], '--amp: takes no value'),
        (vis_cam, ['--colormp', 'jet'], "unrecognized option '--colormp'; did you mean --colormap"),
        (vis_cam, ['--heads', '1'], "unrecognized option '--heads'; --heads is an option of vis_attention"),
        (
            vis_featmap,
            ['--eigen-smooth'],
            "unrecognized option '--eigen-smooth'; --eigen-smooth is an option of vis_cam, vis_check; ",
        ),
        (
            vis_featmap,
            ['--top', '3'],
            "unrecognized option '--top'; --top is an option of vis_diff; did you mean --topk",
        ),
    ],
)
def test_usage_errors_name_the_option_as_typed(command, words, start):
    assert said(command, 'things/good.png', 'things/vit.py', *words).startswith(start)


def test_a_command_that_only_mentions_an_option_is_not_named(tmp_path, monkeypatch):
    monkeypatch.setattr(options, '__file__', str(tmp_path / 'options.py'))
    shared = [f"def add_{name}(group):\n    group.add_argument('--{name}')\n" for name in ('all', 'top')]
    (tmp_path / 'options.py').write_text('\n\n'.join(shared))
    (tmp_path / 'vis_calls.py').write_text('options.add_top(group)\n')
    (tmp_path / 'vis_has.py').write_text("group.add_argument(\n    '-t', '--top', type=int\n)\n")
    (tmp_path / 'vis_says.py').write_text("options.add_all(group)\nhint = '--top'\n")
    assert options._commands_with('--top') == ['vis_calls', 'vis_has']


@pytest.mark.parametrize(
    ('command', 'words', 'parameter'),
    [
        (patches, ['photo.png', '--patch-size', '16', '-o', 'photo.png'], '--out'),
        (cam, ['photo.png', *VIT, '-o', './photo.png'], '--out'),
        (cam, ['photos', *VIT, '-o', 'out', '--sheet', 'photos/1.png'], '--sheet'),
        (featmap, ['link.png', *VIT, '-o', 'photo.png'], '--out'),
        (tsne, [*VIT, '--img', 'photos', '-o', 'photos/2.png'], '--out'),
        (browse, ['photos', '--report', '-o', 'photos/2.png'], '--out'),
    ],
)
def test_a_picture_never_replaces_an_image_that_it_is_made_from(capsys, here, command, words, parameter):
    photo = Image.effect_noise((40, 30), 50)
    (here / 'photos').mkdir()
    for name in ('photo.png', 'photos/1.png', 'photos/2.png'):
        photo.save(here / name)
    (here / 'link.png').symlink_to('photo.png')
    before = {path: path.read_bytes() for path in here.rglob('*.png')}
    line = refused(capsys, command, *words)
    assert f'{parameter}: ' in line and 'is an image of this run, which would be overwritten' in line
    assert {path: path.read_bytes() for path in here.rglob('*.png')} == before


@pytest.mark.parametrize('command', [vis_cam, vis_patches, vis_featmap, vis_attention])
def test_an_empty_path_is_not_the_current_folder(command):
    assert said(command, '', 'things/vit.py').startswith('img: an empty value')


def test_the_alias_that_was_typed_is_named_when_the_analysis_objects(capsys, here):
    words = ['things/good.png', *VIT, '--method', 'FinerCAM', '-o', 'out']
    assert '--similar: ' in refused(capsys, cam, *words, '--similar', 'no such class')
    assert '--contrast: ' in refused(capsys, cam, *words, '--contrast', 'no such class')


@pytest.mark.parametrize(
    ('command', 'words', 'named'),
    [
        (cam, ['things/good.png', *VIT, '--seed', '-1'], '--seed'),
        (cam, ['things/good.png', *VIT, '--seed', '99999999999'], '--seed'),
        (patches, ['things/good.png', 'things/vit.py', '--seed', '4294967296'], '--seed'),
        (browse, ['things/vit.py', '--seed', '-5'], '--seed'),
        (cam, ['things/good.png', *VIT, '--workers', '99999'], '--workers'),
        (browse, ['things/vit.py', '--workers', '99999'], '--workers'),
        (browse, ['things/vit.py', '--repeats', '99999'], '--repeats'),
        (browse, ['things/vit.py', '-n', '²'], '--show-number'),
        (cam, ['things/good.png', *VIT, '--width', '²'], '--width'),
        (featmap, ['things/good.png', *VIT, '--channels', '²'], '--channels'),
        (featmap, ['things/good.png', *VIT, '--channels', '0-99999999999'], '--channels'),
        (patches, ['things/good.png', '--patch-size', '8', '--pad', '1e30'], '--pad'),
        (patches, ['things/good.png', '--patch-size', '8', '--pad', 'inf'], '--pad'),
        (attention, ['things/good.png', *VIT, '--threshold', 'nan'], '--threshold'),
        (browse, ['things/vit.py', '--show-interval', 'nan'], '--show-interval'),
        (cam, ['things/good.png', *VIT, '--num-extra-tokens', '-2'], '--num-extra-tokens'),
        (lr, ['things/vit.py', '-d', '99999999999999'], '--dataset-size'),
        (lr, ['things/vit.py', '--dataset-size', '99999999999999'], '--dataset-size'),
        (lr, ['things/vit.py', '--cfg-options', 'train_cfg.max_epochs=1000000'], 'train_cfg'),
    ],
)
def test_numbers_have_bounds(capsys, here, command, words, named):
    assert named in refused(capsys, command, *words, '-o', 'out')
    assert files(here) == []


@pytest.mark.parametrize(
    'option',
    [
        'test_dataloader=1', 'train_dataloader=5', 'optim_wrapper=5', 'param_scheduler=5', 'auto_scale_lr=5',
        'train_cfg=3', 'train_dataloader.dataset=7', 'train_dataloader.batch_size=x', 'default_scope=4',
        'test_dataloader.dataset.pipeline=2', 'model=5', 'optim_wrapper.optimizer=SGD',
    ],
)  # fmt: skip
@pytest.mark.parametrize('command', [lr, browse])
def test_config_fields_of_other_types_are_named(capsys, here, command, option):
    error = refused(capsys, command, 'things/vit.py', '-o', 'out', '--cfg-options', option)
    assert error.startswith(f'error: --cfg-options: {option.partition("=")[0]} of vit is ')


def test_a_config_file_with_a_field_of_another_type_is_named_itself(capsys, here):
    text = (here / 'things/vit.py').read_text()
    (here / 'own.py').write_text(text + '\noptim_wrapper = 5\n')
    assert 'error: config: optim_wrapper of own is 5; accepted: a dict' in refused(capsys, lr, 'own.py')


@pytest.mark.parametrize('option', ['model.head.in_channels=7', 'model.backbone.type=nope', 'model.backbone=x'])
def test_a_model_that_its_options_break_is_one_line(capsys, here, option):
    error = refused(capsys, cam, 'things/good.png', *VIT, '-o', 'out.png', '--cfg-options', option)
    assert 'config' in error or '--cfg-options' in error


def test_the_meta_device_holds_no_values(capsys, here):
    assert "--device: no device 'meta' here" in refused(capsys, cam, 'things/good.png', *VIT, '--device', 'meta')


@pytest.mark.parametrize('command', [cam, featmap])
@pytest.mark.parametrize('options', [['--method', 'NoCAM'], ['--seed', '-1'], ['--sheet', 'x.tif'], ['--width', '3']])
def test_a_preview_refuses_what_a_run_refuses(capsys, here, command, options):
    if command is featmap and '--method' in options:
        options = ['--channel-reduction', 'median']
    assert options[0] in refused(capsys, command, 'things/good.png', *VIT, '--preview-model', *options)


@pytest.mark.parametrize(
    ('images', 'said'),
    [
        ('things/dead.png', 'things/dead.png is a link to gone.png, which does not exist'),
        ('things/empty', 'no image in the folder'),
        ('things/nowhere.png', 'no such file or folder'),
        ('things/broken.png', 'things/broken.png'),
        ('things/*.nope', 'no image matches'),
        ('things/list-of-nothing.txt', 'names no image'),
        ('@nope', 'unknown dataset'),
    ],
)
def test_errors_of_images_name_the_argument(capsys, here, images, said):
    for command in (cam, attention, featmap):
        error = refused(capsys, command, images, *VIT, '-o', 'out')
        assert error.startswith('error: img: ') and said in error and error.count('dead.png') < 3


def test_a_dataset_without_its_split_names_the_images(capsys, here):
    error = refused(capsys, attention, '@val', *VIT, '-o', 'out', '--cfg-options', 'val_dataloader=None')
    assert error.startswith('error: img: ') and '--phase' not in error
    assert '@val' in vis_attention.build_parser().format_help()


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (attention, ['--img-size', '9' * 5000]),
        (cam, ['--img-size', f'{"9" * 5000},{"9" * 5000}']),
        (attention, ['--layers', '9' * 5000]),
        (attention, ['--layers', f'-{"9" * 5000}:']),
        (attention, ['--head', '9' * 5000]),
        (attention, ['--query', '9' * 5000]),
        (cam, ['--target-category', '9' * 5000]),
        (cam, ['--target-category', f'id:{"9" * 5000}']),
        (cam, ['--target-layers', f'backbone.layers.0#{"9" * 5000}']),
        (cam, ['--target-layers', 'backbone.layers.0#²']),
        (cam, ['--target-category', f'top{"9" * 5000}']),
        (cam, ['--output', f'-{"9" * 5000}']),
        (cam, ['--target-layers', f'backbone.layers.-{"9" * 5000}']),
        (cam, ['--indices', '9' * 5000]),
        (cam, ['--indices', f'0-{"9" * 5000}']),
        (featmap, ['--gallery', '\x00']),
        (cam, ['--reference', '9' * 5000]),
        (cam, ['--reference', '\x00']),
        (attention, ['--input', f'a={"9" * 5000}']),
        (featmap, ['--input', 'a=\x00']),
    ],
)
def test_numbers_of_thousands_of_digits_are_refused(capsys, here, command, words):
    assert words[0] in refused(capsys, command, 'things/folder', *VIT, '-o', 'out', *words)


@pytest.mark.parametrize('options', [['--report'], ['--sheet', '2', '2'], ['-i', '0', '-n', '1']])
def test_what_no_sample_has_names_its_option(capsys, here, options):
    code, _, err = browse(capsys, 'things/cnn.py', '--bands', '4,3,2', '-o', 'x.png', *options)
    errors = [line for line in err.splitlines() if line.startswith('error: ')]
    assert code == (1 if '--sheet' in options else 2) and '--bands' in errors[0], err


@pytest.mark.parametrize('name', ['a\nb', 'a\r\nb', 'a\x1b[2Jb', '\ta'])
def test_a_name_with_line_breaks_is_escaped_wherever_it_is_shown(capsys, here, name):
    photos = here / 'photos'
    photos.mkdir()
    shutil.copy('things/good.png', photos / f'{name}.png')
    (photos / f'{name} broken.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    shutil.copy('things/deep.png', photos / f'{name} deep.png')
    code, out, err = cam(capsys, photos, 'things/vit.py', 'none', '-o', 'out', '--gallery')
    shown = repr(name)[1:-1]
    assert code == 1 and len(out.splitlines()) == 4
    assert err.count(f'{shown} broken.png') == 1 and name not in err
    entries = [json.loads(line) for line in (here / 'out' / 'manifest.jsonl').read_text().splitlines()]
    assert sorted(entry['name'] for entry in entries) == sorted([shown, f'{shown} broken', f'{shown} deep'])


@pytest.mark.parametrize('photo', ['thin.png', 'dot.png', 'flat.png'])
@pytest.mark.parametrize('command', [cam, attention, featmap, patches])
def test_a_photo_one_pixel_thin_is_drawn_in_a_bounded_picture(capsys, here, command, photo):
    Image.new('RGB', (2000, 1), 'red').save('flat.png')
    path = photo if photo == 'flat.png' else f'things/{photo}'
    model = ['things/vit.py'] if command is patches else VIT
    code, _, err = command(capsys, path, *model, '-o', 'x.png')
    assert code == 0, err
    with Image.open('x.png') as picture:
        assert max(picture.size) < 4000
