import functools
import gc
import logging
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # demo/ is imported as the documentation does it, from the repository
sys.path.insert(0, str(ROOT / 'tests' / 'helpers'))  # oracles and networks that several test files share


@pytest.fixture(autouse=True)
def _repository_root(monkeypatch):
    """Shipped configs and demo images are named relative to the repository, as in the documentation."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('MPLBACKEND', 'agg')


_freeze = gc.freeze
gc.freeze = gc.unfreeze = lambda: None  # by which a command handles the objects of a process of its own


def pytest_collection_finish():
    _freeze()


@pytest.fixture(scope='module', autouse=True)
def _collector():
    """What imports made stays: each full collection would look through it, and mmengine asks for one per dataset."""
    yield
    gc.collect()
    _freeze()


@pytest.fixture(scope='session', autouse=True)
def _threads():
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
    torch.set_num_threads(max(1, min(2, (os.cpu_count() or 1) // workers)))


@pytest.fixture(scope='session', autouse=True)
def _index_of_packages():
    """For each base that a config names in a package, mmengine parses the package's 85 metafiles: 0.1 s a base."""
    from mmengine.config import utils

    utils.load = functools.cache(utils.load)


@pytest.fixture(autouse=True)
def _logging():
    """A command keeps the records of its process to itself; in the next test, caplog sees them again."""
    log = logging.getLogger('vistool')
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _default_scope():
    """A Runner leaves its default scope behind; the next test starts without one."""
    yield
    if 'mmengine.registry' in sys.modules:
        from mmengine.registry import DefaultScope

        DefaultScope._instance_dict.clear()
