// The embedding map: each image is a point. Points are set as pixels, so that 50,000 of them follow the pointer.

const plot = { x: 0.5, y: 0.5, zoom: 1, fails: null, lasso: [], pointers: new Map(), image: null, near: null, tints: null };
const FEW = ['#0072b2', '#e69f00', '#009e73', '#d55e00', '#cc79a7', '#56b4e9'];  // Okabe and Ito (2008)
const MOST_ZOOM = 400;
const LEGEND = 12;
const pixels = () => Math.min(2, devicePixelRatio || 1);

function fillMap() {
  $('map-view').hidden = !embeddings.length;
  if (!embeddings.length) return;
  $('on').append(...EMBEDDINGS.map(({ name }, number) => el('option', { value: String(number) }, name)));
  $('on').hidden = EMBEDDINGS.length < 2;
  $('on').addEventListener('input', () => change({ on: $('on').value, brush: '' }));
  $('color').append(...COLORINGS.map(([key, name]) => el('option', { value: key }, name)));
  $('color-field').hidden = COLORINGS.length < 2;
  $('color').addEventListener('input', () => change({ color: $('color').value }));
  for (const radio of document.querySelectorAll('#tools input')) radio.addEventListener('change', () => change({ tool: radio.value }));
  $('map-in').addEventListener('click', () => zoomMap(1.7));
  $('map-out').addEventListener('click', () => zoomMap(1 / 1.7));
  $('map-all').addEventListener('click', () => { Object.assign(plot, { x: 0.5, y: 0.5, zoom: 1 }); askMap(); });
  $('map-view-select').addEventListener('click', brushView);
  const canvas = $('map');
  canvas.addEventListener('pointerdown', mapDown);
  canvas.addEventListener('pointermove', mapMove);
  for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, mapUp);
  canvas.addEventListener('pointerleave', () => showTip(null));
  canvas.addEventListener('keydown', mapKey);
  canvas.addEventListener('wheel', (event) => { event.preventDefault(); zoomMap(0.9984 ** event.deltaY, mapPixel(event)); }, { passive: false });
  new ResizeObserver(soon(drawMap)).observe(canvas);
}

// ---- colors

function coloring() {
  const key = COLORINGS.some(([each]) => each === state.color) ? state.color : COLORINGS.length ? COLORINGS[0][0] : 'none';
  if (key === 'score') return { key, of: (image) => (image.score === null ? null : image.score), legend: [] };
  if (key === 'verdict') {
    return { key, of: (image) => image.verdicts[OWN] || null, legend: ['right', 'wrong'].map((name) => [name, name, { show: name }]) };
  }
  const of = key === 'prediction' ? (image) => { const run = image.runs[OWN]; return (run && run.prediction) || null; } : (image) => image.label;
  const found = new Map();
  for (const image of images) { const known = of(image); if (known) found.set(keyOf(known), known); }
  const classes = [...found.values()].sort((a, b) => (a[0] ?? Infinity) - (b[0] ?? Infinity) || collator.compare(a[1], b[1]));
  const scope = key === 'prediction' ? 'prediction' : 'label';
  return { key, of: (image) => { const known = of(image); return known ? keyOf(known) : null; }, many: classes.length,
    legend: classes.map((known) => [keyOf(known), known[1], { q: known[1], of: scope }]) };
}

function tintOf(place, count, dark) {
  if (count <= FEW.length) return rgb(FEW[place]);
  // Neighbors in the list lie far apart on the wheel; their lightness alternates.
  return hsl((place * 137.508) % 360, 0.62, (dark ? 0.64 : 0.45) + 0.09 * ((place % 3) - 1));
}

// The color of every point, as three numbers; made anew when the coloring or the light changes.
function tints(look) {
  const key = `${state.color} ${look.dark}`;
  if (plot.tints && plot.tints.key === key) return plot.tints;
  const by = coloring();
  const places = new Map(by.legend.map(([each], place) => [each, place]));
  const gray = rgb(look.other), known = { right: rgb(look.right), wrong: rgb(look.wrong), error: rgb(look.error) };
  const one = (value) => {
    if (value === null) return gray;
    if (by.key === 'verdict') return known[value] || gray;
    if (by.key === 'score') return ramp((value - EXTENT[0]) / (EXTENT[1] - EXTENT[0]), look.dark);
    return tintOf(places.get(value), by.legend.length, look.dark);
  };
  const found = new Uint8Array(3 * images.length);
  for (const image of images) found.set(one(by.of(image)), 3 * image.id);
  plot.tints = { key, colors: found, legend: by.legend.map(([each, name, back]) => [name, one(each), back]), by };
  return plot.tints;
}

const rgb = (hex) => [1, 3, 5].map((start) => Number.parseInt(hex.slice(start, start + 2), 16));
function hsl(hue, saturation, light) {
  const at = (n) => { const k = (n + hue / 30) % 12; return light - saturation * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1)); };
  return [at(0), at(8), at(4)].map((value) => Math.round(255 * value));
}
// Low to high: dark blue to yellow, readable on either ground.
function ramp(share, dark) {
  const stops = dark ? [[92, 110, 220], [64, 180, 170], [250, 220, 90]] : [[50, 40, 120], [30, 140, 140], [225, 170, 20]];
  const at = 2 * Math.min(0.9999, Math.max(0, share)), low = Math.floor(at);
  return stops[low].map((value, channel) => Math.round(value + (at - low) * (stops[low + 1][channel] - value)));
}

// ---- drawing

let mapAsked = 0;
function askMap() {
  if (!mapAsked) mapAsked = requestAnimationFrame(() => { mapAsked = 0; drawMap(); });
}

// A disk, or a ring for a wrong prediction, as coverage from 0 to 256.
function stampOf(radius, ring) {
  const reach = Math.ceil(radius + 0.5), side = 2 * reach + 1;
  const cover = new Uint16Array(side * side);
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const far = Math.hypot(x, y);
      const outer = Math.min(1, Math.max(0, radius + 0.5 - far));
      const inner = ring ? Math.min(1, Math.max(0, radius - 0.38 * radius - far + 0.5)) : 0;
      cover[(y + reach) * side + x + reach] = Math.round(256 * (outer - inner));
    }
  }
  return { cover, side, reach };
}

const pointSize = () => Math.min(6, Math.max(1.5, 75 / Math.sqrt(images.length)) * Math.min(3, plot.zoom ** 0.35));
// A ring needs room to be told from a disk.
const ringed = () => pointSize() > 2.6 && state.color !== 'verdict';

function drawMap() {
  const canvas = $('map');
  const width = canvas.clientWidth, height = Math.round(Math.min(0.82 * canvas.clientWidth, 560));
  if (!width || !plot.fails) return;
  const look = colors(), dense = pixels();
  const paper = sized(canvas, width, height, dense);
  const [w, h] = [canvas.width, canvas.height];
  if (!plot.image || plot.image.width !== w || plot.image.height !== h) plot.image = paper.createImageData(w, h);
  const ground = rgb(look.map);
  new Uint32Array(plot.image.data.buffer).fill(((255 << 24) | (ground[2] << 16) | (ground[1] << 8) | ground[0]) >>> 0);
  paintPoints(tints(look).colors, dense * pointSize(), w, h, look);
  paper.putImageData(plot.image, 0, 0);
  drawBrush(paper, width, height, look);
}

function paintPoints(tinted, radius, w, h, look) {
  const { x, y } = embeddings[state.on];
  const scale = Math.min(w, h) * plot.zoom, left = w / 2 - plot.x * scale, top = h / 2 - plot.y * scale;
  const full = stampOf(radius, false), small = stampOf(Math.max(1, 0.72 * radius), false), ring = stampOf(radius, true);
  const rings = ringed();
  const dim = rgb(look.dim), data = plot.image.data;
  for (const passing of [false, true]) {
    for (let id = 0; id < images.length; id += 1) {
      if ((plot.fails[id] === 0) !== passing) continue;
      const px = Math.round(left + x[id] * scale), py = Math.round(top + y[id] * scale);
      const stamp = !passing ? small : rings && images[id].verdicts[OWN] === 'wrong' ? ring : full;
      const { cover, side, reach } = stamp;
      if (!(px >= -reach && py >= -reach && px < w + reach && py < h + reach)) continue;
      const red = passing ? tinted[3 * id] : dim[0], green = passing ? tinted[3 * id + 1] : dim[1], blue = passing ? tinted[3 * id + 2] : dim[2];
      for (let row = Math.max(0, reach - py); row < side && py - reach + row < h; row += 1) {
        const from = Math.max(0, reach - px), to = Math.min(side, w - px + reach);
        let at = 4 * ((py - reach + row) * w + px - reach + from);
        for (let column = from; column < to; column += 1, at += 4) {
          const share = cover[row * side + column];
          if (!share) continue;
          data[at] += ((red - data[at]) * share) >> 8;
          data[at + 1] += ((green - data[at + 1]) * share) >> 8;
          data[at + 2] += ((blue - data[at + 2]) * share) >> 8;
        }
      }
    }
  }
}

function drawBrush(paper, width, height, look) {
  const corners = plot.lasso.length ? plot.lasso : parseBrush(state.brush) || [];
  if (corners.length) {
    paper.beginPath();
    for (const corner of corners) paper.lineTo(...onMap(corner, width, height));
    paper.closePath();
    paper.fillStyle = look.accent;
    paper.globalAlpha = 0.1;
    paper.fill();
    paper.globalAlpha = 1;
    paper.strokeStyle = look.accent;
    paper.lineWidth = 1.5;
    paper.setLineDash(plot.lasso.length ? [5, 3] : []);
    paper.stroke();
    paper.setLineDash([]);
  }
  if (plot.near !== null) {
    const { x, y } = embeddings[state.on];
    const [px, py] = onMap([x[plot.near], y[plot.near]], width, height);
    paper.beginPath();
    paper.arc(px, py, 8, 0, 2 * Math.PI);
    paper.strokeStyle = look.ink;
    paper.lineWidth = 1.5;
    paper.stroke();
  }
}

// ---- where things are: corners in the unit square of the points, pixels on the canvas

function onMap([x, y], width, height) {
  const scale = Math.min(width, height) * plot.zoom;
  return [width / 2 + (x - plot.x) * scale, height / 2 + (y - plot.y) * scale];
}
function mapPixel(event) {
  const frame = $('map').getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}
function fromMap([px, py]) {
  const { clientWidth: width, clientHeight: height } = $('map');
  const scale = Math.min(width, height) * plot.zoom;
  return [plot.x + (px - width / 2) / scale, plot.y + (py - height / 2) / scale];
}

function zoomMap(factor, pixel = null) {
  const { clientWidth: width, clientHeight: height } = $('map');
  const at = pixel || [width / 2, height / 2], before = fromMap(at);
  plot.zoom = Math.min(MOST_ZOOM, Math.max(0.7, plot.zoom * factor));
  const after = fromMap(at);
  panMap(before[0] - after[0], before[1] - after[1]);
}
function panMap(x, y) {
  plot.x = Math.min(1, Math.max(0, plot.x + x));
  plot.y = Math.min(1, Math.max(0, plot.y + y));
  askMap();
}

// ---- the pointer: a brush, the hand, or two fingers

function mapDown(event) {
  if (event.button) return;
  $('map').setPointerCapture(event.pointerId);
  plot.pointers.set(event.pointerId, mapPixel(event));
  plot.start = mapPixel(event);
  plot.moved = false;
  plot.panning = state.tool === 'pan' || event.shiftKey;
  plot.lasso = [];
  showTip(null);
}

function mapMove(event) {
  const pixel = mapPixel(event), before = plot.pointers.get(event.pointerId);
  if (!before) { showTip(nearest(pixel)); return; }
  plot.moved = plot.moved || Math.hypot(pixel[0] - plot.start[0], pixel[1] - plot.start[1]) > 4;
  if (plot.pointers.size === 2) pinch(event.pointerId, before, pixel);
  plot.pointers.set(event.pointerId, pixel);
  if (plot.pointers.size !== 1 || !plot.moved) return;
  if (plot.panning) {
    const [one, other] = [fromMap(before), fromMap(pixel)];
    panMap(one[0] - other[0], one[1] - other[1]);
    return;
  }
  const last = plot.lasso.length ? plot.last : null;
  if (!last || Math.hypot(pixel[0] - last[0], pixel[1] - last[1]) > 5) {
    if (!last) plot.lasso.push(fromMap(plot.start));
    plot.lasso.push(fromMap(pixel));
    plot.last = pixel;
    askMap();
  }
}

function pinch(moving, before, pixel) {
  const other = [...plot.pointers].find(([id]) => id !== moving)[1];
  const far = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
  const middle = (one) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
  const from = fromMap(middle(before));
  zoomMap(far(pixel) / far(before), middle(before));
  const to = fromMap(middle(pixel));
  panMap(from[0] - to[0], from[1] - to[1]);
  Object.assign(plot, { lasso: [], moved: true, panning: true });
}

function mapUp(event) {
  plot.pointers.delete(event.pointerId);
  if (plot.pointers.size) return;
  const corners = thinned(plot.lasso, 80);
  plot.lasso = [];
  if (event.type === 'pointerup' && !plot.moved) {
    const near = nearest(mapPixel(event));
    if (near !== null) { openDetail(images[near]); return; }
    if (state.brush && !plot.panning) { change({ brush: '' }); return; }
  }
  if (corners.length > 2) change({ brush: brushText(corners) });
  askMap();
}

const thinned = (corners, most) => corners.filter((_, place) => place % Math.ceil(corners.length / most) === 0);

function brushView() {
  const { clientWidth: width, clientHeight: height } = $('map');
  change({ brush: brushText([[0, 0], [width, 0], [width, height], [0, height]].map(fromMap)) });
}

function mapKey(event) {
  const step = 0.12 / plot.zoom;
  const actions = {
    ArrowLeft: () => panMap(-step, 0), ArrowRight: () => panMap(step, 0), ArrowUp: () => panMap(0, -step), ArrowDown: () => panMap(0, step),
    '+': () => zoomMap(1.4), '=': () => zoomMap(1.4), '-': () => zoomMap(1 / 1.4), 0: () => $('map-all').click(), Enter: brushView,
    ...(state.brush ? { Escape: () => change({ brush: '' }) } : {}),
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
  actions[event.key]();
  event.preventDefault();
}

// The nearest point within a finger's reach; what passes the filters goes first.
function nearest(pixel) {
  const { x, y } = embeddings[state.on], [px, py] = fromMap(pixel);
  const reach = 9 / (Math.min($('map').clientWidth, $('map').clientHeight) * plot.zoom);
  let found = null, least = reach * reach, passing = false;
  for (let id = 0; id < images.length; id += 1) {
    const dx = x[id] - px, dy = y[id] - py, far = dx * dx + dy * dy;
    if (!(far < reach * reach)) continue;
    const passes = plot.fails[id] === 0;
    if (passes > passing || (passes === passing && far < least)) { found = id; least = far; passing = passes; }
  }
  return found;
}

function showTip(id) {
  const tip = $('map-tip');
  if (plot.near !== id) { plot.near = id; askMap(); }
  tip.hidden = id === null;
  $('map').style.cursor = id !== null ? 'pointer' : state.tool === 'pan' ? 'grab' : 'crosshair';
  if (id === null || tip.dataset.of === String(id)) return placeTip(id);
  const image = images[id], run = ownRun(image);
  tip.dataset.of = id;
  const said = run && run.prediction ? [run.prediction[1], scoreText(run.prediction[2], run.prediction[0] === null)].join(' ') : '';
  tip.replaceChildren(
    run && run.photo ? el('img', { alt: '', src: run.photo }) : '',
    el('b', {}, said || image.name),
    image.label ? el('span', {}, `truth ${image.label[1]}`) : '',
    said ? el('small', {}, image.name) : '',
  );
  return placeTip(id);
}

function placeTip(id) {
  if (id === null) return;
  const { clientWidth: width, clientHeight: height } = $('map'), { x, y } = embeddings[state.on];
  const [px, py] = onMap([x[id], y[id]], width, height);
  const tip = $('map-tip');
  tip.style.left = `${Math.max(0, Math.min(width - tip.offsetWidth, px - tip.offsetWidth / 2))}px`;
  tip.style.top = `${py > tip.offsetHeight + 16 ? py - tip.offsetHeight - 12 : py + 14}px`;
}

function showMap({ fails }) {
  if (!embeddings.length) return;
  plot.fails = fails;
  $('on').value = state.on;
  $('color').value = state.color;
  for (const radio of document.querySelectorAll('#tools input')) radio.checked = radio.value === state.tool;
  $('map').style.cursor = state.tool === 'pan' ? 'grab' : 'crosshair';
  const { note } = EMBEDDINGS[state.on], placed = embeddings[state.on].x.reduce((sum, x) => sum + !Number.isNaN(x), 0);
  const missing = images.length - placed;
  $('map-note').textContent = [note, missing ? `${countText(missing)} images have no place on the map` : ''].filter(Boolean).join(' · ');
  showLegend();
  askMap();
}

function showLegend() {
  const found = tints(colors()), wrong = images.some((image) => image.verdicts[OWN] === 'wrong');
  const many = found.legend.length > LEGEND;
  const entries = many ? [] : found.legend.map(([name, color, back]) => {
    const dot = el('i', { 'aria-hidden': 'true' });
    dot.style.background = `rgb(${color.join(' ')})`;
    return el('button', { type: 'button', className: 'swatch', title: 'Show these only', onclick: () => change(back) }, dot, name);
  });
  const notes = [];
  if (many) notes.push(`${countText(found.legend.length)} classes: point at one for its name`);
  if (found.by.key === 'score') notes.push(`blue ${EXTENT[0]} to yellow ${EXTENT[1]}`);
  if (wrong && ringed()) notes.push('rings are predicted wrong');
  $('legend').replaceChildren(...entries, ...notes.map((text) => el('span', { className: 'soft' }, text)));
}
