// 5: where it looked.
import { callOf, facts, shown } from "./data.js";
import { bar, el, opened, pressed, table, walkable } from "./dom.js";
import { canvas, heat, scale } from "./draw.js";
import { change, follow, state } from "./state.js";
import { percent, t } from "./texts.js";
import { areaOf, objectOf, onImage, onObject, shares } from "./looks.js";
import { codeBeside } from "./code.js";
import { workedOut } from "./worked.js";

const { grid, pool } = facts.attention;
// A head looks mainly at an object if at least this part of its attention falls into the object's box.
const MAINLY = 0.25;

// Every layer and head, in the order of the tiles.
const pairs = Array.from({ length: facts.layers * facts.heads }, (_, i) => ({ layer: Math.floor(i / facts.heads), head: i % facts.heads }));

export function attention(name, place) {
  const body = opened(name, place, { layers: facts.layers, heads: facts.heads });
  const tiles = pairs.map(({ layer, head }) => tile(layer, head));
  walkable(tiles.map(({ button }) => button), facts.heads);
  const sheet = el("div", { class: "heads" }, tiles.map(({ button }) => button));
  sheet.style.setProperty("--columns", facts.heads);
  const map = canvas(448, 448, "");
  const beside = el("div", { "aria-live": "polite" });
  const [range, caption] = [el("div", {}), el("figcaption", {})];
  body.append(
    el("div", { class: "two" }, el("figure", {}, map, range, caption), beside),
    pool > 1 ? el("p", { class: "note" }, t("attention.pooled", { pool })) : "",
    overview(),
    workedOut(),
    el("h3", {}, t("attention.heads")),
    sheet,
    codeBeside(["grouped_query_attention", "rotate", "attend"], () => `${callOf(state().token)}/run_blocks.0/block.${state().layer}/`),
  );
  // A token comes with the head that looks most at what it is about.
  follow(["token"], ({ token }) => change({ layer: facts.worked[token].layer, head: facts.worked[token].head }));
  follow(["token", "layer", "head"], ({ token, layer, head }) => {
    tiles.forEach(({ draw }) => draw(token));
    pressed(tiles.map(({ button }) => button), layer * facts.heads + head);
    heat(map, levels(token, layer, head), grid);
    range.replaceChildren(scale("heat", percent(0), percent(largest(token))));
    const where = { layer, head, token: token + 1, word: shown(facts.answer[token]) };
    map.setAttribute("aria-label", t("attention.map", where));
    caption.textContent = `${t("attention.map", where)} ${onItsObject(token, layer, head)} ${t("attention.scale")}`;
    beside.replaceChildren(...shared(token, layer, head));
  });
}

// The largest weight that any head gives a patch while it chooses a token: full orange in all of the token's maps.
export function largest(token) {
  return Math.max(...pairs.map(({ layer, head }) => Math.max(...onImage(token, layer, head))));
}

export function levels(token, layer, head) {
  const most = largest(token);
  return Array.from(onImage(token, layer, head), (weight) => Math.sqrt(weight / most));
}

function tile(layer, head) {
  const map = el("canvas", { width: 112, height: 112, "aria-hidden": "true" });
  const share = el("span", { class: "share" });
  const button = el(
    "button",
    { type: "button", "data-layer": layer, "data-head": head, onclick: () => change({ layer, head }) },
    el("span", { class: "where" }, t("attention.tile", { layer, head })),
    map,
    share,
  );
  const draw = (token) => {
    heat(map, levels(token, layer, head), grid);
    share.textContent = percent(shares(token, layer, head).image);
    button.setAttribute("aria-label", t("attention.tile-label", { layer, head, share: share.textContent }));
  };
  return { button, draw };
}

function shared(token, layer, head) {
  const parts = Object.entries(shares(token, layer, head));
  return [
    el("h3", {}, t("attention.shares")),
    el("dl", { class: "shares" }, parts.map(([part, share], i) => [el("dt", {}, t(`part.${part}`)), el("dd", {}, bar(share, percent(share), false, facts.parts[i]))])),
  ];
}

function onItsObject(token, layer, head) {
  const thing = objectOf(token);
  if (!thing) return t("attention.no-object");
  return t("attention.on-object", { label: thing.label, share: percent(onObject(token, layer, head, thing)), area: percent(areaOf(thing)) });
}

// For every token of a box the head that looks most at it; a click shows its map.
function overview() {
  const told = facts.answer.map((_, token) => ({ token, thing: objectOf(token) })).filter(({ thing }) => thing);
  if (!told.length) return el("p", { class: "note" }, t("attention.overview-none"));
  const rows = told.map(({ token, thing }) => {
    const { layer, head } = facts.worked[token];
    const share = onObject(token, layer, head, thing);
    const show = () => change({ token, layer, head });
    return [
      el("button", { type: "button", class: "plain word", "data-looks": token, onclick: show }, `${token + 1} ${shown(facts.answer[token])}`),
      t("attention.tile", { layer, head }),
      bar(share, `${percent(share)} ${thing.label}${share < MAINLY ? t("attention.hardly") : ""}`),
      percent(shares(token, layer, head).image),
    ];
  });
  return table(["word", "head", "object", "image"].map((head) => t(`attention.head-${head}`)), rows, t("attention.overview"));
}
