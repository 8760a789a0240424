// 10: from tokens to boxes and masks.
import { facts, values } from "./data.js";
import { el, opened } from "./dom.js";
import { boxed, levelsOf, scale, tinted } from "./draw.js";
import { number, t } from "./texts.js";
import { codeBeside } from "./code.js";

const HIGHEST = 1023;

export function boxes(name, place, whole) {
  const body = opened(name, place);
  if (!facts.objects.length) body.append(el("p", { class: "note" }, t("boxes.none")));
  else {
    const image = found(whole, t("boxes.image"));
    body.append(el("div", { class: "two" }, el("figure", {}, image, el("figcaption", {}, t("boxes.image"))), el("div", {}, facts.objects.map(arithmetic))));
    if (facts.objects.some(({ codes }) => codes.length)) body.append(el("p", {}, t("boxes.codes-intro")));
    facts.objects.forEach((thing) => body.append(...maskOf(thing)));
  }
  body.append(codeBeside(["find_objects", "decode_masks", "residual_block", "enlarge"]));
}

// The image with what the answer found: masks under boxes under labels.
export function found(whole, label) {
  const masked = boxed(whole, [], label);
  const drawn = facts.objects.filter(({ box }) => box);
  drawn.forEach(({ stages, box }) => stages && paintMask(masked, values(stages.at(-1)), stages.at(-1).shape, box));
  return boxed(masked, drawn, label);
}

// The edges of a box, in pixels of the image: left, top, right, bottom.
export function edges([top, left, bottom, right]) {
  const [columns, rows] = facts.image.size;
  return [[left, columns], [top, rows], [right, columns], [bottom, rows]].map(([location, side]) => (location / HIGHEST) * side);
}

function arithmetic({ label, locations, box }, i) {
  const [columns, rows] = facts.image.size;
  const sides = [["top", rows], ["left", columns], ["bottom", rows], ["right", columns]];
  return el(
    "div",
    {},
    el("h3", {}, label || t("boxes.object", { i: i + 1 })),
    el(
      "ul",
      { class: "arithmetic" },
      sides.map(([edge, side], k) => {
        const value = (locations[k] / HIGHEST) * side;
        return el("li", {}, el("code", {}, `<loc${String(locations[k]).padStart(4, "0")}>`), ` ${t(`boxes.${edge}`)} = ${locations[k]} / ${HIGHEST} × ${side} = ${number(value)}`);
      }),
    ),
    box ? null : el("p", { class: "note" }, t("boxes.no-area")),
  );
}

function maskOf({ codes, stages, label }) {
  if (!codes.length) return [];
  const words = codes.map((code) => el("li", {}, `<seg${String(code).padStart(3, "0")}>`));
  const parts = [el("h3", {}, t("boxes.mask", { label })), el("ol", { class: "codes" }, words)];
  if (!stages) return [...parts, el("p", { class: "note" }, t(facts.has_masks ? "boxes.incomplete" : "boxes.no-codebook"))];
  const figures = stages.map((grid, i) => {
    const [rows, columns] = grid.shape;
    const caption = t(i === 0 ? "boxes.codes" : i < stages.length - 1 ? "boxes.stage" : "boxes.last", { rows, columns });
    return el("figure", {}, tinted(levelsOf(values(grid)), rows, columns, caption), scale("tint", ...[Math.min, Math.max].map((end) => number(end(...values(grid)), 3))), el("figcaption", {}, caption));
  });
  return [...parts, el("div", { class: "stages" }, figures)];
}

// The mask stretched over its box: what is over 0 is hatched.
function paintMask(target, cells, [rows, columns], box) {
  const context = target.getContext("2d");
  const [left, top, right, bottom] = box.map((edge, side) => (edge * (side % 2 ? target.height : target.width)) / facts.image.size[side % 2]);
  const [width, height] = [(right - left) / columns, (bottom - top) / rows];
  cells.forEach((value, i) => {
    if (value <= 0) return;
    const [y, x] = [Math.floor(i / columns), i % columns];
    context.fillStyle = (x + y) % 4 < 2 ? "rgb(255 216 77 / 0.75)" : "rgb(0 0 0 / 0.35)";
    context.fillRect(left + x * width, top + y * height, width, height);
  });
}
