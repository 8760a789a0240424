// 2: what the model sees.
import { facts, row } from "./data.js";
import { el, opened, pressed, walkable } from "./dom.js";
import { boxed, canvas, heat, levelsOf, scale, seen, tinted } from "./draw.js";
import { number, t } from "./texts.js";
import { codeBeside } from "./code.js";

const { grid, side, patch: patchSide, size } = facts.image;

export function image(name, place) {
  const body = opened(name, place, { columns: size[0], rows: size[1], side, grid, patches: facts.patches, patch: patchSide });
  const detail = el("div", { class: "detail", "aria-live": "polite" });
  const buttons = Array.from({ length: facts.patches }, (_, patch) =>
    el("button", {
      type: "button",
      "data-patch": patch,
      "aria-label": t("image.patch", { patch, row: Math.floor(patch / grid) + 1, column: (patch % grid) + 1 }),
    }),
  );
  const choosePatch = (patch) => {
    pressed(buttons, patch);
    detail.replaceChildren(...details(patch));
  };
  buttons.forEach((button, patch) => {
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => choosePatch(patch));
  });
  walkable(buttons, grid);
  const square = el("div", { class: "patches" }, boxed(seen, [], t("image.square", { side }), 448), el("div", { class: "grid" }, buttons));
  square.style.setProperty("--columns", grid);
  body.append(
    el("div", { class: "two" }, el("figure", {}, square, el("figcaption", {}, t("image.after", { side }))), detail),
    codeBeside(["patchify", "embed_patches", "encode", "self_attention", "mlp", "project"], () => "encode_image.0"),
  );
  choosePatch(0);
}

function details(patch) {
  const [y, x] = [Math.floor(patch / grid), patch % grid];
  const enlarged = canvas(patchSide * 8, patchSide * 8, t("image.pixels", { patch }));
  const context = enlarged.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(seen, x * patchSide, y * patchSide, patchSide, patchSide, 0, 0, enlarged.width, enlarged.height);
  return [
    el("h3", {}, t("image.patch", { patch, row: y + 1, column: x + 1 })),
    el("figure", {}, enlarged, el("figcaption", {}, t("image.pixels", { patch, patch_side: patchSide }))),
    ...embedding(patch),
    ...similarity(patch),
  ];
}

function embedding(patch) {
  if (!facts.image.embedding) return [el("p", { class: "note" }, t("image.too-many"))];
  const numbers = row(facts.image.embedding, patch);
  const label = t("image.embedding", { width: numbers.length, low: number(Math.min(...numbers)), high: number(Math.max(...numbers)) });
  const strip = tinted(levelsOf(numbers), 1, numbers.length, label);
  strip.classList.add("strip");
  return [el("figure", {}, strip, scale("tint", number(Math.min(...numbers)), number(Math.max(...numbers))), el("figcaption", {}, label))];
}

function similarity(patch) {
  if (!facts.image.similarity) return [];
  const levels = row(facts.image.similarity, patch);
  const label = t("image.similarity", { patch });
  const map = canvas(grid * 16, grid * 16, label);
  heat(map, Array.from(levels, (level) => (level - 127.5) / 127.5), grid);
  return [el("figure", {}, map, scale("heat", "0", "1"), el("figcaption", {}, label))];
}
