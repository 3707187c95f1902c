// Drawing: plain functions from data to elements. Text never becomes markup.

import { thumbnail } from "./api.js";
import { language, t } from "./texts.js";

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  if (dataset) Object.assign(element.dataset, dataset);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const fileName = (item) => item.path.split("/").pop();
export const titleOf = (item) => item.caption || fileName(item) || t("wordless");
export const altOf = (item) => item.caption || t("picture", { name: fileName(item) });

// What stands behind a hit: the other pictures of its item, or near-duplicates.
export const groupName = (item) => t(item.columns.item !== undefined && item.others.every((other) => other.columns.item === item.columns.item) ? "ofItem" : "duplicates");

export const percent = (share) => share.toLocaleString(language, { style: "percent", maximumFractionDigits: 0 });
const told = (item) => (item.likelihood === null || item.likelihood === undefined ? item.score.toFixed(3) : percent(item.likelihood));

// A result: a link with its picture, and beside it the box that selects it.
export function cell(item, place, best, selected, onSelect) {
  const box = el("input", { type: "checkbox", className: "pick", checked: selected, ariaLabel: t("select", { name: titleOf(item) }), onchange: () => onSelect(item, box.checked) });
  box.dataset.pick = place;
  return el("div", { className: `cell ${item.kind}` }, tile(item, place, best), box);
}

function tile(item, place, best) {
  const image = item.picture && el("img", { alt: item.kind === "image" ? altOf(item) : "", loading: place < 12 ? "eager" : "lazy", decoding: "async", className: "waiting" });
  const more = item.others?.length ? el("span", { className: "more", title: groupName(item) }, `+${item.others.length}`, el("span", { className: "sr" }, ` ${groupName(item)}: `)) : null;
  const frame = el("span", { className: "frame" }, image, more);
  const caption = el("span", { className: item.caption ? "caption" : "caption name" }, titleOf(item));
  const score = item.score === null ? null : el("span", { className: "score", title: t(item.likelihood === null ? "score" : "likelihood") }, told(item));
  const meter = item.score === null || item.kind === "text" ? null : el("span", { className: "meter" });
  if (meter) meter.style.setProperty("--share", `${Math.max(0, Math.min(100, (100 * item.score) / Math.max(best, 0.01)))}%`);
  const node = el("a", { className: `tile ${item.kind}`, href: `?item=${item.id}`, dataset: { place } }, item.kind === "text" && !image ? null : frame, meter, caption, score);
  if (image) {
    image.addEventListener("load", () => image.classList.remove("waiting"));
    image.addEventListener("error", () => node.classList.add("broken"));
    image.src = thumbnail(item.picture);
  }
  return node;
}

export const skeletons = (count) =>
  Array.from({ length: count }, () => el("div", { className: "tile skeleton", ariaHidden: "true" }, el("span", { className: "frame" })));

export function message(title, text, { bad = false, actions = [] } = {}) {
  const box = $("message");
  box.className = bad ? "bad" : "";
  box.replaceChildren(el("h2", {}, title), el("p", {}, text), el("div", { className: "actions" }, ...actions));
  box.hidden = false;
}

export function welcome(info, onExample) {
  const count = info?.rows?.image ?? 0;
  const examples = (info?.examples ?? []).map((words) => el("button", { className: "quiet", type: "button", onclick: () => onExample(words) }, words));
  return el(
    "div",
    { className: "welcome", style: "grid-column: 1 / -1" },
    el("h1", {}, count === 1 ? t("welcomeOne") : t("welcome", { count: count.toLocaleString(language) })),
    el("p", {}, t("welcomeHow")),
    examples.length ? el("div", { className: "examples" }, ...examples) : null,
  );
}

export function facets(info, state, onChange) {
  const choices = Object.entries(info.values).filter(([, values]) => values.length > 1);
  return choices.map(([column, values]) => {
    const select = el("select", { onchange: () => onChange(column, select.value) }, el("option", { value: "" }, t("any")));
    for (const [value, count] of values) select.append(el("option", { value: String(value) }, `${value === "" ? t("none") : value} (${count.toLocaleString(language)})`));
    const chosen = state.where[column] ?? "";
    if (chosen && !values.some(([value]) => String(value) === chosen)) select.append(el("option", { value: chosen }, chosen));
    select.value = chosen;
    const label = column === "album" ? t("album") : column.charAt(0).toUpperCase() + column.slice(1).replaceAll("_", " ");
    return el("label", { className: "field" }, el("span", { className: "label" }, label), select);
  });
}

const bytes = (size) => (size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(size / 1e3))} kB`);

export function facts(item) {
  const rows = [];
  const add = (name, value) => rows.push(el("dt", {}, name), el("dd", {}, String(value)));
  if (item.score !== null && item.score !== undefined) add(t("score"), item.score.toFixed(3));
  if (item.likelihood !== null && item.likelihood !== undefined) add(t("likelihood"), percent(item.likelihood));
  if (item.path) add(t("fileName"), item.path);
  if (item.album) add(t("album"), item.album);
  if (item.mtime) add(t("changed"), new Date(item.mtime * 1000).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" }));
  if (item.size) add(t("size"), bytes(item.size));
  for (const [name, value] of Object.entries(item.columns)) add(name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " "), value);
  return rows;
}
