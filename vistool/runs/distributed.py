"""Several processes in one run, started by torchrun or Slurm, as OpenMMLab's test scripts are.

Processes exchange only a few plain objects, so the process group uses gloo everywhere: it does not need a GPU.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from vistool.errors import InputError, param

T = TypeVar('T')
log = logging.getLogger('vistool')

LAUNCHERS = ('none', 'pytorch', 'slurm')
_NEEDED = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
}
_START = {
    'pytorch': 'start it with torchrun --nproc-per-node N, or tools/dist_vis.sh',
    'slurm': 'start it with srun, or tools/slurm_vis.sh',
}
_PATIENCE = timedelta(days=30)
"""How long a process waits for slower ones at the end of a run."""


@dataclass(frozen=True)
class DistInfo:
    """This process among those of a run.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        local_rank: Its number on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """``'cuda'`` as this process's own GPU; other names stay."""
        return f'cuda:{self.local_rank}' if name == 'cuda' and self.world_size > 1 else name

    def share(self, values: Sequence[T]) -> list[T]:
        """This process's part of ``values``, dealt out as mmengine's sampler does."""
        if self.world_size == 1:
            return list(values)
        from mmengine.dataset import DefaultSampler

        return [values[index] for index in DefaultSampler(values, shuffle=False, round_up=False)]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank; every process has to call it."""
        if self.world_size == 1:
            return [value]
        from mmengine.dist import all_gather_object

        return list(all_gather_object(value))

    def wait(self) -> None:
        """Returns when every process has called it."""
        self.gather(None)


@contextmanager
def distributed(launcher: str, device: str = 'cpu') -> Iterator[DistInfo]:
    """Joins the process group of a run, and leaves it at the end.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        device: Where the networks will run; on ``cuda`` each process takes the GPU of its local rank.

    Raises:
        InputError: The launcher is unknown, or this process was not started by it.
    """
    if launcher not in LAUNCHERS:
        raise InputError(f'unknown launcher {launcher!r}', accepted=', '.join(LAUNCHERS), parameter='launcher')
    if launcher == 'none':
        if 'TORCHELASTIC_RUN_ID' in os.environ and int(os.environ.get('WORLD_SIZE', 1)) > 1:
            raise InputError('started by torchrun', hint=f'add {param("launcher")} pytorch', parameter='launcher')
        yield DistInfo()
        return
    missing = [name for name in _NEEDED[launcher] if name not in os.environ]
    if missing:
        raise InputError(
            f'{launcher}: {", ".join(missing)} not set in the environment', hint=_START[launcher], parameter='launcher'
        )
    if launcher == 'slurm':
        _read_slurm()
    # Functions of these modules take the process group that exists when they are imported as a default value. Imported
    # later, they would keep it alive, and with it threads that abort the process when Python exits.
    import torch.distributed.fsdp.sharded_grad_scaler
    import torch.distributed.nn.functional
    import torch.distributed.optim.zero_redundancy_optimizer

    if device.startswith('cuda'):
        from mmengine.dist import init_dist

        init_dist('pytorch', backend='gloo', timeout=int(_PATIENCE.total_seconds()))
    else:  # mmengine's own initialization needs a GPU
        torch.distributed.init_process_group('gloo', timeout=_PATIENCE)
    from torch.distributed import destroy_process_group

    try:
        yield DistInfo(*(int(os.environ[name]) for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')))
    finally:
        destroy_process_group()


def _read_slurm() -> None:
    """Sets torch.distributed's variables from Slurm's, as mmengine does, but without a GPU."""
    import subprocess

    nodes = os.environ['SLURM_NODELIST']
    if 'MASTER_ADDR' not in os.environ:
        try:
            listed = subprocess.run(
                ['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True
            ).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f'slurm: the nodes {nodes!r} cannot be listed: {error}', hint='set MASTER_ADDR', parameter='launcher'
            ) from error
        os.environ['MASTER_ADDR'] = listed[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')


def hint_at_gpu(device: str, count: int) -> None:
    """Logs that a GPU is idle while many images run on the CPU."""
    import torch

    if device == 'cpu' and count > 1 and torch.cuda.is_available():
        log.info(f'%s is idle: {param("device", "cuda")} would use it', torch.cuda.get_device_name())


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Makes numbers independent of how many threads or processes a run has; restores the settings afterwards."""
    if not wanted:
        yield
        return
    import torch

    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # required by cuBLAS
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark = before
