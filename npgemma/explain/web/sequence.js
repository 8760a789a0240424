// 3: the sequence that the decoder reads.
import { facts, prefix, shown } from "./data.js";
import { el, opened } from "./dom.js";
import { t } from "./texts.js";
import { codeBeside } from "./code.js";

export function sequence(name, place) {
  const body = opened(name, place, { patches: facts.patches, prefix, tokens: facts.answer.length });
  const words = [
    el(
      "li",
      { class: "token prefix wide" },
      el("span", { class: "word" }, t("sequence.image", { patches: facts.patches })),
      el("span", { class: "about" }, t("sequence.image-about", { last: facts.patches - 1 })),
    ),
    ...facts.prompt_ids.map((id, i) => token(id, facts.patches + i, "prefix")),
    ...facts.answer.map((id, i) => token(id, prefix + i, "answer")),
  ];
  body.append(
    el("ol", { class: "sequence" }, words),
    el("p", { class: "note" }, t("sequence.key")),
    codeBeside(["embed_tokens", "with_image", "positions", "angles"]),
  );
}

function token(id, position, kind) {
  return el(
    "li",
    { class: `token ${kind}` },
    el("span", { class: "word" }, shown(id)),
    el("span", { class: "about" }, t("sequence.about", { id, position })),
    el("span", { class: "about" }, t(`sequence.${kind}`)),
  );
}
