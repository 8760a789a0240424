// 8: the cache.
import { facts, shown, values } from "./data.js";
import { choose, el, labelled, opened, table } from "./dom.js";
import { scale, tinted } from "./draw.js";
import { megabytes, number, t } from "./texts.js";
import { codeBeside } from "./code.js";

const { keys, prefill, held, numbers, bytes_each: each, context, compared } = facts.cache;

export function cache(name, place) {
  const body = opened(name, place, { prefill });
  const strip = el("div", {});
  const sentence = el("p", { class: "sentence", "aria-live": "polite" });
  const slider = el("input", { type: "range", min: 0, max: held - prefill, value: held - prefill, "data-cache-steps": "" });
  let layer = 0;
  const draw = () => {
    const steps = Number(slider.value);
    const rows = prefill + steps;
    const [, columns] = keys[layer].shape;
    strip.replaceChildren(tinted(values(keys[layer]).subarray(0, rows * columns), rows, columns, t("cache.strip", { layer, rows })));
    strip.style.setProperty("--rows", rows / held);
    sentence.textContent = told(steps, rows);
  };
  const select = choose(keys.map((_, i) => [i, t("cache.layer", { layer: i })]), (value) => ((layer = Number(value)), draw()));
  slider.addEventListener("input", draw);
  body.append(
    el("div", { class: "controls" }, labelled(t("head.layer"), select), labelled(t("cache.steps"), slider)),
    sentence,
    saved(),
    el("figure", { class: "cache" }, strip, scale("tint", t("array.darkest"), t("array.brightest")), el("figcaption", {}, t("cache.rows"))),
    el("p", {}, t("cache.shared", sharing())),
    sizes(),
    codeBeside(["prefill", "step"]),
  );
  draw();
}

function told(steps, rows) {
  const size = megabytes(rows * numbers * each);
  if (steps === 0) return t("cache.prefilled", { rows, size });
  return t("cache.stepped", { steps, word: shown(facts.answer[steps - 1]), rows, size, more: megabytes(numbers * each) });
}

// Rows of the decoder: those computed, and those that would be if every step read all tokens again.
function saved() {
  const steps = held - prefill;
  const kept = prefill + steps;
  const all = Array.from({ length: steps + 1 }, (_, step) => prefill + step).reduce((sum, rows) => sum + rows, 0);
  return el("p", { "data-saved": `${kept} ${all}` }, t("cache.saved", { prefill, steps, kept, all, times: number(all / kept, 3) }));
}

// By how much grouped-query attention makes the cache smaller, here and in the published model.
function sharing() {
  const { heads, key_value_heads: shared } = facts;
  return { heads, shared, times: number(heads / shared, 3), name: compared.name, there: number(compared.all_heads / compared.numbers, 3) };
}

function sizes() {
  const line = (what, here, there) => [t(`cache.${what}`), here, there];
  const there = compared.numbers * each;
  const rows = [
    line("token", megabytes(numbers * each), megabytes(there)),
    line("after-prefill", megabytes(prefill * numbers * each), megabytes(compared.prefill * there)),
    [t("cache.full", { here: context, there: compared.context }), megabytes(context * numbers * each), megabytes(compared.context * there)],
    line("all-heads", megabytes((numbers * each * facts.heads) / facts.key_value_heads), megabytes(compared.all_heads * each)),
  ];
  return table(["", t("cache.here"), compared.name], rows, t("cache.sizes", { dtype: each === 8 ? "float64" : "float32" }));
}
