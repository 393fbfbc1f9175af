"""The page of a gallery in a browser, as a person uses it."""

from __future__ import annotations

import json
from urllib.parse import quote


class Page:
    """What a person does with the page, and sees."""

    def __init__(self, driver):
        self.driver = driver
        self.requests = []

    def open(self, path, state=''):
        self.driver.get('about:blank')  # else only the part after # changes
        self.driver.get(f'file://{quote(str(path))}{state}')
        return self

    def js(self, code, *values):
        return self.driver.execute_script(code, *values)

    def all(self, selector):
        return self.driver.find_elements('css selector', selector)

    def one(self, selector):
        return self.driver.find_element('css selector', selector)

    def keys(self, *keys):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key) if len(key) > 1 else key).perform()

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 20, 0.02).until(lambda _: condition())

    def cards(self):
        """Names of the images on the cards in sight, in their order."""
        return self.js("return [...document.querySelectorAll('.card')].map(card => card.title)")

    def count(self):
        return self.one('#count').text

    def set(self, selector, value):
        self.js(
            'arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event("input", {bubbles: true}))',
            self.one(selector),
            value,
        )

    def show(self, which):
        self.js('arguments[0].click()', self.one(f'#shows input[value={which}]'))

    def focused(self):
        return self.js('return document.activeElement.title || document.activeElement.id')

    def visible(self, selector):
        """Whether the first such element is seen, and not only there."""
        return self.js('return getComputedStyle(arguments[0]).visibility', self.one(selector)) == 'visible'

    def loaded(self):
        """Whether every picture in the grid came to be one."""
        code = "return [...document.querySelectorAll('.grid img')].every(i => i.complete && i.naturalWidth > 0)"
        return self.wait(lambda: self.js(code))

    def read_log(self):
        events = [json.loads(entry['message'])['message'] for entry in self.driver.get_log('performance')]
        sent = [event['params'] for event in events if event['method'] == 'Network.requestWillBeSent']
        self.requests += [each['request']['url'] for each in sent]
        return self.requests
