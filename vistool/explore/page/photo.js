// The photo: where it comes from, its point, and what the models say of it (classes or objects).

import { $, el, scoreText } from './elements.js';
import { partOf } from './geometry.js';
import { Refusal, addressOf, ask, askJson } from './server.js';
import { Stage, boxOf, pictureAddress, thumbnailAddress } from './stage.js';
import { change, known, pictureOf, state, targetOf } from './state.js';

const photos = [];  // those of the command line, then those of this tab
const KEPT = `photos of ${location.pathname}`;
const uploads = new Set();  // the ids of this tab's own, which outlive a reload of the page
let stage = null;
let reading = null;  // the photo that is being read, so that a later choice wins

const sizeText = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** What this tab had before the page was loaded again: the ids of its uploads, and of the photo that was shown. */
export function keptPhotos() {
  try {
    return { uploads: [], shown: null, ...JSON.parse(sessionStorage.getItem(KEPT)) };
  } catch {  // no storage here
    return { uploads: [], shown: null };
  }
}

function keepPhotos() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ uploads: [...uploads], shown: state.photo?.id ?? null }));
  } catch { /* no storage here: a reload shows the photos of the command line */ }
}

export function fillPhotos(given, page) {
  stage = new Stage($('photo-stage'), 0, {
    name: 'Photo: click a point, or move it by one token with the arrow keys',
    hover: (point) => tellPoint(point),
    pick: (point) => pickObject(point),
  });
  photos.push(...given);
  const kept = keptPhotos().uploads;
  for (const { id } of given) if (kept.includes(id)) uploads.add(id);
  showStrip(page);
  const choose = (files) => { if (files.length) upload(files, page); };
  $('file').addEventListener('change', () => { choose([...$('file').files]); $('file').value = ''; });
  let inside = 0;  // entering a child leaves its parent
  const over = (step) => { inside = Math.max(0, inside + step); document.body.classList.toggle('over', inside > 0); };
  addEventListener('dragenter', () => over(1));
  addEventListener('dragleave', () => over(-1));
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    over(-inside);
    choose([...event.dataTransfer.files]);
  });
  addEventListener('paste', (event) => choose([...(event.clipboardData?.files || [])]));
}

/** Sends files to the server, one after the other; the last of them is shown. */
async function upload(files, page) {
  let last = null;
  for (const file of files) {
    page.say(`Reading ${file.name} …`);
    try {
      if (known.limits && file.size > known.limits.bytes) {
        throw new Refusal(`${file.name} has ${sizeText(file.size)}; at most ${sizeText(known.limits.bytes)} are accepted.`, 413);
      }
      const response = await ask(addressOf('photos', { name: file.name }),
        { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
      last = await response.json();
      photos.push(last);
      uploads.add(last.id);
      tellFailure('');
    } catch (error) {
      tellFailure(error.message);
      page.say(error.message);
    }
  }
  showStrip(page);
  if (last) await choosePhoto(last, page);
}

export function tellFailure(text) {
  $('failure').textContent = text;
  $('failure').hidden = !text;
}

/** Shows a photo: every model reads it first, which takes one forward pass each. */
export async function choosePhoto(photo, page) {
  reading = photo;
  tellFailure('');
  change({ photo, described: known.models.map(() => null), point: null, target: null, instance: null });
  $('main').dataset.state = 'reading';
  document.title = `${photo.name} · vis_explore`;
  $('photo-name').textContent = photo.name;
  $('scores').replaceChildren();
  showStrip(page);
  keepPhotos();
  page.say(`The ${known.models.length > 1 ? 'models read' : 'model reads'} ${photo.name} …`);
  try {
    // Photos of the command line are not read before they are shown.
    if (!photo.width) [photo.width, photo.height] = await sizeOf(photo);
    if (reading !== photo) return;
    $('photo-name').textContent = `${photo.name}, ${photo.width}×${photo.height}`;
    stage.show();
    stage.setOutline('');
    const described = [];
    for (const { number } of known.models) {
      described.push(await askJson(addressOf(`photos/${photo.id}/describe`, { model: number })));
      if (reading !== photo) return;
    }
    const { width, height } = photo;
    const [{ input }] = described;
    // The middle of what the network sees is a point that every view can answer for.
    const middle = input && input.outline && input.outline.length
      ? input.outline.reduce(([x, y], corner) => [x + corner[0] / input.outline.length, y + corner[1] / input.outline.length], [0, 0])
      : [width / 2, height / 2];
    const inside = (value, end) => Math.min(end - 1, Math.max(0, Math.round(value)));  // a corner is exact but for rounding
    const point = described[0].picture === 'network' ? { x: width / 2, y: height / 2 } : { x: inside(middle[0], width), y: inside(middle[1], height) };
    $('main').dataset.state = 'shown';
    change({ described, point });
    page.say(`${photo.name} is shown.`);
  } catch (error) {
    if (reading !== photo) return;
    $('main').dataset.state = 'failed';
    tellFailure(error.message);
    page.say(error.message);
  }
}

async function sizeOf({ id, name }) {
  const image = new Image();
  image.src = pictureAddress(id, 0);
  try {
    await image.decode();
  } catch {  // the server says why
    await ask(image.src);
    throw new Refusal(`${name} cannot be shown.`, 0);
  }
  return [image.naturalWidth, image.naturalHeight];
}

/** Follows what changed: the dot, the objects, the classes. */
export function showPhoto(changed) {
  if (changed.has('described') && state.described[0]) {
    stage.show();
    stage.setOutline(partOf(state.described[0].input?.outline, pictureOf(0)));
    fillScores();
  }
  if (changed.has('point')) { stage.setDot(); tellPoint(null); }
  if (changed.has('target') || changed.has('instance')) markScores();
}

function tellPoint(hovered) {
  const point = hovered || state.point;
  $('photo-point').textContent = point ? `x ${Math.floor(point.x)}, y ${Math.floor(point.y)}` : '';
}

function showStrip(page) {
  $('strip').replaceChildren(...photos.map((photo) => el('li', {},
    el('button', { type: 'button', title: photo.name, 'aria-label': photo.name, 'aria-pressed': String(state.photo === photo), onclick: () => choosePhoto(photo, page) },
      el('img', { alt: '', loading: 'lazy', src: thumbnailAddress(photo.id) })))));
  $('strip').hidden = photos.length < 2;
}

// ---- classes and objects

// What stands in the place of a list that a model does not have.
const WITHOUT = {
  detector: 'Nothing was found in this photo.',
  segmenter: 'Click a region to see what speaks for its class.',
  backbone: 'No class scores: this model is not a classifier.',
};

function fillScores() {
  const objects = state.described[0].instances || [];
  const several = known.models.length > 1;
  // Objects are those of the first model, which the others' are matched with; scores are of each model.
  const shown = objects.length ? state.described.slice(0, 1) : state.described;
  $('scores').replaceChildren(...shown.map((described, number) => {
    const { name } = known.models[number];
    const items = objects.length ? objects.map(objectItem) : (described.scores || []).map((score) => scoreItem(score, described, number));
    return el('div', { className: shown.some((each) => (each.scores || []).length) || objects.length ? 'scores' : 'scores unscored' }, several ? el('h3', { title: name }, name) : null,
      items.length ? el('ol', {}, ...items) : el('p', { className: 'soft' }, WITHOUT[known.models[number].kind] || WITHOUT.backbone));
  }));
  stage.boxes.replaceChildren(...objects.filter((one) => one.box).map((one) => boxOf(one, false)));
  markScores();
}

function scoreItem({ id, name, score }, described, number) {
  const chances = described.score_kind !== 'value';
  const most = Math.max(...described.scores.map((each) => Math.abs(each.score)), 1e-12);
  const bar = el('i');
  bar.style.width = `${100 * Math.min(1, Math.max(0, score / (chances ? 1 : most)))}%`;
  return el('li', {}, el('button', { type: 'button', className: 'score-item', 'data-class': name, 'data-id': id, 'data-model': number, title: `CAM of ${name}`,
    onclick: () => change({ target: { model: number, id, name }, instance: null }) },
  el('span', { className: 'class' }, name), el('span', { className: 'score' }, scoreText(score, !chances)), el('span', { className: 'score-bar' }, bar)));
}

function objectItem(one) {
  const bar = el('i');
  bar.style.width = `${100 * one.score}%`;
  return el('li', {}, el('button', { type: 'button', className: 'score-item', 'data-instance': one.number, title: `CAM of ${one.name}`,
    onclick: () => change({ instance: one.number, target: null }) },
  el('span', { className: 'class' }, `${one.number} ${one.name}`), el('span', { className: 'score' }, scoreText(one.score)), el('span', { className: 'score-bar' }, bar)));
}

function markScores() {
  for (const button of document.querySelectorAll('.score-item')) {
    const chosen = button.dataset.instance !== undefined ? Number(button.dataset.instance) === state.instance
      : Number(button.dataset.id) === targetOf(Number(button.dataset.model)) && state.instance === null;
    button.setAttribute('aria-pressed', String(chosen));
  }
  for (const box of stage.boxes.children) box.classList.toggle('chosen', Number(box.dataset.number) === state.instance);
}

/** Chooses the smallest object whose box holds the point. */
function pickObject({ x, y }) {
  const objects = (state.described[0]?.instances || []).filter(({ box }) => box && x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]);
  const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  objects.sort((one, other) => size(one) - size(other));
  if (objects.length) change({ instance: objects[0].number, target: null });
  else if (known.models[0].kind === 'segmenter') change({ target: null });
}
