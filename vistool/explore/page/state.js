// What the page shows: one photo, one point in it, one class or object. Views listen and ask the server.

/** Known once the server has said what it holds. */
export const known = { models: [], looks: {}, limits: null };

export const state = {
  photo: null,      // { id, name, width, height }
  described: [],    // for each model what the server says of the photo, or null
  point: null,      // { x, y } in pixels of the photo
  target: null,     // { model, id, name }: a class as one of the models numbers it; null: what the first predicts
  instance: null,   // the number of an object that a detector found
  opacity: null,    // 0 to 1; null: as each view's figures
  sharp: false,     // one square for each value
};

const listeners = new Set();

/** Calls `listener` with the names of what changed. */
export const listen = (listener) => listeners.add(listener);

export function change(values) {
  const changed = new Set(Object.keys(values).filter((name) => state[name] !== values[name]));
  if (!changed.size) return;
  Object.assign(state, values);
  for (const listener of listeners) listener(changed);
}

/** The size of the picture that a model's views are drawn on. */
export function pictureOf(number) {
  const described = state.described[number];
  return described && described.picture === 'network' ? described : state.photo;
}

/** A point in whole pixels of a model's picture, as the commands take it. */
export function pixelOf(number, point = state.point) {
  const picture = pictureOf(number);
  if (!point || !picture) return null;
  const whole = (value, own, size) => Math.max(0, Math.min(size - 1, Math.floor((value / own) * size)));
  return { x: whole(point.x, state.photo.width, picture.width), y: whole(point.y, state.photo.height, picture.height) };
}

/** A class of a model as scores name it: its first synonym, else its number. */
export const classNameOf = (number, id) => known.models[number].classes?.[id]?.split(',')[0].trim() || `class ${id}`;

/** The class that is explained, as one of the models numbers it; null where none was chosen and the first predicts none. */
export function targetNow() {
  const predicted = state.described[0]?.scores?.[0];
  return state.target || (predicted ? { model: 0, id: predicted.id, name: predicted.name } : null);
}

/** The number of that class in a model: the one of the same name; undefined where it has none of that name. */
export function targetOf(number) {
  const target = targetNow();
  if (!target) return null;
  const { classes } = known.models[number];
  if (target.model === number || !classes || !known.models[target.model].classes) return target.id;
  const isCalled = (names) => names.split(',').some((name) => name.trim() === target.name);
  if (isCalled(classes[target.id] ?? '')) return target.id;
  const place = classes.findIndex(isCalled);
  return place < 0 ? undefined : place;
}
