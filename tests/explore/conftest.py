"""One browser for all tests of the page of vis_explore; it starts with the first of them."""

from __future__ import annotations

import pytest
from browser import start_chromium
from explore_page import ExplorePage


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
    # Whatever a test does: no error of the page itself on the console, and nothing asked of any other place.
    assert [entry for entry in found.console() if entry['source'] != 'network'] == []
    assert [
        url for url in found.requests() if not url.startswith(('http://127.0.0.1:', 'blob:', 'data:', 'about:'))
    ] == []
