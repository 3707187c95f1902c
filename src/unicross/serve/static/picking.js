// Pictures that are dropped, pasted, or dragged from the results onto the page.

const ITEM = "application/x-unicross-id";

// `onFile(file)` and `onItem(id)` search; `idOf(link)` is the id of the result that a link shows.
export function startPicking({ onFile, onItem, idOf }) {
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    onFile(file);
  });
  addEventListener("dragstart", (event) => {
    const link = event.target.closest?.("a.tile");
    const id = link && idOf(link);
    if (id) event.dataTransfer.setData(ITEM, id);
  });
  let depth = 0; // dragenter and dragleave come for every child too
  const isPicture = (event) => event.dataTransfer?.types.includes(ITEM) || event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => isPicture(event) && ((depth += 1), document.body.classList.add("dropping")));
  addEventListener("dragleave", () => (depth = Math.max(0, depth - 1)) || document.body.classList.remove("dropping"));
  addEventListener("dragend", () => ((depth = 0), document.body.classList.remove("dropping")));
  addEventListener("dragover", (event) => isPicture(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    depth = 0;
    document.body.classList.remove("dropping");
    if (!isPicture(event)) return;
    event.preventDefault();
    const id = event.dataTransfer.getData(ITEM);
    if (id) onItem(id);
    else onFile(event.dataTransfer.files[0]);
  });
}
