// A picture with a map over it, marks on top, and a pointer and keys that move the point.

import { el } from './elements.js';
import { apply, cellAt, pointsText } from './geometry.js';
import { paintMap } from './paint.js';
import { change, pictureOf, pixelOf, state } from './state.js';

const SVG = 'http://www.w3.org/2000/svg';
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const DENSE = 2;      // pixels of the screen beyond these per pixel of the page are not told apart
const TOKENS = 37;    // steps across a photo whose tokens are not known yet

function svg(tag, className) {
  const node = document.createElementNS(SVG, tag);
  node.setAttribute('class', className);
  return node;
}

export const thumbnailAddress = (photo) => `photos/${photo}/thumbnail`;
export const pictureAddress = (photo, model) => `photos/${photo}/picture?model=${model}`;

export class Stage {
  /**
   * @param {HTMLElement} element Becomes the stage.
   * @param {number} model Whose picture it shows.
   * @param {{name: string, hover?: Function, pick?: Function}} options Its name for a screen reader; what hears of the
   *     pointer's place (a point, or null) and of clicks.
   */
  constructor(element, model, { name, hover = () => {}, pick = () => {} }) {
    Object.assign(this, { element, model, hover, pick, map: null, look: null, grid: null, dragging: false });
    this.picture = el('img', { className: 'picture', alt: '', draggable: false, decoding: 'async' });
    this.canvas = el('canvas', { 'aria-hidden': 'true' });
    this.paper = document.createElement('canvas');
    this.marks = svg('svg', 'marks');
    this.marks.setAttribute('preserveAspectRatio', 'none');
    this.marks.setAttribute('aria-hidden', 'true');
    [this.outline, this.token] = [svg('polygon', 'outline'), svg('polygon', 'token')];
    this.boxes = svg('g', 'boxes');
    this.lines = svg('path', 'lines');
    this.marks.append(this.lines, this.outline, this.boxes, this.token);
    this.dot = el('i', { className: 'dot', hidden: true });
    element.classList.add('stage');
    element.append(this.picture, this.canvas, this.marks, this.dot);
    Object.assign(element, { tabIndex: 0 });
    element.setAttribute('role', 'application');
    element.setAttribute('aria-label', name);
    element.addEventListener('pointerdown', (event) => this.#press(event));
    element.addEventListener('pointermove', (event) => this.#move(event));
    element.addEventListener('pointerleave', () => this.hover(null));
    for (const end of ['pointerup', 'pointercancel']) element.addEventListener(end, () => { this.dragging = false; });
    element.addEventListener('keydown', (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(element);
  }

  /** Shows the picture of the photo and takes away what was drawn on the one before. */
  show() {
    const picture = pictureOf(this.model);
    this.map = null;
    this.grid = null;
    this.element.style.setProperty('--ratio', String(picture.width / picture.height));
    this.marks.setAttribute('viewBox', `0 0 ${picture.width} ${picture.height}`);
    const address = pictureAddress(state.photo.id, this.model);
    if (this.picture.getAttribute('src') !== address) this.picture.src = address;
    this.picture.classList.toggle('small', Math.max(picture.width, picture.height) <= 96);
    this.setToken(null);
    this.setLines('');
    this.draw();
  }

  setMap(map, look) {
    Object.assign(this, { map, look, grid: map });
    this.draw();
  }

  setOutline(points) { this.outline.setAttribute('points', points); }

  setToken(token) { this.token.setAttribute('points', token ? pointsText(token) : ''); }

  /** Draws the lines of a grid of tokens. */
  setLines(path) { if (this.lines.getAttribute('d') !== path) this.lines.setAttribute('d', path); }

  /** Places the dot at the point that all views share. */
  setDot() {
    this.dot.hidden = !state.point;
    if (!state.point) return;
    this.dot.style.left = `${(100 * state.point.x) / state.photo.width}%`;
    this.dot.style.top = `${(100 * state.point.y) / state.photo.height}%`;
  }

  draw() {
    const { canvas, map, look, element } = this;
    const picture = state.photo && pictureOf(this.model);
    const dense = Math.min(DENSE, devicePixelRatio || 1);
    const [wide, tall] = [element.clientWidth, element.clientHeight].map((side) => Math.round(side * dense));
    if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
    const paper = canvas.getContext('2d');
    paper.setTransform(1, 0, 0, 1, 0, 0);
    paper.clearRect(0, 0, wide, tall);
    if (!map || !picture || !wide) return;
    const scale = wide / picture.width;
    const [a, b, c, d] = map.matrix;
    const side = scale * Math.max(map.width * Math.hypot(a, b), map.height * Math.hypot(c, d));
    const smooth = !state.sharp && look.interpolation !== 'nearest';
    paintMap(this.paper, map, look, smooth ? Math.min(Math.round(side), 1600) : 0);
    paper.imageSmoothingEnabled = !state.sharp && this.paper.width > map.width;
    paper.setTransform(scale, 0, 0, tall / picture.height, 0, 0);
    paper.transform(...map.matrix);
    paper.drawImage(this.paper, 0, 0, map.width, map.height);
    canvas.style.opacity = state.opacity ?? (Number.isFinite(look.alpha) ? look.alpha : 1);
  }

  /** The point of the photo below the pointer. */
  #at(event) {
    const frame = this.element.getBoundingClientRect();
    const share = (value, size) => Math.min(1 - 1e-6, Math.max(0, value / size));
    return {
      x: share(event.clientX - frame.left, frame.width) * state.photo.width,
      y: share(event.clientY - frame.top, frame.height) * state.photo.height,
    };
  }

  #press(event) {
    if (event.button || !state.photo) return;
    this.element.setPointerCapture(event.pointerId);
    this.dragging = true;
    const point = this.#at(event);
    change({ point });
    this.pick(point);
  }

  // A mouse sends more moves than frames are drawn: the last of each frame counts.
  #move(event) {
    if (!state.photo) return;
    this.latest = event;
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      if (!state.photo) return;
      const point = this.#at(this.latest);
      if (this.dragging) change({ point });
      this.hover(point);
    });
  }

  #key(event) {
    const way = ARROWS[event.key];
    if (!way || !state.photo || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const { width, height } = state.photo;
    const from = state.point || { x: width / 2, y: height / 2 };
    const step = this.#step().map((length) => length * (event.shiftKey ? 5 : 1));
    const inside = (value, end) => Math.min(end - 1e-6, Math.max(0, value));
    change({ point: { x: inside(from.x + way[0] * step[0], width), y: inside(from.y + way[1] * step[1], height) } });
  }

  /** How far apart two tokens are, in pixels of the photo. */
  #step() {
    const grid = this.grid || Stage.tokens;
    const picture = pictureOf(this.model);
    if (!grid) return [state.photo.width / TOKENS, state.photo.width / TOKENS];
    const [a, b, c, d] = grid.matrix;
    return [(Math.hypot(a, b) * state.photo.width) / picture.width, (Math.hypot(c, d) * state.photo.height) / picture.height];
  }
}

/** The tokens that keys step over where a stage has no map of its own. */
Stage.tokens = null;

/** The cell of a grid under the middle of a point's pixel, where the commands look; null outside. */
export function cellOf(grid, model, point) {
  const { x, y } = pixelOf(model, point);
  return cellAt(grid, x + 0.5, y + 0.5);
}

/** What a map says at a point of the photo: its cell and its value, or null where it says nothing. */
export function valueAt(map, model, point) {
  const cell = cellOf(map, model, point);
  if (!cell) return null;
  const at = (cell.row * map.width + cell.column) * map.channels;
  return { ...cell, values: [...map.values.subarray(at, at + map.channels)] };
}

/** A box of the photo as SVG. */
export function boxOf({ box: [left, top, right, bottom], number }, chosen) {
  const node = svg('rect', chosen ? 'box chosen' : 'box');
  for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) node.setAttribute(name, value);
  node.dataset.number = number;
  return node;
}

export const gridLines = ({ matrix, width, height }) => {
  const lines = [];
  for (let column = 0; column <= width; column += 1) lines.push([apply(matrix, column, 0), apply(matrix, column, height)]);
  for (let row = 0; row <= height; row += 1) lines.push([apply(matrix, 0, row), apply(matrix, width, row)]);
  return lines.map(([from, to]) => `M${from.map((part) => part.toFixed(2))}L${to.map((part) => part.toFixed(2))}`).join('');
};
