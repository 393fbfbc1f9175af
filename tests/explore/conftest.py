"""One browser for all tests of the page of vis_explore, and a server in this process for all tests of a file."""

from __future__ import annotations

import pytest
from browser import start_chromium
from explore_page import ExplorePage
from explorer import CLASSIFIER, explored


@pytest.fixture(scope='session')
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp('downloads')


@pytest.fixture(scope='session')
def chromium(downloads):
    driver = start_chromium(downloads)
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium):
    found = ExplorePage(chromium)
    found.console()
    found.requests()
    yield found
    found.js('sessionStorage.clear()')  # a tab keeps its photos, and this one is that of the next test as well
    # Whatever a test does: no error of the page itself on the console, and nothing asked of any other place.
    assert [entry for entry in found.console() if entry['source'] != 'network'] == []
    assert [
        url for url in found.requests() if not url.startswith(('http://127.0.0.1:', 'blob:', 'data:', 'about:'))
    ] == []


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A folder with the config of a tiny vision transformer."""
    folder = tmp_path_factory.mktemp('explored')
    (folder / 'tiny.py').write_text(CLASSIFIER)
    return folder


@pytest.fixture(scope='module')
def client(home):
    """What asks the server of that network, which has random weights."""
    kept = home / 'kept'
    kept.mkdir()
    with explored(kept, str(home / 'tiny.py'), 'none') as found:
        yield found
