// A view: what can be chosen, and a pane for each model. The kinds of views are in kinds.js.

import { ClassSearch } from './classes.js';
import { el, icon } from './elements.js';
import { partOf } from './geometry.js';
import { Pane } from './pane.js';
import { known, pictureOf, pixelOf, state } from './state.js';

export class View {
  /**
   * @param {object} kind An entry of kinds.js.
   * @param {{work: Function, say: Function}} page Hears which panes work, and what is to be said aloud.
   */
  constructor(kind, page) {
    Object.assign(this, { kind, page, settings: { ...kind.settings }, language: 'command', stale: true, near: false, hidden: false });
    this.look = known.looks[kind.key] || { colormap: 'viridis', alpha: 0.6, interpolation: 'nearest' };
    this.controls = Object.fromEntries(kind.controls.map((name) => [name, CONTROLS[name](this)]));
    this.panes = known.models.map((_, number) => new Pane(this, number));
    this.why = el('p', { className: 'why', hidden: true });
    const larger = el('button', { type: 'button', className: 'round', 'aria-pressed': 'false', title: 'Larger', 'aria-label': `${kind.title} larger`,
      onclick: () => larger.setAttribute('aria-pressed', String(this.element.classList.toggle('large'))) }, icon('larger'));
    const languages = el('button', { type: 'button', className: 'link', onclick: () => page.speak(this.language === 'command' ? 'python' : 'command') }, 'Python');
    languages.title = 'What is written below the maps';
    this.languages = languages;
    this.element = el('section', { className: 'view', id: kind.key, 'aria-labelledby': `${kind.key}-title`, hidden: true },
      el('div', { className: 'view-head' }, el('h2', { id: `${kind.key}-title` }, kind.title), el('span', { className: 'hint' }, kind.hint), languages, larger),
      el('div', { className: 'controls' }, ...Object.values(this.controls).map((control) => control.element)),
      el('div', { className: 'panes' }, ...this.panes.map((pane) => pane.element)), this.why);
    // What is out of sight asks for nothing until it comes into sight.
    new IntersectionObserver(([entry]) => {
      this.near = entry.isIntersecting;
      if (this.near && this.stale) this.ask();
    }, { rootMargin: '100px' }).observe(this.element);
  }

  work(pane, busy) { this.page.work(pane, busy); }

  say(text) { this.page.say(text); }

  /** What the server says of this view for a model and the photo. */
  offer(number) {
    const described = state.described[number];
    return (described && described.views[this.kind.key]) || null;
  }

  /** The first model that has this view. */
  get lead() { return known.models.map((_, number) => this.offer(number)).find((offer) => offer && offer.available) || null; }

  speak(language) {
    this.language = language;
    this.languages.textContent = language === 'command' ? 'Python' : 'Command';
    this.element.dataset.language = language;
    for (const pane of this.panes) pane.tellSource();
  }

  /** Takes in what the server says of a new photo. */
  show() {
    for (const pane of this.panes) {
      pane.show();
      const { input } = state.described[pane.model] || {};
      pane.stage.setOutline(input ? partOf(input.outline, pictureOf(pane.model)) : '');
    }
    if (this.lead) for (const control of Object.values(this.controls)) control.fit(this.lead);
    this.update();
    this.setDot();
    this.ask();
  }

  /** Shows the settings in the controls. */
  update() {
    if (this.lead) for (const control of Object.values(this.controls)) control.show(this.lead);
  }

  set(values) {
    Object.assign(this.settings, values);
    this.update();
    this.ask();
  }

  setDot() { for (const pane of this.panes) { pane.stage.setDot(); pane.tell(); } }

  draw() { for (const pane of this.panes) pane.stage.draw(); }

  ask() {
    this.stale = true;
    if (this.hidden || !this.near || !this.lead) return;
    this.stale = false;
    for (const pane of this.panes) this.#askPane(pane);
  }

  #askPane(pane) {
    const offer = this.offer(pane.model);
    if (!state.described[pane.model]) return;
    if (!offer || !offer.available) { pane.refuse(offer ? offer.why : 'This model does not have this view.'); return; }
    const asked = this.kind.request(this, offer, pane.model);
    if (typeof asked === 'string') pane.refuse(asked);
    else pane.ask({ photo: state.photo.id, model: pane.model, view: this.kind.key, ...asked });
  }

  /** The position of the chosen layer among those of a model: by name, else at the same depth. */
  layerOf(offer) {
    const { layers } = offer, lead = this.lead;
    const place = Math.min(this.settings.layer ?? lead.layer, lead.layers.length - 1);
    if (offer === lead) return place;
    const same = layers.findIndex((layer) => layer.name === lead.layers[place].name);
    if (same >= 0) return same;
    return lead.layers.length < 2 ? offer.layer : Math.round((place / (lead.layers.length - 1)) * (layers.length - 1));
  }
}

/** The point as parameters; nothing where none is chosen. */
export const pointOf = (number) => pixelOf(number) || {};

// ---- controls: each has an element, is fitted to what a model offers, and shows the settings

const row = (name, ...parts) => el('label', { className: 'control' }, el('span', { className: 'caption' }, name), ...parts);

function slider(label, set) {
  const input = el('input', { type: 'range', min: 0, max: 0, step: 1, oninput: () => set(Number(input.value)) });
  const output = el('output');
  const element = row(label, input, output);
  return {
    element, input,
    to(place, most, text, title = text) {
      input.max = most;
      input.value = place;
      input.disabled = most < 1;
      input.setAttribute('aria-valuetext', title);
      output.textContent = text;
      element.title = title;
    },
  };
}

function select(label, set) {
  const input = el('select', { onchange: () => set(input.value) });
  return { element: row(label, input), input };
}

const CONTROLS = {
  layer(view) {
    const control = slider('Layer', (layer) => view.set({ layer }));
    return {
      ...control,
      fit(lead) {
        if (view.settings.layer !== null && view.settings.layer >= lead.layers.length) view.settings.layer = null;
      },
      show(lead) {
        const place = view.layerOf(lead);
        const { name, grid } = lead.layers[place];
        const first = view.kind.defaultFirst && place === 0;
        control.to(place, lead.layers.length - 1, first ? 'default' : `${place} / ${lead.layers.length - 1}`, [name, grid ? grid.join('×') : ''].filter(Boolean).join(', '));
        control.input.disabled = lead.layers.length < 2 || !(view.kind.layered?.(view, lead) ?? true);
      },
    };
  },
  head(view) {
    const texts = (lead) => ['mean', 'max', ...Array.from({ length: lead.layers[view.layerOf(lead)].heads }, (_, number) => String(number))];
    const control = slider('Head', (place) => view.set({ head: texts(view.lead)[place] }));
    return {
      ...control,
      fit() {},
      show(lead) {
        const all = texts(lead);
        if (!all.includes(view.settings.head)) view.settings.head = 'mean';
        const place = all.indexOf(view.settings.head);
        control.to(place, all.length - 1, place < 2 ? all[place] : `${all[place]} / ${all.length - 3}`, place < 2 ? `${all[place]} of the heads` : `head ${all[place]}`);
        control.input.disabled = view.settings.method !== 'raw';
      },
    };
  },
  method(view) {
    const control = select('Method', (method) => view.set({ method }));
    return {
      element: control.element,
      fit(lead) {
        control.input.replaceChildren(...lead.methods.map((method) => el('option', { value: method.name, disabled: method.available === false, title: method.why }, method.slow ? `${method.title} (slow)` : method.title)));
        const offered = lead.methods.filter((method) => method.available !== false).map((method) => method.name);
        if (offered.includes(view.settings.method)) return;
        view.settings.method = offered.includes(lead.method) ? lead.method : offered[0] ?? lead.methods[0].name;
      },
      show() { control.input.value = view.settings.method; },
    };
  },
  from(view) {
    const control = select('From', (from) => view.set({ from }));
    return {
      element: control.element,
      fit(lead) {
        control.input.replaceChildren(el('option', { value: 'point' }, 'the point'),
          lead.class_token ? el('option', { value: 'cls' }, 'the class token') : '', el('option', { value: 'mean' }, 'all positions, mean'));
        if (view.settings.from === 'cls' && !lead.class_token) view.settings.from = 'point';
      },
      show() {
        control.input.value = view.settings.from;
        control.input.disabled = !methodOf(view, view.lead).query;
      },
    };
  },
  target(view) {
    const search = new ClassSearch('Class');
    const element = row('Class', search.element);
    return {
      element,
      fit() { element.hidden = !search.names.length || known.models[0].kind === 'detector'; },
      show() {
        search.show();
        const method = methodOf(view, view.lead);
        search.input.disabled = method.needs_target === false;
        const { scores } = state.described[0];
        search.input.placeholder = scores && scores.length ? `${scores[0].name} (predicted)` : known.models[0].kind === 'segmenter' ? 'what is at the point' : 'predicted class';
      },
    };
  },
  count() {
    const element = el('p', { className: 'control soft' });
    return {
      element,
      fit() {},
      show({ note }) { element.textContent = note || ''; },
    };
  },
  channel(view) {
    const input = el('input', { type: 'number', min: 0, step: 1, placeholder: 'strongest', inputMode: 'numeric',
      oninput: () => view.set({ channel: input.value === '' ? null : Math.floor(Number(input.value)) }) });
    const output = el('output');
    return {
      element: row('Channel', input, output),
      fit() {},
      show(lead) {
        const { channels } = lead.layers[view.layerOf(lead)];
        input.max = channels - 1;
        output.textContent = channels ? `of ${channels}` : '';
        if (view.settings.channel !== null && view.settings.channel >= channels) view.settings.channel = channels - 1;
        if (document.activeElement !== input) input.value = view.settings.channel ?? '';
      },
    };
  },
};

export const methodOf = (view, offer) => offer.methods.find((method) => method.name === view.settings.method) || offer.methods[0];
