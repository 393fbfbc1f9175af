"""A real browser for tests of pages: headless Chromium, driven by selenium.

Needs Debian's ``chromium`` and ``chromium-driver``, and ``selenium``.
"""

from __future__ import annotations

import shutil


def start_chromium(downloads=None):
    """A browser of 1280 by 900 pixels that keeps the logs of its console and of its requests.

    Args:
        downloads: Folder for files that a page saves; None: the browser's own.
    """
    from selenium import webdriver

    programs = shutil.which('chromium'), shutil.which('chromedriver')
    assert all(programs), 'install the packages chromium and chromium-driver'
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'):
        options.add_argument(argument)
    if downloads is not None:
        options.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    driver.set_window_size(1280, 900)
    return driver
