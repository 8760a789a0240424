// 13: how it was checked: against the twin, and the page against itself.
import { facts, row, values } from "./data.js";
import { bar, el, opened, table } from "./dom.js";
import { number, percent, t } from "./texts.js";
import { ranked } from "./sampling.js";
import { weights } from "./looks.js";
import { recomputed } from "./what-if.js";
import { edges } from "./boxes.js";

export function checks(name, place) {
  const body = opened(name, place);
  body.append(el("h3", {}, t("checks.parity")), ...parity(), el("h3", {}, t("checks.page")), own());
}

function parity() {
  const report = facts.parity;
  if (!report) return [el("p", { class: "note" }, t("checks.no-torch"))];
  const rows = report.places.map((each) => [
    el("code", {}, each.place.replaceAll("/", "/\u200b")),
    each.arrays,
    number(each.relative_l2 ?? Infinity, 3),
    bar((each.percent_of_bound ?? Infinity) / 100, percent((each.percent_of_bound ?? Infinity) / 100)),
  ]);
  const heads = ["place", "arrays", "apart", "bound"].map((head) => t(`checks.head-${head}`));
  const given = { arrays: report.arrays, backend: report.backend, bound: number(report.bound, 3) };
  return [
    el("p", { class: "sentence", "data-parity": String(report.passed) }, t(report.passed ? "checks.passed" : "checks.failed", given)),
    report.dtype === "bfloat16" ? el("p", { class: "note" }, t("checks.narrow")) : null,
    report.only === "*" ? null : el("p", { class: "note" }, t("checks.only")),
    table(heads, rows, t("checks.table")),
  ].filter(Boolean);
}

// What the page computes from its data, and by how much that differs from what was recorded.
export function differences() {
  const last = facts.lens.ids.shape[1] - 1;
  const best = facts.lens.ids.shape[2];
  const chances = values(facts.lens.probabilities);
  const each = (f) => Math.max(0, ...facts.answer.map((_, token) => f(token)));
  const start = facts.patches + facts.prompt_ids.length - 1 - facts.lens.first;
  return {
    attention: each((token) => {
      const sums = [];
      for (let layer = 0; layer < facts.layers; layer++) {
        for (let head = 0; head < facts.heads; head++) sums.push(Math.abs(weights(token, layer, head).reduce((a, b) => a + b, 0) - 1));
      }
      return Math.max(...sums);
    }),
    lens: each((token) => Math.abs(chances[((start + token) * (last + 1) + last) * best] - ranked(token, 1)[0][1])),
    knockouts: recomputed(),
    greedy: facts.answer.filter((id, token) => row(facts.choice.ids, token)[0] !== id).length,
    boxes: Math.max(0, ...facts.objects.filter(({ box }) => box).flatMap(({ locations, box }) => edges(locations).map((edge, i) => Math.abs(edge - box[i])))),
  };
}

function own() {
  const rows = Object.entries(differences()).map(([what, apart]) => [t(`checks.${what}`), number(apart, 3)]);
  return table([t("checks.what"), t("checks.by")], rows, t("checks.own"));
}
