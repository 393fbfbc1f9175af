// Values to colors, as the figures do it: 256 equal bins of the same tables; values are interpolated, never colors.

import { ask } from './server.js';

const tables = new Map();
const MISSING = 0xffff00ff;  // magenta, as in the figures: not finite

/** Loads the color tables of the figures, in the order of `names`; an entry is a pixel as an image stores it (ABGR). */
export async function loadTables(names) {
  const bytes = new Uint8Array(await (await ask('page/colormaps.bin')).arrayBuffer());
  names.forEach((name, number) => {
    const table = new Uint32Array(256);
    for (let place = 0; place < 256; place += 1) {
      const at = 3 * (256 * number + place);
      table[place] = (0xff000000 | (bytes[at + 2] << 16) | (bytes[at + 1] << 8) | bytes[at]) >>> 0;
    }
    tables.set(name, table);
  });
}

const SIGNED = 'RdBu_r';
export const tableOf = (map, look) => tables.get(map.diverging ? SIGNED : look.colormap) || tables.values().next().value;

/** The values at the ends of a map's color scale. */
export function scaleOf(map) {
  const [low, high] = map.limits;
  if (!map.diverging) return [low, high];
  const bound = Math.max(-low, high);
  return [-bound, bound];
}

/** A bin is found in single precision, as numpy finds it. */
function bins(map, values, table, pixels) {
  const [low, high] = scaleOf(map).map(Math.fround);
  const span = Math.fround(high - low);
  for (let at = 0; at < values.length; at += 1) {
    const share = span > 0 ? Math.fround(Math.fround(values[at] - low) / span) : 0;
    const bin = share * 256;
    pixels[at] = Number.isFinite(values[at]) ? table[bin < 0 ? 0 : bin > 255 ? 255 : Math.floor(bin)] : MISSING;
  }
}

function mixed(values, pixels) {
  const byte = (value) => Math.round(255 * Math.min(1, Math.max(0, value)));
  for (let at = 0; at < pixels.length; at += 1) {
    const [red, green, blue] = [values[3 * at], values[3 * at + 1], values[3 * at + 2]];
    const whole = Number.isFinite(red + green + blue);
    pixels[at] = whole ? (0xff000000 | (byte(blue) << 16) | (byte(green) << 8) | byte(red)) >>> 0 : MISSING;
  }
}

// Along one axis: for each wanted pixel the two of the map that it lies between, and the weight of the second.
function taps(count, wanted) {
  const first = new Int32Array(wanted), second = new Int32Array(wanted), weight = new Float32Array(wanted);
  for (let place = 0; place < wanted; place += 1) {
    const source = Math.min(count - 1, Math.max(0, ((place + 0.5) * count) / wanted - 0.5));
    first[place] = Math.floor(source);
    second[place] = Math.min(count - 1, first[place] + 1);
    weight[place] = source - first[place];
  }
  return { first, second, weight };
}

/** A map of one channel at another size: bilinear, aligned at the centers of pixels. */
export function enlarge({ values, width, height }, wide, tall) {
  const across = taps(width, wide), down = taps(height, tall);
  const found = new Float32Array(wide * tall);
  for (let y = 0, at = 0; y < tall; y += 1) {
    const top = down.first[y] * width, bottom = down.second[y] * width, below = down.weight[y];
    for (let x = 0; x < wide; x += 1, at += 1) {
      const left = across.first[x], right = across.second[x], beside = across.weight[x];
      const above = values[top + left] + beside * (values[top + right] - values[top + left]);
      const under = values[bottom + left] + beside * (values[bottom + right] - values[bottom + left]);
      found[at] = above + below * (under - above);
    }
  }
  return found;
}

/**
 * Paints a map on a canvas of its own grid, or enlarged where it is to be smooth.
 *
 * @param {HTMLCanvasElement} canvas What is painted on; its size is set.
 * @param {{values: Float32Array, width: number, height: number, channels: number}} map One map of an answer.
 * @param {{colormap: string}} look The color map of the view.
 * @param {number} side The longest side in pixels of a smooth map; 0 for one pixel per value.
 */
export function paintMap(canvas, map, look, side = 0) {
  const grow = side / Math.max(map.width, map.height);
  const smooth = map.channels === 1 && grow > 1 && map.values.every(Number.isFinite);
  const [wide, tall] = smooth ? [Math.round(map.width * grow), Math.round(map.height * grow)] : [map.width, map.height];
  if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
  const image = new ImageData(wide, tall), pixels = new Uint32Array(image.data.buffer);
  if (map.channels === 3) mixed(map.values, pixels);
  else bins(map, smooth ? enlarge(map, wide, tall) : map.values, tableOf(map, look), pixels);
  canvas.getContext('2d').putImageData(image, 0, 0);
}

/** The colors of a scale from its low end to its high end. */
export function paintBar(canvas, map, look) {
  if (canvas.width !== 256) Object.assign(canvas, { width: 256, height: 1 });
  const image = new ImageData(256, 1);
  new Uint32Array(image.data.buffer).set(tableOf(map, look));
  canvas.getContext('2d').putImageData(image, 0, 0);
}
