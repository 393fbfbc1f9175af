"""Runs over many images: recorded, resumed, shared between processes, chosen from a dataset."""

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistool.commands.vis_attention import main as vis_attention
from vistool.commands.vis_cam import main as vis_cam
from vistool.commands.vis_featmap import main as vis_featmap
from vistool.errors import InputError
from vistool.runs.distributed import distributed, hint_at_gpu

SMALL = ['mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'none']
LABELLED = 'configs/efficientnet_lite/efficientnet-lite0_demo.py'
TOOL = Path('tools/vis_cam.py').resolve()
OWN_MOUNTS = ['unshare', *([] if os.geteuid() == 0 else ['--user', '--map-root-user']), '--mount']


def make_photos(folder, count, size=40):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f'{number:03d}.png')
    return folder


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / 'photos', 11)


def options(photos, out, *more):
    return [str(photos), *SMALL, '-o', str(out), '--batch-size', '3', '--deterministic', '--save-raw', *more]


def files(folder):
    """Every file below a folder, with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def lines(folder):
    return [json.loads(text) for text in (folder / 'manifest.jsonl').read_text().splitlines()]


def test_the_record_says_of_each_image_what_was_done(tmp_path, capsys):
    assert vis_cam(['@val', LABELLED, '-o', str(tmp_path), '--method', 'gradcam', 'layercam']) == 0
    written = capsys.readouterr()
    assert 'images/s (decode ' in written.err
    found = lines(tmp_path)
    assert [line['index'] for line in found] == list(range(6))
    assert sorted(line['files'][0]['name'] for line in found) == sorted(Path(path).name for path in written.out.split())
    for line in found:
        source = Path(line['input'])
        assert line['bytes'] == source.stat().st_size and line['mtime'] == source.stat().st_mtime
        assert line['label']['id'] in (281, 657, 967) and 0 < line['prediction']['score'] <= 1
        assert line['targets'][0]['id'] == line['prediction']['id']
        assert line['methods'] == ['GradCAM', 'LayerCAM'] and line['layers'] == ['model.bn2']
        assert line['seconds'] > 0 and line['error'] is None
    about = json.loads((tmp_path / 'run.json').read_text())
    assert about['tool'] == 'vis_cam' and about['checkpoint'] == 'demo://efficientnet-lite0' and about['sha256']


def test_a_run_that_lost_files_and_lines_is_made_whole_again(photos, tmp_path, capsys):
    common = [str(photos), *SMALL, '--batch-size', '3', '--deterministic', '--save-raw']
    one, other = tmp_path / 'one', tmp_path / 'other'
    assert vis_cam([*common, '-o', str(one)]) == 0
    assert vis_cam([*common, '-o', str(other)]) == 0
    whole = files(one)
    assert whole == files(other) and len(whole) == 2 * 11 + 2
    pictures = sorted(other.glob('*.png'))
    pictures[4].unlink()
    pictures[9].write_bytes(pictures[9].read_bytes()[:100])
    record = (other / 'manifest.jsonl').read_text().splitlines(keepends=True)
    (other / 'manifest-0.jsonl').write_text(''.join(record[:6]) + record[6][:40])
    (other / 'manifest.jsonl').unlink()
    capsys.readouterr()
    assert vis_cam([*common, '-o', str(other), '--resume']) == 0
    assert files(other) == whole
    again = capsys.readouterr()
    assert '5 of 11 images done already' in again.err and len(again.out.split()) == 2 * 6
    assert vis_cam([*common, '-o', str(other), '--resume']) == 0
    assert capsys.readouterr().out == '' and files(other) == whole


@pytest.mark.parametrize(
    ('main', 'model'),
    [
        (vis_cam, SMALL),
        (vis_attention, ['timm::vit_tiny_patch16_224', 'none', '--layers', '0', '--heads', 'mean']),
        (vis_featmap, [*SMALL, '--target-layers', 'backbone.layer1']),
    ],
)
def test_each_command_makes_a_gallery_over_a_folder(main, model, tmp_path, capsys):
    photos = make_photos(tmp_path / 'photos', 2)
    out = tmp_path / 'out'
    assert main([str(photos), *model, '-o', str(out), '--gallery']) == 0
    assert str(out / 'gallery' / 'index.html') in capsys.readouterr().out and (out / 'gallery' / 'data.js').is_file()
    for line in lines(out):
        assert line['tiles'][0]['kind'] == 'photo' and len(line['tiles']) > 1
        assert all((out / tile['file']).is_file() for tile in line['tiles'])


def test_other_options_another_config_or_checkpoint_are_refused(photos, tmp_path, capsys):
    out = tmp_path / 'out'
    assert vis_cam(options(photos, out)) == 0
    before = files(out)
    more_files = [['--panels', str(tmp_path / 'panels')], ['--vis-backend', 'local']]
    options_of_maps = [['--method', 'layercam'], ['--seed', '1'], ['--cfg-options', 'model.backbone.base_channels=32']]
    for changed in options_of_maps + more_files:
        assert vis_cam(options(photos, out, '--resume', *changed)) == 2
        assert 'error: --resume: the run in' in (error := capsys.readouterr().err) and '--overwrite' in error
    assert files(out) == before and not (tmp_path / 'panels').exists()
    assert vis_cam(options(photos, out, '--overwrite', '--method', 'layercam')) == 0
    assert lines(out)[0]['methods'] == ['LayerCAM']


def test_a_broken_image_is_recorded_and_done_once_it_is_mended(photos, tmp_path, capsys):
    out, whole = tmp_path / 'out', tmp_path / 'whole'
    assert vis_cam(options(photos, whole)) == 0
    good = (photos / '004.png').read_bytes()
    (photos / '004.png').write_bytes(good[:60])
    assert vis_cam(options(photos, out)) == 1
    assert [line['name'] for line in lines(out) if line['error']] == ['004']
    assert '1 of 11 images failed' in capsys.readouterr().err
    capsys.readouterr()
    (photos / '004.png').write_bytes(good)
    assert vis_cam(options(photos, out, '--resume')) == 0
    same = {name: data for name, data in files(whole).items() if not name.startswith('manifest')}
    assert same == {name: data for name, data in files(out).items() if not name.startswith('manifest')}
    assert not any(line['error'] for line in lines(out))


def test_an_image_deleted_during_the_run_is_told(photos, tmp_path, capsys):
    listed = tmp_path / 'list.txt'
    listed.write_text(''.join(f'{path}\n' for path in sorted(photos.glob('*.png'))))
    (photos / '007.png').unlink()
    assert vis_cam(options(listed, tmp_path / 'out')) == 1
    assert '007.png' in capsys.readouterr().err
    assert len(list((tmp_path / 'out').glob('*.png'))) == 10


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--resume', '--overwrite'], '--resume'),
        (['--resume', '--sheet', 'sheet.png'], '--sheet: needs every image; --resume processes only'),
        (['--launcher', 'mpi'], 'accepted: none, pytorch, slurm'),
        (['--launcher', 'pytorch'], 'torchrun'),
        (['--launcher', 'slurm'], 'SLURM_PROCID'),
        (['--vis-backend', 'tensorbord'], 'did you mean tensorboard'),
        (['--max-samples', '0'], '--max-samples: 0'),
        (['--classes', 'cat'], 'files have no labels'),
        (['--per-class', '2'], 'files have no labels'),
        (['--only', 'wrong'], '--only uncertain'),
        (['--only', 'bad'], 'wrong, right, uncertain'),
        (['--indices', '11'], 'no sample 11'),
        (['--batch-size', '0'], '--batch-size: must be at least 1'),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(photos, tmp_path, capsys, more, said):
    assert vis_cam(options(photos, tmp_path / 'out', *more)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ') and said in error
    assert not (tmp_path / 'out').exists()


def test_resuming_a_single_picture_is_an_error(photos, tmp_path, capsys):
    assert vis_cam(options(photos / '001.png', tmp_path / 'x.png', '--resume')) == 2
    assert 'is for many images' in capsys.readouterr().err


def names_of(folder):
    return sorted(path.name[:6] for path in folder.glob('*.png'))


def test_images_are_chosen_by_what_the_model_predicts(tmp_path, capsys):
    everything = tmp_path / 'all'
    assert vis_cam(['@train', LABELLED, '-o', str(everything), '--layout', 'overlay']) == 0
    found = lines(everything)
    wrong = [line['index'] for line in found if line['prediction']['id'] != line['label']['id']]
    assert wrong and len(wrong) < 9
    surest = max((line for line in found if line['index'] in wrong), key=lambda line: line['prediction']['score'])
    common = ['@train', LABELLED, '--layout', 'overlay']
    assert vis_cam([*common, '-o', str(tmp_path / 'one'), '--only', 'wrong', '--max-samples', '1']) == 0
    assert [line['index'] for line in lines(tmp_path / 'one')] == [surest['index']]
    capsys.readouterr()
    assert vis_cam([*common, '-o', str(tmp_path / 'none'), '--only', 'right', '--classes', 'zebra']) == 2
    assert 'zebra' in capsys.readouterr().err


def test_uncertain_images_need_no_labels(photos, tmp_path):
    out = tmp_path / 'out'
    assert vis_cam(options(photos, out, '--only', 'uncertain', '--max-samples', '2')) == 0
    assert len(lines(out)) == 2


def test_pictures_go_to_tensorboard_as_well(photos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / 'out'
    assert vis_cam(options(photos, out, '--vis-backend', 'tensorboard', 'local')) == 0
    events = EventAccumulator(str(out / 'vis_data'), size_guidance={'images': 0}).Reload()
    tags = events.Tags()['images']
    assert len(tags) == 11
    for number, tag in enumerate(sorted(tags)):
        (event,) = events.Images(tag)
        assert event.step == number and tag.startswith(f'{number:03d}')
        logged = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        np.testing.assert_array_equal(logged, np.asarray(Image.open(out / f'{tag}.png').convert('RGB')))
    assert len(list((out / 'vis_data' / 'vis_image').glob('*.png'))) == 11


def test_a_gallery_of_a_run_and_of_another_beside_it(photos, tmp_path, capsys):
    common = [str(photos), *SMALL, '--batch-size', '4', '--indices', '0-3']
    base, ours = tmp_path / 'base', tmp_path / 'ours'
    assert vis_cam([*common, '-o', str(base)]) == 0
    capsys.readouterr()
    assert vis_cam([*common, '-o', str(ours), '--gallery', str(base)]) == 2
    assert '--gallery' in capsys.readouterr().err and not ours.exists()
    assert vis_cam([*common, '-o', str(base), '--gallery', '--resume']) == 0  # adds what is missing
    assert vis_cam([*common, '-o', str(ours), '--seed', '1', '--gallery', str(base)]) == 0
    assert (ours / 'gallery' / 'compared').is_dir()


def test_a_process_started_by_torchrun_without_the_launcher_says_so(monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(InputError, match='launcher pytorch'), distributed('none'):
        pass


@pytest.mark.parametrize(
    ('there', 'device', 'count', 'told'),
    [(True, 'cpu', 2, True), (True, 'cpu', 1, False), (True, 'cuda', 2, False), (False, 'cpu', 2, False)],
)
def test_an_idle_gpu_is_told_of(there, device, count, told, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: there)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'A big one')
    with caplog.at_level('INFO', 'vistool'):
        hint_at_gpu(device, count)
    assert ('A big one is idle' in caplog.text) == told


# Whole processes, over 200 images.


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp('many') / 'photos', 200)


def command(photos, out, *more):
    return [str(TOOL), *options(photos, out, '--layout', 'overlay', '--log-level', 'warning', *more)]


@pytest.fixture(scope='module')
def undisturbed(many, tmp_path_factory):
    """The files of a run in one process that nothing disturbed."""
    out = tmp_path_factory.mktemp('undisturbed') / 'out'
    subprocess.run([sys.executable, *command(many, out)], check=True, stdout=subprocess.DEVNULL)
    return files(out)


def torchrun(*words):
    return [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', *words]


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(many, undisturbed, tmp_path):
    out = tmp_path / 'out'
    done = subprocess.run(torchrun(*command(many, out, '--launcher', 'pytorch')), check=True, capture_output=True)
    assert len(done.stdout.split()) == 400
    assert files(out) == undisturbed


AFTERWARDS = """
import sys
from pathlib import Path
from vistool.commands.vis_cam import main

code = main(sys.argv[1:])
names = [path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')]
sys.exit(code or any('gloo' in name for name in names))
"""


@pytest.mark.slow
def test_no_thread_of_the_process_group_is_left_to_abort_the_process(many, tmp_path):
    script = tmp_path / 'afterwards.py'
    script.write_text(AFTERWARDS)
    words = command(many, tmp_path / 'out', '--launcher', 'pytorch', '--max-samples', '4')[1:]
    subprocess.run(torchrun(str(script), *words), check=True, stdout=subprocess.DEVNULL)


def finished_lines(out):
    count = 0
    for path in out.glob('manifest*.jsonl'):
        with contextlib.suppress(FileNotFoundError):  # merged in this moment
            count += path.read_bytes().count(b'\n')
    return count


def kill_after(process, out, more):
    """SIGKILL to a process and its children once it has recorded so many lines more, and a random moment later."""
    goal = finished_lines(out) + more
    while process.poll() is None and finished_lines(out) < goal:
        time.sleep(0.002)
    time.sleep(random.random() * 0.1)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_killed_at_random_moments_and_resumed_the_files_are_the_same(many, undisturbed, tmp_path, processes):
    random.seed(processes)
    out = tmp_path / 'out'
    kills = 0
    for _ in range(10):
        words = command(many, out, '--resume')
        words = [sys.executable, *words] if processes == 1 else torchrun(*words, '--launcher', 'pytorch')
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        kill_after(process, out, random.randint(0, 12))
        kills += process.returncode == -signal.SIGKILL
    assert kills == 10, 'the run was over before it was killed'
    subprocess.run([sys.executable, *command(many, out, '--resume')], check=True, stdout=subprocess.DEVNULL)
    assert files(out) == undisturbed


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_the_rest_is_done_later(many, undisturbed, tmp_path):
    out = tmp_path / 'out'
    process = subprocess.Popen(
        torchrun(*command(many, out, '--launcher', 'pytorch')),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (out / 'manifest-1.jsonl').exists():
        time.sleep(0.01)
    ranks = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    assert 0 < finished_lines(out) < 200
    subprocess.run(
        torchrun(*command(many, out, '--launcher', 'pytorch', '--resume')), check=True, stdout=subprocess.DEVNULL
    )
    assert files(out) == undisturbed


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_what_was_done_intact(many, undisturbed, tmp_path):
    small, out = tmp_path / 'small', tmp_path / 'out'
    small.mkdir()
    script = f'mount -t tmpfs -o size=1m tmpfs {small} && "$@"; code=$?; cp -a {small}/run {out}; exit $code'
    words = [sys.executable, *command(many, small / 'run')]
    done = subprocess.run([*OWN_MOUNTS, 'sh', '-c', script, 'sh', *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert 'No space left' in error and 'make room' in error and '--resume continues' in error
    whole = {name: data for name, data in files(out).items() if name.endswith(('.png', '.npz'))}
    assert whole and all(undisturbed[name] == data for name, data in whole.items())
    subprocess.run([sys.executable, *command(many, out, '--resume')], check=True, stdout=subprocess.DEVNULL)
    assert files(out) == undisturbed


@pytest.mark.slow
def test_an_image_that_goes_away_during_the_run_is_done_when_it_is_back(many, undisturbed, tmp_path):
    out, last = tmp_path / 'out', many / '199.png'
    process = subprocess.Popen([sys.executable, *command(many, out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while finished_lines(out) < 3:
        time.sleep(0.002)
    last.rename(tmp_path / 'away.png')
    try:
        _, said = process.communicate()
    finally:
        (tmp_path / 'away.png').rename(last)
    assert process.returncode == 1 and b'199.png' in said
    subprocess.run([sys.executable, *command(many, out, '--resume')], check=True, stdout=subprocess.DEVNULL)
    assert files(out) == undisturbed


READ_ONLY = """
mount -t tmpfs -o size=50m tmpfs {small} || exit 90
"$@" & process=$!
while [ "$(cat {small}/run/manifest-0.jsonl 2>/dev/null | wc -l)" -lt 9 ]; do sleep 0.01; done
kill -9 $process
wait $process
mount -o remount,ro {small} || exit 91
"$@" --resume && exit 92
mount -o remount,rw {small}
"$@" --resume || exit 93
cp -a {small}/run {out}
"""


@pytest.mark.slow
def test_a_folder_that_turned_read_only_is_an_error_that_loses_nothing(many, undisturbed, tmp_path):
    small, out = tmp_path / 'small', tmp_path / 'out'
    small.mkdir()
    words = [sys.executable, *command(many, small / 'run')]
    script = READ_ONLY.format(small=small, out=out)
    done = subprocess.run([*OWN_MOUNTS, 'sh', '-c', script, 'sh', *words], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert 'error: --out: cannot write' in done.stderr and 'Read-only file system' in done.stderr
    assert files(out) == undisturbed


@pytest.fixture
def port():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return str(taken.getsockname()[1])


@pytest.mark.slow
def test_the_script_for_several_gpus_runs(many, undisturbed, tmp_path, port):
    out = tmp_path / 'out'
    words = ['tools/dist_vis.sh', 'vis_cam', '2', *command(many, out)[1:]]
    subprocess.run(
        words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, 'PYTHON': sys.executable, 'PORT': port}
    )
    assert files(out) == undisturbed


SRUN = """#!/bin/sh
while [ "$1" != python3 ]; do case $1 in --ntasks=*) n=${1#*=} ;; esac; shift; done
shift
export SLURM_NTASKS=$n SLURM_NODELIST=localhost
for rank in $(seq 0 $((n - 1))); do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$REAL" "$@" & done
wait
"""


@pytest.mark.slow
def test_the_script_for_slurm_runs(many, undisturbed, tmp_path, port):
    """With an srun that starts its tasks on this machine."""
    for name, text in (('srun', SRUN), ('scontrol', '#!/bin/sh\necho localhost\n')):
        script = tmp_path / 'bin' / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(text)
        script.chmod(0o755)
    out = tmp_path / 'out'
    words = ['tools/slurm_vis.sh', 'cpu', 'explain', 'vis_cam', *command(many, out)[1:]]
    settings = {'PATH': f'{script.parent}:{os.environ["PATH"]}', 'REAL': sys.executable, 'PYTHON': 'python3'}
    settings |= {'GPUS': '2', 'GPUS_PER_NODE': '0', 'TASKS_PER_NODE': '2', 'MASTER_PORT': port}
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **settings})
    assert files(out) == undisturbed


@pytest.mark.parametrize('script', ['dist_vis.sh', 'slurm_vis.sh'])
def test_the_scripts_say_how_they_are_used(script):
    done = subprocess.run([f'tools/{script}'], capture_output=True, text=True)
    assert done.returncode == 2 and f'tools/{script} ' in done.stderr and 'DRY_RUN' in done.stderr


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['dist_vis.sh', '2', 'vis_cam', 'photos'], 'error: TOOL: no tools/2.py; accepted: vis_cam, '),
        (['dist_vis.sh', 'vis_cam', 'photos', '2'], "error: GPUS: 'photos' is not a number of processes"),
        (['dist_vis.sh', 'vis_cam', '0', 'photos'], "error: GPUS: '0' is not a number of processes"),
        (['slurm_vis.sh', 'gpu', 'vis_cam', 'photos'], 'error: TOOL: no tools/photos.py; accepted: vis_cam, '),
    ],
)
def test_the_scripts_say_which_argument_is_wrong(words, said):
    done = subprocess.run([f'tools/{words[0]}', *words[1:]], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(said) and len(done.stderr.splitlines()) == 1


def test_dry_runs_print_the_command(tmp_path):
    settings = {**os.environ, 'DRY_RUN': '1', 'GPUS': '16'}
    words = ['vis_cam', '@val', 'work_dirs/exp', '--device', 'cuda']
    slurm = subprocess.run(['tools/slurm_vis.sh', 'gpu', 'job', *words], capture_output=True, text=True, env=settings)
    assert '--gres=gpu:8 --ntasks=16 --ntasks-per-node=8' in slurm.stdout
    assert slurm.stdout.strip().endswith('vis_cam.py @val work_dirs/exp --device cuda --launcher slurm')
    words.insert(1, '4')
    dist = subprocess.run(['tools/dist_vis.sh', *words], capture_output=True, text=True, env=settings)
    assert '--nproc-per-node 4' in dist.stdout and dist.stdout.strip().endswith('--launcher pytorch')


@pytest.mark.parametrize(
    ('dataset', 'names'),
    [
        ("type='CustomDataset'", ('ant', 'bee')),
        ("type='CustomDataset', classes=['queen', 'worker']", ('queen', 'worker')),
    ],
)
def test_the_names_of_a_datasets_folders_are_those_of_the_classes(tmp_path, dataset, names):
    """Only the open dataset knows the folders; the network's config says nothing of its classes."""
    for number, name in enumerate(('ant', 'bee')):
        folder = tmp_path / 'images' / (name if 'classes' not in dataset else names[number])
        folder.mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 90 * number, np.uint8)).save(folder / 'a.png')
    config = tmp_path / 'tiny.py'
    config.write_text(f"""
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(type='LeNet5'), neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=120), data_preprocessor=dict(mean=[0], std=[255]))
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='Resize', scale=32), dict(type='PackInputs')]
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict({dataset}, data_root={str(tmp_path / 'images')!r}, pipeline=test_pipeline))
val_evaluator = dict(type='Accuracy')
val_cfg = dict()
""")
    words = ['--target-layers', 'backbone.features.0', '--save-raw', '--target-category', names[1]]
    assert vis_cam(['@val', str(config), 'none', '-o', str(tmp_path / 'out'), *words]) == 0
    raws = [np.load(path, allow_pickle=False) for path in sorted((tmp_path / 'out').rglob('*.npz'))]
    assert [raw['names_0'].tolist() for raw in raws] == [[f'gradcam/{names[1]}']] * 2
