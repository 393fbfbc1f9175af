// The confusion matrix: a canvas of any number of classes, and the pairs that are confused the most.

const matrix = { row: 0, col: 0, zoom: 1, cells: new Map(), totals: [], most: 1, cursor: null, box: null, keyboard: false };
const FEWEST = 6;
const cellAt = (row, column) => row * axesNow().col.classes.length + column;
// How many classes of a side are in view.
const spanOf = (side) => Math.max(axesNow()[side].classes.length / matrix.zoom, Math.min(FEWEST, axesNow()[side].classes.length));
const zooms = (axes) => Math.max(axes.row.classes.length, axes.col.classes.length) > 2 * FEWEST;

function fillMatrix() {
  $('matrix-view').hidden = !AXES.length;
  if (!AXES.length) return;
  $('axes').append(...AXES.map((axes) => el('option', { value: axes.key }, axes.name)));
  $('axes').hidden = AXES.length < 2;
  $('axes').addEventListener('input', () => change({ axes: $('axes').value, row: '', col: '' }));
  $('share').addEventListener('click', () => change({ share: state.share ? '' : 'rows' }));
  $('matrix-in').addEventListener('click', () => zoomMatrix(1.7));
  $('matrix-out').addEventListener('click', () => zoomMatrix(1 / 1.7));
  $('matrix-all').addEventListener('click', () => zoomMatrix(0));
  const canvas = $('matrix');
  canvas.addEventListener('pointerdown', dragMatrix);
  canvas.addEventListener('pointermove', (event) => { if (!event.buttons) hoverMatrix(placeIn(event)); });
  canvas.addEventListener('pointerleave', () => { if (!matrix.keyboard) hoverMatrix(null); });
  canvas.addEventListener('keydown', matrixKey);
  canvas.addEventListener('blur', () => { matrix.keyboard = false; hoverMatrix(null); });
  canvas.addEventListener('wheel', (event) => {
    if (!zooms(axesNow())) return;
    event.preventDefault();
    zoomMatrix(0.9984 ** event.deltaY, placeIn(event));
  }, { passive: false });
  new ResizeObserver(soon(drawMatrix)).observe(canvas);
}

// A filter was changed: other images are counted.
function countMatrix({ passes }) {
  const axes = axesNow();
  if (!axes) return;
  if (matrix.axes !== axes) Object.assign(matrix, { axes, row: 0, col: 0, zoom: 1, cursor: null });
  const passing = passes('cell');
  matrix.cells = new Map();
  matrix.totals = new Float64Array(axes.row.classes.length);
  axes.at.forEach((place, id) => {
    if (place === null || !passing(images[id])) return;
    const cell = cellAt(...place);
    matrix.cells.set(cell, (matrix.cells.get(cell) || 0) + 1);
    matrix.totals[place[0]] += 1;
  });
  matrix.most = [...matrix.cells.values()].reduce((most, each) => Math.max(most, each), 1);
  $('axes').value = state.axes;
  $('share').setAttribute('aria-pressed', String(Boolean(state.share)));
  for (const id of ['matrix-in', 'matrix-out', 'matrix-all']) $(id).hidden = !zooms(axes);
  showPairs(axes);
  hoverMatrix(matrix.cursor);
}

function showPairs(axes) {
  const count = axes.col.classes.length;
  const pairs = [...matrix.cells].map(([cell, number]) => [Math.floor(cell / count), cell % count, number])
    .filter(([row, column]) => axes.twin[row] !== column).sort((a, b) => b[2] - a[2] || a[0] - b[0] || a[1] - b[1]).slice(0, 5);
  $('pairs').hidden = !pairs.length;
  $('pairs-title').textContent = !axes.same ? 'Most frequent' : axes.row.name === 'truth' ? 'Most confused' : 'Most often apart';
  $('pair-list').replaceChildren(...pairs.map(([row, column, number]) => {
    const [one, other] = [axes.row.classes[row], axes.col.classes[column]];
    const on = state.row === keyOf(one) && state.col === keyOf(other);
    return el('li', {}, el('button', { type: 'button', className: 'pair', 'aria-pressed': String(on), onclick: () => pickCell(row, column),
      'aria-label': `${axes.row.name} ${one[1]}, ${axes.col.name} ${other[1]}: ${countText(number)}` },
    el('span', {}, one[1]), el('i', { 'aria-hidden': 'true' }, '→'), el('span', {}, other[1]), el('b', {}, countText(number))));
  }));
}

function pickCell(row, column) {
  const axes = axesNow(), key = (side, place) => (place === null ? '' : keyOf(axes[side].classes[place]));
  const wanted = { row: key('row', row), col: key('col', column) };
  change(wanted.row === state.row && wanted.col === state.col ? { row: '', col: '' } : wanted);
}

// ---- where things are

function layOutMatrix() {
  const width = $('matrix').clientWidth;
  const side = Math.max(40, Math.min(width - 92, 560));
  return { left: 84, top: 82, side, width: 84 + side + 4, height: 82 + side + 4 };
}

function placeIn(event) {
  const frame = $('matrix').getBoundingClientRect();
  const { left, top, side } = matrix.box || layOutMatrix();
  const at = (of, share) => Math.min(axesNow()[of].classes.length - 1, Math.floor(matrix[of] + share * spanOf(of)));
  const x = (event.clientX - frame.left - left) / side, y = (event.clientY - frame.top - top) / side;
  if (x >= 1 || y >= 1 || (x < 0 && y < 0)) return null;
  return { row: y < 0 ? null : at('row', y), column: x < 0 ? null : at('col', x), share: [Math.max(0, x), Math.max(0, y)] };
}

function zoomMatrix(factor, at = null) {
  const most = Math.max(1, ...['row', 'col'].map((side) => axesNow()[side].classes.length / FEWEST));
  const [x, y] = at ? at.share : [0.5, 0.5];
  const before = [spanOf('row'), spanOf('col')];
  matrix.zoom = Math.min(most, Math.max(1, matrix.zoom * factor));
  moveMatrix(matrix.row + y * (before[0] - spanOf('row')), matrix.col + x * (before[1] - spanOf('col')));
}

function moveMatrix(row, column) {
  const within = (side, value) => Math.max(0, Math.min(axesNow()[side].classes.length - spanOf(side), value));
  Object.assign(matrix, { row: within('row', row), col: within('col', column) });
  askMatrix();
}

function dragMatrix(event) {
  if (event.button) return;
  const start = { x: event.clientX, y: event.clientY, row: matrix.row, col: matrix.col };
  const canvas = $('matrix');
  let moved = false;
  const move = (now) => {
    const [x, y] = [now.clientX - start.x, now.clientY - start.y];
    moved = moved || Math.hypot(x, y) > 4;
    const { side } = matrix.box;
    if (moved) moveMatrix(start.row - (y / side) * spanOf('row'), start.col - (x / side) * spanOf('col'));
  };
  const end = (now) => {
    canvas.removeEventListener('pointermove', move);
    for (const name of ['pointerup', 'pointercancel']) canvas.removeEventListener(name, end);
    const place = placeIn(now);
    if (!moved && now.type === 'pointerup' && place) pickCell(place.row, place.column);
  };
  canvas.setPointerCapture(event.pointerId);
  canvas.addEventListener('pointermove', move);
  for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, end);
}

function matrixKey(event) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const at = matrix.cursor && matrix.cursor.row !== null && matrix.cursor.column !== null ? matrix.cursor
    : { row: Math.floor(matrix.row), column: Math.floor(matrix.col) };
  matrix.keyboard = true;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) {
    const step = matrix.cursor ? moves[event.key] : [0, 0];
    const inside = (side, place) => Math.max(0, Math.min(axesNow()[side].classes.length - 1, place));
    const [row, column] = [inside('row', at.row + step[0]), inside('col', at.column + step[1])];
    const into = (side, place) => Math.min(place, Math.max(matrix[side], place + 1 - spanOf(side)));
    moveMatrix(into('row', row), into('col', column));
    hoverMatrix({ row, column });
  } else if (event.key === 'Enter' || event.key === ' ') pickCell(at.row, at.column);
  else if (event.key === '+' || event.key === '=') zoomMatrix(1.7);
  else if (event.key === '-') zoomMatrix(1 / 1.7);
  else if (event.key === '0') zoomMatrix(0);
  else if (event.key === 'Escape' && (state.row || state.col)) change({ row: '', col: '' });
  else return;
  event.preventDefault();
}

// What a place of the matrix says: below it, and to a screen reader.
function hoverMatrix(place) {
  const axes = axesNow();
  matrix.cursor = place && { row: place.row, column: place.column };
  let text = '';
  if (place) {
    const one = place.row === null ? null : axes.row.classes[place.row];
    const other = place.column === null ? null : axes.col.classes[place.column];
    const images = (count) => `${countText(count)} ${count === 1 ? 'image' : 'images'}`;
    if (one && other) {
      const count = matrix.cells.get(cellAt(place.row, place.column)) || 0;
      const total = matrix.totals[place.row];
      const share = total ? `, ${((100 * count) / total).toFixed(1)} % of the row` : '';
      text = `${axes.row.name} ${one[1]}, ${axes.col.name} ${other[1]}: ${images(count)}${share}`;
    } else text = one ? `${axes.row.name} ${one[1]}: ${images(matrix.totals[place.row])}` : `${axes.col.name} ${other[1]}`;
  }
  $('matrix-said').textContent = text || 'Click a cell or a class name to see its images.';
  $('matrix').style.cursor = place ? 'pointer' : '';
  askMatrix();
}

// ---- drawing

let matrixAsked = 0;
function askMatrix() {
  if (!matrixAsked) matrixAsked = requestAnimationFrame(() => { matrixAsked = 0; drawMatrix(); });
}

function drawMatrix() {
  const canvas = $('matrix'), axes = axesNow();
  if (!axes || !canvas.clientWidth) return;
  const box = layOutMatrix();
  matrix.box = box;
  const paper = sized(canvas, canvas.clientWidth, box.height);
  const look = colors();
  paper.font = `11px ${look.font}`;
  paper.fillStyle = look.well;
  paper.fillRect(box.left, box.top, box.side, box.side);
  paper.save();
  paper.beginPath();
  paper.rect(box.left, box.top, box.side, box.side);
  paper.clip();
  drawCells(paper, box, axes, look);
  drawMarks(paper, box, axes, look);
  paper.restore();
  drawNames(paper, box, axes, look);
}

function drawCells(paper, box, axes, look) {
  const count = axes.col.classes.length, across = box.side / spanOf('col'), down = box.side / spanOf('row');
  const gap = Math.min(across, down) > 9 ? 1 : 0, least = count > 100 ? 2 : 1.5;
  const [width, height] = [Math.max(across - gap, least), Math.max(down - gap, least)];
  const colored = axes.same && axes.row.name === 'truth';
  paper.textAlign = 'center';
  paper.textBaseline = 'middle';
  for (const [key, number] of matrix.cells) {
    const row = Math.floor(key / count), column = key % count;
    const x = box.left + (column - matrix.col) * across, y = box.top + (row - matrix.row) * down;
    if (x + width < box.left || y + height < box.top || x > box.left + box.side || y > box.top + box.side) continue;
    const share = state.share ? number / matrix.totals[row] : Math.sqrt(number / matrix.most);
    const strength = 0.14 + 0.86 * share;
    paper.globalAlpha = strength;
    paper.fillStyle = !colored ? (axes.same && axes.twin[row] !== column ? look.error : look.accent)
      : axes.twin[row] === column ? look.right : look.wrong;
    paper.fillRect(x, y, width, height);
    if (Math.min(across, down) < 16) continue;
    paper.globalAlpha = 1;
    paper.fillStyle = strength > 0.6 ? look.sheet : look.ink;
    const text = state.share ? `${Math.round(100 * share)}` : countText(number);
    if (paper.measureText(text).width < across - 4) paper.fillText(text, x + width / 2, y + height / 2 + 0.5);
  }
  paper.globalAlpha = 1;
}

function drawMarks(paper, box, axes, look) {
  const across = box.side / spanOf('col'), down = box.side / spanOf('row');
  const frame = (row, column, color, width) => {
    const x = column === null ? box.left : box.left + (column - matrix.col) * across;
    const y = row === null ? box.top : box.top + (row - matrix.row) * down;
    paper.strokeStyle = color;
    paper.lineWidth = width;
    paper.strokeRect(x - 0.5, y - 0.5, column === null ? box.side : Math.max(across, 5), row === null ? box.side : Math.max(down, 5));
  };
  if (matrix.cursor) frame(matrix.cursor.row, matrix.cursor.column, look.ink, 1);
  if (state.row || state.col) frame(axes.row.places.get(state.row) ?? null, axes.col.places.get(state.col) ?? null, look.accent, 2.5);
}

function drawNames(paper, box, axes, look) {
  const write = (text, room) => {
    if (paper.measureText(text).width <= room) return text;
    let short = text;
    while (short.length > 1 && paper.measureText(`${short}…`).width > room) short = short.slice(0, -1);
    return `${short}…`;
  };
  paper.textBaseline = 'middle';
  for (const [side, key] of [['row', 'row'], ['col', 'column']]) {
    const start = matrix[side], { classes } = axes[side], down = side === 'row';
    const cell = box.side / spanOf(side), step = Math.max(1, Math.ceil(13 / cell));
    for (let place = Math.floor(start / step) * step; place < Math.min(start + spanOf(side), classes.length); place += step) {
      const middle = (place + 0.5 - start) * cell;
      if (middle < 0 || middle > box.side) continue;
      const known = classes[place];
      const chosen = keyOf(known) === state[side];
      paper.fillStyle = chosen ? look.accent : matrix.cursor && matrix.cursor[key] === place ? look.ink : look.soft;
      paper.save();
      if (down) paper.translate(box.left - 6, box.top + middle);
      else { paper.translate(box.left + middle, box.top - 6); paper.rotate(-Math.PI / 2); }
      paper.textAlign = down ? 'right' : 'left';
      paper.fillText(write(known[1], down ? 60 : 62), 0, 0);
      paper.restore();
    }
  }
  paper.font = `600 11px ${look.font}`;
  paper.fillStyle = look.ink;
  paper.textAlign = 'center';
  paper.fillText(write(axes.col.title, box.side), box.left + box.side / 2, 7);
  paper.translate(7, box.top + box.side / 2);
  paper.rotate(-Math.PI / 2);
  paper.fillText(write(axes.row.title, box.side), 0, 0);
}
