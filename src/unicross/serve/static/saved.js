// Searches that are kept in this browser: a list of addresses, each a link that can be followed or deleted.

import { address, readAddress } from "./state.js";
import { t } from "./texts.js";
import { $, el } from "./view.js";

const KEY = `searches ${location.pathname}`; // servers below other paths have other pictures
const MOST = 50;

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one === "string" && one.startsWith("?")) : [];
  } catch {
    return [];
  }
}

function nameOf(state) {
  const filters = Object.entries(state.where).map(([column, value]) => `${column}: ${value}`);
  const without = state.minus && `${t("without")} ${state.minus}`;
  const dates = [state.after && `${t("from")} ${state.after}`, state.before && `${t("until")} ${state.before}`];
  const kind = state.kind === "text" && t("texts");
  return [state.q, state.like && t("likeChosen"), without, kind, ...filters, ...dates].filter(Boolean).join(" · ") || t("filters");
}

// `current()` gives the state to save, null where it cannot be; `onChoose(state)` searches.
export function startSaved({ current, onChoose }) {
  function write(all) {
    localStorage.setItem(KEY, JSON.stringify(all.slice(0, MOST)));
    draw();
  }

  function remove(one) {
    const place = read().indexOf(one);
    write(read().filter((other) => other !== one));
    const left = $("saved-list").querySelectorAll("button");
    (left[Math.min(place, left.length - 1)] ?? $("saved-toggle")).focus();
  }

  function draw() {
    const all = read();
    const items = all.map((one) => {
      const state = readAddress(one);
      const follow = (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        onChoose(state);
      };
      const name = nameOf(state);
      return el("li", {}, el("a", { href: one, onclick: follow }, name), el("button", { type: "button", ariaLabel: t("forget", { name }), title: t("forget", { name }), onclick: () => remove(one) }, "×"));
    });
    $("saved-list").replaceChildren(...items);
    $("saved-none").hidden = all.length > 0;
  }

  $("saved-toggle").onclick = () => {
    $("saved").hidden = !$("saved").hidden;
    $("saved-toggle").setAttribute("aria-expanded", String(!$("saved").hidden));
  };
  $("save").onclick = () => {
    const state = current();
    const one = state && address({ ...state, item: "" });
    if (one?.startsWith("?")) write([one, ...read().filter((other) => other !== one)]);
  };
  addEventListener("storage", (event) => event.key === KEY && draw()); // another tab of the same page
  draw();
  return () => ($("save").disabled = !current());
}
