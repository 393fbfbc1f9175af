"""What a command sets for its own process gives way to what the user set."""

import pytest

from vistool.commands import boundary as process


class Libc:
    def __init__(self, name):
        self.calls = []
        Libc.last = self

    def mallopt(self, option, value):
        self.calls.append(option)


@pytest.fixture
def calls(monkeypatch):
    for name in ('OMP_WAIT_POLICY', 'GLIBC_TUNABLES', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_ARENA_MAX'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process.ctypes, 'CDLL', Libc)

    def tuned():
        Libc.last = Libc(None)
        process.tune_process()
        return Libc.last.calls

    return tuned


def test_waiting_threads_sleep_and_freed_memory_is_kept(calls):
    assert len(calls()) == 2 and process.os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'


def test_the_users_settings_stand(calls, monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '1')
    assert calls() == [] and process.os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'


def test_other_c_libraries_have_nothing_to_set(calls, monkeypatch):
    monkeypatch.delattr(Libc, 'mallopt')
    assert calls() == []
