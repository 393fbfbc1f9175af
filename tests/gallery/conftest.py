"""One browser for all tests of the page; it starts with the first of them."""

from __future__ import annotations

import pytest
from browser import start_chromium
from gallery_page import Page


@pytest.fixture(scope='session')
def chromium():
    driver = start_chromium()
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium):
    found = Page(chromium)
    for log in ('browser', 'performance'):
        chromium.get_log(log)
    yield found
    # Whatever a test does: nothing on the console, nothing asked of any network.
    assert chromium.get_log('browser') == []
    assert [url for url in found.read_log() if not url.startswith(('file:', 'data:', 'about:'))] == []
