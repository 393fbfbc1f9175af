// Matrices [a, b, c, d, e, f] as a canvas takes them: x' = a·x + c·y + e, y' = b·x + d·y + f.

export function apply([a, b, c, d, e, f], x, y) {
  return [a * x + c * y + e, b * x + d * y + f];
}

export function invert([a, b, c, d, e, f]) {
  const scale = a * d - b * c;
  return [d / scale, -b / scale, -c / scale, a / scale, (c * f - d * e) / scale, (b * e - a * f) / scale];
}

/** The cell of a grid (matrix: cells to pixels of the picture) that a point of the picture lies in; null outside. */
export function cellAt({ matrix, width, height }, x, y) {
  const [column, row] = apply(invert(matrix), x, y).map(Math.floor);
  return column >= 0 && row >= 0 && column < width && row < height ? { row, column } : null;
}

/** The corners of a cell in pixels of the picture. */
export function cornersOf({ matrix }, { row, column }) {
  return [[0, 0], [1, 0], [1, 1], [0, 1]].map(([right, below]) => apply(matrix, column + right, row + below));
}

export const pointsText = (points) => points.map((point) => point.map((part) => +part.toFixed(2)).join(',')).join(' ');

/** A part of the picture as SVG points, or nothing where it is (but for rounding) the whole picture. */
export function partOf(outline, { width, height }) {
  if (!outline || !outline.length) return '';
  const atEdge = (value, end) => value < 1.5 || value > end - 1.5;
  return outline.every(([x, y]) => atEdge(x, width) && atEdge(y, height)) ? '' : pointsText(outline);
}
