// The large view of one hit, with its neighbours left and right.

import { ask, original, thumbnail } from "./api.js";
import { Crop } from "./crop.js";
import { t } from "./texts.js";
import { $, altOf, el, facts, groupName, titleOf } from "./view.js";

export class Viewer {
  // `hits()` gives the results, `onMove(item)` is told what is shown (null: closed), `onLike(id)` and
  // `onWords(text)` start searches, `onPart(blob)` searches with a part of the picture, `onEnd()` loads more results.
  constructor({ hits, onMove, onLike, onWords, onPart, onEnd }) {
    Object.assign(this, { hits, onMove, onLike, onWords, onEnd, item: null, head: null });
    this.crop = new Crop({ onCut: (blob) => this.leave(() => onPart(blob)), onEnd: () => $("viewer-part").focus() });
    $("viewer-part").onclick = () => (this.crop.on ? this.crop.stop() : this.crop.start($("viewer-image")));
    this.dialog = $("viewer");
    $("viewer-close").onclick = () => this.dialog.close();
    $("viewer-previous").onclick = () => this.step(-1);
    $("viewer-next").onclick = () => this.step(1);
    $("viewer-like").onclick = () => this.like();
    $("viewer-link").onclick = () => this.copy();
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("cancel", (event) => {
      if (!this.crop.on) return; // Esc ends the box first
      event.preventDefault();
      this.crop.stop();
    });
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.step(-1);
      else if (event.key === "ArrowRight") this.step(1);
      else if (event.key === "m" || event.key === "M") this.like();
      else return;
      event.preventDefault();
    });
  }

  get open() {
    return this.dialog.open;
  }

  place() {
    return this.hits().findIndex((hit) => hit.id === this.head?.id);
  }

  // `head`: the hit that it stands behind.
  async show(item, head = item) {
    Object.assign(this, { item, head });
    this.crop.stop();
    const image = $("viewer-image");
    image.hidden = !item.picture;
    image.alt = altOf(item);
    image.src = item.picture ? thumbnail(item.picture, 640) : "";
    if (item.picture) this.sharpen(image, item.picture);
    $("viewer-title").textContent = titleOf(item);
    $("viewer-facts").replaceChildren(...facts(item));
    $("viewer-original").hidden = !item.picture;
    if (item.picture) $("viewer-original").href = original(item.picture);
    $("viewer-link").textContent = t("link");
    $("viewer-near").hidden = $("viewer-gone").hidden = true;
    $("viewer-part").hidden = !item.picture;
    this.group();
    this.update();
    if (!this.dialog.open) this.dialog.showModal();
    this.onMove(item);
    await Promise.all([this.near(item), this.gone(item)]);
  }

  // Says that the file of a picture is gone, and whether a small picture of it was kept.
  async gone(item) {
    if (!item.picture) return;
    try {
      const { shown } = await ask(`items/${encodeURIComponent(item.id)}`);
      if (this.item !== item || shown === "original") return;
      $("viewer-gone").textContent = t(shown === "thumbnail" ? "goneKept" : "gone");
      $("viewer-gone").hidden = false;
      $("viewer-original").hidden = true;
      $("viewer-part").hidden = shown === null;
    } catch {
      // the view is complete without it
    }
  }

  // The small picture is there at once; the whole one takes its place when it has come.
  sharpen(image, id) {
    const whole = new Image();
    whole.onload = () => this.item?.picture === id && (image.src = whole.src);
    whole.src = original(id);
  }

  // The hit and what stands behind it.
  group() {
    const { head } = this;
    $("viewer-others").hidden = !head.others?.length;
    if (!head.others?.length) return;
    $("viewer-group").textContent = groupName(head);
    const pictures = [head, ...head.others].map((one) => {
      const image = el("img", { alt: altOf(one), loading: "lazy" });
      if (one.picture) image.src = thumbnail(one.picture, 160);
      const button = el("button", { type: "button", title: one.path, onclick: () => this.choose(one) }, image);
      if (one.id === this.item.id) button.setAttribute("aria-current", "true");
      return button;
    });
    $("viewer-duplicates").replaceChildren(...pictures);
  }

  choose(one) {
    this.show(one, this.head);
    $("viewer-duplicates").querySelector("[aria-current]")?.focus(); // the buttons are new
  }

  async near(item) {
    try {
      const { hits } = await ask(`search?like=${encodeURIComponent(item.id)}&kind=text&k=5`);
      if (this.item !== item || !hits.length) return;
      const rows = hits.map((hit) => {
        const button = el("button", { type: "button", title: t("search") }, el("span", {}, hit.caption), el("span", {}, hit.score.toFixed(3)));
        button.onclick = () => this.leave(() => this.onWords(hit.caption));
        return el("li", {}, button);
      });
      $("viewer-captions").replaceChildren(...rows);
      $("viewer-near").hidden = false;
    } catch {
      // without texts in the store the view is complete as it is
    }
  }

  update() {
    const place = this.place();
    $("viewer-previous").disabled = place <= 0;
    $("viewer-next").disabled = place < 0 || place >= this.hits().length - 1;
  }

  step(by) {
    const place = this.place();
    const next = this.hits()[place + by];
    if (place < 0 || !next) return;
    if (place + by > this.hits().length - 4) this.onEnd();
    this.show(next);
  }

  like() {
    const { id } = this.item;
    this.leave(() => this.onLike(id));
  }

  // Close without putting the old address back: the new search brings its own.
  leave(then) {
    this.leaving = true;
    this.dialog.close();
    then();
  }

  closed() {
    const place = this.place();
    this.crop.stop();
    this.item = this.head = null;
    if (this.leaving) this.leaving = false;
    else this.onMove(null, place);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(location.href);
      $("viewer-link").textContent = t("copied");
    } catch {
      $("viewer-link").textContent = t("copyByHand");
    }
  }
}
