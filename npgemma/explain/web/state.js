// What the reader has chosen, which several sections show.

const chosen = { token: 0, layer: 0, head: 0, twin: false };
const listeners = [];

export function state() {
  return chosen;
}

// Call `draw` now, and again whenever one of the names changes.
export function follow(names, draw) {
  listeners.push([names, draw]);
  draw(chosen);
}

export function change(values) {
  const changed = Object.keys(values).filter((name) => chosen[name] !== values[name]);
  Object.assign(chosen, values);
  for (const [names, draw] of listeners) if (names.some((name) => changed.includes(name))) draw(chosen);
}
