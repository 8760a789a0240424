// The arrays of the run: their numbers, and a card that shows one.
import { facts, values } from "./data.js";
import { el } from "./dom.js";
import { scale, tinted } from "./draw.js";
import { number, t } from "./texts.js";

const places = new Map(facts.arrays.names.map((name, i) => [name, i]));
const numbers = values(facts.arrays.numbers);

export function hasArray(name) {
  return places.has(name);
}

export function arrayOf(name) {
  const i = places.get(name);
  const [min, mean, max] = numbers.subarray(3 * i, 3 * i + 3);
  const { axes, shapes, dtypes, thumbnails } = facts.arrays;
  return { name, axes: axes[i], shape: shapes[i], dtype: dtypes[i], min, mean, max, thumbnail: thumbnails[i] };
}

function meanings({ axes, shape }) {
  return Array.from(axes, (letter, i) => [el("dt", {}, `${letter} = ${shape[i]}`), el("dd", {}, facts.axes[letter])]);
}

export function card(name) {
  const array = arrayOf(name);
  const [rows, columns] = array.thumbnail.shape;
  const label = t("array.thumbnail", { name: array.name });
  return el(
    "div",
    { class: "array-card" },
    el("p", { class: "path" }, array.name.replaceAll("/", "/\u200b")),
    el("p", {}, `${array.shape.join(" × ")} ${array.dtype}`),
    el("dl", { class: "meanings" }, meanings(array)),
    el(
      "dl",
      { class: "numbers" },
      ["min", "mean", "max"].map((key) => el("div", {}, el("dt", {}, t(`array.${key}`)), el("dd", {}, number(array[key])))),
    ),
    tinted(values(array.thumbnail), rows, columns, label),
    scale("tint", t("array.darkest"), t("array.brightest")),
    el("p", { class: "note" }, t("array.reduced", { rows, columns })),
  );
}
