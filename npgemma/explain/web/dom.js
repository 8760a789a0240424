// Elements. Text is always text: nothing from outside becomes markup.
import { t } from "./texts.js";

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// A section with its heading and its opening words; returns where the rest goes.
export function opened(name, number, given = {}) {
  const section = document.getElementById(name);
  const body = el("div", { class: "body" });
  const heading = el("h2", { id: `${name}-title` }, el("span", { class: "number" }, String(number)), t(`${name}.title`));
  section.setAttribute("aria-labelledby", `${name}-title`);
  section.append(heading, el("p", { class: "intro" }, t(`${name}.intro`, given)), body);
  return body;
}

// A share as a bar, with its number beside it.
export function bar(share, text, strong = false, colour = null) {
  const fill = el("span", { class: strong ? "fill strong" : "fill" });
  if (colour) fill.style.background = colour;
  fill.style.inlineSize = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: "bar" }, el("span", { class: "track" }, fill), el("span", { class: "amount" }, text));
}

// A row of buttons of which one is pressed.
export function pressed(buttons, chosen) {
  buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === chosen)));
}

// Arrow keys walk through a grid of buttons; only one of them is in the tab order.
export function walkable(buttons, columns) {
  buttons.forEach((button, i) => {
    button.tabIndex = i === 0 ? 0 : -1;
    button.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
      const next = buttons[i + steps[event.key]];
      if (!next) return;
      event.preventDefault();
      button.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}

export function labelled(text, control) {
  return el("label", { class: "control" }, el("span", {}, text), control);
}

export function choose(options, onchange) {
  const select = el("select", { onchange: () => onchange(select.value) });
  select.append(...options.map(([value, text]) => el("option", { value }, text)));
  return select;
}

export function table(heads, rows, caption) {
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, i) => el(i ? "td" : "th", i ? { "data-head": heads[i] } : { scope: "row" }, cell))))),
    ),
  );
}
