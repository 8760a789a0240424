// 4: who may look at whom.
import { facts, prefix, shown, tokenAt, values } from "./data.js";
import { el, opened, pressed } from "./dom.js";
import { canvas } from "./draw.js";
import { t } from "./texts.js";
import { compared } from "./chips.js";
import { codeBeside } from "./code.js";

const KINDS = ["prefix", "causal"];
// Of a cell that may be looked at, by who looks at what; and of one that may not, a grey that differs from both grounds.
const [image, , prompt, answer] = facts.parts;
const COLOURS = { image, prompt, answer, none: "#d5d7dc" };

export function mask(name, place) {
  const body = opened(name, place);
  const matrices = { prefix: facts.mask, causal: facts.causal.mask };
  const answer = el("div", { class: "answer-under", "aria-live": "polite" });
  const sentence = el("p", { class: "sentence", "aria-live": "polite" });
  let kind = KINDS[0];
  const buttons = KINDS.map((each) =>
    el("button", { type: "button", "data-mask": each, onclick: () => use(each) }, t(`mask.${each}`)),
  );
  const matrix = matrices.prefix ? new Matrix(sentence) : null;
  const use = (each) => {
    kind = each;
    pressed(buttons, KINDS.indexOf(kind));
    answer.replaceChildren(...answerUnder(kind));
    if (matrix && matrices[kind]) matrix.show(values(matrices[kind]), matrices[kind].shape[0], kind);
  };
  body.append(
    el("div", { class: "switch", role: "group", "aria-label": t("mask.switch") }, buttons),
    el(
      "div",
      { class: "two" },
      matrix ? el("figure", {}, labelledMatrix(matrix), legend(), el("figcaption", {}, t("mask.keys"))) : el("p", { class: "note" }, t("mask.too-large")),
      el("div", {}, sentence, answer),
    ),
    codeBeside(["prefix_lm", "sliding_window", "positions"]),
  );
  use(kind);
}

// The parts of the sequence along both sides of the matrix.
function labelledMatrix({ canvas, sides }) {
  return el("div", { class: "labelled-matrix" }, el("span", { class: "corner" }, t("mask.axes")), ...sides, canvas);
}

function legend() {
  return el("ul", { class: "legend" }, Object.entries(COLOURS).map(([part, colour]) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colour;
    return el("li", {}, swatch, t(`mask.colour-${part}`));
  }));
}

function answerUnder(kind) {
  const run = kind === "prefix" ? { text: facts.text, same: true } : facts.causal;
  const words = [el("h3", {}, t(`mask.answer-${kind}`)), el("p", { class: "quoted", "data-answer-under": kind }, run.text || run.failed || t("chips.empty"))];
  if (kind === "causal") words.push(el("p", {}, compared(run)), el("p", { class: "note" }, t(run.same ? "mask.same" : "mask.other")), el("p", {}, t("mask.why")));
  return words;
}

// The matrix, with a cell that pointer and arrow keys move.
class Matrix {
  constructor(sentence) {
    this.sentence = sentence;
    this.canvas = canvas(10, 10, t("mask.matrix"));
    this.canvas.classList.add("matrix");
    this.sides = ["columns", "rows"].map((side) => el("div", { class: `parts ${side}` }));
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    // A patch in the middle and the prompt's first word: what the two masks disagree about.
    [this.query, this.key] = [Math.floor((facts.patches + facts.image.grid) / 2), facts.patches + 1];
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("keydown", (event) => this.walk(event));
  }

  show(cells, total, kind) {
    Object.assign(this, { cells, total, kind, scale: Math.max(2, Math.round(520 / total)) });
    this.canvas.width = this.canvas.height = total * this.scale;
    const lengths = { image: facts.patches, prompt: prefix - facts.patches, answer: total - prefix };
    for (const side of this.sides) {
      side.replaceChildren(...Object.entries(lengths).filter(([, length]) => length > 0).map(([part, length]) => {
        const label = el("span", {}, t(`part.${part === "answer" ? "answer-tokens" : part}`));
        label.style.flexGrow = length;
        return label;
      }));
    }
    this.move(this.query, this.key);
  }

  point(event) {
    const area = this.canvas.getBoundingClientRect();
    const at = (distance) => Math.floor((distance / area.width) * this.total);
    this.move(at(event.clientY - area.top), at(event.clientX - area.left));
  }

  walk(event) {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    this.move(this.query + down, this.key + right);
  }

  move(query, key) {
    const inside = (place) => Math.max(0, Math.min(this.total - 1, place));
    [this.query, this.key] = [inside(query), inside(key)];
    this.draw();
    const allowed = this.cells[this.query * this.total + this.key] === 1;
    const given = { query: described(this.query), key: described(this.key) };
    this.sentence.textContent = t(allowed ? "mask.may" : "mask.may-not", given);
    this.canvas.setAttribute("aria-label", `${t("mask.matrix")} ${this.sentence.textContent}`);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const side = this.scale;
    const gap = side > 8 ? 1 : 0;
    context.fillStyle = COLOURS.none;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < this.cells.length; i++) {
      if (!this.cells[i]) continue;
      const [query, key] = [Math.floor(i / this.total), i % this.total];
      context.fillStyle = query >= prefix || key >= prefix ? COLOURS.answer : key < facts.patches ? COLOURS.image : COLOURS.prompt;
      context.fillRect(key * side, query * side, side - gap, side - gap);
    }
    for (const [colour, width] of [["#fff", 3], ["#000", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(0, this.query * side, this.canvas.width, side);
      context.strokeRect(this.key * side, 0, side, this.canvas.height);
    }
  }
}

export function described(position) {
  const { kind, id, patch } = tokenAt(position);
  return kind === "image" ? t("token.image", { patch }) : t(`token.${kind}`, { position, word: shown(id) });
}
