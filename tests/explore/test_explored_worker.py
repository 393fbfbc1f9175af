"""The queue of model work: replaced, canceled, failing and stopped."""

import threading

import pytest

from vistool.explore.worker import Stopped, Superseded, Worker


@pytest.fixture
def worker():
    found = Worker()
    yield found
    found.stop(5)


def held(worker):
    """Work that keeps the worker busy until the event is set."""
    begun, go = threading.Event(), threading.Event()

    def work():
        begun.set()
        go.wait(10)
        return 'held'

    job = worker.submit(None, work, {'view': 'cam'})
    assert begun.wait(10)
    return job, go


def test_a_newer_request_replaces_one_that_waits_and_keeps_its_turn(worker):
    running, go = held(worker)
    done = []
    jobs = [worker.submit(key, lambda n=n: done.append(n) or n, {}) for n, key in enumerate(['a', 'b', 'a', 'a'])]
    go.set()
    assert running.future.result(10) == 'held' and jobs[3].future.result(10) == 3 and jobs[1].future.result(10) == 1
    assert done == [3, 1]
    for older in (jobs[0], jobs[2]):
        with pytest.raises(Superseded):
            older.future.result(10)


def test_what_runs_is_not_replaced(worker):
    running, go = held(worker)
    worker.submit(None, lambda: None, {})
    go.set()
    assert running.future.result(10) == 'held'


def test_work_without_a_key_is_never_replaced(worker):
    _, go = held(worker)
    jobs = [worker.submit(None, lambda n=n: n, {}) for n in range(3)]
    go.set()
    assert [job.future.result(10) for job in jobs] == [0, 1, 2]


def test_a_canceled_request_is_not_begun(worker):
    _, go = held(worker)
    done = []
    job = worker.submit('a', lambda: done.append(1), {})
    worker.cancel(job)
    last = worker.submit('b', lambda: 'last', {})
    go.set()
    assert last.future.result(10) == 'last' and done == [] and job.future.cancelled()


def test_an_error_reaches_the_one_who_asked_and_the_worker_goes_on(worker):
    def fail():
        raise SystemExit('from a network')

    with pytest.raises(SystemExit):
        worker.submit('a', fail, {}).future.result(10)
    assert worker.submit('a', lambda: 5, {}).future.result(10) == 5


def test_it_says_what_it_does(worker):
    assert worker.busy() is None
    _, go = held(worker)
    worker.submit('a', lambda: None, {})
    told = worker.busy()
    assert (told['view'], told['waiting']) == ('cam', 1) and told['seconds'] >= 0
    go.set()


def test_a_stopped_worker_drops_what_waits_and_takes_nothing_more():
    worker = Worker()
    _, go = held(worker)
    waiting = worker.submit('a', lambda: None, {})
    assert not worker.stop(0.01)
    assert waiting.future.cancelled()
    with pytest.raises(Stopped):
        worker.submit('a', lambda: None, {})
    go.set()
    assert worker.stop(5)
