// 12: the code that did it, with the values that its arrays had.
import { facts, shown } from "./data.js";
import { choose, el, labelled, opened } from "./dom.js";
import { change, follow } from "./state.js";
import { t } from "./texts.js";
import { card, hasArray } from "./arrays.js";

const KINDS = ["", "array", "keyword", "string", "comment"];

export function code(name, place) {
  const body = opened(name, place);
  const twin = el("input", { type: "checkbox", "data-twin": "", onchange: () => change({ twin: twin.checked }) });
  body.append(labelled(t("code.twin"), twin), ...facts.functions.map((fn, i) => new Listing(fn, i === 0).element));
}

// A path of calls in words: "reading the prompt, layer 0".
function callOf(path) {
  const [, kind, step] = path.match(/^(prefill|step|)[^.]*\.(\d+)/);
  const [layer, time] = [path.match(/block\.(\d+)/)?.[1], path.match(/\/(?!block)\w+\.([1-9]\d*)$/)?.[1]];
  const words = [t(`code.path-${kind || "image"}`, { token: Number(step) + 1, word: shown(facts.answer[step]) })];
  return words.concat(layer ? t("code.path-block", { layer }) : [], time ? t("code.path-again", { time: Number(time) + 1 }) : []).join(", ");
}

// The functions of a section, drawn when they are opened: with the arrays of their first call, or of one whose path
// begins as `within()` says at that time.
export function codeBeside(names, within = () => "") {
  const found = facts.functions.filter((fn) => names.includes(fn.name));
  const summary = el("summary", {}, t("code.beside"));
  const details = el("details", { class: "beside" }, summary);
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    const calls = found.map((fn) => [fn, fn.paths.find((path) => path.startsWith(within()))]);
    details.replaceChildren(summary, ...calls.filter(([fn, path]) => path || !fn.paths.length).map(([fn, path]) => new Listing(fn, true, path).element));
  });
  return details;
}

// A function: its source on one backend or on both, and the card of the array that is looked at.
class Listing {
  constructor(fn, open, path = fn.paths[0]) {
    Object.assign(this, { fn, path });
    this.card = el("div", { class: "card-place", "aria-live": "polite" }, el("p", { class: "note" }, t(fn.paths.length ? "code.look" : "code.around")));
    this.lines = el("div", { class: "source" });
    this.element = el(
      "details",
      { class: "function", open },
      el("summary", {}, el("code", {}, `${fn.file}.py · ${fn.name}`)),
      this.calls(),
      fn.doc ? el("details", { class: "doc" }, el("summary", {}, t("code.doc")), el("pre", {}, fn.doc)) : null,
      el("div", { class: "listing" }, this.lines, this.card),
    );
    follow(["twin"], ({ twin }) => this.draw(twin));
  }

  calls() {
    if (this.fn.paths.length < 2) return null;
    const options = this.fn.paths.map((path) => [path, callOf(path)]);
    const select = choose(options, (path) => ((this.path = path), this.draw(this.twin)));
    select.value = this.path;
    return labelled(t("code.call"), select);
  }

  draw(twin) {
    this.twin = twin;
    const { reference, twin: other } = this.fn;
    const rows = twin && other ? this.pairs(reference, other) : reference.lines.map((words) => [this.line(words)]);
    const headings = [["reference", "npgemma", reference], ...(twin && other ? [["twin-side", "torch_ref", other]] : [])];
    const heads = headings.map(([side, folder, { line }]) => el("p", { class: "note" }, `${t(`code.${side}`)} · ${folder}/${this.fn.file}.py:${line}`));
    this.lines.replaceChildren(
      twin && !other ? el("p", { class: "note" }, t("code.no-twin")) : "",
      ...[heads, ...rows].map((sides) => el("div", { class: sides.length > 1 ? "pair" : "single" }, sides)),
    );
  }

  // Lines of both sides next to each other: those that differ are marked, equal ones face each other.
  pairs(reference, twin) {
    const rows = [];
    for (let [i, j] = [0, 0]; i < reference.lines.length || j < twin.lines.length; ) {
      const [ours, theirs] = [reference.changed.includes(i), twin.changed.includes(j)];
      const equal = !ours && !theirs;
      rows.push([
        ours || equal ? this.line(reference.lines[i++], ours) : el("div", {}),
        theirs || equal ? this.line(twin.lines[j++], theirs) : el("div", {}),
      ]);
    }
    return rows;
  }

  line(words, marked = false) {
    return el(
      "div",
      { class: marked ? "line changed" : "line" },
      el("span", { class: "sign", "aria-label": marked ? t("code.differs") : null }, marked ? "≠" : " "),
      el("span", {}, words.map(([text, kind]) => this.word(text, kind))),
    );
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
