// What is asked for, and its place in the address, so that every search can be shared.

export const emptyState = () => ({ q: "", like: "", kind: "image", minus: "", where: {}, after: "", before: "", weight: 0.5, mode: "vector", likely: 0, fold: false, apart: false, item: "" });

export function readAddress(search = location.search) {
  const given = new URLSearchParams(search);
  const state = emptyState();
  for (const name of ["q", "like", "minus", "after", "before", "item"]) state[name] = given.get(name) ?? "";
  if (given.get("kind") === "text") state.kind = "text";
  const weight = parseFloat(given.get("weight"));
  if (weight >= 0 && weight <= 1) state.weight = weight;
  if (["text", "hybrid"].includes(given.get("mode"))) state.mode = given.get("mode");
  const likely = parseFloat(given.get("likely"));
  if (likely >= 0 && likely <= 1) state.likely = likely;
  for (const name of ["fold", "apart"]) state[name] = given.get(name) === "1";
  for (const condition of given.getAll("where")) {
    const [, column, value] = condition.match(/^([A-Za-z_]\w*)=(.*)$/s) ?? [];
    if (column) state.where[column] = value;
  }
  return state;
}

export function address(state) {
  const given = new URLSearchParams();
  for (const name of ["q", "like", "minus", "after", "before"]) if (state[name]) given.set(name, state[name]);
  if (state.kind === "text") given.set("kind", "text");
  if (state.mode !== "vector") given.set("mode", state.mode);
  if (state.likely) given.set("likely", state.likely);
  for (const name of ["fold", "apart"]) if (state[name]) given.set(name, "1");
  for (const [column, value] of Object.entries(state.where)) given.append("where", `${column}=${value}`);
  if (state.item) given.set("item", state.item);
  const text = given.toString();
  return text ? `?${text}` : location.pathname;
}

// The request for one page of results; `picture` says whether a picture is sent with it, `items` whether the
// store knows items: then pictures come one an item.
export function request(state, picture, items, offset, k) {
  const given = new URLSearchParams({ kind: state.kind, offset, k });
  if (items && state.kind === "image" && !state.apart) given.set("by", "item");
  for (const [column, value] of Object.entries(state.where)) given.append("where", `${column}=${value}`);
  if (state.after) given.append("where", `mtime>=${state.after}`);
  if (state.before) given.append("where", `mtime<=${state.before}T23:59:59`);
  if (!picture && !state.q.trim() && !state.like) return `browse?${given}`;
  if (state.like) given.set("like", state.like);
  else if (state.q.trim()) given.set("q", state.q);
  if (picture && state.q.trim()) given.set("weight", state.weight);
  if (state.q.trim() && !state.like && state.mode !== "vector") given.set("mode", state.mode);
  if (state.fold) given.set("fold", "true");
  if (leavesOut(state, picture)) given.set("min_score", state.likely);
  for (const words of state.minus.split(",")) if (words.trim()) given.append("minus", words.trim());
  return `search?${given}`;
}

export const filterCount = (state) =>
  Object.keys(state.where).length + Boolean(state.minus.trim()) + Boolean(state.after) + Boolean(state.before) + (state.kind === "text") + (state.mode !== "vector") + Boolean(state.likely && state.mode !== "text") + state.fold + state.apart;

// Whether pictures may be left out as unlikely: those that are looked for by words and nothing else, and by what they show.
export const leavesOut = (state, picture) =>
  Boolean(state.likely) && state.mode !== "text" && state.kind === "image" && !picture && !state.like && !state.minus.trim() && Boolean(state.q.trim());
