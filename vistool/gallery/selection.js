// What is selected: every filter of every view, and what each view shows of the images that pass the others.

// ---- numbers that have a histogram

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const STEPS = 100;
const BINS = 24;
const asList = (value) => (Array.isArray(value) ? value : value === null || value === undefined ? [] : [value]);

// The ends of a range: 0 to 1, wider where the numbers are not shares.
function extentOf(numbers) {
  let low = 0, high = 1;
  for (const number of numbers) { if (number < low) low = number; if (number > high) high = number; }
  return [Math.floor(low), Math.ceil(high)];
}

const EXTENT = extentOf(images.map((image) => image.score).filter((score) => score !== null));
const hasScores = images.some((image) => image.score !== null);
const bounds = () => [state.min === '' ? EXTENT[0] : Number(state.min), state.max === '' ? EXTENT[1] : Number(state.max)];

const KINDS = { tp: 'true positives', fp: 'false positives', miss: 'misses' };
const objectNames = [...new Set(images.flatMap((image) => image.objects.map((each) => CLASSES[each[1]][1])))].sort(collator.compare);
const hasObjects = objectNames.length > 0;

// What a dimension counts: the images, or the objects in them. The score keeps keys of its own in the address.
const DIMENSIONS = [
  ...METRICS.map(([name], number) => ({
    key: name, name, of: 'images', value: (image) => metricOf(image, number),
    extent: extentOf(images.flatMap((image) => image.runs.flatMap((run) => ((run && run.maps) || []).flatMap((map) => numbersOf(map)
      .filter(([each, value]) => each === number && value !== null).map(([, value]) => value))))),
  })),
  ...(images.some((image) => image.uncertainty !== null) ? [{ key: 'uncertainty', name: 'Uncertainty', of: 'images',
    value: (image) => image.uncertainty, extent: extentOf(images.map((image) => image.uncertainty ?? 0)) }] : []),
  ...(images.some((image) => image.difference !== null) ? [{ key: 'difference', name: 'Difference of the scores', of: 'images',
    value: (image) => image.difference, extent: extentOf(images.map((image) => image.difference ?? 0)) }] : []),
  ...[['object score', 'Score of objects', 2], ['object iou', 'IoU with the truth', 3]]
    .map(([key, name, place]) => ({ key, name, of: 'objects', value: (each) => each[place],
      extent: extentOf(images.flatMap((image) => image.objects.map((each) => each[place] ?? 0))) }))
    .filter((dimension) => images.some((image) => image.objects.some((each) => dimension.value(each) !== null))),
];
for (const dimension of DIMENSIONS) DEFAULTS[`in:${dimension.key}`] = '';

function parseRange(text, { extent }) {
  const [low, high] = (text || '').split('..').map(Number);
  return text && Number.isFinite(low) && Number.isFinite(high) && low <= high && low >= extent[0] && high <= extent[1] ? [low, high] : null;
}
const rangeOf = (dimension) => parseRange(state[`in:${dimension.key}`], dimension);
const inRange = (value, range) => value !== null && value >= range[0] && value <= range[1];

// ---- the matrix

function axesOf(key, name, rows, columns, row, column) {
  const found = [new Map(), new Map()];
  const ends = images.map((image) => [row(image), column(image)]);
  for (const pair of ends) if (pair.every(Boolean)) pair.forEach((known, side) => found[side].set(keyOf(known), known));
  // A square has all classes on both sides. Where few of them are ever true, most of its rows would be empty.
  const same = [...found[0].keys()].some((each) => found[1].has(each));
  const all = new Map([...found[0], ...found[1]]);
  const sides = same && 2 * Math.min(found[0].size, found[1].size) >= all.size ? [all] : found;
  const classes = sides.map((side) => [...side.values()].sort((a, b) => (a[0] ?? Infinity) - (b[0] ?? Infinity) || collator.compare(a[1], b[1])));
  const places = classes.map((side) => new Map(side.map((known, place) => [keyOf(known), place])));
  const [down, across] = [[classes[0], places[0]], [classes[classes.length - 1], places[places.length - 1]]];
  const twin = down[0].map((known) => across[1].get(keyOf(known)) ?? -1);  // the column of the same class
  const at = ends.map(([one, other]) => (one && other ? [down[1].get(keyOf(one)), across[1].get(keyOf(other))] : null));
  return { key, name, same, twin, at, row: sideOf(rows, down), col: sideOf(columns, across) };
}

// A run keeps its name as it is.
function sideOf(name, [classes, places]) {
  return { name, title: ['truth', 'prediction'].includes(name) ? capital(name) : name, classes, places };
}

const predictedBy = (number) => (image) => { const run = image.runs[number]; return run && isClass(run.prediction) ? run.prediction : null; };
const AXES = [
  ['', COMPARED ? `truth and ${RUNS[OWN].name}` : 'truth and prediction', 'truth', 'prediction', (image) => image.label, predictedBy(OWN)],
  ...(COMPARED ? RUNS.slice(0, OWN).flatMap((run, number) => [
    [`truth ${number}`, `truth and ${run.name}`, 'truth', 'prediction', (image) => image.label, predictedBy(number)],
    [`runs ${number}`, `${run.name} and ${RUNS[OWN].name}`, run.name, RUNS[OWN].name, predictedBy(number), predictedBy(OWN)],
  ]) : []),
].map((each) => axesOf(...each)).filter((axes) => axes.row.classes.length && axes.row.classes.length + axes.col.classes.length > 2);
const axesNow = () => AXES.find((axes) => axes.key === state.axes) || AXES[0] || null;

// ---- the map of the embedding: points in a unit square, as many as there are images

const COLORINGS = [
  ['', 'ground truth', images.some((image) => image.label)],
  ['prediction', 'prediction', images.some((image) => image.texts.prediction.length)],
  ['verdict', 'right or wrong', images.some((image) => ['right', 'wrong'].includes(image.verdicts[OWN]))],
  ['score', 'score', hasScores],
].filter(([, , offered]) => offered);

function embeddingOf(number) {
  const places = images.map((image) => image.points[number] || null);
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const place of places) {
    if (!place) continue;
    left = Math.min(left, place[0]); right = Math.max(right, place[0]);
    low = Math.min(low, place[1]); high = Math.max(high, place[1]);
  }
  const span = 1.06 * Math.max(right - left, high - low) || 1;
  const x = new Float32Array(images.length).fill(NaN), y = new Float32Array(images.length).fill(NaN);
  places.forEach((place, id) => {
    if (!place) return;
    x[id] = 0.5 + (place[0] - (left + right) / 2) / span;
    y[id] = 0.5 - (place[1] - (low + high) / 2) / span;
  });
  return { x, y };
}
const embeddings = EMBEDDINGS.map((_, number) => embeddingOf(number));

// A brush is a polygon; the address has its corners in ten-thousandths of the map.
function parseBrush(text) {
  const corners = (text || '').split('_').map((corner) => corner.split('.').map((part) => Number(part) / 10000));
  const whole = corners.length > 2 && corners.every((corner) => corner.length === 2 && corner.every(Number.isFinite));
  return embeddings.length && whole ? corners : null;
}
const brushText = (corners) => corners.map((corner) => corner.map((part) => Math.round(part * 10000)).join('.')).join('_');

function insideTest(corners) {
  const xs = corners.map(([x]) => x), ys = corners.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  return (x, y) => {
    if (!(x >= left && x <= right && y >= top && y <= bottom)) return false;
    let inside = false;
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
      const [xi, yi] = corners[i], [xj, yj] = corners[j];
      if ((yi > y) !== (yj > y) && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
    return inside;
  };
}

// ---- objects of detectors

function objectTest(except = '') {
  const ranges = DIMENSIONS.filter((each) => each.of === 'objects' && each.key !== except && rangeOf(each)).map((each) => [each, rangeOf(each)]);
  return (each) => (except === 'kind' || !state.kind || each[0] === state.kind)
    && (!state.object || CLASSES[each[1]][1] === state.object)
    && ranges.every(([dimension, range]) => inRange(dimension.value(each), range));
}
const objectsAsked = () => Boolean(state.kind || state.object
  || DIMENSIONS.some((dimension) => dimension.of === 'objects' && rangeOf(dimension)));

// ---- all filters at once

// What is asked for now: each filter's key, and its test of an image.
function filters() {
  const asked = [];
  if (state.q.trim()) asked.push(['query', searcher()]);
  if (state.method || state.layer) asked.push(['maps', (image) => image.runs.some((run) => run && (run.maps || []).some(fits))]);
  if (state.show !== 'all') asked.push(['show', SHOWS[state.show][1]]);
  const [low, high] = bounds();
  if (low > EXTENT[0] || high < EXTENT[1]) asked.push(['score', (image) => inRange(image.score, [low, high])]);
  for (const dimension of DIMENSIONS) {
    const range = dimension.of === 'images' && rangeOf(dimension);
    if (range) asked.push([dimension.key, (image) => inRange(dimension.value(image), range)]);
  }
  if (state.row || state.col) {
    const axes = axesNow(), { at } = axes;
    const [row, column] = [axes.row.places.get(state.row), axes.col.places.get(state.col)];
    asked.push(['cell', (image) => {
      const place = at[image.id];
      return place !== null && (row === undefined || place[0] === row) && (column === undefined || place[1] === column);
    }]);
  }
  if (state.brush) {
    const inside = insideTest(parseBrush(state.brush)), { x, y } = embeddings[state.on];
    asked.push(['brush', (image) => inside(x[image.id], y[image.id])]);
  }
  if (objectsAsked()) { const meets = objectTest(); asked.push(['objects', (image) => image.objects.some(meets)]); }
  return asked;
}

function select() {
  const asked = filters();
  // How many filters an image fails, and which one where it is one.
  const fails = new Uint8Array(images.length), which = new Uint8Array(images.length);
  for (const image of images) {
    for (let place = 0; place < asked.length && fails[image.id] < 2; place += 1) {
      if (!asked[place][1](image)) { fails[image.id] += 1; which[image.id] = place; }
    }
  }
  // Whether an image passes all filters but one: a view shows what the others leave.
  const passes = (key) => {
    const place = asked.findIndex(([each]) => each === key);
    return (image) => fails[image.id] === 0 || (fails[image.id] === 1 && which[image.id] === place);
  };
  const counts = {};
  for (const key of offeredShows()) counts[key] = images.filter(passes('show')).filter(SHOWS[key][1]).length;
  return { shown: sorted(images.filter((image) => fails[image.id] === 0)), counts, fails, passes };
}

// Numbers of the images that pass all other filters, by bin and verdict.
function histogramOf({ passes }, dimension) {
  const { extent } = dimension;
  const bins = Array.from({ length: BINS }, () => ({ right: 0, wrong: 0, other: 0 }));
  const count = (value, kind) => {
    if (value === null) return;
    const place = Math.floor(((value - extent[0]) / (extent[1] - extent[0])) * BINS);
    bins[Math.min(BINS - 1, Math.max(0, place))][kind] += 1;
  };
  const passing = passes(dimension.of === 'objects' ? 'objects' : dimension.key);
  const meets = dimension.of === 'objects' ? objectTest(dimension.key) : null;
  for (const image of images) {
    if (!passing(image)) continue;
    if (meets) {
      for (const each of image.objects) if (meets(each)) count(dimension.value(each), { tp: 'right', fp: 'wrong' }[each[0]] || 'other');
    } else {
      const verdict = image.verdicts[OWN];
      count(dimension.value(image), verdict === 'right' || verdict === 'wrong' ? verdict : 'other');
    }
  }
  return bins;
}

// ---- what the filters say, and how each is taken back

function chipsOf() {
  const chips = [];
  const add = (name, value, back) => chips.push({ name, value, back });
  const scopes = { any: 'Search', label: 'Truth', prediction: 'Prediction', file: 'File' };
  if (state.q.trim()) add(scopes[state.of], state.q.trim(), { q: '', of: 'any' });
  if (state.show !== 'all') add('Show', SHOWS[state.show][0].toLowerCase(), { show: 'all' });
  const axes = axesNow();
  for (const side of ['row', 'col']) {
    if (state[side]) add(axes[side].title, axes[side].classes[axes[side].places.get(state[side])][1], { [side]: '' });
  }
  if (state.brush) add('Map', 'brushed', { brush: '' });
  const [low, high] = bounds();
  if (low > EXTENT[0] || high < EXTENT[1]) add('Score', rangeText(low, high), { min: '', max: '' });
  for (const dimension of DIMENSIONS) {
    const range = rangeOf(dimension);
    if (range) add(capital(dimension.name), rangeText(...range), { [`in:${dimension.key}`]: '' });
  }
  if (state.kind) add('Objects', KINDS[state.kind], { kind: '' });
  if (state.object) add('Object', state.object, { object: '' });
  if (state.method) add(OVER === 'Map' ? 'Map' : 'Method', state.method, { method: '' });
  if (state.layer) add('Layer', state.layer, { layer: '' });
  return chips;
}
const rangeText = (low, high) => `${low.toFixed(2)} – ${high.toFixed(2)}`;
