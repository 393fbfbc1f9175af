"""What a command sets for its own process gives way to what the user set."""

import os

import pytest

from vistool.commands.boundary import tune_process


@pytest.mark.parametrize('policy', ['ACTIVE', None])
def test_the_users_settings_stand(policy, monkeypatch):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    if policy is not None:
        monkeypatch.setenv('OMP_WAIT_POLICY', policy)
    tune_process()
    assert os.environ['OMP_WAIT_POLICY'] == (policy or 'PASSIVE')
