// Results that are ticked, and the file that lists them.

import { t } from "./texts.js";
import { $ } from "./view.js";

const chosen = new Map(); // items by id, in the order in which they were ticked

export const isSelected = (item) => chosen.has(item.id);

export function select(item, on) {
  if (on) chosen.set(item.id, item);
  else chosen.delete(item.id);
  show();
}

function show() {
  $("selection").hidden = !chosen.size;
  $("selection-count").textContent = chosen.size ? t("selected", { count: chosen.size }) : "";
}

// A cell that a spreadsheet takes for text: what would begin a formula there gets a quote before it.
function cellOf(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

export function asCsv(items) {
  const own = [...new Set(items.flatMap((item) => Object.keys(item.columns)))];
  const built = ["id", "kind", "path", "album", "caption", "score", "likelihood"];
  const lines = items.map((item) => [...built.map((name) => item[name]), ...own.map((name) => item.columns[name])]);
  return [[...built, ...own], ...lines].map((line) => line.map(cellOf).join(",") + "\r\n").join("");
}

export function startSelection(onClear) {
  $("selection-csv").onclick = () => {
    const blob = new Blob(["\ufeff", asCsv([...chosen.values()])], { type: "text/csv;charset=utf-8" }); // the mark tells Excel that it is UTF-8
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "unicross.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  $("selection-clear").onclick = () => {
    chosen.clear();
    show();
    onClear();
  };
}
