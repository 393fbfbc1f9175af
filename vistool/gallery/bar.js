// The header's facts, the filter bar, and what follows from a change of it.

function stat(value, name, extra) {
  return el('div', { className: 'stat' }, el('b', {}, value), el('span', {}, name), extra ? el('small', {}, extra) : null);
}

function runStats(run) {
  const accuracy = run.judged
    ? stat(`${((100 * run.right) / run.judged).toFixed(1)} %`, 'accuracy', `${countText(run.right)} of ${countText(run.judged)}`)
    : null;
  return [
    stat(countText(run.images), run.images === 1 ? 'image' : 'images'),
    accuracy,
    run.mean_score === null ? null : stat(scoreText(run.mean_score), 'mean score'),
    run.errors ? stat(countText(run.errors), run.errors === 1 ? 'error' : 'errors') : null,
  ];
}

function fillHeader() {
  const own = RUNS[OWN];
  $('tool').textContent = own.tool;
  $('title').textContent = COMPARED ? RUNS.map((run) => run.name).join(' | ') : own.config || own.name;
  $('checkpoint').textContent = COMPARED ? '' : own.checkpoint;
  $('checkpoint').title = own.checkpoint;
  for (const run of RUNS) {
    const group = el('div', { className: 'stats' }, ...runStats(run));
    $('facts').append(COMPARED ? el('div', { className: 'of-run' }, el('p', {}, run.name), group) : group);
  }
  for (const run of RUNS) {
    const lines = run.about.map(([key, value]) => el('div', {}, el('dt', {}, key), el('dd', {}, value)));
    $('about').append(el('section', {}, COMPARED ? el('h3', {}, run.name) : null, el('dl', {}, ...lines)));
  }
  $('about').firstElementChild.textContent = COMPARED ? 'About these runs' : 'About this run';
}

function fillBar() {
  $('classes').append(...classNames.map((name) => el('option', { value: name })));
  for (const key of offeredShows()) {
    const radio = el('input', { type: 'radio', name: 'show', value: key, onchange: () => change({ show: key }) });
    const sign = ['right', 'wrong'].includes(key) ? icon(key) : null;
    $('shows').append(el('label', { className: `show-${key}` }, radio, el('span', {}, sign, ` ${SHOWS[key][0]} `, el('b'))));
  }
  const options = (id, names, all) => {
    $(id).append(el('option', { value: '' }, all), ...names.map((name) => el('option', { value: name }, name)));
    $(`${id}-field`).hidden = names.length < 2;
  };
  options('method', methods, 'all');
  options('layer', layers, 'all');
  $('sort').append(...offeredSorts().map((key) => el('option', { value: key }, SORTS[key][0])));
  $('range').hidden = !hasScores;
  $('shows').hidden = offeredShows().length < 2;
  if (!classNames.length) {
    $('scope').hidden = true;
    $('query').placeholder = 'File …';
  }
  // Heads and channels are not methods.
  if (OVER === 'Map') $('method-field').firstChild.textContent = 'Map';
  for (const over of document.querySelectorAll('.over')) over.textContent = OVER;
  for (const id of ['low', 'high']) {
    Object.assign($(id), { min: 0, max: STEPS, step: 1 });
    $(id).addEventListener('input', () => slideRange(id));
  }
  const bound = { query: 'q', scope: 'of', method: 'method', layer: 'layer', size: 'size' };
  for (const [id, key] of Object.entries(bound)) $(id).addEventListener('input', () => change({ [key]: $(id).value }));
  $('sort').addEventListener('input', () => change({ sort: $('sort').value, dir: '' }));
  $('direction').addEventListener('click', () => change({ dir: descending() ? 'asc' : 'desc' }));
  for (const id of ['reset', 'reset-none']) $(id).addEventListener('click', clearFilters);
  $('bar').addEventListener('submit', (event) => { event.preventDefault(); focusCard(0); });
  $('help').addEventListener('click', () => $('keys').showModal());
  holdOrToggle($('flip'), flip);
}

const FILTERS = ['q', 'of', 'show', 'min', 'max', 'method', 'layer'];
function clearFilters() {
  change(Object.fromEntries(FILTERS.map((key) => [key, DEFAULTS[key]])));
  $('query').focus();
}

function slideRange(moved) {
  let low = Number($('low').value), high = Number($('high').value);
  if (low > high) [low, high] = moved === 'low' ? [high, high] : [low, low];
  const value = (place) => String(+(EXTENT[0] + (place / STEPS) * (EXTENT[1] - EXTENT[0])).toFixed(4));
  change({ min: low === 0 ? '' : value(low), max: high === STEPS ? '' : value(high) });
}

const flip = () => change({ view: state.view === 'photo' ? 'overlay' : 'photo' });

// A click toggles; a button that is held down longer takes effect only until it is released.
function holdOrToggle(button, action) {
  let timer = 0, held = false;
  const release = () => { clearTimeout(timer); timer = 0; if (held) action(); };
  button.addEventListener('pointerdown', () => {
    held = false;
    timer = setTimeout(() => { held = true; action(); }, 300);
  });
  for (const end of ['pointerup', 'pointercancel', 'pointerleave']) button.addEventListener(end, () => { if (timer) release(); });
  button.addEventListener('click', () => { if (!held) action(); held = false; });
}

function change(wanted) {
  const anew = Object.keys(wanted).some((key) => !['view', 'open', 'map', 'mode'].includes(key) && state[key] !== wanted[key]);
  Object.assign(state, wanted);
  writeAddress();
  if (anew) refresh();
  else showView();
}

function showView() {
  document.body.dataset.view = state.view;
  $('flip').setAttribute('aria-checked', String(state.view === 'overlay'));
}

function showHistogram(histogram) {
  const most = Math.max(1, ...histogram.map((bin) => bin.right + bin.wrong + bin.other));
  $('histogram').replaceChildren(...histogram.map((bin) => {
    const column = el('span');
    for (const kind of ['wrong', 'other', 'right']) {
      if (!bin[kind]) continue;
      const part = el('i', { className: kind });
      part.style.height = `${Math.max(4, (100 * bin[kind]) / most)}%`;
      column.append(part);
    }
    return column;
  }));
}

function showBar({ shown, counts, histogram }) {
  const fields = { query: 'q', scope: 'of', method: 'method', layer: 'layer', sort: 'sort', size: 'size' };
  for (const [id, key] of Object.entries(fields)) if ($(id).value !== state[key]) $(id).value = state[key];
  for (const radio of document.querySelectorAll('#shows input')) {
    radio.checked = radio.value === state.show;
    radio.parentNode.querySelector('b').textContent = countText(counts[radio.value]);
  }
  const [low, high] = bounds();
  const place = (value) => Math.round((STEPS * (value - EXTENT[0])) / (EXTENT[1] - EXTENT[0]));
  $('low').value = place(low);
  $('high').value = place(high);
  $('range').style.setProperty('--low', `${place(low)}%`);
  $('range').style.setProperty('--high', `${place(high)}%`);
  $('range-text').textContent = `${low.toFixed(2)} – ${high.toFixed(2)}`;
  $('low').setAttribute('aria-valuetext', low.toFixed(2));
  $('high').setAttribute('aria-valuetext', high.toFixed(2));
  showHistogram(histogram);
  const down = descending();
  $('direction').replaceChildren(icon(down ? 'desc' : 'asc'));
  $('direction').setAttribute('aria-label', down ? 'descending' : 'ascending');
  $('direction').title = down ? 'Descending' : 'Ascending';
  const all = images.length;
  $('count').textContent = shown.length === all ? `${countText(all)} ${all === 1 ? 'image' : 'images'}`
    : `${countText(shown.length)} of ${countText(all)} images`;
  $('reset').hidden = FILTERS.every((key) => state[key] === DEFAULTS[key]);
  $('none').hidden = shown.length > 0;
}

let lastSize = '';
function refresh() {
  const current = grid.shown[grid.cursor];
  const selection = select();
  grid.shown = selection.shown;
  grid.cursor = Math.max(0, current ? grid.shown.indexOf(current) : 0);
  showBar(selection);
  showView();
  if (state.size !== lastSize) { lastSize = state.size; layOut(); }
  renderGrid(true);
}
