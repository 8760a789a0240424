// The page's language: every text stands in the dictionary, texts.json.
import { dictionary } from "./data.js";

export function t(key, given = {}) {
  const text = dictionary[key];
  if (text === undefined) throw new Error(`no text '${key}'`);
  return text.replace(/\{(\w+)\}/g, (_, name) => given[name]);
}

export function number(value, digits = 4) {
  if (value === Infinity) return "∞";
  if (value === -Infinity) return "−∞";
  if (Number.isInteger(value)) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 2) : value.toPrecision(digits);
  return text.replace(/-/g, "−");
}

// One way to write a share, so that a column of them can be compared.
export function percent(share, digits = 1) {
  if (share === Infinity) return "∞ %";
  return `${(100 * share).toFixed(digits).replace("-", "−")} %`;
}

export function megabytes(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
