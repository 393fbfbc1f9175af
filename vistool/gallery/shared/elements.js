// Elements are made of properties and text alone: nothing in the data is read as markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes('-') && name !== 'role') node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ''));
  return node;
}

export const PATHS = {
  right: 'M3 8.5l3.2 3.2L13 4.5', wrong: 'M4 4l8 8M12 4l-8 8', error: 'M8 3v6M8 12.4v.1',
  close: 'M4 4l8 8M12 4l-8 8', previous: 'M10 3L5 8l5 5', next: 'M6 3l5 5-5 5',
  asc: 'M8 13V3M4 7l4-4 4 4', desc: 'M8 3v10M4 9l4 4 4-4',
  copy: 'M5.5 5.5V3h7.5v7.5h-2.5M3 5.5h7.5V13H3z', larger: 'M9.5 3H13v3.5M13 3L9 7M6.5 13H3V9.5M3 13l4-4',
};

export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', `icon ${name}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

// As in the pictures: a score that is not zero is never written as zero, and a value has at least three digits.
export function scoreText(score, isValue) {
  if (score === null || score === undefined) return '';
  if (isValue) return score.toLocaleString('en', { maximumSignificantDigits: Math.abs(score) < 1000 ? 3 : 9 });
  if (score === 0 || Math.abs(score) >= 0.005) return score.toFixed(2);
  return score > 0 ? '<0.01' : String(+score.toPrecision(3));
}
export const signed = (value) => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`;
export const countText = (count) => count.toLocaleString('en');

// At most once per frame.
export function soon(action) {
  let asked = 0;
  return (...given) => { cancelAnimationFrame(asked); asked = requestAnimationFrame(() => action(...given)); };
}

// A canvas of so many pixels of the page, sharp on dense screens.
export function sized(canvas, width, height, dense = Math.min(2, devicePixelRatio || 1)) {
  const [w, h] = [Math.round(width * dense), Math.round(height * dense)];
  canvas.style.height = `${height}px`;
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const paper = canvas.getContext('2d');
  paper.setTransform(dense, 0, 0, dense, 0, 0);
  paper.clearRect(0, 0, width, height);
  return paper;
}

// The colors of the style sheet, for what is drawn.
export function colors() {
  const style = getComputedStyle(document.documentElement);
  const names = ['ink', 'soft', 'sheet', 'well', 'accent', 'right', 'wrong', 'other', 'error', 'map', 'dim'];
  return { ...Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])),
    dark: matchMedia('(prefers-color-scheme: dark)').matches, font: getComputedStyle(document.body).fontFamily };
}
