// One image enlarged: photo and overlay, all its maps, and what is known about it.

const detail = { image: null, map: 0, wipe: 50, opener: null };
const MODES = { overlay: OVER, photo: 'Photo', slide: 'Slide' };

const ownRun = (image) => image.runs[OWN] || image.runs.find(Boolean);
const mapsOf = (run) => (run && run.maps) || [];

// The same map in another run: the same method and class, else the same place, else the same method.
function counterpart(run, maps, place) {
  const wanted = maps[place];
  const others = mapsOf(run);
  if (!wanted || others === maps) return wanted || null;
  const method = (map) => DATA.maps[map[0]][0];
  const row = (map) => map[1].replace(/ [\d.]+$/, '');  // a class without its score
  const alike = others.filter((map) => method(map) === method(wanted));
  const same = alike.filter((map) => row(map) === row(wanted));
  return same.find((map) => map[0] === wanted[0]) || (same.length === 1 && same[0])
    || (others.length === maps.length && others[place]) || same[0] || alike[0] || others[0] || null;
}

function openDetail(image) {
  detail.opener = document.activeElement;
  const cover = coverOf(ownRun(image));
  const place = mapsOf(ownRun(image)).indexOf(cover);
  change({ open: image.key, map: place > 0 ? String(place) : '' });
  showDetail();
}

function showDetail() {
  const image = byKey.get(state.open);
  if (!image) { if ($('detail').open) $('detail').close(); return; }
  detail.image = image;
  const maps = mapsOf(ownRun(image));
  detail.map = Math.min(Math.max(0, Number.parseInt(state.map, 10) || 0), Math.max(0, maps.length - 1));
  const place = grid.shown.indexOf(image);
  $('detail-title').textContent = image.name;
  $('detail-title').title = image.name;
  const where = place < 0 ? '' : `${countText(place + 1)} of ${countText(grid.shown.length)}`;
  $('detail-place').textContent = [where, tags.has(image.id) ? 'tagged' : ''].filter(Boolean).join(' · ');
  $('previous').disabled = place <= 0;
  $('next').disabled = place < 0 || place === grid.shown.length - 1;
  $('stages').replaceChildren(...PICTURED.map((number) => stageOf(image, image.runs[number], number)));
  $('stages').dataset.count = PICTURED.length;
  $('panel').replaceChildren(...panelOf(image));
  showStrip(image);
  showMode();
  if (!$('detail').open) {
    $('detail').showModal();
    $('detail-title').focus();
  }
  preload(grid.shown[place + 1]);
}

function preload(image) {
  if (!image) return;
  for (const run of image.runs) {
    const map = coverOf(run);
    for (const url of [run && run.photo, map && map[2]]) if (url) new Image().src = url;
  }
}

function stageOf(image, run, number) {
  const map = counterpart(run, mapsOf(ownRun(image)), detail.map);
  const frame = el('div', { className: 'frame' }, ...pictures(run && run.photo, map, false), el('i', { className: 'handle' }));
  if (!run || (!run.photo && !map)) frame.append(el('p', { className: 'empty' }, !run ? 'not in this run' : run.error || 'no tile'));
  const [width, height] = (run && run.size) || [DATA.ratio, 1];
  frame.style.setProperty('--ratio', width / height);
  frame.addEventListener('pointerdown', (event) => drag(event, frame));
  const title = [COMPARED ? RUNS[number].name : '', map ? [DATA.maps[map[0]][2], map[1]].filter(Boolean).join(' · ') : ''];
  const caption = el('figcaption', {}, ...title.filter(Boolean).map((text, place) => el(place || !COMPARED ? 'span' : 'b', {}, text)),
    map && map[3] ? el('small', {}, map[3]) : null,
    ...numbersOf(map).map((pair) => el('small', { className: 'number' }, metricText(pair))));
  return el('figure', { className: 'stage' }, frame, caption);
}

function drag(event, frame) {
  if (event.button) return;
  const start = event.clientX;
  const box = frame.getBoundingClientRect();
  const move = (now) => {
    if (state.mode !== 'slide' && Math.abs(now.clientX - start) < 4) return;
    if (state.mode !== 'slide') setMode('slide');
    setWipe(Math.min(100, Math.max(0, (100 * (now.clientX - box.left)) / box.width)));
  };
  const end = () => {
    frame.removeEventListener('pointermove', move);
    for (const name of ['pointerup', 'pointercancel']) frame.removeEventListener(name, end);
  };
  frame.setPointerCapture(event.pointerId);
  frame.addEventListener('pointermove', move);
  for (const name of ['pointerup', 'pointercancel']) frame.addEventListener(name, end);
  if (state.mode === 'slide') move(event);
}

function setWipe(share) {
  detail.wipe = share;
  $('stages').style.setProperty('--wipe', `${share}%`);
  $('wipe').value = share;
}

function setMode(mode) {
  change({ mode: mode === 'overlay' ? '' : mode });
  showMode();
}

function showMode() {
  const mode = state.mode || 'overlay';
  $('detail').dataset.mode = mode;
  // It keeps its space while hidden, so that the picture does not jump.
  $('wipe-field').classList.toggle('unseen', mode !== 'slide');
  for (const button of $('modes').children) {
    const chosen = button.dataset.mode === mode;
    button.setAttribute('aria-checked', String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  setWipe(detail.wipe);
}

function showStrip(image) {
  const maps = mapsOf(ownRun(image));
  $('strip').hidden = maps.length < 2;
  $('strip').replaceChildren(...(maps.length < 2 ? [] : maps.map((map, place) => {
    const [method, layer, column] = DATA.maps[map[0]];
    return el('button', { type: 'button', 'aria-pressed': String(place === detail.map), title: [column, map[1], layer].filter(Boolean).join(' · '),
      onclick: () => pickMap(place) },
    el('img', { alt: '', loading: 'lazy', src: map[2] }), el('span', {}, column || method), map[1] ? el('small', {}, map[1]) : null);
  })));
  const chosen = $('strip').children[detail.map];
  if (chosen) $('strip').scrollTop = Math.max(0, chosen.offsetTop - $('strip').offsetTop - 40);
}

function pickMap(place) {
  const count = mapsOf(ownRun(detail.image)).length;
  if (!count) return;
  const focused = $('strip').contains(document.activeElement);
  change({ map: String((place + count) % count) });
  showDetail();
  if (focused) $('strip').children[detail.map].focus();
}

function stepImage(by) {
  const next = grid.shown[grid.shown.indexOf(detail.image) + by];
  if (!next) return;
  change({ open: next.key, map: state.map });
  showDetail();
}

function classLink(name, field) {
  const only = () => { $('detail').close(); change({ q: name, of: field }); focusCard(0); };
  return el('button', { type: 'button', className: 'link', title: 'Show this class only', onclick: only }, name);
}

function scoreLine(name, score) {
  const bar = el('span', { className: 'score-bar' }, el('i'));
  if (typeof score === 'number') bar.firstChild.style.width = `${Math.round(100 * Math.min(1, Math.max(0, (score - EXTENT[0]) / (EXTENT[1] - EXTENT[0]))))}%`;
  return el('li', {}, el('span', { className: 'class' }, name), el('span', { className: 'score' }, scoreText(score)), bar);
}

function runPanel(image, run, number) {
  if (!run) return el('section', {}, el('h3', {}, RUNS[number].name), el('p', { className: 'soft' }, 'not in this run'));
  if (!run.prediction && !run.error && !COMPARED) return null;
  const verdict = image.verdicts[number];
  const prediction = run.prediction
    ? el('p', { className: 'prediction' }, classLink(run.prediction[1], 'prediction'), el('b', {}, scoreText(run.prediction[2], run.prediction[0] === null)))
    : null;
  const targets = (run.targets || []).filter(([name]) => !run.prediction || name !== run.prediction[1] || run.targets.length > 1);
  return el('section', {},
    el('h3', {}, COMPARED ? RUNS[number].name : 'Prediction',
      verdict ? el('span', { className: `verdict ${verdict}` }, icon(verdict), SAID[verdict]) : null),
    prediction,
    run.error ? el('p', { className: 'failure' }, run.error) : null,
    targets.length ? el('h4', {}, 'Explained') : null,
    targets.length ? el('ul', { className: 'targets' }, ...targets.map(([name, score]) => scoreLine(name, score))) : null);
}

function objectsPanel(image) {
  if (!image.objects.length) return null;
  const numbers = ([, , score, iou]) => [score === null ? '' : scoreText(score), iou === null ? '' : `IoU ${iou.toFixed(2)}`].filter(Boolean).join(' · ');
  return el('section', {}, el('h3', {}, 'Objects'), el('ul', { className: 'objects' }, ...image.objects.map((each) => el('li', {},
    el('span', { className: 'class' }, CLASSES[each[1]][1]),
    el('span', { className: 'score' }, numbers(each)),
    each[0] ? el('span', { className: `verdict ${{ tp: 'right', fp: 'wrong', miss: 'error' }[each[0]]}` }, { tp: 'true positive', fp: 'false positive', miss: 'miss' }[each[0]]) : null))));
}

function panelOf(image) {
  const own = image.runs[OWN];
  const truth = hasLabels && el('section', {}, el('h3', {}, 'Ground truth'),
    el('p', {}, image.label ? classLink(image.label[1], 'label') : el('span', { className: 'soft' }, 'unknown')));
  const facts = [
    ['File', image.input || image.name], ['Index', image.index ?? null],
    ['Difference', image.difference === null ? null : signed(image.difference)],
    ['Uncertainty', image.uncertainty === null ? null : image.uncertainty.toFixed(3)],
    ['Time', own && own.seconds !== undefined ? `${(1000 * own.seconds).toFixed(0)} ms` : null],
  ].filter(([, value]) => value !== null);
  const files = (own && own.files) || [];
  return [
    ...image.runs.map((run, number) => runPanel(image, run, number)),
    truth,
    objectsPanel(image),
    el('section', {}, el('h3', {}, 'Image'), el('dl', {}, ...facts.map(([key, value]) => el('div', {}, el('dt', {}, key), el('dd', {}, String(value)))))),
    files.length ? el('section', {}, el('h3', {}, 'Files of this run'),
      el('ul', { className: 'files' }, ...files.map(([name, url]) => el('li', {}, el('a', { href: url, target: '_blank', rel: 'noopener' }, name))))) : null,
  ].filter(Boolean);
}

function fillDetail() {
  for (const id of ['previous', 'next', 'close']) $(id).append(icon(id));
  $('keys-close').append(icon('close'));
  for (const [mode, name] of Object.entries(MODES)) {
    $('modes').append(el('button', { type: 'button', role: 'radio', 'data-mode': mode, onclick: () => setMode(mode) }, name));
  }
  $('modes').addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const names = Object.keys(MODES);
    setMode(names[(names.indexOf(state.mode || 'overlay') + by + names.length) % names.length]);
    $('modes').querySelector('[aria-checked=true]').focus();
  });
  $('wipe').addEventListener('input', () => setWipe(Number($('wipe').value)));
  $('previous').addEventListener('click', () => stepImage(-1));
  $('next').addEventListener('click', () => stepImage(1));
  $('close').addEventListener('click', () => $('detail').close());
  $('keys-close').addEventListener('click', () => $('keys').close());
  $('detail').addEventListener('close', () => {
    const place = grid.shown.indexOf(detail.image);
    change({ open: '', map: '' });
    if (place >= 0) focusCard(place);
  });
  for (const dialog of [$('detail'), $('keys')]) {
    dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  }
}
