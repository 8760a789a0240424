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
      el("span", { class: "word" }, shown(id)),
      el("span", { class: "share" }, percent(probability(token))),
    ),
  );
  follow(["token"], ({ token }) => pressed(buttons, token));
  return el("div", { class: "chips" }, buttons);
}

// An answer of another run: tokens that this run's answer does not have at their place are marked.
export function compared(ids) {
  const words = ids.map((id, i) => (id === facts.answer[i] ? shown(id) : el("mark", { title: t("chips.differs") }, shown(id))));
  return el("span", { class: "compared" }, words.length ? words : t("chips.empty"));
}
