// The page: state in, results out. Drawing is in view.js, the address in state.js, the large view in viewer.js.

import { ask, shrink, thumbnail } from "./api.js";
import { startPicking } from "./picking.js";
import { startSaved } from "./saved.js";
import { isSelected, select, startSelection } from "./selection.js";
import { address, emptyState, filterCount, leavesOut, readAddress, request } from "./state.js";
import { LANGUAGES, language, t, translate } from "./texts.js";
import { $, cell, el, facets, message, percent, skeletons, welcome } from "./view.js";
import { Viewer } from "./viewer.js";

const PAGE = 24;

let state = readAddress();
let picture = null; // the picture that is searched with, as a blob
let info = null;
let hits = [];
let more = false;
let loading = null; // the AbortController of the request under way

const viewer = new Viewer({
  hits: () => hits,
  onMove: (item, place) => {
    state.item = item?.id ?? "";
    history.replaceState(null, "", address(state));
    if (!item && place >= 0) tileAt(place)?.focus();
  },
  onLike: (like) => go({ ...emptyState(), kind: "image", where: state.where, like }),
  onWords: (q) => go({ ...emptyState(), where: state.where, q }),
  onPart: (blob) => searchWith(blob, { ...emptyState(), kind: "image", where: state.where }),
  onEnd: () => load(),
});

// ---------------------------------------------------------------- searching

function go(next, { keepPicture = false, push = true } = {}) {
  state = next;
  if (!keepPicture) setPicture(null);
  if (push) history.pushState(null, "", address(state));
  fill();
  search();
}

async function search() {
  loading?.abort();
  hits = [];
  more = true;
  loading = null;
  $("message").hidden = true;
  $("results").replaceChildren(...skeletons(12));
  $("status").textContent = t("searching");
  window.scrollTo({ top: 0 });
  await load();
}

async function load() {
  if (!more || loading) return;
  const control = (loading = new AbortController());
  const first = hits.length === 0;
  try {
    const answer = await ask(request(state, picture, hasItems(), hits.length, PAGE), { body: picture ?? undefined, signal: control.signal });
    show(answer, first);
  } catch (error) {
    if (error.name === "AbortError") return;
    more = false;
    fail(error);
  } finally {
    if (loading === control) loading = null;
  }
  if (more && $("sentinel").getBoundingClientRect().top < innerHeight + 600) load();
}

function show(answer, first) {
  const known = new Set(hits.map((hit) => hit.id));
  const fresh = answer.hits.filter((hit) => !known.has(hit.id));
  if (first) $("results").replaceChildren(...(resting() ? [welcome(info, (q) => go({ ...state, q }))] : []));
  const start = hits.length;
  hits = [...hits, ...fresh];
  more = answer.more && fresh.length > 0;
  $("results").append(...fresh.map((hit, i) => cell(hit, start + i, hits[0].score ?? 1, isSelected(hit), select)));
  $("status").textContent = describe(answer);
  if (!hits.length) nothing();
  viewer.update();
}

const hasItems = () => Boolean(info?.columns.item);
// A picture from outside is not in the address, so a search with it cannot be saved.
const saveable = () => (picture || address({ ...state, item: "" })[0] !== "?" ? null : state);
const updateSaved = startSaved({ current: saveable, onChoose: go });
const resting = () => !picture && !state.q.trim() && !state.like;

function describe(answer) {
  if (!hits.length) return "";
  const what = t(state.kind === "text" ? "whatTexts" : "whatPictures");
  if (resting()) return filterCount(state) ? t("filtered", { count: `${hits.length}${more ? "+" : ""}`, what }) : "";
  const subject = state.like ? t("likeChosen") : picture ? t(state.q ? "forBoth" : "likeYours", state) : t("forWords", state);
  return `${t(more ? "best" : "all", { count: hits.length, what, subject })} · ${Math.round(answer.took_ms)} ms`;
}

function nothing() {
  $("results").replaceChildren();
  const actions = filterCount(state) ? [el("button", { className: "quiet", onclick: clearFilters }, t("clearFilters"))] : [];
  if (!info?.rows?.image && !info?.rows?.text) message(t("emptyStore"), t("emptyStoreHow"));
  else if (leavesOut(state, picture)) {
    const nearest = el("button", { className: "quiet", onclick: () => refine({ likely: 0 }) }, t("nearest"));
    message(t("unlikely"), t("unlikelyHow", { share: percent(state.likely) }), { actions: [nearest] });
  } else message(t("nothing"), t(whyNothing()), { actions });
}

function whyNothing() {
  if (!info.rows[state.kind]) return "nothingKind";
  const byWords = state.mode === "text" && state.q.trim() && !state.like;
  if (byWords && filterCount({ ...state, mode: "vector" }) === 0) return "nothingWords";
  return filterCount(state) ? "nothingFilters" : "nothingKind";
}

function fail(error) {
  if (error.status === 401) {
    $("results").replaceChildren();
    $("status").textContent = "";
    $("key-dialog").showModal();
    return;
  }
  $("status").textContent = "";
  if (!hits.length) $("results").replaceChildren();
  const filtered = error.status === 400 && filterCount(state) > 0; // the same filters would fail again
  const action = filtered ? el("button", { className: "quiet", onclick: clearFilters }, t("clearFilters")) : el("button", { className: "quiet", onclick: search }, t("again"));
  message(t("failed"), error.message, { bad: true, actions: [action] });
}

// ---------------------------------------------------------------- the picture that is searched with

function setPicture(blob) {
  URL.revokeObjectURL($("chip-image").src);
  picture = blob;
  showChip(blob && URL.createObjectURL(blob));
}

// The small picture in the search field: the uploaded one, or the stored one that others should be like.
function showChip(url) {
  $("chip").hidden = !url;
  $("weight-field").hidden = !picture;
  if (url) $("chip-image").src = url;
  else $("chip-image").removeAttribute("src");
}

async function searchWith(file, from = state) {
  if (!file) return;
  setPicture(await shrink(file));
  $("file").value = "";
  go({ ...from, like: "", item: "" }, { keepPicture: true });
}

$("file").onchange = () => searchWith($("file").files[0]);
$("chip-remove").onclick = () => go({ ...state, like: "", item: "" });
$("chip-image").onerror = () => $("chip-image").src && showChip(null);

// ---------------------------------------------------------------- words and filters

$("search").onsubmit = (event) => {
  event.preventDefault();
  go({ ...state, q: $("words").value, like: "", item: "" }, { keepPicture: true });
};
$("home").onclick = (event) => {
  event.preventDefault();
  go(emptyState());
  $("words").focus();
};
const refine = (changes) => go({ ...state, ...changes, item: "" }, { keepPicture: true });
for (const input of document.querySelectorAll("[name=kind]")) input.onchange = () => refine({ kind: input.value });
for (const name of ["minus", "after", "before", "mode"]) $(name).onchange = () => refine({ [name]: $(name).value });
$("likely").oninput = () => ($("likely-said").value = percent(Number($("likely").value)));
$("likely").onchange = () => refine({ likely: Number($("likely").value) });
$("fold").onchange = () => refine({ fold: $("fold").checked });
$("items").onchange = () => refine({ apart: !$("items").checked });
$("weight").onchange = () => refine({ weight: Number($("weight").value) });
const clearFilters = () => refine({ where: {}, minus: "", after: "", before: "", kind: "image", mode: "vector", likely: 0, fold: false, apart: false });
$("clear").onclick = clearFilters;
$("filters-toggle").onclick = () => {
  $("filters").hidden = !$("filters").hidden;
  $("filters-toggle").setAttribute("aria-expanded", String(!$("filters").hidden));
};

// The controls as the state says.
function fill() {
  $("words").value = state.q;
  for (const name of ["minus", "after", "before", "weight", "mode", "likely"]) $(name).value = state[name];
  $("fold").checked = state.fold;
  $("items").checked = !state.apart;
  $("items-field").hidden = !hasItems();
  $("likely-field").hidden = !info?.likelihood || state.mode === "text";
  $("likely-said").value = percent(state.likely);
  document.querySelector(`[name=kind][value=${state.kind}]`).checked = true;
  const count = filterCount(state);
  $("filters-count").textContent = count || "";
  $("filters-count").hidden = !count;
  document.title = state.q ? `${state.q} · unicross` : "unicross";
  updateSaved();
  if (!picture) showChip(state.like && thumbnail(state.like, 160));
  if (info) {
    const chosen = (column, value) => {
      const { [column]: _, ...where } = state.where;
      refine({ where: value ? { ...where, [column]: value } : where });
    };
    $("facets").replaceChildren(...facets(info, state, chosen));
  }
}

// ---------------------------------------------------------------- results: opening, keys, endless scrolling

const tileAt = (place) => $("results").querySelector(`[data-place="${place}"]`);

$("results").onclick = (event) => {
  const node = event.target.closest("a.tile");
  if (!node || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  viewer.show(hits[Number(node.dataset.place)]);
};
new IntersectionObserver((entries) => entries[0].isIntersecting && hits.length && load(), { rootMargin: "600px" }).observe($("sentinel"));

addEventListener("keydown", (event) => {
  if (viewer.open || $("key-dialog").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input:not(.pick), select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("words").select();
    $("words").focus();
  } else if (event.key === "Escape" && typing) {
    event.target.blur();
  } else if (event.key === "ArrowDown" && event.target === $("words")) {
    event.preventDefault();
    tileAt(0)?.focus();
  } else if (event.target.matches?.("a.tile, .pick")) {
    moveFrom(Number(event.target.dataset.place ?? event.target.dataset.pick), event);
  }
});

function moveFrom(place, event) {
  const columns = getComputedStyle($("results")).gridTemplateColumns.split(" ").length;
  const row = hits[place]?.kind === "text" ? 1 : columns;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row }[event.key];
  if (step) {
    event.preventDefault();
    if (place + step < 0) $("words").focus();
    else tileAt(Math.min(place + step, hits.length - 1))?.focus();
  } else if (event.key === "x" || event.key === "X") {
    $("results").querySelector(`[data-pick="${place}"]`)?.click();
  } else if (event.key === "m" || event.key === "M") {
    go({ ...emptyState(), where: state.where, like: hits[place].id });
  }
}

// ---------------------------------------------------------------- colours, key, start

$("theme").onclick = () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
};
$("key-dialog").addEventListener("close", () => {
  document.cookie = `unicross_key=${encodeURIComponent($("key").value)}; path=${location.pathname}; SameSite=Strict`;
  $("key").value = "";
  start();
});
addEventListener("popstate", () => {
  if (viewer.open) viewer.leave(() => {});
  state = readAddress();
  setPicture(null);
  fill();
  search();
});

startSelection(() => document.querySelectorAll(".pick").forEach((box) => (box.checked = false)));
startPicking({ onFile: (file) => searchWith(file), onItem: (id) => go({ ...emptyState(), where: state.where, like: id }), idOf: (node) => hits[Number(node.dataset.place)]?.id });
$("language").append(...Object.entries(LANGUAGES).map(([code, name]) => el("option", { value: code, selected: code === language }, name)));
$("language").onchange = () => {
  localStorage.setItem("language", $("language").value);
  location.reload();
};

async function start() {
  translate();
  fill();
  const { item } = state;
  info = await ask("info").catch(() => null);
  fill();
  if (filterCount(state)) $("filters-toggle").click();
  await search();
  if (resting() && matchMedia("(hover: hover)").matches) $("words").focus();
  if (item) ask(`items/${encodeURIComponent(item)}`).then((row) => viewer.show(hits.find((hit) => hit.id === row.id) ?? { score: null, ...row })).catch(fail);
}
start();
