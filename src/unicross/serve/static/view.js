// Drawing: plain functions from data to elements. Text never becomes markup.

import { thumbnail } from "/static/api.js";

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  if (dataset) Object.assign(element.dataset, dataset);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const fileName = (item) => item.path.split("/").pop();
export const titleOf = (item) => item.caption || fileName(item) || "A text without words";
export const altOf = (item) => item.caption || `Picture ${fileName(item)}`;

export function tile(item, place, best) {
  const image = item.picture && el("img", { alt: item.kind === "image" ? altOf(item) : "", loading: place < 12 ? "eager" : "lazy", decoding: "async", className: "waiting" });
  const frame = el("span", { className: "frame" }, image);
  const caption = el("span", { className: item.caption ? "caption" : "caption name" }, titleOf(item));
  const score = item.score === null ? null : el("span", { className: "score", title: "Cosine similarity" }, item.score.toFixed(3));
  const meter = item.score === null || item.kind === "text" ? null : el("span", { className: "meter" });
  if (meter) meter.style.setProperty("--share", `${Math.max(0, Math.min(100, (100 * item.score) / Math.max(best, 0.01)))}%`);
  const node = el("a", { className: `tile ${item.kind}`, href: `/?item=${item.id}`, dataset: { place } }, item.kind === "text" && !image ? null : frame, meter, caption, score);
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
    el("h1", {}, `${count.toLocaleString()} ${count === 1 ? "picture" : "pictures"}. Say what you are looking for.`),
    el("p", {}, "Words, a picture that you drop or paste, or both."),
    examples.length ? el("div", { className: "examples" }, ...examples) : null,
  );
}

export function facets(info, state, onChange) {
  const choices = Object.entries(info.values).filter(([, values]) => values.length > 1);
  return choices.map(([column, values]) => {
    const select = el("select", { onchange: () => onChange(column, select.value) }, el("option", { value: "" }, "Any"));
    for (const [value, count] of values) select.append(el("option", { value: String(value) }, `${value === "" ? "(none)" : value} (${count.toLocaleString()})`));
    const chosen = state.where[column] ?? "";
    if (chosen && !values.some(([value]) => String(value) === chosen)) select.append(el("option", { value: chosen }, chosen));
    select.value = chosen;
    const label = column.charAt(0).toUpperCase() + column.slice(1).replaceAll("_", " ");
    return el("label", { className: "field" }, el("span", { className: "label" }, label), select);
  });
}

const bytes = (size) => (size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(size / 1e3))} kB`);

export function facts(item) {
  const rows = [];
  const add = (name, value) => rows.push(el("dt", {}, name), el("dd", {}, String(value)));
  if (item.score !== null && item.score !== undefined) add("Score", item.score.toFixed(3));
  if (item.path) add("File", item.path);
  if (item.album) add("Album", item.album);
  if (item.mtime) add("Changed", new Date(item.mtime * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
  if (item.size) add("Size", bytes(item.size));
  for (const [name, value] of Object.entries(item.columns)) add(name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " "), value);
  return rows;
}
