// 7: what would break it: known mistakes, and tokens that are hidden from the newest one.
import { facts, row, shown } from "./data.js";
import { bar, el, opened, walkable } from "./dom.js";
import { boxed, canvas, seen } from "./draw.js";
import { follow } from "./state.js";
import { percent, t } from "./texts.js";
import { compared } from "./chips.js";
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
    codeBeside(["prefix_lm", "attend"]),
  );
}

function mistakeCard({ id, says, made_by: by, failed, ids, boxes, same }, whole) {
  return el(
    "article",
    { class: "card", "data-mistake": id },
    el("h4", {}, id),
    el("p", {}, says),
    el("p", { class: "note" }, t("what-if.made-by", { by })),
    boxed(whole, boxes, t("what-if.boxes", { id }), 240),
    el("p", { class: "clip" }, failed ?? compared(ids)),
    el("p", { class: "verdict" }, same ? t("what-if.same") : verdict(ids, boxes)),
  );
}

// What another answer changes: of boxes, where they are; of a text, how many tokens.
function verdict(ids, boxes) {
  const right = facts.objects.filter(({ box }) => box);
  if (!right.length) {
    const all = Math.max(ids.length, facts.answer.length);
    const count = Array.from({ length: all }, (_, i) => ids[i] !== facts.answer[i]).filter(Boolean).length;
    return t("what-if.other", { count, all });
  }
  if (!boxes.length) return t("what-if.no-box");
  const near = (one, other) => one.every((edge, i) => Math.abs(edge - other[i]) <= 0.01 * facts.image.size[i % 2]);
  const kept = right.filter(({ label, box }) => boxes.some((each) => each.label === label && near(each.box, box))).length;
  if (kept === right.length && boxes.length === kept) return t("what-if.same-boxes");
  return t("what-if.other-boxes", { count: right.length, right: kept });
}

// One button for each region: darker where the probability falls further without it.
function hiding() {
  const map = canvas(448, 448, t("what-if.map"));
  const detail = el("p", { class: "sentence", "aria-live": "polite" });
  const list = el("dl", { class: "shares" });
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
    list.replaceChildren(...groupBars(token));
    tell();
  });
  const figure = el("figure", {}, square, el("figcaption", {}, t("what-if.map")));
  return [el("div", { class: "two" }, figure, el("div", {}, detail, list))];
}

// The region without which the probability falls furthest.
function furthest(token) {
  const after = Array.from(row(facts.knockouts.probability, token).subarray(1, 1 + side * side));
  return after.indexOf(Math.min(...after));
}

function drawFalls(map, buttons, token) {
  const all = row(facts.knockouts.probability, token);
  const falls = buttons.map((_, i) => Math.max(0, 1 - all[1 + i] / all[0]));
  const context = map.getContext("2d");
  const size = map.width / side;
  context.drawImage(seen, 0, 0, map.width, map.height);
  falls.forEach((fall, i) => {
    const [x, y] = [(i % side) * size, Math.floor(i / side) * size];
    context.fillStyle = `rgb(120 0 40 / ${(0.85 * fall).toFixed(3)})`;
    context.fillRect(x, y, size, size);
    if (fall >= 0.05) writeFall(context, fall, x + size / 2, y + size / 2);
    buttons[i].setAttribute("aria-label", sentence(token, i));
  });
}

function writeFall(context, fall, x, y) {
  context.font = "600 14px system-ui, sans-serif";
  context.textAlign = "center";
  context.lineWidth = 3;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  const text = `−${Math.round(100 * fall)} %`;
  context.strokeText(text, x, y + 5);
  context.fillText(text, x, y + 5);
}

function sentence(token, region) {
  const all = row(facts.knockouts.probability, token);
  const given = { token: token + 1, word: shown(facts.answer[token]), region, before: percent(all[0]), after: percent(all[1 + region]) };
  return t(side === facts.image.grid ? "what-if.hidden" : "what-if.hidden-region", given);
}

function groupBars(token) {
  const all = row(facts.knockouts.probability, token);
  const named = (group) => {
    const [kind, i] = group.split(".");
    return kind === "object" ? t("what-if.object", { label: facts.objects[i].label }) : t(`what-if.${kind}`);
  };
  const rows = [[t("what-if.nothing"), all[0]], ...groups.map((group, i) => [named(group), all[1 + side * side + i]])];
  return rows.flatMap(([text, share]) => [el("dt", {}, text), el("dd", {}, bar(share, percent(share)))]);
}

// How far the first column, with nothing hidden, is from the run itself.
export function recomputed() {
  return Math.max(...facts.answer.map((_, token) => Math.abs(row(facts.knockouts.probability, token)[0] - probability(token))));
}
