// 6: what it was about to say.
import { callOf, facts, prefix, shown, tokenAt, values } from "./data.js";
import { bar, choose, el, labelled, opened, table } from "./dom.js";
import { follow, state } from "./state.js";
import { percent, t } from "./texts.js";
import { codeBeside } from "./code.js";

const BEST = facts.lens.ids.shape[2];
const ids = values(facts.lens.ids);
const chances = values(facts.lens.probabilities);

export function lens(name, place) {
  const body = opened(name, place);
  const rows = el("div", { "aria-live": "polite" });
  const last = facts.lens.first + facts.lens.ids.shape[0] - 1;
  const options = [];
  for (let position = facts.lens.first; position <= last; position++) options.push([position, option(position)]);
  const select = choose(options, (position) => draw(Number(position)));
  const draw = (position) => rows.replaceChildren(layers(position));
  body.append(labelled(t("lens.position"), select), rows, codeBeside(["run_blocks", "block", "geglu", "unembed"], () => `${callOf(state().token)}/`));
  follow(["token"], ({ token }) => {
    select.value = String(prefix - 1 + token);
    draw(prefix - 1 + token);
  });
}

function option(position) {
  const { kind, id, patch } = tokenAt(position);
  const here = kind === "image" ? t("token.image", { patch }) : t("lens.token", { position, word: shown(id) });
  const next = position >= prefix - 1 ? t("lens.chooses", { word: shown(facts.answer[position - prefix + 1]) }) : "";
  return `${here}${next}`;
}

function layers(position) {
  const count = facts.layers + 1;
  const start = (position - facts.lens.first) * count * BEST;
  const chosen = position >= prefix - 1 ? facts.answer[position - prefix + 1] : null;
  const rows = Array.from({ length: count }, (_, layer) => {
    const cells = Array.from({ length: BEST }, (_, rank) => {
      const i = start + layer * BEST + rank;
      return el("div", { class: "lens-cell" }, el("code", { class: ids[i] === chosen ? "chosen" : "" }, shown(ids[i])), bar(chances[i], percent(chances[i])));
    });
    return [layer === 0 ? t("lens.embedding") : t("lens.after", { layer: layer - 1 }), ...cells];
  });
  const heads = [t("head.layer"), ...Array.from({ length: BEST }, (_, rank) => t("question.rank", { rank: rank + 1 }))];
  return table(heads, rows, t("lens.table"));
}
