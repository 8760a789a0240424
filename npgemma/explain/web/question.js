// 1: the question and the answer.
import { facts, shown } from "./data.js";
import { bar, el, opened, table } from "./dom.js";
import { follow } from "./state.js";
import { percent, t } from "./texts.js";
import { chips } from "./chips.js";
import { ranked } from "./sampling.js";
import { codeBeside } from "./code.js";
import { found } from "./boxes.js";
import { walk } from "./walk.js";

export function question(name, place, whole) {
  const body = opened(name, place);
  const best = el("div", { "aria-live": "polite" });
  const labels = facts.objects.map(({ label }) => label).filter(Boolean);
  body.append(
    el(
      "div",
      { class: "two first" },
      el("figure", {}, found(whole, t("question.image")), el("figcaption", {}, t("question.image"))),
      el(
        "div",
        {},
        el("h3", {}, t("question.prompt")),
        el("p", { class: "quoted" }, facts.prompt || t("question.no-prompt")),
        el("h3", {}, t("question.answer")),
        labels.length ? el("p", { class: "sentence" }, t("question.found", { labels: labels.join(", ") })) : null,
        el("p", { class: "quoted" }, facts.text || t("chips.empty")),
        el("p", { class: "note" }, t(`question.finish.${facts.finish}`)),
        el("button", { type: "button", class: "start", onclick: () => walk(0) }, t("walk.start")),
      ),
    ),
    document.getElementById("model"),
    el("h3", {}, t("question.tokens")),
    el("p", { class: "note" }, t("question.choose")),
    chips(),
    best,
    codeBeside(["prefill", "step", "generate"]),
  );
  follow(["token"], ({ token }) => best.replaceChildren(runnersUp(token)));
}

function runnersUp(token) {
  const rows = ranked(token, 5).map(([id, share]) => [
    el("code", { class: id === facts.answer[token] ? "chosen" : "" }, shown(id)),
    id,
    bar(share, percent(share), id === facts.answer[token]),
  ]);
  const heads = ["token", "id", "probability"].map((head) => t(`head.${head}`));
  return table(heads, rows, t("question.best", { token: token + 1 }));
}
