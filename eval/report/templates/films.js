// Films: animated WebP, drawn frame by frame so that they can be stopped.
function framesOf(uri) {
  const bytes = Uint8Array.from(atob(uri.split(",")[1]), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer), three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  const frames = [];
  for (let at = 12; at + 8 <= bytes.length;) {
    const size = view.getUint32(at + 4, true), start = at + 8;
    if (String.fromCharCode(...bytes.subarray(at, at + 4)) === "ANMF") {
      const flags = bytes[start + 15];
      frames.push({ x: 2 * three(start), y: 2 * three(start + 3), width: 1 + three(start + 6), height: 1 + three(start + 9),
        ms: three(start + 12), blends: !(flags & 2), clears: Boolean(flags & 1), data: bytes.subarray(start + 16, start + size) });
    }
    at = start + size + (size % 2);
  }
  return frames;
}
// A frame as a WebP of its own: RIFF, and a VP8X chunk that says its size and that it may have alpha.
function stillOf({ width, height, data }) {
  const head = new Uint8Array(30), view = new DataView(head.buffer);
  "RIFF    WEBPVP8X".split("").forEach((letter, at) => { head[at] = letter.charCodeAt(0); });
  view.setUint32(4, 22 + data.length, true);
  view.setUint32(16, 10, true);
  head[20] = 0x10;
  view.setUint32(24, width - 1, true);  // of 24 bits, like the height after it
  [0, 8, 16].forEach((bits, i) => { head[27 + i] = (height - 1) >> bits; });
  return createImageBitmap(new Blob([head, data], { type: "image/webp" }));
}
class Film {
  constructor(figure) {
    this.image = figure.querySelector("img");
    this.frames = framesOf(this.image.src);
    this.canvas = document.createElement("canvas");
    Object.assign(this.canvas, { width: this.image.naturalWidth, height: this.image.naturalHeight });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", this.image.alt);
    this.context = this.canvas.getContext("2d");
    this.at = -1;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.visible = false;
    this.work = Promise.resolve();
    figure.querySelector("figcaption").before(this.controls());
    this.show(0).then(() => { this.image.after(this.canvas); this.image.hidden = true; });
    new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; this.wait(); }).observe(figure);
  }
  controls() {
    const box = document.createElement("div");
    box.className = "controls";
    this.button = Object.assign(document.createElement("button"), { type: "button" });
    this.slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: this.frames.length - 1, value: 0 });
    this.slider.setAttribute("aria-label", "Frame of the film");
    this.button.addEventListener("click", () => this.play(!this.playing));
    this.slider.addEventListener("input", () => { this.play(false); this.show(Number(this.slider.value)); });
    box.append(this.button, this.slider);
    this.play(this.playing);
    return box;
  }
  play(on) {
    this.playing = on;
    this.button.textContent = on ? "Pause" : "Play";
    this.wait();
  }
  wait() {
    clearTimeout(this.timer);
    if (!this.playing || !this.visible) return;
    this.timer = setTimeout(() => this.show((this.at + 1) % this.frames.length).then(() => this.wait()), this.frames[Math.max(this.at, 0)].ms);
  }
  show(wanted) {  // one after the other: a frame may be only what changed since the one before
    this.work = this.work.then(async () => {
      for (let i = wanted > this.at ? this.at + 1 : 0; i <= wanted; i++) await this.draw(i);
      this.at = wanted;
      this.slider.value = wanted;
    });
    return this.work;
  }
  async draw(i) {
    const frame = this.frames[i], before = this.frames[i - 1], still = await stillOf(frame);
    if (!before) this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    else if (before.clears) this.context.clearRect(before.x, before.y, before.width, before.height);
    if (!frame.blends) this.context.clearRect(frame.x, frame.y, frame.width, frame.height);
    this.context.drawImage(still, frame.x, frame.y);
    still.close();
  }
}
addEventListener("load", () => {
  for (const figure of all(".film")) if (framesOf(figure.querySelector("img").src).length > 1) new Film(figure);
});
