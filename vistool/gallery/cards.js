// The grid: only the visible cards and the focused one exist as elements.

const SAID = { right: 'right', wrong: 'wrong', error: 'error' };
const mark = (verdict) => (verdict ? el('span', { className: `mark ${verdict}`, title: SAID[verdict] }, icon(verdict)) : null);

// The photo below, the map above it; the style sheet decides which is visible.
function pictures(photo, map, lazy) {
  const under = (map && map[4]) || photo;
  const loading = lazy ? 'lazy' : 'eager';
  const common = { alt: '', draggable: false, decoding: 'async', loading };
  // "loading" has to be set before "src", or it comes too late.
  return [
    under ? el('img', { ...common, className: 'photo', src: under }) : null,
    map ? el('img', { ...common, className: bare(map) ? 'map cells' : 'map', src: map[2] }) : null,
  ];
}

const CARD_WIDTHS = { s: 132, m: 200, l: 320 };
const GAP = 14;
const grid = { shown: [], cursor: 0, nodes: new Map(), columns: 1, width: 0, height: 0, limit: 0 };

// A photo so much thinner than the cards fills its card with its middle; whole, it would be a line between two bands.
const THIN = 2.5;
function thinOf(run) {
  if (!run || !run.size) return false;
  const [width, height] = run.size;
  return width > THIN * DATA.ratio * height || THIN * width < DATA.ratio * height;
}

function paneOf(image, number) {
  const run = image.runs[number];
  const verdict = image.verdicts[number];
  const map = coverOf(run);
  const photo = run && run.photo;
  const face = el('span', { className: thinOf(run) ? 'face thin' : 'face' }, ...pictures(photo, map, true), mark(verdict));
  if (!photo && !map) face.append(el('span', { className: 'empty' }, !run ? 'not in this run' : run.error || 'no tile'));
  const score = image.scores[number];
  const bar = el('span', { className: `score-bar ${verdict}` }, el('i'));
  if (score !== null) {
    const share = (score - EXTENT[0]) / (EXTENT[1] - EXTENT[0]);
    bar.firstChild.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
  }
  // The metric that cards are sorted by stands first; there is one line for all of them.
  const sorted = (pair) => state.sort === `metric:${METRICS[pair[0]][0]}`;
  const numbers = [...numbersOf(map)].sort((a, b) => sorted(b) - sorted(a));
  const name = run && run.prediction ? run.prediction[1] : run && run.error ? 'error' : hasPredictions ? '–' : image.name;
  return el('span', { className: 'pane' },
    PICTURED.length > 1 ? el('span', { className: 'run' }, RUNS[number].name) : null,
    face, bar,
    el('span', { className: 'said' }, el('span', { className: 'class', title: name }, name),
      el('span', { className: 'score' }, scoreText(score, run && run.prediction && run.prediction[0] === null))),
    METRICS.length ? el('span', { className: 'numbers', title: numbers.map(metricText).join(', ') },
      ...numbers.flatMap((pair) => [el(sorted(pair) ? 'b' : 'span', {}, metricText(pair)), ' '])) : null);
}

// What a model predicts that has no pictures here.
function otherOf(image, number) {
  const run = image.runs[number], verdict = image.verdicts[number];
  return el('span', { className: 'said other' }, el('span', { className: 'class' },
    el('span', { className: 'key' }, `${RUNS[number].name} `), run && run.prediction ? run.prediction[1] : '–'),
  verdict === 'right' || verdict === 'wrong' ? icon(verdict) : null,
  el('span', { className: 'score' }, scoreText(image.scores[number])));
}

function spoken(image) {
  const parts = [image.name];
  image.runs.forEach((run, number) => {
    const prediction = run && run.prediction ? `${run.prediction[1]} ${scoreText(run.prediction[2], run.prediction[0] === null)}` : '';
    const text = [COMPARED ? `${RUNS[number].name}:` : '', prediction, SAID[image.verdicts[number]] || '',
      ...numbersOf(coverOf(run)).map(metricText)];
    if (text.some(Boolean)) parts.push(text.filter(Boolean).join(' '));
  });
  if (image.label) parts.push(`ground truth ${image.label[1]}`);
  if (tags.has(image.id)) parts.push('tagged');
  return parts.join(', ');
}

function cardOf(image) {
  const truth = image.label
    ? el('span', { className: 'truth', title: image.label[1] }, el('span', { className: 'key' }, 'truth'), ` ${image.label[1]}`)
    : el('span', { className: 'truth none' }, COMPARED || !hasLabels ? '' : 'no ground truth');
  const change = image.difference === null ? null
    : el('span', { className: 'change', title: 'difference of the scores' }, `Δ ${signed(image.difference)}`);
  const foot = el('span', { className: 'foot' }, hasLabels || COMPARED ? truth : null,
    image.disagree ? el('span', { className: 'tag' }, 'disagree') : null, change);
  return el('button', { type: 'button', className: 'card', tabIndex: -1, 'aria-label': spoken(image),
    title: image.runs.some(thinOf) ? `${image.name} (its middle; click for the whole photo)` : image.name,
    onclick: () => openDetail(image) },
  el('span', { className: 'panes' }, ...PICTURED.map((number) => paneOf(image, number))),
  ...RUNS.map((run, number) => (PICTURED.includes(number) ? null : otherOf(image, number))),
  hasLabels || COMPARED ? foot : null,
  hasPredictions ? el('span', { className: 'file', title: image.input || image.name }, image.name) : null);
}
const hasPredictions = images.some((image) => image.texts.prediction.length);
const hasLabels = images.some((image) => image.label);

function cellOf(image) {
  const tagged = tags.has(image.id);
  const box = el('input', { type: 'checkbox', checked: tagged, tabIndex: -1, 'aria-label': `Tag ${image.name}`, title: 'Tag (T)',
    onchange: () => toggleTag(image) });
  return el('div', { role: 'listitem', className: tagged ? 'cell tagged' : 'cell' }, cardOf(image), el('span', { className: 'pick' }, box));
}

// The size of a card follows from the width of the page and the height of its text, which is measured.
function layOut() {
  const room = $('grid').clientWidth;
  const least = Math.min(room, CARD_WIDTHS[state.size] * (PICTURED.length > 1 ? PICTURED.length * 0.9 : 1));
  grid.columns = Math.max(1, Math.floor((room + GAP) / (least + GAP)));
  // Two in a row on a phone, at any size.
  if (PICTURED.length === 1 && grid.columns === 1 && room >= 300 && state.size !== 'l') grid.columns = 2;
  grid.width = Math.floor((room - GAP * (grid.columns - 1)) / grid.columns);
  $('grid').style.setProperty('--ratio', DATA.ratio);
  $('grid').classList.toggle('many', PICTURED.length > 1);
  const probe = cellOf(images[0]);
  probe.style.width = `${grid.width}px`;
  probe.style.visibility = 'hidden';
  $('grid').append(probe);
  grid.height = Math.ceil(probe.offsetHeight);
  probe.remove();
}

function renderGrid(anew) {
  const box = $('grid');
  if (anew) {
    for (const node of grid.nodes.values()) node.remove();
    grid.nodes.clear();
  }
  const step = grid.height + GAP;
  const rows = Math.ceil(grid.shown.length / grid.columns);
  box.style.height = `${Math.max(0, rows * step - GAP)}px`;
  const top = -box.getBoundingClientRect().top;
  // As far as a wheel turns at once; a few rows more where they are short, but none whose pictures would not load.
  const spare = Math.max(Math.min(innerHeight, 700), Math.min(1240, Math.ceil(20 / grid.columns) * step));
  const first = Math.max(0, Math.floor((top - spare) / step)) * grid.columns;
  const last = Math.min(grid.shown.length, Math.ceil((top + innerHeight + spare) / step) * grid.columns);
  const wanted = [];
  for (let place = first; place < last; place += 1) wanted.push(place);
  if (grid.cursor < grid.shown.length && (grid.cursor < first || grid.cursor >= last)) {
    if (grid.cursor < first) wanted.unshift(grid.cursor);
    else wanted.push(grid.cursor);
  }
  const kept = new Set(wanted.map((place) => grid.shown[place].id));
  for (const [id, node] of grid.nodes) if (!kept.has(id)) { node.remove(); grid.nodes.delete(id); }
  let next = box.firstChild;
  for (const place of wanted) {
    const image = grid.shown[place];
    let node = grid.nodes.get(image.id);
    if (!node) {
      node = cellOf(image);
      node.style.width = `${grid.width}px`;
      grid.nodes.set(image.id, node);
    }
    node.style.transform = `translate(${(place % grid.columns) * (grid.width + GAP)}px, ${Math.floor(place / grid.columns) * step}px)`;
    node.setAttribute('aria-posinset', place + 1);
    node.setAttribute('aria-setsize', grid.shown.length);
    node.firstChild.tabIndex = place === grid.cursor ? 0 : -1;
    if (node === next) next = next.nextSibling;
    else box.insertBefore(node, next);
  }
}

function focusCard(place) {
  if (!grid.shown.length) return;
  grid.cursor = Math.min(grid.shown.length - 1, Math.max(0, place));
  const top = $('grid').getBoundingClientRect().top + Math.floor(grid.cursor / grid.columns) * (grid.height + GAP);
  const above = matchMedia('(min-width: 720px)').matches ? $('bar').offsetHeight + GAP : GAP;
  if (top < above) scrollBy(0, top - above);
  else if (top + grid.height > innerHeight - GAP) scrollBy(0, top + grid.height - innerHeight + GAP);
  renderGrid(false);
  grid.nodes.get(grid.shown[grid.cursor].id).firstChild.focus({ preventScroll: true });
}
