// 7: what would break it: known mistakes, and tokens that are hidden from the newest one.
import { callOf, facts, row, shown } from "./data.js";
import { bar, el, opened, walkable } from "./dom.js";
import { boxed, canvas, heat, scale } from "./draw.js";
import { follow, state } from "./state.js";
import { number, percent, t } from "./texts.js";
import { compared } from "./chips.js";
import { objectOf, onObject } from "./looks.js";
import { probability } from "./sampling.js";
import { codeBeside } from "./code.js";

const { side, groups } = facts.knockouts;

export function whatIf(name, place, whole) {
  const body = opened(name, place);
  body.append(
    el("h3", {}, t("what-if.mistakes")),
    el("div", { class: "cards" }, facts.mistakes.map((mistake) => mistakeCard(mistake, whole))),
    el("h3", {}, t("what-if.knockouts")),
    el("p", {}, t("what-if.knockouts-intro")),
    ...hiding(),
    codeBeside(["prefix_lm", "attend"], () => `${callOf(state().token)}/`),
  );
}

function mistakeCard({ id, says, made_by: by, failed, boxes, same, ...answer }, whole) {
  return el(
    "article",
    { class: "card", "data-mistake": id },
    el("h4", {}, id),
    el("p", {}, says),
    el("p", {}, t(`what-if.because.${id}`)),
    el("p", { class: "note" }, t("what-if.made-by", { by })),
    boxed(whole, boxes, t("what-if.boxes", { id }), 240),
    el("p", { class: "clip" }, failed ?? compared(answer)),
    el("p", { class: "verdict" }, same ? t("what-if.same") : verdict(answer, boxes)),
  );
}

// What another answer changes: of boxes, what became of each; of a text, how many tokens.
function verdict({ ids, changed }, boxes) {
  const right = facts.objects.filter(({ box }) => box);
  if (!right.length) {
    const all = Math.max(ids.length, facts.answer.length);
    return t("what-if.other", { count: all - (ids.length - changed.length), all });
  }
  if (!boxes.length) return t("what-if.no-box");
  const kinds = right.map((object) => fate(object, boxes));
  const extra = boxes.length - right.length;
  if (extra <= 0 && kinds.every(([kind]) => kind === "in-place")) return t("what-if.same-boxes");
  const told = kinds.map(([, text]) => text).concat(extra > 0 ? t("what-if.extra", { count: extra }) : []);
  return t("what-if.other-boxes", { told: told.join("; ") });
}

// What became of an object among another answer's boxes.
function fate({ label, box }, boxes) {
  const near = boxes.filter((one) => one.box.every((edge, i) => Math.abs(edge - box[i]) <= 0.01 * facts.image.size[i % 2]));
  const called = (name) => name || t("boxes.no-name");
  const tell = (kind, name) => [kind, t(`what-if.${kind}`, { label: called(label), name: called(name) })];
  if (near.some((one) => one.label === label)) return tell("in-place");
  if (near.length) return tell("renamed", near[0].label);
  return tell(boxes.some((one) => one.label === label) ? "moved" : "missing");
}

// One button for each region: darker where the probability falls further without it.
function hiding() {
  const map = canvas(448, 448, t("what-if.label"));
  const detail = el("p", { class: "sentence", "aria-live": "polite" });
  const list = el("dl", { class: "shares" });
  const [range, told, apart] = [el("div", {}), el("figcaption", {}), el("p", { class: "disagree" })];
  let [token, region] = [0, 0];
  const buttons = Array.from({ length: side * side }, (_, i) => el("button", { type: "button", "data-knockout": i }));
  const tell = () => (detail.textContent = sentence(token, region));
  buttons.forEach((button, i) => {
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => ((region = i), tell()));
  });
  walkable(buttons, side);
  const square = el("div", { class: "patches" }, map, el("div", { class: "grid" }, buttons));
  square.style.setProperty("--columns", side);
  follow(["token"], (state) => {
    token = state.token;
    region = furthest(token);
    drawFalls(map, buttons, token);
    const { most } = fallsOf(token);
    range.replaceChildren(scale("heat", ...[0, -Math.max(0, most)].map((fall) => t("what-if.points", { fall: number(100 * fall, 2) }))));
    told.textContent = t(most < 0.01 ? "what-if.no-fall" : "what-if.map");
    list.replaceChildren(...groupBars(token));
    apart.textContent = disagreement(token);
    tell();
  });
  const figure = el("figure", {}, square, range, told);
  return [el("div", { class: "two" }, figure, el("div", {}, detail, list, apart))];
}

// The region without which the probability falls furthest.
function furthest(token) {
  const { falls, most } = fallsOf(token);
  return falls.indexOf(most);
}

// How far the probability falls without each region; `most` is the largest, which is full orange.
function fallsOf(token) {
  const all = row(facts.knockouts.probability, token);
  const falls = Array.from({ length: side * side }, (_, i) => all[0] - all[1 + i]);
  return { falls, most: Math.max(...falls) };
}

function drawFalls(map, buttons, token) {
  const { falls, most } = fallsOf(token);
  heat(map, falls.map((fall) => (most > 0 ? fall / most : 0)), side);
  buttons.forEach((button, i) => button.setAttribute("aria-label", sentence(token, i)));
}

function sentence(token, region) {
  const all = row(facts.knockouts.probability, token);
  const given = { token: token + 1, word: shown(facts.answer[token]), region, before: percent(all[0], 4), after: percent(all[1 + region], 4) };
  return t(side === facts.image.grid ? "what-if.hidden" : "what-if.hidden-region", given);
}

// That a token would be more probable without the object which its head looks at.
function disagreement(token) {
  const thing = objectOf(token);
  const all = row(facts.knockouts.probability, token);
  const after = all[1 + side * side + groups.indexOf(`object.${facts.objects.indexOf(thing)}`)];
  if (!thing || after <= all[0]) return "";
  const { layer, head } = facts.worked[token];
  return t("what-if.disagree", { layer, head, label: thing.label, share: percent(onObject(token, layer, head, thing)), before: percent(all[0], 4), after: percent(after, 4) });
}

function groupBars(token) {
  const all = row(facts.knockouts.probability, token);
  const named = (group) => {
    const [kind, i] = group.split(".");
    return kind === "object" ? t("what-if.object", { label: facts.objects[i].label }) : t(`what-if.${kind}`);
  };
  const rows = [[t("what-if.nothing"), all[0]], ...groups.map((group, i) => [named(group), all[1 + side * side + i]])];
  // The newest token is never hidden: of the first two, there is no other.
  if (token < 2) rows.splice(1 + groups.indexOf("answer"), 1);
  return rows.flatMap(([text, share]) => [el("dt", {}, text), el("dd", {}, bar(share, percent(share)))]);
}

// How far the first column, with nothing hidden, is from the run itself.
export function recomputed() {
  return Math.max(...facts.answer.map((_, token) => Math.abs(row(facts.knockouts.probability, token)[0] - probability(token))));
}
