// The answer's tokens, to choose one.
import { facts, shown } from "./data.js";
import { el, pressed } from "./dom.js";
import { change, follow } from "./state.js";
import { percent, t } from "./texts.js";
import { probability } from "./sampling.js";

export function chips() {
  const buttons = facts.answer.map((id, token) =>
    el(
      "button",
      {
        type: "button",
        class: "chip",
        "data-answer-token": token,
        "aria-label": t("chips.label", { token: token + 1, text: shown(id), share: percent(probability(token)) }),
        onclick: () => change({ token }),
      },
      el("span", { class: "word" }, el("span", { class: "place" }, String(token + 1)), shown(id)),
      el("span", { class: "share" }, percent(probability(token))),
    ),
  );
  const row = el("div", { class: "chips" }, buttons);
  follow(["token"], ({ token }) => {
    pressed(buttons, token);
    // Where the row scrolls, the chosen token stays in sight.
    row.scrollLeft = buttons[token].offsetLeft - row.offsetLeft - row.clientWidth / 2;
  });
  return row;
}

// An answer of another run: tokens that this run's answer does not have are marked.
export function compared({ ids, changed }) {
  const words = ids.map((id, i) => (changed.includes(i) ? el("mark", { class: "piece", title: t("chips.differs") }, shown(id)) : el("span", { class: "piece" }, shown(id))));
  return el("span", { class: "compared" }, words.length ? words : t("chips.empty"));
}
