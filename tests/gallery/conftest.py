"""One browser for all tests of the page; it starts with the first of them."""

from __future__ import annotations

import shutil

import pytest
from gallery_page import Page


@pytest.fixture(scope='session')
def chromium():
    from selenium import webdriver

    programs = shutil.which('chromium'), shutil.which('chromedriver')
    assert all(programs), 'install the packages chromium and chromium-driver'
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    driver.set_window_size(1280, 900)
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
