"""The page of vis_explore in a browser, as a person uses it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

_READ = """
const pane = document.querySelectorAll(`#${arguments[0]} .pane`)[arguments[1]], { answer } = pane;
if (!answer) return null;
const { maps, ...rest } = answer;
const text = (values) => {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let found = '';
  for (let at = 0; at < bytes.length; at += 32768) found += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(found);
};
return { ...rest, maps: maps.map(({ values, ...map }) => ({ ...map, values: text(values) })) };
"""

_DROP = """
const [given] = arguments, whole = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const bytes = typeof given === 'string' ? whole(given) : new Uint8Array(given);
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1]));
const drop = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
document.querySelector('main').dispatchEvent(drop);
"""


class ExplorePage:
    """What a person does with the page, and sees."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, wait=True):
        self.driver.get(url)
        if wait:
            self.wait(lambda: self.js('return document.body.dataset.ready'))
        return self

    def js(self, code, *values):
        return self.driver.execute_script(code, *values)

    def one(self, selector):
        return self.driver.find_element('css selector', selector)

    def all(self, selector):
        return self.driver.find_elements('css selector', selector)

    def wait(self, condition, seconds=60):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.02).until(lambda _: condition())

    def keys(self, *keys):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key) if len(key) > 1 else key).perform()

    def keys_with_control(self, *keys):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()

    def drop(self, file, name=None, shown=True):
        """Drops a file on the page; waits until its photo is shown.

        Args:
            file: A path, bytes, or a number of bytes that are all zero.
            name: The file's name; None: that of the path.
            shown: Whether it is to be shown.
        """
        name = name or Path(file).name
        if not isinstance(file, int):
            file = base64.b64encode(file if isinstance(file, bytes) else Path(file).read_bytes()).decode()
        self.js(_DROP, file, name)
        if shown:
            self.shown(name)

    def shown(self, name):
        self.wait(lambda: self.js("return document.querySelector('#main').dataset.state") == 'shown')
        self.wait(lambda: self.one('#photo-name').text.startswith(name))

    def click(self, x, y, selector='#photo-stage'):
        """Clicks the middle of a pixel of the photo, with the mouse."""
        from selenium.webdriver import ActionChains

        element = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        across, down = self.offset(element, x, y)
        ActionChains(self.driver, duration=0).move_to_element_with_offset(element, across, down).click().perform()

    def offset(self, element, x, y):
        """The place of a pixel of the photo from the middle of a stage, in pixels of the page."""
        wide, tall = self.js('return [arguments[0].clientWidth, arguments[0].clientHeight]', element)
        width, height = self.size()
        return round((x + 0.5) * wide / width - wide / 2), round((y + 0.5) * tall / height - tall / 2)

    def size(self):
        return [int(part) for part in self.one('#photo-name').text.rpartition(', ')[2].split('×')]

    def point(self):
        """The point that is asked for, in whole pixels of the photo."""
        words = self.one('#photo-point').get_attribute('textContent').replace(',', '').split()
        return int(words[1]), int(words[3])

    def set(self, selector, value, event='input'):
        self.js(
            'arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event(arguments[2], {bubbles: true}))',
            self.one(selector),
            value,
            event,
        )

    def see(self, view):
        """Scrolls to a view, which asks for nothing as long as nobody sees it."""
        self.js("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", view)

    def after(self, action, *views, model=0):
        """The answers of views to an action, each with its maps."""
        pane = 'const pane = document.querySelectorAll(`#${arguments[0]} .pane`)[arguments[1]];'
        done = f"{pane} return pane.answer && pane.answer !== pane.seen && pane.ariaBusy !== 'true'"
        for view in views:
            self.js(f'{pane} pane.seen = pane.answer', view, model)
        action()
        for view in views:
            self.see(view)
            self.wait(lambda view=view: self.js(done, view, model))
        return [self.answer(view, model) for view in views]

    def answer(self, view, model=0):
        """What a view shows now: the header of the server's answer, its maps as arrays; None where it shows nothing."""
        found = self.js(_READ, view, model)
        for entry in (found or {}).get('maps', ()):
            values = np.frombuffer(base64.b64decode(entry['values']), '<f4')
            shape = (entry['height'], entry['width'], *([3] if entry['channels'] == 3 else []))
            entry['values'] = values.reshape(shape)
        return found

    def quiet(self):
        """Waits until nothing is asked of the server."""
        self.wait(lambda: not self.all('.pane[aria-busy=true]'))

    def console(self):
        """What the browser wrote on its console."""
        return self.driver.get_log('browser')

    def requests(self):
        """The addresses that the page asked for since the last call."""
        events = [json.loads(entry['message'])['message'] for entry in self.driver.get_log('performance')]
        return [each['params']['request']['url'] for each in events if each['method'] == 'Network.requestWillBeSent']
