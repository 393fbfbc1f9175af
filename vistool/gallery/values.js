// Histograms of the score, the metrics and what else is a number: a range of each can be dragged out.

const ranges = [];

function fillValues() {
  const score = { key: 'score', name: 'Score', of: 'images', value: (image) => image.score, extent: EXTENT };
  for (const dimension of [score, ...DIMENSIONS]) $('values').append(rangeField(dimension));
  $('range').hidden = !hasScores;
  $('object-field').hidden = !hasObjects;
  if (hasObjects) fillObjects();
  $('values-view').hidden = !VIEWS.values[1]();
}

function rangeField(dimension) {
  const of = dimension.key === 'score';
  const [name, end] = [of ? 'range' : `range-${ranges.length}`, (id) => (of ? id : `${id}-${ranges.length}`)];
  const output = el('output', { id: `${name}-text` });
  const bars = el('span', { className: 'histogram', id: of ? 'histogram' : null, 'aria-hidden': 'true' });
  const make = (id, label) => el('input', { id: end(id), type: 'range', min: 0, max: STEPS, step: 1, 'aria-label': `${label} ${dimension.name}` });
  const [low, high] = [make('low', 'Lowest'), make('high', 'Highest')];
  const scale = el('span', { className: 'scale', 'aria-hidden': 'true' }, el('span', {}, String(dimension.extent[0])), el('span', {}, String(dimension.extent[1])));
  const box = el('div', { className: 'field range', id: name, role: 'group', 'aria-labelledby': `${name}-title` },
    el('span', { className: 'caption', id: `${name}-title` }, dimension.name, ' ', output), bars, low, high, scale);
  const field = { dimension, box, bars, low, high, output };
  for (const input of [low, high]) input.addEventListener('input', () => slideRange(field, input));
  bars.addEventListener('pointerdown', (event) => dragRange(event, field));
  ranges.push(field);
  return box;
}

const rangeNow = (dimension) => (dimension.key === 'score' ? bounds() : rangeOf(dimension) || dimension.extent);

function setRange(dimension, low, high) {
  const [least, most] = dimension.extent;
  const value = (place) => String(+(least + (place / STEPS) * (most - least)).toFixed(4));
  if (dimension.key === 'score') change({ min: low <= 0 ? '' : value(low), max: high >= STEPS ? '' : value(high) });
  else change({ [`in:${dimension.key}`]: low <= 0 && high >= STEPS ? '' : `${value(low)}..${value(high)}` });
}

function slideRange({ dimension, low, high }, moved) {
  let [from, to] = [Number(low.value), Number(high.value)];
  if (from > to) [from, to] = moved === low ? [to, to] : [from, from];
  setRange(dimension, from, to);
}

// A drag over the bars is a range; a click on them takes it back.
function dragRange(event, { dimension, bars }) {
  if (event.button) return;
  const frame = bars.getBoundingClientRect();
  const place = (now) => Math.round(Math.min(STEPS, Math.max(0, (STEPS * (now.clientX - frame.left)) / frame.width)));
  const start = place(event);
  let moved = false;
  const set = soon((now) => setRange(dimension, Math.min(start, place(now)), Math.max(start, place(now))));
  const move = (now) => {
    moved = moved || Math.abs(now.clientX - event.clientX) > 3;
    if (moved) set(now);
  };
  const end = () => {
    bars.removeEventListener('pointermove', move);
    for (const name of ['pointerup', 'pointercancel']) bars.removeEventListener(name, end);
    if (!moved) setRange(dimension, 0, STEPS);
  };
  event.preventDefault();
  bars.setPointerCapture(event.pointerId);
  bars.addEventListener('pointermove', move);
  for (const name of ['pointerup', 'pointercancel']) bars.addEventListener(name, end);
}

function fillObjects() {
  for (const [key, name] of Object.entries({ '': 'all', ...KINDS })) {
    if (key && !images.some((image) => image.objects.some((each) => each[0] === key))) continue;
    const radio = el('input', { type: 'radio', name: 'kind', value: key, onchange: () => change({ kind: key }) });
    $('kinds').append(el('label', { className: `kind-${key || 'all'}` }, radio, el('span', {}, `${capital(name)} `, el('b'))));
  }
  $('kinds').hidden = $('kinds').querySelectorAll('input').length < 2;
  $('object').append(el('option', { value: '' }, 'any class'), ...objectNames.map((name) => el('option', { value: name }, name)));
  $('object').addEventListener('input', () => change({ object: $('object').value }));
}

function showValues(selection) {
  for (const { dimension, box, bars, low, high, output } of ranges) {
    const [least, most] = dimension.extent, now = rangeNow(dimension);
    const place = (value) => Math.round((STEPS * (value - least)) / (most - least));
    [low.value, high.value] = now.map(place);
    box.style.setProperty('--low', `${place(now[0])}%`);
    box.style.setProperty('--high', `${place(now[1])}%`);
    output.textContent = rangeText(...now);
    low.setAttribute('aria-valuetext', now[0].toFixed(2));
    high.setAttribute('aria-valuetext', now[1].toFixed(2));
    showBars(bars, histogramOf(selection, dimension));
  }
  if (hasObjects) showObjects(selection);
}

function showBars(bars, histogram) {
  const most = Math.max(1, ...histogram.map((bin) => bin.right + bin.wrong + bin.other));
  bars.replaceChildren(...histogram.map((bin) => {
    const column = el('span', { title: countText(bin.right + bin.wrong + bin.other) });
    for (const kind of ['wrong', 'other', 'right']) {
      if (!bin[kind]) continue;
      const part = el('i', { className: kind });
      part.style.height = `${Math.max(3, (100 * bin[kind]) / most)}%`;
      column.append(part);
    }
    return column;
  }));
}

function showObjects({ passes }) {
  const meets = objectTest('kind'), passing = passes('objects');
  const counts = { '': 0, tp: 0, fp: 0, miss: 0 };
  for (const image of images) {
    if (!passing(image)) continue;
    for (const each of image.objects) if (meets(each)) { counts[''] += 1; if (each[0] in counts && each[0]) counts[each[0]] += 1; }
  }
  for (const radio of document.querySelectorAll('#kinds input')) {
    radio.checked = radio.value === state.kind;
    radio.parentNode.querySelector('b').textContent = countText(counts[radio.value]);
  }
  $('object').value = state.object;
}
