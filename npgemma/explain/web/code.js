// 11: the code that did it, with the values that its arrays had.
import { facts } from "./data.js";
import { choose, el, labelled, opened } from "./dom.js";
import { change, follow } from "./state.js";
import { t } from "./texts.js";
import { card, hasArray } from "./arrays.js";

const KINDS = ["", "array", "keyword", "string", "comment"];

export function code(name, place) {
  const body = opened(name, place);
  const twin = el("input", { type: "checkbox", "data-twin": "", onchange: () => change({ twin: twin.checked }) });
  body.append(labelled(t("code.twin"), twin), ...facts.functions.map((fn) => new Listing(fn, true).element));
}

// The functions of a section, drawn when they are opened.
export function codeBeside(names) {
  const found = facts.functions.filter((fn) => names.includes(fn.name));
  const details = el("details", { class: "beside" }, el("summary", {}, t("code.beside")));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(...found.map((fn) => new Listing(fn, true).element));
  });
  return details;
}

// A function: its source on one backend or on both, and the card of the array that is looked at.
class Listing {
  constructor(fn, open) {
    Object.assign(this, { fn, path: fn.paths[0] });
    this.card = el("div", { class: "card-place", "aria-live": "polite" }, el("p", { class: "note" }, t(fn.paths.length ? "code.look" : "code.around")));
    this.sides = el("div", { class: "sides" });
    this.element = el(
      "details",
      { class: "function", open },
      el("summary", {}, el("code", {}, `${fn.file}.py · ${fn.name}`)),
      this.calls(),
      fn.doc ? el("details", { class: "doc" }, el("summary", {}, t("code.doc")), el("pre", {}, fn.doc)) : null,
      el("div", { class: "listing" }, this.sides, this.card),
    );
    follow(["twin"], ({ twin }) => this.draw(twin));
  }

  calls() {
    if (this.fn.paths.length < 2) return null;
    const options = this.fn.paths.map((path) => [path, path]);
    const use = (path) => {
      this.path = path;
      this.draw(this.twin);
    };
    return labelled(t("code.call"), choose(options, use));
  }

  draw(twin) {
    this.twin = twin;
    const { reference, twin: other } = this.fn;
    const sides = [this.side("reference", reference, twin && other)];
    if (twin) sides.push(other ? this.side("twin", other, true) : el("p", { class: "note" }, t("code.no-twin")));
    this.sides.replaceChildren(...sides);
  }

  side(which, { line, lines, changed }, marks) {
    const marked = new Set(marks ? changed : []);
    const rows = lines.map((words, i) =>
      el(
        "div",
        { class: marked.has(i) ? "line changed" : "line" },
        el("span", { class: "sign", "aria-label": marked.has(i) ? t("code.differs") : null }, marked.has(i) ? "≠" : " "),
        el("span", {}, words.map(([text, kind]) => this.word(text, kind))),
      ),
    );
    const heading = `${t(which === "reference" ? "code.reference" : "code.twin-side")} · ${which === "reference" ? "npgemma" : "torch_ref"}/${this.fn.file}.py:${line}`;
    return el("div", { class: "side" }, el("p", { class: "note" }, heading), el("div", { class: "source", tabindex: "0", role: "region", "aria-label": heading }, rows));
  }

  // The card of an array; of one that a loop binds again, each of its values can be chosen.
  values(name, rebound) {
    const place = el("div", {}, card(name));
    if (!rebound) return [place];
    const [call, result] = rebound;
    const after = (i) => `${this.path}/${call}.${i}/${result}`;
    const options = [[name, t("code.before-loop")]];
    for (let i = 0; hasArray(after(i)); i++) options.push([after(i), t("code.after-call", { call: `${call}.${i}` })]);
    return [labelled(t("code.value"), choose(options, (chosen) => place.replaceChildren(card(chosen)))), place];
  }

  word(text, kind) {
    const name = `${this.path}/${text}`;
    if (kind !== 1 || !hasArray(name)) return kind > 1 ? el("span", { class: KINDS[kind] }, text) : text;
    const show = () => this.card.replaceChildren(...this.values(name, this.fn.rebound[text]));
    return el("button", { type: "button", class: "array", "data-array": name, onclick: show, onpointerenter: show, onfocus: show }, text);
  }
}
