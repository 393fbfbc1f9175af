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
    run.mean_score === null ? null : stat(scoreText(run.mean_score), 'mean top score'),
    run.errors ? stat(countText(run.errors), run.errors === 1 ? 'error' : 'errors') : null,
  ];
}

// How often the first run and this one predict the same.
function agreement() {
  const ends = images.map((image) => [image.runs[0], image.runs[OWN]].map((run) => run && run.prediction));
  const both = ends.filter((pair) => pair.every(Boolean));
  const same = both.filter(([one, other]) => keyOf(one) === keyOf(other)).length;
  return el('div', { className: 'of-run' }, el('p', {}, 'both'), el('div', { className: 'stats' },
    both.length ? stat(`${((100 * same) / both.length).toFixed(1)} %`, 'agree', `${countText(both.length - same)} flipped`) : null));
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
  if (COMPARED) $('facts').append(agreement());
  for (const run of RUNS.filter((each) => each.about.length)) {
    const setting = ([key]) => key.startsWith('setting: ');
    const listOf = (entries) => el('dl', {}, ...entries.map(([key, value]) => el('div', {}, el('dt', {}, key.replace('setting: ', '')), el('dd', {}, value))));
    const settings = run.about.filter(setting);
    $('about').append(el('section', {}, COMPARED ? el('h3', {}, run.name) : null, listOf(run.about.filter((each) => !setting(each))),
      settings.length ? el('details', {}, el('summary', {}, `${settings.length} settings`), listOf(settings)) : null));
  }
  $('about').firstElementChild.textContent = COMPARED ? 'About these runs' : 'About this run';
}

function fillBar() {
  $('classes').append(...classNames.map((name) => el('option', { value: name })));
  const options = (id, names, all) => {
    $(id).append(el('option', { value: '' }, all), ...names.map((name) => el('option', { value: name }, name)));
    $(`${id}-field`).hidden = names.length < 2;
  };
  options('method', methods, 'all');
  options('layer', layers, 'all');
  $('sort').append(...offeredSorts().map((key) => el('option', { value: key }, SORTS[key][0])));
  if (!classNames.length) {
    $('scope').hidden = true;
    $('query').placeholder = 'File …';
  }
  // Heads and channels are not methods.
  if (OVER === 'Map') $('method-field').firstChild.textContent = 'Map';
  for (const over of document.querySelectorAll('.over')) over.textContent = OVER;
  const bound = { query: 'q', scope: 'of', method: 'method', layer: 'layer', size: 'size' };
  for (const [id, key] of Object.entries(bound)) $(id).addEventListener('input', () => change({ [key]: $(id).value }));
  $('sort').addEventListener('input', () => change({ sort: $('sort').value, dir: '' }));
  $('direction').addEventListener('click', () => change({ dir: descending() ? 'asc' : 'desc' }));
  for (const id of ['reset', 'reset-none']) $(id).addEventListener('click', clearFilters);
  $('bar').addEventListener('submit', (event) => { event.preventDefault(); focusCard(0); });
  $('fold').addEventListener('click', () => {
    const open = $('bar').classList.toggle('open');
    $('fold').setAttribute('aria-expanded', String(open));
  });
  $('help').addEventListener('click', () => $('keys').showModal());
  holdOrToggle($('flip'), flip);
}

const FILTERS = ['q', 'of', 'show', 'min', 'max', 'method', 'layer', 'row', 'col', 'brush', 'kind', 'object',
  ...DIMENSIONS.map(({ key }) => `in:${key}`)];
function clearFilters() {
  change(Object.fromEntries(FILTERS.map((key) => [key, DEFAULTS[key]])));
  $('query').focus();
}

function showChips() {
  const focused = $('chips').contains(document.activeElement);
  $('chips').replaceChildren(...chipsOf().map(({ name, value, back }) => el('li', {}, el('button', { type: 'button', className: 'chip',
    title: 'Take this filter back', 'aria-label': `Take back the filter ${name}: ${value}`, onclick: () => change(back) },
  el('span', { className: 'soft' }, name), ` ${value}`, icon('close')))));
  $('in-force').hidden = !$('chips').children.length;
  if (focused) ($('chips').querySelector('button') || $('query')).focus();
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
  const changed = Object.keys(wanted).filter((key) => state[key] !== wanted[key]);
  Object.assign(state, wanted);
  if (!offeredShows().includes(state.show)) state.show = 'all';  // the last tag was taken away
  writeAddress(changed);
  if (anew) refresh();
  else showView();
}

function showView() {
  document.body.dataset.view = state.view;
  $('flip').setAttribute('aria-checked', String(state.view === 'overlay'));
}

// Tags come and go, the other choices stay.
function fillShows(offered) {
  const there = new Map([...document.querySelectorAll('#shows label')].map((label) => [label.firstChild.value, label]));
  for (const [key, label] of there) if (!offered.includes(key)) label.remove();
  for (const key of offered.filter((each) => !there.has(each))) {
    const radio = el('input', { type: 'radio', name: 'show', value: key, onchange: () => change({ show: key }) });
    const sign = ['right', 'wrong'].includes(key) ? icon(key) : null;
    $('shows').append(el('label', { className: `show-${key}`, title: SHOWS[key][2] || null }, radio, el('span', {}, sign, ` ${SHOWS[key][0]} `, el('b'))));
  }
  $('shows').hidden = offered.length < 2;
}

function showBar({ shown, counts }) {
  fillShows(Object.keys(counts));
  const fields = { query: 'q', scope: 'of', method: 'method', layer: 'layer', sort: 'sort', size: 'size' };
  for (const [id, key] of Object.entries(fields)) if ($(id).value !== state[key]) $(id).value = state[key];
  for (const radio of document.querySelectorAll('#shows input')) {
    radio.checked = radio.value === state.show;
    radio.parentNode.querySelector('b').textContent = countText(counts[radio.value]);
  }
  const down = descending();
  $('direction').replaceChildren(icon(down ? 'desc' : 'asc'));
  $('direction').setAttribute('aria-label', down ? 'descending' : 'ascending');
  $('direction').title = down ? 'Descending' : 'Ascending';
  const all = images.length;
  $('count').textContent = shown.length === all ? `${countText(all)} ${all === 1 ? 'image' : 'images'}`
    : `${countText(shown.length)} of ${countText(all)} images`;
  $('none').hidden = shown.length > 0;
}

// The views beside the images: all of them on a wide window, one at a time on a phone.
const VIEWS = {
  map: ['Map', () => embeddings.length > 0], matrix: ['Matrix', () => AXES.length > 0],
  values: ['Numbers', () => hasScores || DIMENSIONS.length > 0 || hasObjects],
};
function fillViews() {
  fillMap();
  fillMatrix();
  fillValues();
  const offered = Object.keys(VIEWS).filter((key) => VIEWS[key][1]());
  for (const key of offered) {
    const radio = el('input', { type: 'radio', name: 'tab', value: key, onchange: () => change({ tab: key }) });
    $('tabs').append(el('label', {}, radio, el('span', {}, VIEWS[key][0])));
  }
  $('views-switch').hidden = !offered.length;
  $('views').dataset.count = offered.length;
  $('views-switch').addEventListener('click', () => change({ views: viewsOpen() ? 'off' : matchMedia('(min-width: 720px)').matches ? '' : 'on' }));
  new ResizeObserver(() => document.body.style.setProperty('--bar', `${$('bar').offsetHeight}px`)).observe($('bar'));
}
const viewsOpen = () => (state.views ? state.views === 'on' : matchMedia('(min-width: 720px)').matches);

let lastViews = '';
function showViews(selection) {
  const open = viewsOpen() && !$('views-switch').hidden;
  document.body.dataset.views = open ? 'on' : 'off';
  $('views-switch').setAttribute('aria-expanded', String(open));
  const tabs = [...document.querySelectorAll('#tabs input')];
  const tab = tabs.some((radio) => radio.value === state.tab) ? state.tab : tabs.length ? tabs[0].value : '';
  $('views').dataset.tab = tab;
  for (const radio of tabs) radio.checked = radio.value === tab;
  if (open) {
    showMap(selection);
    countMatrix(selection);
  }
  showValues(selection);
  // The room for the cards has changed.
  const views = `${open} ${$('grid').clientWidth}`;
  if (views !== lastViews) { lastViews = views; lastSize = ''; }
}

let lastSize = '';
function refresh() {
  const current = grid.shown[grid.cursor];
  const focused = $('grid').contains(document.activeElement);
  const selection = select();
  grid.shown = selection.shown;
  grid.cursor = Math.max(0, current ? grid.shown.indexOf(current) : 0);
  showBar(selection);
  showChips();
  showViews(selection);
  showView();
  if (state.size !== lastSize) { lastSize = state.size; layOut(); }
  renderGrid(true);
  // The cards are new elements.
  if (focused && grid.shown.length) grid.nodes.get(grid.shown[grid.cursor].id).firstChild.focus({ preventScroll: true });
}
