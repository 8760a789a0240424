// Canvases: the image, maps over it, and thumbnails of arrays.
import { facts, values } from "./data.js";
import { el } from "./dom.js";
import { t } from "./texts.js";

export function canvas(width, height, label) {
  return el("canvas", { width, height, role: "img", "aria-label": label });
}

// The square that the model sees, as a canvas of its own size; and the same in light greys, on which any colour shows.
const pixels = values(facts.image.pixels);
export const seen = squareOf((red, green, blue) => [red, green, blue]);
const pale = squareOf((red, green, blue) => Array(3).fill(170 + (0.299 * red + 0.587 * green + 0.114 * blue) / 3));

function squareOf(painted) {
  const side = facts.image.side;
  const square = el("canvas", { width: side, height: side });
  const context = square.getContext("2d");
  const data = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    data.data.set([...painted(...pixels.subarray(3 * i, 3 * i + 3)), 255], 4 * i);
  }
  context.putImageData(data, 0, 0);
  return square;
}

// Orange on the grey image: the stronger, the larger a patch's level is, from 0 to 1.
export function heat(target, levels, columns) {
  const context = target.getContext("2d");
  const side = target.width / columns;
  context.drawImage(pale, 0, 0, target.width, target.height);
  levels.forEach((level, i) => {
    context.fillStyle = `rgb(213 94 0 / ${Math.max(0, Math.min(1, level)).toFixed(3)})`;
    context.fillRect((i % columns) * side, Math.floor(i / columns) * side, side, side);
  });
}

// A scale of colours (`tint` or `heat`) with what its two ends stand for.
export function scale(kind, low, high) {
  const strip = el("span", { class: `strip ${kind}` });
  if (kind === "tint") strip.style.backgroundImage = `linear-gradient(to right, ${facts.palette.map((rgb) => `rgb(${rgb})`)})`;
  return el("p", { class: "scale" }, low, strip, high);
}

// Values of 8 bits as an image: one pixel a value, which CSS enlarges.
export function tinted(levels, rows, columns, label) {
  const target = canvas(columns, rows, label);
  target.classList.add("values");
  const context = target.getContext("2d");
  const data = context.createImageData(columns, rows);
  levels.forEach((level, i) => data.data.set([...facts.palette[level], 255], 4 * i));
  context.putImageData(data, 0, 0);
  return target;
}

// Any numbers as 8 bits, from the smallest to the largest.
export function levelsOf(numbers) {
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  return Array.from(numbers, (x) => Math.round(high > low ? ((x - low) / (high - low)) * 255 : 0));
}

// The image as it came, which a browser decodes from the file's bytes.
export async function original() {
  const { original: file, shown: [width, height] } = facts.image;
  const target = el("canvas", { width, height });
  const bitmap = await createImageBitmap(new Blob([values(file)], { type: "image/jpeg" }));
  target.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  return target;
}

// Boxes on an image; each has a label, and a dash of its own.
const DASHES = [[], [10, 5], [3, 4], [14, 4, 3, 4]];

export function boxed(image, boxes, label, longest = image.width) {
  const scale = longest / Math.max(image.width, image.height);
  const target = canvas(Math.round(image.width * scale), Math.round(image.height * scale), label);
  const context = target.getContext("2d");
  context.drawImage(image, 0, 0, target.width, target.height);
  const sides = [target.width / facts.image.size[0], target.height / facts.image.size[1]];
  const taken = [];
  boxes.forEach(({ box, label: name }, i) => {
    const [left, top, right, bottom] = box.map((edge, side) => edge * sides[side % 2]);
    for (const [style, width] of [["#000", 5], ["#ffd84d", 2.5]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.setLineDash(DASHES[i % DASHES.length]);
      context.strokeRect(left, top, right - left, bottom - top);
    }
    write(context, name || t("boxes.no-name"), left, top, target, taken);
  });
  return target;
}

// Above its corner, or further down where another label stands.
function write(context, text, left, top, target, taken) {
  context.setLineDash([]);
  context.font = "600 13px system-ui, sans-serif";
  const width = Math.min(context.measureText(text).width + 8, target.width);
  const x = Math.max(0, Math.min(left, target.width - width));
  let y = top >= 18 ? top - 18 : top;
  while (taken.some((each) => Math.abs(each.y - y) < 18 && each.x < x + width && x < each.x + each.width)) y += 18;
  taken.push({ x, y, width });
  context.fillStyle = "#000";
  context.fillRect(x, y, width, 18);
  context.fillStyle = "#ffd84d";
  context.fillText(text, x + 4, y + 13, width - 8);
}
