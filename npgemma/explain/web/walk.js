// A guided walk of eight steps through the sections: next and back, by buttons or by the arrow keys.
import { facts, shown } from "./data.js";
import { el } from "./dom.js";
import { change } from "./state.js";
import { percent, t } from "./texts.js";
import { probability } from "./sampling.js";

const STEPS = ["question", "image", "sequence", "mask", "attention", "lens", "choice", "boxes"];
const place = document.getElementById("walk");
let now = 0;

export function walk(step) {
  now = Math.max(0, Math.min(STEPS.length - 1, step));
  const name = STEPS[now];
  change({ token: 0 });
  const button = (key, onclick, disabled = false) => el("button", { type: "button", "data-walk": key, disabled, onclick }, t(`walk.${key}`));
  const given = { patches: facts.patches, tokens: facts.answer.length, word: shown(facts.answer[0]), share: percent(probability(0)) };
  const next = button("next", () => walk(now + 1), now === STEPS.length - 1);
  const end = button("close", close);
  place.replaceChildren(
    el("p", { role: "status" }, el("strong", {}, t("walk.step", { step: now + 1, steps: STEPS.length })), ` ${t(`walk.${name}`, given)}`),
    el("div", { class: "switch" }, button("back", () => walk(now - 1), now === 0), next, end),
  );
  place.hidden = false;
  (next.disabled ? end : next).focus({ preventScroll: true });
  document.querySelectorAll("section").forEach((section) => section.classList.toggle("walked", section.id === name));
  document.getElementById(name).scrollIntoView();
}

function close() {
  place.hidden = true;
  document.querySelector(".walked").classList.remove("walked");
}

place.addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) walk(now + by);
});
