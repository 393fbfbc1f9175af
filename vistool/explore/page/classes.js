// Search among the class names: an input with a list below it, as ARIA's combobox pattern has it.

import { el } from './elements.js';
import { change, classNameOf, known, state } from './state.js';

const MOST = 60;  // names that are listed at once
let count = 0;

/** Classes whose name or id begins with, or holds, what is typed; those that begin with it first. */
export function findClasses(names, typed) {
  const text = typed.trim().toLowerCase();
  const found = [[], [], []];
  names.forEach((name, id) => {
    const low = name.toLowerCase();
    if (!text || String(id) === text || low === text) found[0].push(id);
    else if (low.startsWith(text)) found[1].push(id);
    else if (low.includes(text)) found[2].push(id);
  });
  return found.flat();
}

export class ClassSearch {
  /** @param {string} label What it is for, for a screen reader. */
  constructor(label) {
    count += 1;
    const id = `classes-${count}`;
    this.names = known.models[0].classes || [];
    this.list = el('ul', { id, className: 'listbox', role: 'listbox', 'aria-label': 'Classes', hidden: true });
    this.input = el('input', { type: 'search', placeholder: 'predicted class', spellcheck: false, autocomplete: 'off', role: 'combobox',
      'aria-label': label, 'aria-controls': id, 'aria-expanded': 'false', 'aria-autocomplete': 'list' });
    this.element = el('span', { className: 'class-search' }, this.input, this.list);
    this.marked = -1;
    this.input.addEventListener('focus', () => { this.input.select(); });
    this.input.addEventListener('click', () => this.#open(''));
    this.input.addEventListener('input', () => this.#open(this.input.value));
    this.input.addEventListener('keydown', (event) => this.#key(event));
    this.input.addEventListener('blur', () => this.#close());
    // Before the input loses the focus.
    this.list.addEventListener('pointerdown', (event) => {
      event.preventDefault();
      const item = event.target.closest('[data-id]');
      if (item) this.#take(Number(item.dataset.id));
    });
  }

  show() {
    const { target } = state;
    if (document.activeElement !== this.input || this.list.hidden) this.input.value = target ? target.name : '';
  }

  #open(typed) {
    const found = findClasses(this.names, typed);
    this.marked = typed && found.length ? 0 : -1;
    this.list.replaceChildren(
      ...found.slice(0, MOST).map((id, place) => el('li', { role: 'option', id: `${this.list.id}-${place}`, 'data-id': id, 'aria-selected': 'false' },
        el('span', {}, this.names[id]), el('small', {}, String(id)))),
      found.length > MOST ? el('li', { className: 'more', role: 'presentation' }, `${found.length - MOST} more: type on`)
        : found.length ? '' : el('li', { className: 'more', role: 'presentation' }, 'No such class'));
    this.list.hidden = false;
    this.input.setAttribute('aria-expanded', 'true');
    this.#mark(this.marked);
  }

  #close() {
    this.list.hidden = true;
    this.input.setAttribute('aria-expanded', 'false');
    this.input.removeAttribute('aria-activedescendant');
    this.show();
  }

  #mark(place) {
    const items = this.list.querySelectorAll('[data-id]');
    this.marked = items.length ? Math.min(items.length - 1, Math.max(-1, place)) : -1;
    items.forEach((item, at) => item.setAttribute('aria-selected', String(at === this.marked)));
    const chosen = items[this.marked];
    if (!chosen) { this.input.removeAttribute('aria-activedescendant'); return; }
    this.input.setAttribute('aria-activedescendant', chosen.id);
    chosen.scrollIntoView({ block: 'nearest' });
  }

  #take(id) {
    change({ target: { model: 0, id, name: classNameOf(0, id) }, instance: null });
    this.#close();
  }

  #key(event) {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      if (this.list.hidden) this.#open('');
      else this.#mark(this.marked + (event.key === 'ArrowDown' ? 1 : -1));
    } else if (event.key === 'Enter') {
      const chosen = this.list.querySelector('[aria-selected=true]');
      if (!this.input.value.trim()) { change({ target: null }); this.#close(); }
      else if (!this.list.hidden && chosen) this.#take(Number(chosen.dataset.id));
    } else if (event.key === 'Escape') {
      if (this.list.hidden) { change({ target: null }); this.show(); }
      else this.#close();
    } else return;
    event.preventDefault();
  }
}
