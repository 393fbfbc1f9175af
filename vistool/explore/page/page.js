// Start-up: what the server holds, the views, what is common to them, and the keys.

import { $, el, icon } from './elements.js';
import { KINDS } from './kinds.js';
import { loadTables } from './paint.js';
import { choosePhoto, fillPhotos, keptPhotos, showPhoto, tellFailure } from './photo.js';
import { Stage } from './stage.js';
import { addressOf, askJson } from './server.js';
import { change, known, listen, state } from './state.js';
import { View } from './view.js';

/** All views by their key; each pane's element has the answer that it shows as its property `answer`. */
export const views = {};

// ---- what is said aloud: the last of what happens at once

let sayTimer = 0;
const working = new Set();

function say(text) {
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => { $('status').textContent = text; }, 50);
}

// How long the server has been at work is seen, and not said every half second.
async function tellSeconds() {
  if (!working.size) { $('seconds').textContent = ''; return; }
  const busy = await askJson('busy').catch(() => null);
  $('seconds').textContent = busy && working.size ? `${busy.seconds.toFixed(1)} s` : '';
  setTimeout(tellSeconds, 400);
}

const page = {
  say,
  work(pane, busy) {
    if (busy) {
      if (!working.size) setTimeout(tellSeconds, 800);
      working.add(pane);
      say(`${[...new Set([...working].map((each) => each.view.kind.title))].join(', ')} …`);
    } else if (working.delete(pane) && !working.size) say('');
  },
  speak(language) { for (const view of Object.values(views)) view.speak(language); },
};

// ---- the bar

function fillBar() {
  for (const [number, { key, title }] of KINDS.entries()) {
    const box = el('input', { type: 'checkbox', checked: true, onchange: () => toggle(key, box.checked) });
    $('shown').append(el('label', { title: `${title} (${number + 1})`, 'data-view': key }, box, el('span', {}, title)));
  }
  $('opacity').addEventListener('input', () => change({ opacity: Number($('opacity').value) / 100 }));
  $('sharp').addEventListener('click', () => change({ sharp: !state.sharp }));
  $('help').addEventListener('click', () => $('keys').showModal());
  $('keys-close').append(icon('close'));
  $('keys-close').addEventListener('click', () => $('keys').close());
  showBar();
}

function showBar() {
  const percent = Math.round(100 * (state.opacity ?? known.looks.attention?.alpha ?? 1));
  $('opacity').value = percent;
  $('opacity-text').textContent = `${percent} %`;
  $('sharp').setAttribute('aria-checked', String(state.sharp));
}

function toggle(key, on) {
  const view = views[key];
  view.hidden = !on;
  $('shown').querySelector(`[data-view=${key}] input`).checked = on;
  showViews();
  if (on && view.stale) view.ask();
}

// A view that no model has is not a card: its button says why.
function showViews() {
  for (const [key, view] of Object.entries(views)) {
    const label = $('shown').querySelector(`[data-view=${key}]`), offered = Boolean(view.lead);
    view.element.hidden = view.hidden || !offered;
    if (!state.described[0]) continue;
    label.querySelector('input').disabled = !offered;
    label.title = offered ? view.kind.title : (view.offer(0)?.why ?? '');
  }
}

// ---- what follows from a change

function follow(changed) {
  showPhoto(changed);
  if (changed.has('opacity') || changed.has('sharp')) {
    showBar();
    for (const view of Object.values(views)) view.draw();
  }
  if (!state.described[0]) { Stage.tokens = null; return; }
  if (changed.has('described')) {
    showViews();
    for (const view of Object.values(views)) view.show();
    Stage.tokens = tokensNow();
    return;
  }
  for (const view of Object.values(views)) {
    if (changed.has('point')) view.setDot();
    if (changed.has('target') || changed.has('instance')) view.update();
    const moved = view.kind.follows.some((name) => changed.has(name));
    if (moved && !(changed.size === 1 && changed.has('point') && view.lead && view.kind.unmoved?.(view))) view.ask();
  }
}

/** The grid of tokens that keys step over: that of the patches, where the network has some. */
function tokensNow() {
  const { views: offers } = state.described[0];
  return offers.patches?.available && offers.patches.matrix ? { matrix: offers.patches.matrix } : null;
}

// ---- keys

const typing = (target) => target instanceof Element && target.matches('input:not([type=range], [type=checkbox]), select, textarea');

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typing(event.target) || $('keys').open) return;
  const number = Number(event.key);
  const key = event.key.toLowerCase();
  if (number >= 1 && number <= KINDS.length) toggle(KINDS[number - 1].key, views[KINDS[number - 1].key].hidden);
  else if (key === 'r') change({ sharp: !state.sharp });
  else if (key === 'o') change({ opacity: state.opacity === 0 ? null : 0 });
  else if (event.key === '?') $('keys').showModal();
  else if (event.key === '/') [...document.querySelectorAll('.class-search input')].find((each) => each.offsetParent && !each.disabled)?.focus();
  else return;
  event.preventDefault();
}

// ---- start

async function start() {
  const { uploads, shown } = keptPhotos();
  const said = await askJson(addressOf('state', { uploads: uploads.join(',') }));
  Object.assign(known, { models: said.models, looks: said.looks, limits: said.limits });
  await loadTables(said.colormaps);
  const names = said.models.map((model) => model.name);
  $('title').replaceChildren(...names.flatMap((name, number) => [number ? el('span', { className: 'soft' }, ' and ') : '', name]));
  $('title').title = said.models.map((model) => [model.name, model.checkpoint].filter(Boolean).join(', ')).join('; ');
  document.body.dataset.models = names.length > 1 ? 'several' : 'one';
  for (const kind of KINDS) {
    views[kind.key] = new View(kind, page);
    $('views').append(views[kind.key].element);
  }
  fillBar();
  listen(follow);
  fillPhotos(said.photos, page);
  addEventListener('keydown', onKey);
  document.body.dataset.ready = 'true';
  const first = said.photos.find(({ id }) => id === shown) ?? said.photos[0];
  if (first) await choosePhoto(first, page);
}

start().catch((error) => tellFailure(error.message));
