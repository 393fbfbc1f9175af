"""Maps while training with two processes: the first one draws, and both train as without the hook."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_training import write_shapes

SCRIPT = """
import sys
from pathlib import Path
import torch
from small_training import config_of, train

torch.distributed.init_process_group('gloo')  # mmengine's own way asks for a GPU
photos, out = Path(sys.argv[1]), Path(sys.argv[2])
hook = {'type': 'vistool.ExplainHook', 'images': str(photos), 'max_images': 2}
states = []
for name, hooks in (('plain', []), ('explained', [hook])):
    wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    runner = train(config_of(photos, out / name, hooks, epochs=2, launcher='pytorch', model_wrapper_cfg=wrapper))
    states.append(runner.model.module.state_dict())
assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
print('equal')
"""


@pytest.mark.slow
def test_the_first_of_two_processes_draws(tmp_path):
    photos = write_shapes(tmp_path / 'photos', 8)
    (tmp_path / 'train.py').write_text(SCRIPT)
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', '29617']
    helpers = Path(__file__).parents[1] / 'helpers'
    found = subprocess.run(
        [*command, tmp_path / 'train.py', photos, tmp_path],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, 'PYTHONPATH': f'{helpers}:{helpers.parents[1]}', 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.count('equal') == 2
    assert sorted(path.name for path in (tmp_path / 'explained/explain').glob('*.npz')) == [
        'epoch_0.npz', 'epoch_1.npz', 'epoch_2.npz',
    ]  # fmt: skip
