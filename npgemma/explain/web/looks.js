// Attention: what the position that chose a token looked at.
import { facts, prefix, values } from "./data.js";

// The weights of one head over all tokens so far.
export function weights(token, layer, head) {
  const array = facts.attention.weights[token];
  const [, heads, width] = array.shape;
  const start = (layer * heads + head) * width;
  return values(array).subarray(start, start + width);
}

// Of the image, weights are those of regions: of single patches, unless there are too many.
const regions = facts.attention.grid ** 2;

// Those of the image alone.
export function onImage(token, layer, head) {
  return weights(token, layer, head).subarray(0, regions);
}

function sum(numbers) {
  return numbers.reduce((total, x) => total + x, 0);
}

// How the weights are shared out; they add up to 1.
export function shares(token, layer, head) {
  const all = weights(token, layer, head);
  const bos = regions;
  const answer = regions + prefix - facts.patches;
  return {
    image: sum(all.subarray(0, bos)),
    bos: all[bos],
    prompt: sum(all.subarray(bos + 1, answer)),
    answer: sum(all.subarray(answer)),
  };
}

// The object that an answer token belongs to, if its box is known.
export function objectOf(token) {
  return facts.objects.find(({ tokens: [first, last], patches }) => patches && token >= first && token <= last);
}

// How much of a head's attention falls on an object's box.
export function onObject(token, layer, head, thing) {
  const inside = values(thing.patches);
  return sum(onImage(token, layer, head).map((weight, i) => weight * inside[i]));
}

// The part of the image that the box covers: a head that looks everywhere alike has this share on the object.
export function areaOf(thing) {
  return sum(values(thing.patches)) / regions;
}
