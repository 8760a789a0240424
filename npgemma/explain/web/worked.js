// One attention head, one MLP channel and one rotary pair, with the numbers of the chosen token and head.
import { facts, prefix, shown, values } from "./data.js";
import { el, labelled } from "./dom.js";
import { canvas, levelsOf, scale, tinted } from "./draw.js";
import { described } from "./mask.js";
import { follow } from "./state.js";
import { number, percent, t } from "./texts.js";

const DISTANCES = [0, 1, 2, 4, 8, 16, 32];

export function workedOut() {
  const body = el("div", {});
  follow(["token", "layer", "head"], ({ token, layer, head }) => {
    const { heads, ...best } = facts.worked[token];
    const chosen = heads[`${layer}.${head}`];
    const given = chosen ?? heads[`${best.layer}.${best.head}`];
    body.replaceChildren(chosen ? "" : el("p", { class: "note" }, t("worked.elsewhere")), ...attended(token, given), channel(given), ...rotation(token, given));
  });
  return el("details", { class: "worked", open: true }, el("summary", {}, t("worked.title")), body);
}

// A step of the calculation that makes a vector: what it is, and its numbers as a strip of colours.
function step(key, numbers, given, under = "") {
  const text = t(`worked.${key}`, { ...given, size: numbers.length, length: number(Math.hypot(...numbers), 3) });
  const ends = [Math.min(...numbers), Math.max(...numbers)].map((x) => number(x, 3));
  return el("li", {}, text, tinted(levelsOf(numbers), 1, numbers.length, text), under, scale("tint", ...ends));
}

// Below a strip of all tokens: where the image ends and the text starts.
function ends(total) {
  const lengths = { image: facts.patches, text: total - facts.patches };
  return el("div", { class: "ends" }, Object.entries(lengths).map(([part, length]) => el("span", { style: `flex-grow: ${length}` }, t(`worked.${part}`))));
}

function attended(token, { layer, head, before, ...packed }) {
  const [query, key, scores, value, mixed, added] = ["query", "key", "scores", "value", "mixed", "added"].map((name) => values(packed[name]));
  const top = Math.max(...scores);
  const total = scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
  const given = { score: number(top, 3), key: described(scores.indexOf(top)), share: percent(1 / total), before: number(before, 3) };
  const weights = scores.map((score) => Math.exp(score - top) / total);
  return [
    el("h3", {}, t("worked.head", { layer, head, token: token + 1, word: shown(facts.answer[token]) })),
    el("ol", {}, step("query", query, given), step("key", key, given), step("scores", scores, given, ends(scores.length)), step("softmax", weights, given, ends(scores.length)), step("value", value, given), step("mixed", mixed, given), step("added", added, given)),
  ];
}

function channel({ layer, channel: place, gate, up, product, raised }) {
  const given = { layer, place, channels: facts.channels, gate: number(gate, 3), up: number(up, 3), product: number(product, 3) };
  const text = `${t("worked.channel", given)} ${t("worked.raised", { words: raised.map(shown).join(", ") })}`;
  return el("div", { class: "mlp" }, el("h3", {}, t("worked.mlp", given)), el("p", {}, text));
}

function turned([first, second], angle) {
  return [first * Math.cos(angle) - second * Math.sin(angle), second * Math.cos(angle) + first * Math.sin(angle)];
}

// The pairs of query and key as arrows; the query's turns with the position that the slider sets.
function rotation(token, { pair, speed, plain, plain_key: packedKey, scores }) {
  const [query, key, all] = [plain, packedKey, scores].map(values);
  const place = all.indexOf(Math.max(...all));
  const product = (distance) => number(turned(query, distance * speed).reduce((sum, x, i) => sum + x * key[i], 0), 3);
  const list = DISTANCES.map((distance) => t("worked.distance", { distance, product: product(distance) })).join(", ");
  const written = (numbers) => Array.from(numbers, (x) => number(x, 3)).join(", ");
  const [dial, told] = [canvas(120, 120, t("worked.dial")), el("p", { "aria-live": "polite" })];
  const slider = el("input", { type: "range", min: 0, max: prefix - 1 + token, value: prefix - 1 + token, "data-position": "" });
  const draw = () => {
    const [position, angle] = [Number(slider.value), slider.value * speed];
    const distance = position - place;
    needles(dial, turned(query, angle), turned(key, place * speed));
    told.textContent = t("worked.rotated", { position, list, distance: number(distance), speed: number(speed, 3), angle: number(angle, 3), pair: pair.join(", "), plain: written(query), turned: written(turned(query, angle)), key: place, product: product(distance) });
  };
  slider.addEventListener("input", draw);
  draw();
  return [el("h3", {}, t("worked.rotary", { key: described(place) })), labelled(t("worked.position"), slider), el("div", { class: "bar" }, dial, told)];
}

// Two arrows in a circle, in the colour of the page's text.
function needles(dial, ...arrows) {
  const context = dial.getContext("2d");
  context.clearRect(0, 0, 120, 120);
  context.strokeStyle = getComputedStyle(document.body).color;
  const paths = arrows.map(([x, y]) => `M60 60 L${60 + (50 * x) / Math.hypot(x, y)} ${60 - (50 * y) / Math.hypot(x, y)}`);
  ["M10 60 a50 50 0 1 0 100 0 a50 50 0 1 0 -100 0", ...paths].forEach((path, i) => {
    context.setLineDash(i === 2 ? [5, 4] : []);
    context.stroke(new Path2D(path));
  });
}
