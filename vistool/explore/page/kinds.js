// The six kinds of views: what can be chosen, what each follows, and what it asks of the server.

import { cornersOf, invert } from './geometry.js';
import { cellOf, gridLines } from './stage.js';
import { known, state, targetNow, targetOf } from './state.js';
import { methodOf, pointOf } from './view.js';

const SHOWN = 12;  // channels in the strip of feature maps
const LENS = 3;    // rows of tokens that are shown enlarged

/** The class as a parameter: none where the first model's own prediction is explained, a reason where there is none. */
function classFor(number) {
  if (!number && !state.target) return {};
  const target = targetOf(number);
  return target === undefined ? `${known.models[number].name} has no class '${targetNow().name}'.` : { target };
}

function askAttention(view, offer, number) {
  const { head, from } = view.settings, method = methodOf(view, offer);
  const asked = { method: method.name };
  if (method.name === 'raw') Object.assign(asked, { layer: view.layerOf(offer), head });
  if (method.query) Object.assign(asked, from === 'point' ? pointOf(number) : { query: from });
  if (!method.needs_target) return asked;
  const given = classFor(number);
  return typeof given === 'string' ? given : { ...asked, ...given };
}

// How much of the area of two boxes together lies in both.
function overlap(one, other) {
  const side = (low, high) => Math.max(0, Math.min(one[high], other[high]) - Math.max(one[low], other[low]));
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  const common = side(0, 2) * side(1, 3);
  return common / (area(one) + area(other) - common);
}

/** The chosen object of the first model as another model numbers it: of the same class, in about the same place. */
function objectOf(number) {
  if (number === 0) return state.instance;
  const chosen = state.described[0].instances.find((one) => one.number === state.instance);
  const alike = (state.described[number].instances || []).filter((one) => one.name === chosen.name && one.box && chosen.box)
    .map((one) => [overlap(one.box, chosen.box), one.number]).sort((one, other) => other[0] - one[0]);
  return alike.length && alike[0][0] >= 0.5 ? alike[0][1] : null;
}

function askCam(view, offer, number) {
  const method = methodOf(view, offer).name, layer = view.layerOf(offer);
  if (state.instance !== null) {
    const instance = objectOf(number);
    return instance === null ? `${known.models[number].name} does not find this object.` : { method, layer, instance };
  }
  // A segmenter explains the region of a class, or what it finds at the point.
  if (!state.target && known.models[number].kind === 'segmenter') return { method, layer, ...pointOf(number) };
  const given = classFor(number);
  return typeof given === 'string' ? given : { method, layer, ...given };
}

// The token and three columns of its neighbors on either side, as the network's pixels lie in the photo.
function drawLens({ lens, stage }, grid, cell) {
  const dense = Math.min(2, devicePixelRatio || 1), wide = Math.round(lens.clientWidth * dense), tall = Math.round(wide / 3);
  if (!wide || !stage.picture.naturalWidth) return;
  if (lens.width !== wide || lens.height !== tall) Object.assign(lens, { width: wide, height: tall });
  const paper = lens.getContext('2d'), size = tall / LENS;
  paper.setTransform(1, 0, 0, 1, 0, 0);
  paper.clearRect(0, 0, wide, tall);
  if (!cell) return;
  // From the picture to cells, and from cells to the lens.
  paper.setTransform(size, 0, 0, size, wide / 2 - (cell.column + 0.5) * size, tall / 2 - (cell.row + 0.5) * size);
  paper.save();
  paper.imageSmoothingEnabled = false;
  paper.transform(...invert(grid.matrix));
  paper.drawImage(stage.picture, 0, 0);
  paper.restore();
  paper.lineWidth = (1.5 * dense) / size;
  paper.strokeStyle = '#000a';
  paper.strokeRect(cell.column - paper.lineWidth, cell.row - paper.lineWidth, 1 + 2 * paper.lineWidth, 1 + 2 * paper.lineWidth);
  paper.strokeStyle = '#fff';
  paper.strokeRect(cell.column, cell.row, 1, 1);
}

// The token below the pointer is found here: a patch needs no network.
function tellPatch(pane, point) {
  const offer = pane.view.offer(pane.model);
  if (!offer || !offer.matrix || !point) return null;
  const grid = { matrix: offer.matrix, height: offer.grid[0], width: offer.grid[1] };
  const cell = cellOf(grid, pane.model, point);
  pane.stage.grid = grid;
  pane.stage.setToken(cell && cornersOf(grid, cell));
  pane.stage.setLines(gridLines(grid));
  drawLens(pane, grid, cell);
  return cell ? [`token ${cell.row * grid.width + cell.column}`, `row ${cell.row}, column ${cell.column}`] : ['outside of what the network sees'];
}

export const KINDS = [
  { key: 'attention', title: 'Attention', hint: 'where the point looks', controls: ['method', 'from', 'layer', 'head'],
    settings: { method: 'raw', layer: null, head: 'mean', from: 'point' },
    follows: ['point', 'target'], request: askAttention, layered: (view) => view.settings.method === 'raw',
    unmoved: (view) => view.settings.from !== 'point' || !methodOf(view, view.lead).query },
  { key: 'cam', title: 'CAM', hint: 'what speaks for the class', controls: ['target', 'method', 'layer'],
    unmarked: true, defaultFirst: true,
    settings: { method: null, layer: null }, follows: ['point', 'target', 'instance'], request: askCam,
    unmoved: () => known.models.every(({ kind }) => kind !== 'segmenter') },
  { key: 'similarity', title: 'Similarity', hint: 'what is like the point', controls: ['layer'],
    settings: { layer: null }, follows: ['point'],
    request: (view, offer, number) => ({ layer: view.layerOf(offer), ...pointOf(number) }) },
  { key: 'pca', title: 'PCA', hint: 'three principal components as colors', controls: ['layer'],
    settings: { layer: null }, follows: [], request: (view, offer) => ({ layer: view.layerOf(offer) }) },
  { key: 'features', title: 'Feature maps', hint: 'channels that are strongest at the point', controls: ['layer', 'channel'], strip: true,
    settings: { layer: null, channel: null }, follows: ['point'],
    request: (view, offer, number) => ({ layer: view.layerOf(offer), ...(view.settings.channel === null
      ? { ...pointOf(number), count: SHOWN } : { channel: view.settings.channel }) }) },
  { key: 'patches', title: 'Patches', hint: 'the token below the pointer', controls: ['count'], lens: true,
    settings: {}, follows: ['point'], tell: tellPatch, request: (view, offer, number) => pointOf(number) },
];
