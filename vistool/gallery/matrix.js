// The confusion matrix: a canvas of any number of classes, and the pairs that are confused the most.

const matrix = { row: 0, column: 0, span: 1, cells: new Map(), totals: [], most: 1, cursor: null, box: null, keyboard: false };
const LEAST_SPAN = 6;
const cellAt = (row, column) => row * axesNow().classes.length + column;
const zooms = (count) => count > 2 * LEAST_SPAN;

function fillMatrix() {
  $('matrix-view').hidden = !AXES.length;
  if (!AXES.length) return;
  $('axes').append(...AXES.map((axes) => el('option', { value: axes.key }, axes.name)));
  $('axes').hidden = AXES.length < 2;
  $('axes').addEventListener('input', () => change({ axes: $('axes').value, row: '', col: '' }));
  $('share').addEventListener('click', () => change({ share: state.share ? '' : 'rows' }));
  $('matrix-in').addEventListener('click', () => zoomMatrix(0.6));
  $('matrix-out').addEventListener('click', () => zoomMatrix(1 / 0.6));
  $('matrix-all').addEventListener('click', () => zoomMatrix(Infinity));
  const canvas = $('matrix');
  canvas.addEventListener('pointerdown', dragMatrix);
  canvas.addEventListener('pointermove', (event) => { if (!event.buttons) hoverMatrix(placeIn(event)); });
  canvas.addEventListener('pointerleave', () => { if (!matrix.keyboard) hoverMatrix(null); });
  canvas.addEventListener('keydown', matrixKey);
  canvas.addEventListener('blur', () => { matrix.keyboard = false; hoverMatrix(null); });
  canvas.addEventListener('wheel', (event) => {
    if (!zooms(axesNow().classes.length)) return;
    event.preventDefault();
    zoomMatrix(1.0016 ** event.deltaY, placeIn(event));
  }, { passive: false });
  new ResizeObserver(soon(drawMatrix)).observe(canvas);
}

// A filter was changed: other images are counted.
function countMatrix({ passes }) {
  const axes = axesNow();
  if (!axes) return;
  const count = axes.classes.length;
  if (matrix.axes !== axes) Object.assign(matrix, { axes, row: 0, column: 0, span: count, cursor: null });
  const passing = passes('cell');
  matrix.cells = new Map();
  matrix.totals = new Float64Array(count);
  axes.at.forEach((place, id) => {
    if (place === null || !passing(images[id])) return;
    const cell = cellAt(...place);
    matrix.cells.set(cell, (matrix.cells.get(cell) || 0) + 1);
    matrix.totals[place[0]] += 1;
  });
  matrix.most = [...matrix.cells.values()].reduce((most, each) => Math.max(most, each), 1);
  $('axes').value = state.axes;
  $('share').setAttribute('aria-pressed', String(Boolean(state.share)));
  for (const id of ['matrix-in', 'matrix-out', 'matrix-all']) $(id).hidden = !zooms(count);
  showPairs(axes);
  hoverMatrix(matrix.cursor);
}

function showPairs(axes) {
  const count = axes.classes.length;
  const pairs = [...matrix.cells].map(([cell, number]) => [Math.floor(cell / count), cell % count, number])
    .filter(([row, column]) => row !== column).sort((a, b) => b[2] - a[2] || a[0] - b[0] || a[1] - b[1]).slice(0, 5);
  $('pairs').hidden = !pairs.length;
  $('pairs-title').textContent = axes.rows === 'truth' ? 'Most confused' : 'Most often apart';
  $('pair-list').replaceChildren(...pairs.map(([row, column, number]) => {
    const [one, other] = [axes.classes[row], axes.classes[column]];
    const on = state.row === keyOf(one) && state.col === keyOf(other);
    return el('li', {}, el('button', { type: 'button', className: 'pair', 'aria-pressed': String(on), onclick: () => pickCell(row, column),
      'aria-label': `${axes.rows} ${one[1]}, ${axes.columns} ${other[1]}: ${countText(number)}` },
    el('span', {}, one[1]), el('i', { 'aria-hidden': 'true' }, '→'), el('span', {}, other[1]), el('b', {}, countText(number))));
  }));
}

function pickCell(row, column) {
  const { classes } = axesNow();
  const wanted = { row: row === null ? '' : keyOf(classes[row]), col: column === null ? '' : keyOf(classes[column]) };
  change(wanted.row === state.row && wanted.col === state.col ? { row: '', col: '' } : wanted);
}

// ---- where things are

function layOutMatrix() {
  const width = $('matrix').clientWidth;
  const side = Math.max(40, Math.min(width - 92, 560));
  return { left: 84, top: 66, side, width: 84 + side + 4, height: 66 + side + 4 };
}

function placeIn(event) {
  const frame = $('matrix').getBoundingClientRect();
  const { left, top, side } = matrix.box || layOutMatrix();
  const cell = side / matrix.span, count = axesNow().classes.length;
  const at = (pixel, start) => Math.min(count - 1, Math.floor(start + pixel / cell));
  const x = event.clientX - frame.left - left, y = event.clientY - frame.top - top;
  if (x >= side || y >= side || (x < 0 && y < 0)) return null;
  return { row: y < 0 ? null : at(y, matrix.row), column: x < 0 ? null : at(x, matrix.column),
    share: [Math.max(0, x) / side, Math.max(0, y) / side] };
}

function zoomMatrix(factor, at = null) {
  const count = axesNow().classes.length;
  const span = Math.min(count, Math.max(LEAST_SPAN, matrix.span * factor));
  const [x, y] = at ? at.share : [0.5, 0.5];
  moveMatrix(matrix.row + y * (matrix.span - span), matrix.column + x * (matrix.span - span), span);
}

function moveMatrix(row, column, span = matrix.span) {
  const within = (value) => Math.max(0, Math.min(axesNow().classes.length - span, value));
  Object.assign(matrix, { span, row: within(row), column: within(column) });
  askMatrix();
}

function dragMatrix(event) {
  if (event.button) return;
  const start = { x: event.clientX, y: event.clientY, row: matrix.row, column: matrix.column };
  const canvas = $('matrix');
  let moved = false;
  const move = (now) => {
    const [x, y] = [now.clientX - start.x, now.clientY - start.y];
    moved = moved || Math.hypot(x, y) > 4;
    const cell = matrix.box.side / matrix.span;
    if (moved) moveMatrix(start.row - y / cell, start.column - x / cell);
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
  const count = axesNow().classes.length;
  const at = matrix.cursor && matrix.cursor.row !== null && matrix.cursor.column !== null ? matrix.cursor
    : { row: Math.floor(matrix.row), column: Math.floor(matrix.column) };
  matrix.keyboard = true;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) {
    const step = matrix.cursor ? moves[event.key] : [0, 0];
    const [row, column] = [at.row + step[0], at.column + step[1]].map((place) => Math.max(0, Math.min(count - 1, place)));
    const into = (start, place) => Math.min(place, Math.max(start, place + 1 - matrix.span));
    moveMatrix(into(matrix.row, row), into(matrix.column, column));
    hoverMatrix({ row, column });
  } else if (event.key === 'Enter' || event.key === ' ') pickCell(at.row, at.column);
  else if (event.key === '+' || event.key === '=') zoomMatrix(0.6);
  else if (event.key === '-') zoomMatrix(1 / 0.6);
  else if (event.key === '0') zoomMatrix(Infinity);
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
    const [one, other] = [place.row, place.column].map((each) => (each === null ? null : axes.classes[each]));
    const images = (count) => `${countText(count)} ${count === 1 ? 'image' : 'images'}`;
    if (one && other) {
      const count = matrix.cells.get(cellAt(place.row, place.column)) || 0;
      const total = matrix.totals[place.row];
      const share = total ? `, ${((100 * count) / total).toFixed(1)} % of the row` : '';
      text = `${axes.rows} ${one[1]}, ${axes.columns} ${other[1]}: ${images(count)}${share}`;
    } else text = one ? `${axes.rows} ${one[1]}: ${images(matrix.totals[place.row])}` : `${axes.columns} ${other[1]}`;
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
  const count = axes.classes.length, cell = box.side / matrix.span;
  const gap = cell > 9 ? 1 : 0;
  const size = Math.max(cell - gap, count > 100 ? 2 : 1.5);
  const digits = cell >= 26;
  paper.textAlign = 'center';
  paper.textBaseline = 'middle';
  for (const [key, number] of matrix.cells) {
    const row = Math.floor(key / count), column = key % count;
    const x = box.left + (column - matrix.column) * cell, y = box.top + (row - matrix.row) * cell;
    if (x + size < box.left || y + size < box.top || x > box.left + box.side || y > box.top + box.side) continue;
    const share = state.share ? number / matrix.totals[row] : Math.sqrt(number / matrix.most);
    const strength = 0.14 + 0.86 * share;
    paper.globalAlpha = strength;
    paper.fillStyle = row === column ? (axes.rows === 'truth' ? look.right : look.accent) : (axes.rows === 'truth' ? look.wrong : look.error);
    paper.fillRect(x, y, size, size);
    if (!digits) continue;
    paper.globalAlpha = 1;
    paper.fillStyle = strength > 0.6 ? look.sheet : look.ink;
    const text = state.share ? `${Math.round(100 * share)}` : countText(number);
    if (paper.measureText(text).width < cell - 4) paper.fillText(text, x + size / 2, y + size / 2 + 0.5);
  }
  paper.globalAlpha = 1;
}

function drawMarks(paper, box, axes, look) {
  const cell = box.side / matrix.span;
  const frame = (row, column, color, width) => {
    const x = column === null ? box.left : box.left + (column - matrix.column) * cell;
    const y = row === null ? box.top : box.top + (row - matrix.row) * cell;
    const w = column === null ? box.side : Math.max(cell, 5), h = row === null ? box.side : Math.max(cell, 5);
    paper.strokeStyle = color;
    paper.lineWidth = width;
    paper.strokeRect(x - 0.5, y - 0.5, w, h);
  };
  if (matrix.cursor) frame(matrix.cursor.row, matrix.cursor.column, look.ink, 1);
  if (state.row || state.col) frame(axes.places.get(state.row) ?? null, axes.places.get(state.col) ?? null, look.accent, 2.5);
}

function drawNames(paper, box, axes, look) {
  const cell = box.side / matrix.span;
  const step = Math.max(1, Math.ceil(13 / cell));
  const write = (text, room) => {
    if (paper.measureText(text).width <= room) return text;
    let short = text;
    while (short.length > 1 && paper.measureText(`${short}…`).width > room) short = short.slice(0, -1);
    return `${short}…`;
  };
  paper.textBaseline = 'middle';
  for (const [start, key, down] of [[matrix.row, 'row', true], [matrix.column, 'column', false]]) {
    for (let place = Math.ceil(start / step - 0.5 / step) * step; place < start + matrix.span && place < axes.classes.length; place += step) {
      const middle = (place + 0.5 - start) * cell;
      if (middle < 0 || middle > box.side) continue;
      const known = axes.classes[place];
      const chosen = keyOf(known) === state[down ? 'row' : 'col'];
      paper.fillStyle = chosen ? look.accent : matrix.cursor && matrix.cursor[key] === place ? look.ink : look.soft;
      paper.save();
      if (down) paper.translate(box.left - 6, box.top + middle);
      else { paper.translate(box.left + middle, box.top - 6); paper.rotate(-Math.PI / 2); }
      paper.textAlign = down ? 'right' : 'left';
      paper.fillText(write(known[1], down ? 60 : 46), 0, 0);
      paper.restore();
    }
  }
  paper.font = `600 11px ${look.font}`;
  paper.fillStyle = look.ink;
  paper.textAlign = 'center';
  paper.fillText(write(capital(axes.columns), box.side), box.left + box.side / 2, 7);
  paper.translate(7, box.top + box.side / 2);
  paper.rotate(-Math.PI / 2);
  paper.fillText(write(capital(axes.rows), box.side), 0, 0);
}
