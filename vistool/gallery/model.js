// The data, the user's selection, and the address that stores it.

const DATA = window.VISTOOL_GALLERY || { runs: [], images: [], maps: [], classes: [], ratio: 1.333, missing: true };
const RUNS = DATA.runs;
const OWN = RUNS.length - 1;
const COMPARED = RUNS.length > 1;
// A model that was only compared has predictions and no pictures.
const PICTURED = RUNS.map((run, number) => number).filter((number) => number === OWN || RUNS[number].pictures !== false);
const METRICS = DATA.metrics || [];
const EMBEDDINGS = DATA.embeddings || [];
const DEFAULTS = {
  q: '', of: 'any', show: 'all', min: '', max: '', method: '', layer: '', sort: 'index', dir: '',
  axes: '', row: '', col: '', share: '', brush: '', on: '0', color: '', tool: '', kind: '', object: '',
  tagged: '', views: '', tab: '', view: 'overlay', size: 'm', open: '', map: '', mode: '',
};
const state = { ...DEFAULTS };

// A class is known by its id, or by its name where it has none.
const CLASSES = DATA.classes || [];
const keyOf = (known) => (known[0] === null ? known[1] : String(known[0]));
const isClass = (prediction) => Boolean(prediction) && prediction[0] !== null;

function verdictOf(run, label) {
  if (!run) return '';
  if (run.error) return 'error';
  // A value is neither right nor wrong, nor is a class of a dataset that the model does not know.
  if (!label || label[0] === null || !isClass(run.prediction)) return '';
  return run.prediction[0] === label[0] ? 'right' : 'wrong';
}

// How much surer a run is than the first one, of one class: the true one where both say how likely it is, else the one
// that both predict. Scores of two classes have no difference.
function differenceOf({ runs, label }) {
  const ends = [runs[0], runs[OWN]];
  if (!COMPARED || !ends.every((run) => run && run.prediction)) return null;
  const scoreOf = (run, known) => (keyOf(run.prediction) === keyOf(known) ? run.prediction[2]
    : ((run.targets || []).find(([name]) => name === known[1]) || [])[1] ?? null);
  const agreed = keyOf(ends[0].prediction) === keyOf(ends[1].prediction) ? ends[0].prediction : null;
  for (const known of [label, agreed]) {
    const scores = known ? ends.map((run) => scoreOf(run, known)) : [null];
    if (scores.every((score) => score !== null)) return scores[1] - scores[0];
  }
  return null;
}

const images = DATA.images.map((raw, id) => {
  raw.label = raw.label === null ? null : CLASSES[raw.label];
  for (const run of raw.runs) if (run && run.prediction) run.prediction = [...CLASSES[run.prediction[0]], run.prediction[1] ?? null];
  const own = raw.runs[OWN];
  const base = raw.runs[0];
  const scores = raw.runs.map((run) => (run && run.prediction ? run.prediction[2] ?? null : null));
  const predicted = raw.runs.filter((run) => run && run.prediction).map((run) => run.prediction);
  return {
    ...raw, id, scores,
    verdicts: raw.runs.map((run) => verdictOf(run, raw.label)),
    score: scores[OWN],
    difference: differenceOf(raw),
    disagree: COMPARED && Boolean(own && base) && new Set(predicted.map((each) => each[0] ?? each[1])).size > 1,
    failed: raw.runs.some((run) => run && run.error),
    uncertainty: own ? own.uncertainty ?? null : null,
    points: raw.points || [],
    objects: raw.objects || [],
    file: raw.name,
    texts: {
      label: raw.label ? [raw.label[1].toLowerCase()] : [],
      prediction: predicted.map((each) => each[1].toLowerCase()),
      file: [raw.name.toLowerCase(), (raw.input || '').toLowerCase()],
    },
    ids: { label: raw.label ? [raw.label[0]] : [], prediction: predicted.map((each) => each[0]), file: [] },
  };
});
// The address names the open image; of several images of one name, by a number behind the name.
const byKey = new Map();
const named = new Set(images.map((image) => image.name));
for (const image of images) {
  image.key = image.name;
  for (let number = 2; byKey.has(image.key); number += 1) {
    const key = `${image.name} (${number})`;
    if (!named.has(key)) image.key = key;
  }
  byKey.set(image.key, image);
}

// A short name of the gallery's own run, where there is little room.
const OWN_NAME = COMPARED ? (RUNS[OWN].name.length > 14 ? `${RUNS[OWN].name.slice(0, 13)}…` : RUNS[OWN].name) : '';
const SHOWS = {
  all: ['All', () => true],
  right: [COMPARED ? `Right in "${OWN_NAME}"` : 'Right', (image) => image.verdicts[OWN] === 'right'],
  wrong: [COMPARED ? `Wrong in "${OWN_NAME}"` : 'Wrong', (image) => image.verdicts[OWN] === 'wrong'],
  disagree: ['Disagree', (image) => image.disagree],
  gained: ['Gained', (image) => image.verdicts[0] === 'wrong' && image.verdicts[OWN] === 'right', `right only in "${OWN_NAME}"`],
  lost: ['Lost', (image) => image.verdicts[0] === 'right' && image.verdicts[OWN] === 'wrong', `wrong only in "${OWN_NAME}"`],
  errors: ['Errors', (image) => image.failed],
  tagged: ['Tagged', (image) => tags.has(image.id)],
};

// Images that the user has set aside; the address has their places, 3-6.9 for 3 4 5 6 9.
const tags = new Set();
function runsOf(numbers) {
  const found = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = found[found.length - 1];
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found;
}
function readTags(text) {
  tags.clear();
  for (const part of text ? text.split('.') : []) {
    const [first, last = first] = part.split('-').map(Number);
    if (!(first >= 0 && last < images.length)) continue;
    for (let id = first; id <= last; id += 1) if (images[id]) tags.add(id);
  }
}
const tagText = () => runsOf(tags).map(([first, last]) => (first === last ? first : `${first}-${last}`)).join('.');
function toggleTag(image) {
  if (!tags.delete(image.id)) tags.add(image.id);
  change({ tagged: tagText() });
  if ($('detail').open) showDetail();
}
function offeredShows() {
  const judged = RUNS.some((run) => run.judged > 0);
  const wanted = ['all', ...(judged ? ['right', 'wrong'] : []), ...(COMPARED ? ['disagree'] : []),
    ...(COMPARED && judged ? ['gained', 'lost'] : [])];
  return [...wanted, ...(images.some((image) => image.failed) ? ['errors'] : []), ...(tags.size ? ['tagged'] : [])];
}

// Maps that are drawn without the photo are not overlays.
const bare = (map) => map[2].endsWith('.png');
const OVER = images.some((image) => image.runs.some((run) => run && (run.maps || []).some(bare))) ? 'Map' : 'Overlay';

const collator = new Intl.Collator('en', { numeric: true });
const SORTS = {
  index: ['index', 1, (image) => image.index],
  score: ['score', -1, (image) => image.score],
  name: ['file name', 1, (image) => image.name],
  label: ['ground truth', 1, (image) => (image.label ? image.label[1] : null)],
  prediction: ['prediction', 1, (image) => { const run = image.runs[OWN]; return run && run.prediction ? run.prediction[1] : null; }],
  uncertainty: ['uncertainty', -1, (image) => image.uncertainty],
  difference: ['difference', -1, (image) => (image.difference === null ? null : Math.abs(image.difference))],
  gain: ['gain in score', -1, (image) => image.difference],
};

// The metrics of the map that a card shows, each best first.
const numbersOf = (map) => (map && map[5]) || [];
function metricOf(image, number) {
  const found = numbersOf(coverOf(image.runs[OWN])).find(([each]) => each === number);
  return found ? found[1] : null;
}
METRICS.forEach(([name, , better], number) => {
  SORTS[`metric:${name}`] = [name, better === 'lower' ? 1 : -1, (image) => metricOf(image, number)];
});
function metricText([number, value]) {
  const [, short, better] = METRICS[number];
  return `${short} ${value === null ? '–' : value.toFixed(2)} ${better === 'lower' ? '↓' : '↑'}`;
}
function offeredSorts() {
  return Object.keys(SORTS).filter((key) => key === 'index' || images.some((image) => SORTS[key][2](image) !== null));
}
const descending = () => (state.dir || (SORTS[state.sort][1] < 0 ? 'desc' : 'asc')) === 'desc';

const classNames = [...new Set(images.flatMap((image) => [...(image.label ? [image.label[1]] : []),
  ...image.runs.flatMap((run) => (run && run.prediction ? [run.prediction[1]] : []))]))].sort(collator.compare);
const exactNames = new Set(classNames.map((name) => name.toLowerCase()));

// A whole class name selects that class, a number that class id; any other text is searched for everywhere.
function searcher() {
  const query = state.q.trim().toLowerCase();
  if (!query) return () => true;
  const fields = state.of === 'any' ? ['label', 'prediction', 'file'] : [state.of];
  const id = /^\d+$/.test(query) ? Number(query) : null;
  if (state.of !== 'file' && exactNames.has(query)) {
    return (image) => fields.some((field) => field !== 'file' && image.texts[field].includes(query));
  }
  return (image) => fields.some((field) => (id !== null && image.ids[field].includes(id))
    || image.texts[field].some((text) => text.includes(query)));
}

const fits = (map) => (!state.method || DATA.maps[map[0]][0] === state.method)
  && (!state.layer || DATA.maps[map[0]][1] === state.layer);

// The map on a card: the selected method and layer, or the nearest that this run has.
function coverOf(run) {
  const maps = (run && run.maps) || [];
  return maps.find(fits) || maps.find((map) => !state.method || DATA.maps[map[0]][0] === state.method) || maps[0] || null;
}

function sorted(list) {
  if (state.sort === 'index' && IN_ORDER) return descending() ? [...list].reverse() : list;
  const key = SORTS[state.sort][2];
  const sign = descending() ? -1 : 1;
  const keyed = list.map((image) => [key(image), image]);
  keyed.sort(([a, first], [b, second]) => {
    if (a === null || b === null) return (a === null) - (b === null) || first.id - second.id;
    return sign * (typeof a === 'string' ? collator.compare(a, b) : a - b) || first.id - second.id;
  });
  return keyed.map(([, image]) => image);
}

// The data usually has its images by index: sorting 50,000 of them again takes longer than all filters.
const IN_ORDER = images.every((image, place) => image.index !== null
  && (!place || images[place - 1].index < image.index));

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of Object.entries(DEFAULTS)) state[key] = given.get(key) ?? value;
  readTags(state.tagged);
  if (!offeredShows().includes(state.show)) state.show = 'all';
  if (!offeredSorts().includes(state.sort)) state.sort = 'index';
  for (const end of ['min', 'max']) {
    const value = Number(state[end]);
    if (state[end] === '' || !Number.isFinite(value) || value < EXTENT[0] || value > EXTENT[1]) state[end] = '';
  }
  for (const dimension of DIMENSIONS) if (!parseRange(state[`in:${dimension.key}`], dimension)) state[`in:${dimension.key}`] = '';
  const names = (key, known) => { if (!known.includes(state[key])) state[key] = ''; };
  names('axes', AXES.map((axes) => axes.key));
  for (const end of ['row', 'col']) if (!axesNow() || !axesNow()[end].places.has(state[end])) state[end] = '';
  names('share', ['rows']);
  names('color', COLORINGS.map(([key]) => key));
  names('tool', ['pan']);
  names('kind', hasObjects ? Object.keys(KINDS) : []);
  names('object', objectNames);
  names('views', ['on', 'off']);
  names('tab', ['map', 'matrix', 'values']);
  if (!/^\d+$/.test(state.on) || !EMBEDDINGS[state.on]) state.on = '0';
  if (!parseBrush(state.brush)) state.brush = '';
  if (!['any', 'label', 'prediction', 'file'].includes(state.of)) state.of = 'any';
  if (!['s', 'm', 'l'].includes(state.size)) state.size = 'm';
  if (!['asc', 'desc'].includes(state.dir)) state.dir = '';
  if (state.view !== 'photo') state.view = 'overlay';
  if (!['photo', 'slide'].includes(state.mode)) state.mode = '';
  if (!methods.includes(state.method)) state.method = '';
  if (!layers.includes(state.layer)) state.layer = '';
  if (!byKey.has(state.open)) state.open = '';
}

const methods = [...new Set(DATA.maps.map((map) => map[0]))].filter(Boolean);
const layers = [...new Set(DATA.maps.map((map) => map[1]))].filter(Boolean);

// A new filter or an opened image is a step of the browser's history; a filter that is being moved stays one step.
const PASSING = new Set(['sort', 'dir', 'view', 'size', 'map', 'mode', 'share', 'color', 'tool', 'views', 'tab', 'on', 'axes']);
const lastStep = { keys: '', time: 0 };
function writeAddress(changed = []) {
  const kept = new URLSearchParams();
  for (const [key, value] of Object.entries(DEFAULTS)) if (state[key] !== value) kept.set(key, state[key]);
  const hash = `#${kept}`;
  if (hash === (location.hash || '#')) return;
  const keys = changed.filter((key) => !PASSING.has(key)).sort().join();
  const going = keys === lastStep.keys && performance.now() - lastStep.time < 1000;
  if (keys && !going) history.pushState(null, '', hash);
  else history.replaceState(null, '', hash);
  if (keys) Object.assign(lastStep, { keys, time: performance.now() });
}
