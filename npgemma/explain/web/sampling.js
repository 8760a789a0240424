// From logits to probabilities, and which tokens temperature, top-k and top-p keep.
import { facts, row, values } from "./data.js";

export const kept = facts.choice.ids.shape[1];
const totals = values(facts.choice.total);

// Ids and probabilities of the tokens an answer token was chosen among, the most probable first.
export function ranked(token, count = kept) {
  const ids = row(facts.choice.ids, token);
  const logits = row(facts.choice.logits, token);
  return Array.from({ length: Math.min(count, kept) }, (_, i) => [ids[i], Math.exp(logits[i] - totals[token])]);
}

// The probability with which the model chose an answer token.
export function probability(token) {
  const place = row(facts.choice.ids, token).indexOf(facts.answer[token]);
  return place < 0 ? 0 : ranked(token, place + 1)[place][1];
}

// As npgemma.generate.sample: temperature, then top-k, then top-p of what top-k has left. Returns a probability for each
// rank; 0 for those that are left out.
export function sampled(token, temperature, topK, topP) {
  const logits = row(facts.choice.logits, token).subarray(0, topK || kept);
  const exponentials = Array.from(logits, (logit) => Math.exp((logit - logits[0]) / temperature));
  const total = exponentials.reduce((sum, x) => sum + x, 0);
  let before = 0;
  const left = exponentials.map((x) => {
    const share = x / total;
    // The sum reaches 1 by rounding before the last token.
    const keeps = topP === 1 || before < topP;
    before += share;
    return keeps ? share : 0;
  });
  const sum = left.reduce((all, x) => all + x, 0);
  return left.map((x) => x / sum);
}

// The rank of the token drawn: probabilities lie end to end on a line, and the random number falls on one of them.
export function rankDrawn(probabilities, uniform) {
  let end = 0;
  const rank = probabilities.findIndex((x) => (end += x) > uniform);
  return rank < 0 ? probabilities.findLastIndex((x) => x > 0) : rank;
}
