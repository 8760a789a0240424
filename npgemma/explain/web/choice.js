// 9: choosing the token.
import { facts, shown } from "./data.js";
import { bar, el, labelled, opened, table } from "./dom.js";
import { follow, state } from "./state.js";
import { number, percent, t } from "./texts.js";
import { kept, rankDrawn, ranked, sampled } from "./sampling.js";
import { codeBeside } from "./code.js";

const SHOWN = 10;

export function choice(name, place) {
  const body = opened(name, place);
  const sliders = {
    temperature: el("input", { type: "range", min: 0.1, max: 3, step: 0.05, value: 1, "data-slider": "temperature" }),
    top_k: el("input", { type: "range", min: 1, max: 50, step: 1, value: 50, "data-slider": "top_k" }),
    top_p: el("input", { type: "range", min: 0.05, max: 1, step: 0.01, value: 1, "data-slider": "top_p" }),
    uniform: el("input", { type: "range", min: 0, max: 0.999, step: 0.001, value: 0.5, "data-slider": "uniform" }),
  };
  const texts = Object.fromEntries(Object.keys(sliders).map((key) => [key, el("output", {})]));
  const rows = el("div", {});
  const sentence = el("p", { class: "sentence", "aria-live": "polite" });
  const draw = () => {
    const [temperature, topK, topP, uniform] = Object.values(sliders).map((slider) => Number(slider.value));
    const limit = topK === 50 ? null : topK;
    texts.temperature.textContent = number(temperature, 2);
    texts.top_k.textContent = limit ?? t("choice.all");
    texts.top_p.textContent = number(topP, 2);
    texts.uniform.textContent = uniform.toFixed(3);
    const { token } = state();
    const left = sampled(token, temperature, limit, topP);
    const ids = ranked(token);
    const rank = rankDrawn(left, uniform);
    const drawn = ids[rank][0];
    rows.replaceChildren(best(token, left, rank));
    sentence.replaceChildren(
      t("choice.kept", { count: left.filter((x) => x > 0).length, all: facts.choice.vocabulary }),
      ` ${t("choice.best", { word: shown(ids[0][0]), share: percent(left[0]) })} `,
      el("span", { "data-drawn": drawn }, t("choice.drawn", { uniform: texts.uniform.textContent, word: shown(drawn) })),
    );
  };
  for (const slider of Object.values(sliders)) slider.addEventListener("input", draw);
  const controls = Object.entries(sliders).map(([key, slider]) =>
    labelled(t(`choice.${key}`), el("span", { class: "slid" }, slider, texts[key])),
  );
  body.append(el("div", { class: "controls" }, controls), sentence, rows);
  if (kept < facts.choice.vocabulary) body.append(el("p", { class: "note" }, t("choice.reduced", { kept, all: facts.choice.vocabulary })));
  body.append(codeBeside(["greedy", "sample"]));
  follow(["token"], draw);
}

// The most probable tokens, and the one drawn if it is none of them.
function best(token, left, drawn) {
  const all = ranked(token);
  const ranks = Array.from(all.slice(0, SHOWN).keys()).concat(drawn < SHOWN ? [] : [drawn]);
  const rows = ranks.map((i) => {
    const [id, share] = all[i];
    const now = left[i] ?? 0;
    return [
      el("code", { class: id === facts.answer[token] ? "chosen" : "", "data-row": id, "data-kept": now > 0 && i < SHOWN ? id : null }, shown(id)),
      bar(share, percent(share)),
      now > 0 ? bar(now, percent(now), true) : el("span", { class: "out" }, t("choice.out")),
    ];
  });
  const heads = ["token", "model", "settings"].map((head) => t(`head.${head}`));
  return table(heads, rows, t("choice.table", { token: token + 1, word: shown(facts.answer[token]) }));
}
