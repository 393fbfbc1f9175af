import pytest
from command_lines import furnish
from loaded_once import models_are_loaded_once  # noqa: F401


@pytest.fixture(scope='module')
def furnished(tmp_path_factory):
    """A folder of images, configs and files, good and bad, that command lines name."""
    folder = tmp_path_factory.mktemp('furnished')
    furnish(folder)
    return folder


@pytest.fixture
def here(furnished, tmp_path, monkeypatch):
    """A folder to write into, from which the furnished things are ``things/…``."""
    (tmp_path / 'things').symlink_to(furnished)
    monkeypatch.chdir(tmp_path)
    return tmp_path
