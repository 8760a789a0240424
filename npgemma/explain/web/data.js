// What the page was given: facts as JSON, and arrays in one block of bytes.

function content(id) {
  return document.getElementById(id).textContent;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

export const facts = JSON.parse(content("facts"));
export const dictionary = JSON.parse(content("texts"));
const block = bytesOf(content("data"));
const TYPES = { Float32Array, Float64Array, Int32Array, Uint8Array };

// The values of an array of the facts, as a view of the block.
export function values({ type, offset, shape }) {
  return new TYPES[type](block, offset, shape.reduce((size, side) => size * side, 1));
}

// One row of an array of two axes.
export function row(array, i) {
  const width = array.shape[1];
  return values(array).subarray(i * width, (i + 1) * width);
}

export const tokens = facts.answer.length;
export const prefix = facts.patches + facts.prompt_ids.length;

// The call whose logits an answer token was chosen from.
export function callOf(token) {
  return token === 0 ? "prefill.0" : `step.${token - 1}`;
}

export function nameOf(id) {
  return facts.names[id] ?? `#${id}`;
}

// A token as people read it: spaces and newlines can be seen.
export function shown(id) {
  return nameOf(id).replace(/ /g, "␣").replace(/\n/g, "↵").replace(/^<0x0A>$/, "↵");
}

// The sequence: image tokens, prompt, answer. The last token of an answer is never read by the model.
export function tokenAt(position) {
  if (position < facts.patches) return { kind: "image", patch: position };
  const place = position - facts.patches;
  if (place === 0) return { kind: "bos", id: facts.prompt_ids[0] };
  if (position < prefix) return { kind: "prompt", id: facts.prompt_ids[place] };
  return { kind: "answer", id: facts.answer[position - prefix] };
}
