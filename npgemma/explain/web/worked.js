// One attention head, one MLP channel and one rotary pair, with the numbers of the chosen token.
import { facts, prefix, shown, values } from "./data.js";
import { el, labelled } from "./dom.js";
import { canvas, levelsOf, scale, tinted } from "./draw.js";
import { described } from "./mask.js";
import { follow } from "./state.js";
import { number, percent, t } from "./texts.js";

export function workedOut() {
  const body = el("div", {});
  follow(["token"], ({ token }) => body.replaceChildren(...head(token), ...channel(token), ...rotation(token)));
  return el("details", { class: "worked", open: true }, el("summary", {}, t("worked.title")), body);
}

// A step of the calculation that makes a vector: what it is, and its numbers as a strip of colours.
function step(key, numbers, given = {}) {
  const text = t(`worked.${key}`, { ...given, size: numbers.length, length: number(Math.hypot(...numbers), 3) });
  const ends = [Math.min(...numbers), Math.max(...numbers)].map((x) => number(x, 3));
  return el("li", {}, text, tinted(levelsOf(numbers), 1, numbers.length, text), scale("tint", ...ends));
}

function head(token) {
  const { layer, head, before, ...packed } = facts.worked[token];
  const [query, scores, mixed, added] = ["query", "scores", "mixed", "added"].map((name) => values(packed[name]));
  const top = Math.max(...scores);
  const total = scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
  const given = { score: number(top, 3), key: described(scores.indexOf(top)), share: percent(1 / total), before: number(before, 3) };
  return [
    el("h3", {}, t("worked.head", { layer, head, token: token + 1, word: shown(facts.answer[token]) })),
    el("ol", {}, step("query", query), step("scores", scores, given), step("softmax", scores.map((score) => Math.exp(score - top) / total), given), step("mixed", mixed), step("added", added, given)),
  ];
}

function channel(token) {
  const { layer, channel: place, gate, up, product } = facts.worked[token];
  const given = { layer, place, gate: number(gate, 3), up: number(up, 3), product: number(product, 3) };
  return [el("h3", {}, t("worked.mlp", given)), el("p", {}, t("worked.channel", given))];
}

// The pair as an arrow, which turns with the position that the slider sets.
function rotation(token) {
  const { pair, speed, plain } = facts.worked[token];
  const [first, second] = values(plain);
  const [dial, told] = [canvas(120, 120, t("worked.dial")), el("p", { "aria-live": "polite" })];
  const slider = el("input", { type: "range", min: 0, max: prefix - 1 + token, value: prefix - 1 + token, "data-position": "" });
  const draw = () => {
    const angle = slider.value * speed;
    const turned = [first * Math.cos(angle) - second * Math.sin(angle), second * Math.cos(angle) + first * Math.sin(angle)];
    const context = dial.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, 120, 120);
    context.beginPath();
    context.arc(60, 60, 50, 0, 7);
    context.moveTo(60, 60);
    context.lineTo(...turned.map((x, i) => 60 + ((i ? -50 : 50) * x) / Math.hypot(first, second)));
    context.stroke();
    told.textContent = t("worked.rotated", { position: slider.value, speed: number(speed, 3), angle: number(angle, 3), pair: pair.join(", "), plain: [first, second].map((x) => number(x, 3)).join(", "), turned: turned.map((x) => number(x, 3)).join(", ") });
  };
  slider.addEventListener("input", draw);
  draw();
  return [el("h3", {}, t("worked.rotary")), labelled(t("worked.position"), slider), el("div", { class: "bar" }, dial, told)];
}
