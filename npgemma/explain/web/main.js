// The page: its sections in the order of the data, and the hooks for tests and other tools.
import { dictionary, facts, tokens } from "./data.js";
import { el } from "./dom.js";
import { original } from "./draw.js";
import { change, state } from "./state.js";
import { t } from "./texts.js";
import { chips } from "./chips.js";
import { onImage } from "./looks.js";
import { ranked } from "./sampling.js";
import { arrayOf } from "./arrays.js";
import { question } from "./question.js";
import { image } from "./image.js";
import { sequence } from "./sequence.js";
import { mask } from "./mask.js";
import { attention } from "./attention.js";
import { lens } from "./lens.js";
import { whatIf } from "./what-if.js";
import { cache } from "./cache.js";
import { choice } from "./choice.js";
import { boxes } from "./boxes.js";
import { learning } from "./learning.js";
import { code } from "./code.js";
import { checks } from "./checks.js";

const SECTIONS = { question, image, sequence, mask, attention, lens, "what-if": whatIf, cache, choice, boxes, learning, code, checks };

function contents() {
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text, { version: facts.version });
  }
  document.title = t("page.document", { prompt: facts.prompt });
  const links = Object.keys(SECTIONS).map((name) => el("li", {}, el("a", { href: `#${name}` }, t(`${name}.title`))));
  document.querySelector("#contents ol").append(...links);
  document.getElementById("contents").setAttribute("aria-label", t("page.contents"));
  const words = Object.keys(dictionary).filter((key) => /^words\.\d+\.word$/.test(key));
  const meanings = words.flatMap((key) => [el("dt", {}, t(key)), el("dd", {}, t(key.replace(/word$/, "means")))]);
  document.querySelector("#words dl").append(...meanings);
}

function followed() {
  const toolbar = document.getElementById("follow");
  toolbar.setAttribute("aria-label", t("chips.toolbar"));
  const step = (by) => () => change({ token: Math.max(0, Math.min(tokens - 1, state().token + by)) });
  const button = (key, by) => el("button", { type: "button", class: "plain", "aria-label": t(`chips.${key}`), onclick: step(by) }, by < 0 ? "‹" : "›");
  toolbar.append(el("span", { class: "caption" }, t("chips.toolbar")), button("previous", -1), chips(), button("next", 1));
}

window.tour = {
  ready: false,
  answer: facts.answer,
  select: (token) => change({ token }),
  attention: (token, layer, head) => Array.from(onImage(token, layer, head)),
  probabilities: (token) => ranked(token),
  value: (name) => {
    const { shape, min, mean, max } = arrayOf(name);
    return { shape, min, mean, max };
  },
};

contents();
const whole = await original();
followed();
Object.entries(SECTIONS).forEach(([name, draw], i) => draw(name, i + 1, whole));
window.tour.ready = true;
performance.mark("tour-ready");
