// One model's part of a view: its picture with the map, what the map says at a point, and how to get this figure.

import { el, icon } from './elements.js';
import { paintBar, paintMap, scaleOf } from './paint.js';
import { Newest, addressOf, ask, askMaps, isPassing } from './server.js';
import { Stage, valueAt } from './stage.js';
import { known, state } from './state.js';

const FORMATS = [['png', 'PNG', 'for the screen'], ['pdf', 'PDF', 'for paper'], ['npz', 'NPZ', 'the numbers'], ['zip', 'ZIP', 'all three']];
const BESIDE = ['zip', 'ZIP', 'all models', { beside: 1 }];

// Three digits, and the true minus sign; a value that is not zero is never written as zero.
export function numberText(value) {
  if (!Number.isFinite(value)) return 'not finite';
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(3));
  return text.replace('-', '−').replace('e−', 'e-');
}

export class Pane {
  /**
   * @param {View} view Its view, which says what to ask.
   * @param {number} model The model's number.
   */
  constructor(view, model) {
    Object.assign(this, { view, model, answer: null, place: 0, pointer: null, request: null });
    const { title } = view.kind;
    const stage = el('div');
    this.fault = el('p', { className: 'failure', role: 'alert', hidden: true });
    this.bar = el('canvas', { className: 'scale-bar', 'aria-hidden': 'true', width: 256, height: 1 });
    [this.low, this.high] = [el('span'), el('span')];
    this.value = el('output', { className: 'value' });
    this.strip = el('div', { className: 'maps', role: 'group', 'aria-label': 'Maps', hidden: !view.kind.strip });
    this.lens = view.kind.lens ? el('canvas', { className: 'lens', role: 'img', 'aria-label': 'The token and those around it, enlarged' }) : null;
    this.code = el('code', { tabIndex: 0 });
    this.copy = el('button', { type: 'button', className: 'round', title: 'Copy', 'aria-label': 'Copy the command', onclick: () => this.#copy() }, icon('copy'));
    this.menu = this.#menu();
    this.element = el('div', { className: 'pane' },
      known.models.length > 1 ? el('h3', { title: known.models[model].name }, known.models[model].name) : null,
      el('div', { className: 'frame' }, stage, el('i', { className: 'working', 'aria-hidden': 'true' }), this.fault),
      el('div', { className: 'reading' }, this.value, el('span', { className: 'scale' }, this.low, this.bar, this.high)),
      this.strip, this.lens,
      el('div', { className: 'source' }, this.code, this.copy, this.menu));
    this.stage = new Stage(stage, model, {
      name: `${title}${known.models.length > 1 ? ` of ${known.models[model].name}` : ''}: arrow keys move the point by one token`,
      hover: (point) => { this.pointer = point; this.tell(); },
    });
    this.newest = new Newest((request, signal) => this.#work(request, signal), (busy) => this.#mark(busy));
  }

  /** Shows another photo. */
  show() {
    this.newest.drop();
    this.#accept(null);
    this.fault.hidden = true;
    this.stage.show();
  }

  ask(request) {
    this.request = request;
    this.newest.ask(request);
  }

  /** Why there is no map, in words; the map before is taken away. */
  refuse(text) {
    this.newest.drop();
    this.#accept(null);
    this.fault.textContent = text;
    this.fault.hidden = false;
  }

  async #work(request, signal) {
    try {
      const answer = await askMaps(request, signal);
      if (state.photo && request.photo === state.photo.id) {
        this.fault.hidden = true;
        this.#accept(answer);
      }
    } catch (error) {
      if (!isPassing(error) && !this.newest.waiting) this.refuse(error.message);
    }
  }

  #mark(busy) {
    this.element.setAttribute('aria-busy', String(busy));
    clearTimeout(this.timer);
    if (busy) this.timer = setTimeout(() => { this.element.classList.add('busy'); this.view.work(this, true); }, 200);
    else if (this.element.classList.contains('busy')) { this.element.classList.remove('busy'); this.view.work(this, false); }
  }

  #accept(answer) {
    this.answer = answer;
    if (answer && this.place >= answer.maps.length) this.place = 0;
    this.element.answer = answer;
    this.#draw();
    if (answer) this.element.dispatchEvent(new CustomEvent('drawn', { bubbles: true, detail: { view: this.view.kind.key, model: this.model, answer } }));
  }

  get map() { return this.answer ? this.answer.maps[this.place] || null : null; }

  #draw() {
    const { map, answer } = this;
    this.stage.setMap(map, this.view.look);
    this.stage.setToken(answer && answer.token && !this.view.kind.unmarked ? answer.token.box : null);
    const colored = map && map.channels === 1;
    this.element.classList.toggle('unscaled', !colored);
    if (colored) {
      paintBar(this.bar, map, this.view.look);
      [this.low.textContent, this.high.textContent] = scaleOf(map).map(numberText);
    }
    if (this.view.kind.strip) this.#drawStrip();
    this.tell();
    this.tellSource();
  }

  #drawStrip() {
    const maps = this.answer ? this.answer.maps : [];
    while (this.strip.children.length > maps.length) this.strip.lastChild.remove();
    maps.forEach((map, place) => {
      let button = this.strip.children[place];
      if (!button) {
        button = el('button', { type: 'button', onclick: () => { this.place = place; this.#draw(); } }, el('canvas', { 'aria-hidden': 'true' }), el('span'));
        this.strip.append(button);
      }
      paintMap(button.firstChild, map, this.view.look);
      const name = map.channel === null || map.channel === undefined ? map.name : String(map.channel);
      button.lastChild.textContent = name;
      button.setAttribute('aria-label', `Channel ${name}`);
      button.setAttribute('aria-pressed', String(place === this.place));
    });
  }

  /** What stands below the map: its value below the pointer, else at the point. */
  tell() {
    const { map, answer } = this;
    const point = this.pointer || state.point;
    const found = map && point ? valueAt(map, this.model, point) : null;
    const texts = [];
    if (found) {
      texts.push(map.channels === 3 ? found.values.map((value) => value.toFixed(2)).join(' ') : numberText(found.values[0]));
      if (!this.view.kind.unmarked) texts.push(`row ${found.row}, column ${found.column}`);
    } else if (map && point) texts.push('outside of what the network sees');
    if (map && map.score !== null && map.score !== undefined) texts.push(`score ${numberText(map.score)}`);
    if (answer && answer.note) texts.push(answer.note);
    const said = this.view.kind.tell?.(this, point) || texts;
    this.value.replaceChildren(...said.map((text, place) => el(place ? 'span' : 'b', {}, text)));
    this.value.title = said.join(' · ');
  }

  tellSource() {
    const { answer } = this;
    this.code.textContent = answer ? answer[this.view.language] : '';
    this.copy.setAttribute('aria-label', `Copy the ${this.view.language === 'python' ? 'Python lines' : 'command'}`);
    this.copy.disabled = !answer;
    this.menu.classList.toggle('off', !answer);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.code.textContent);
    } catch {  // not allowed here: select it, so that the keyboard copies it
      getSelection().selectAllChildren(this.code);
      this.view.say('Press Ctrl+C to copy what is selected.');
      return;
    }
    this.copy.replaceChildren(icon('right'));
    this.view.say('Copied.');
    setTimeout(() => this.copy.replaceChildren(icon('copy')), 1500);
  }

  #menu() {
    const menu = el('details', { className: 'menu' }, el('summary', { className: 'action' }, 'Save figure'));
    const formats = known.models.length > 1 ? [...FORMATS, BESIDE] : FORMATS;
    const items = formats.map(([format, name, use, more]) => el('button', { type: 'button', onclick: () => { menu.open = false; this.save(format, more); } },
      el('b', {}, name), el('small', {}, use)));
    menu.append(el('div', { className: 'items' }, ...items));
    menu.addEventListener('toggle', () => { if (menu.open) menu.querySelector('button').focus({ preventScroll: true }); });
    menu.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || !menu.open) return;
      menu.open = false;
      menu.firstChild.focus();
    });
    menu.addEventListener('focusout', (event) => { if (!menu.contains(event.relatedTarget)) menu.open = false; });
    return menu;
  }

  /** Downloads the file that the command would write; a refusal is shown in words. */
  async save(format, more = {}) {
    if (!this.request) return;
    this.element.classList.add('saving');
    this.view.say(`Drawing the figure as ${format.toUpperCase()} …`);
    try {
      const response = await ask(addressOf('figure', { ...this.request, ...more, format }));
      const named = /filename\*=UTF-8''(.+)/.exec(response.headers.get('Content-Disposition') || '');
      const name = named ? decodeURIComponent(named[1]) : `figure.${format}`;
      const address = URL.createObjectURL(await response.blob());
      el('a', { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
      this.view.say(`Saved ${name}.`);
    } catch (error) {
      this.view.say(`The figure was not saved: ${error.message}`);
    }
    this.element.classList.remove('saving');
  }
}
