// A box over the large picture, drawn with the pointer or moved with the keys, and what it cuts out.

import { $ } from "./view.js";

const STEP = 0.03; // of the picture's sides, for a press of a key
const SMALLEST = 0.05;

export class Crop {
  // `onCut(blob)` gets the part as a JPEG; `onEnd()` is told when nothing is cut any more.
  constructor({ onCut, onEnd }) {
    Object.assign(this, { onCut, onEnd });
    this.area = $("crop");
    this.area.addEventListener("pointerdown", (event) => this.begin(event));
    this.area.addEventListener("pointermove", (event) => this.from && this.draw(event));
    this.area.addEventListener("pointerup", () => this.release());
    this.area.addEventListener("keydown", (event) => this.key(event));
  }

  get on() {
    return !this.area.hidden;
  }

  start(image) {
    this.image = image;
    this.box = { x: 0.25, y: 0.25, w: 0.5, h: 0.5 }; // shares of the picture's sides
    this.area.hidden = $("crop-hint").hidden = false;
    if (image.naturalWidth) this.show();
    else image.addEventListener("load", () => this.on && this.show(), { once: true });
    this.area.focus();
  }

  stop() {
    if (!this.on) return;
    this.area.hidden = $("crop-hint").hidden = true;
    this.from = null;
    this.onEnd();
  }

  // Where the picture lies in its frame, which it fills one way only.
  frame() {
    const outer = this.image.getBoundingClientRect();
    const scale = Math.min(outer.width / this.image.naturalWidth, outer.height / this.image.naturalHeight);
    const [w, h] = [this.image.naturalWidth * scale, this.image.naturalHeight * scale];
    return { x: outer.x + (outer.width - w) / 2, y: outer.y + (outer.height - h) / 2, w, h, outer };
  }

  at(event) {
    const frame = this.frame();
    return [within((event.clientX - frame.x) / frame.w), within((event.clientY - frame.y) / frame.h)];
  }

  begin(event) {
    this.area.setPointerCapture(event.pointerId);
    this.from = this.at(event);
  }

  draw(event) {
    const [x, y] = this.at(event);
    const [left, top] = this.from;
    this.box = { x: Math.min(x, left), y: Math.min(y, top), w: Math.abs(x - left), h: Math.abs(y - top) };
    this.show();
  }

  release() {
    if (this.from && this.box.w >= SMALLEST && this.box.h >= SMALLEST) this.cut();
    this.from = null;
  }

  key(event) {
    const [dx, dy] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [0, 0];
    const { box } = this;
    if (event.key === "Enter") this.cut();
    else if (event.key === "Escape") this.stop();
    else if (!dx && !dy) return;
    else if (event.shiftKey) {
      box.w = Math.min(1 - box.x, Math.max(SMALLEST, box.w + dx));
      box.h = Math.min(1 - box.y, Math.max(SMALLEST, box.h + dy));
    } else {
      box.x = Math.min(1 - box.w, within(box.x + dx));
      box.y = Math.min(1 - box.h, within(box.y + dy));
    }
    event.preventDefault();
    event.stopPropagation(); // the arrows would step to the neighbours
    if (this.on) this.show();
  }

  show() {
    const { x, y, w, h, outer } = this.frame();
    const { style } = $("crop-box");
    style.left = `${x - outer.x + this.box.x * w}px`;
    style.top = `${y - outer.y + this.box.y * h}px`;
    style.width = `${this.box.w * w}px`;
    style.height = `${this.box.h * h}px`;
  }

  cut() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    if (!width) return; // it has not come yet
    const { x, y, w, h } = this.box;
    const scale = Math.min(1, 1024 / Math.max(w * width, h * height));
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(w * width * scale)),
      height: Math.max(1, Math.round(h * height * scale)),
    });
    canvas.getContext("2d").drawImage(this.image, x * width, y * height, w * width, h * height, 0, 0, canvas.width, canvas.height);
    this.stop();
    canvas.toBlob((blob) => this.onCut(blob), "image/jpeg", 0.9);
  }
}

const within = (share) => Math.max(0, Math.min(1, share));
