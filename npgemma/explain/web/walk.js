// A guided walk of eight steps through the sections: next and back, by buttons or by the arrow keys.
import { facts, shown } from "./data.js";
import { el } from "./dom.js";
import { follow, state } from "./state.js";
import { percent, t } from "./texts.js";
import { probability } from "./sampling.js";

// Each step's text, and what must be in sight.
const STEPS = { question: "#question .first", image: "#image figure", mask: ".labelled-matrix, #mask .note", attention: "#attention figure", worked: ".worked ol", mlp: ".mlp", choice: "#choice .sentence", boxes: "#boxes .body" };
const NAMES = Object.keys(STEPS);
const place = document.getElementById("walk");
const told = el("p", { role: "status" });
let now = 0;

export function walk(step) {
  now = Math.max(0, Math.min(NAMES.length - 1, step));
  const button = (key, onclick, disabled = false) => el("button", { type: "button", "data-walk": key, disabled, onclick }, t(`walk.${key}`));
  const next = button("next", () => walk(now + 1), now === NAMES.length - 1);
  const end = button("close", close);
  place.replaceChildren(told, el("div", { class: "switch" }, button("back", () => walk(now - 1), now === 0), next, end));
  place.hidden = false;
  tell();
  (next.disabled ? end : next).focus({ preventScroll: true });
  const target = document.querySelector(STEPS[NAMES[now]]);
  document.querySelectorAll("section").forEach((section) => section.classList.toggle("walked", section.contains(target)));
  // The panel lies over the page's end.
  document.documentElement.style.scrollPaddingBottom = `${place.offsetHeight + 8}px`;
  document.querySelector(".worked").open = true;
  document.querySelector(".walked").scrollIntoView();
  target.scrollIntoView({ block: "nearest" });
}

function tell() {
  const { token } = state();
  const given = { place: token + 1, patches: facts.patches, tokens: facts.answer.length, channels: facts.channels, word: shown(facts.answer[token]), share: percent(probability(token)) };
  told.replaceChildren(el("strong", {}, t("walk.step", { step: now + 1, steps: NAMES.length })), ` ${t(`walk.${NAMES[now]}`, given)}`);
}

function close() {
  place.hidden = true;
  document.documentElement.style.scrollPaddingBottom = "";
  document.querySelector(".walked").classList.remove("walked");
}

follow(["token"], tell);
place.addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) walk(now + by);
});
