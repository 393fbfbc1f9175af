"""One page for all tests of a file, over a tiny vision transformer with random weights."""

import pytest
from explorer import CLASSIFIER, explored


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('explored')
    (folder / 'tiny.py').write_text(CLASSIFIER)
    return folder


@pytest.fixture(scope='module')
def page(home):
    kept = home / 'kept'
    kept.mkdir()
    with explored(kept, str(home / 'tiny.py'), 'none') as found:
        yield found
