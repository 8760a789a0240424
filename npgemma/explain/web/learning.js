// What would have to change: gradients of the chosen token's loss, in the pixels and in the matrices.
import { facts, row, shown, tokens, values } from "./data.js";
import { el, opened, table } from "./dom.js";
import { canvas, heat, scale } from "./draw.js";
import { follow } from "./state.js";
import { number, percent, t } from "./texts.js";
import { largest, levels } from "./attention.js";

const KINDS = ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"];
const { left_out: leftOut, dtype, names, loss, patches, norms } = facts.learning;

export function learning(name, place) {
  const body = opened(name, place);
  if (leftOut) return body.append(el("p", { class: "note" }, t("learning.left-out", { why: leftOut })));
  const count = loss.shape[0];
  const [gradient, attention] = [map(), map()];
  const [sentence, matrices] = [el("p", { class: "sentence", "aria-live": "polite" }), el("div", {})];
  const drawn = el("div", {}, sentence, el("div", { class: "maps" }, gradient.figure, attention.figure), el("p", { class: "intro" }, t("learning.differ")), matrices);
  body.append(tokens > count ? el("p", { class: "note" }, t("learning.first", { count, all: tokens })) : "", drawn);
  follow(["token", "layer", "head"], ({ token, layer, head }) => {
    drawn.hidden = token >= count;
    if (drawn.hidden) return;
    const where = { layer, head, token: token + 1, word: shown(facts.answer[token]) };
    sentence.textContent = t("learning.loss", { ...where, loss: number(values(loss)[token], 3) });
    const most = Math.max(...row(patches, token));
    gradient.draw(levelsTo(most, row(patches, token)), facts.image.grid, number(most, 3), t("learning.pixels", where));
    attention.draw(levels(token, layer, head), facts.attention.grid, percent(largest(token)), t("attention.map", where));
    matrices.replaceChildren(...byLayer(row(norms, token)));
  });
}

// A map over the image that is drawn again for each token.
function map() {
  const [target, range, caption] = [canvas(448, 448, ""), el("div", {}), el("figcaption", {})];
  const draw = (shares, grid, most, text) => {
    heat(target, shares, grid);
    range.replaceChildren(scale("heat", "0", most));
    target.setAttribute("aria-label", (caption.textContent = text));
  };
  return { figure: el("figure", {}, target, range, caption), draw };
}

// As in the maps of attention, colour grows with the square root.
function levelsTo(most, lengths) {
  return Array.from(lengths, (length) => Math.sqrt(length / most) || 0);
}

// One square for each matrix of a layer: rows are kinds of matrices, columns layers.
function byLayer(lengths) {
  const layers = [...new Set(names.map((name) => name.match(/^\w+\.blocks\.\d+/)?.[0]).filter(Boolean))];
  const told = (name) => `${name}: ${number(lengths[names.indexOf(name)], 3)}`;
  const most = Math.max(...lengths.filter((_, i) => names[i].includes(".blocks.")));
  const levels = levelsTo(most, lengths);
  const square = (name) => el("span", { class: "norm", role: "img", style: `--level: ${levels[names.indexOf(name)]}`, title: told(name), "aria-label": told(name) });
  const rows = KINDS.map((kind) => [kind.split(".")[1], ...layers.map((layer) => (names.includes(`${layer}.${kind}`) ? square(`${layer}.${kind}`) : ""))]);
  const heads = layers.map((layer) => t(`learning.${layer.split(".")[0]}`, { layer: layer.split(".")[2] }));
  const rest = names.filter((name) => !name.includes(".blocks.")).map(told).join(", ");
  return [el("h3", {}, t("learning.matrices")), table([t("head.layer"), ...heads], rows, t("learning.table")), scale("heat", "0", number(most, 3)), el("p", { class: "note" }, t("learning.rest", { rest, dtype }))];
}
