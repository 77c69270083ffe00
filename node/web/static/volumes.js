/* The viewer of a study: NiiVue draws the volumes; this draws marks, crosshair and ruler over them and handles input.
   All volumes lie on one grid, upright in the patient: x to the right, y to the front, z to the head. A place is a
   fractional voxel [x, y, z] of this grid. */
import { DRAG_MODE, Niivue, SHOW_RENDER, SLICE_TYPE } from "./niivue/niivue.js";

const PLANES = { 0: SLICE_TYPE.SAGITTAL, 1: SLICE_TYPE.CORONAL, 2: SLICE_TYPE.AXIAL };
const NORMAL = { [SLICE_TYPE.AXIAL]: 2, [SLICE_TYPE.CORONAL]: 1, [SLICE_TYPE.SAGITTAL]: 0 };
const LETTERS = { 0: ["A", "P", "H", "F"], 1: ["R", "L", "H", "F"], 2: ["R", "L", "A", "P"] };
const RING_GAP_MM = 2.5;
const CROSS_GAP = 14;
const LARGEST_ZOOM = 12;
const SVG = "http://www.w3.org/2000/svg";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Whether this browser can show volumes. */
export function supported() {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** One volume on one canvas, with its overlay. */
class Pane {
  constructor(viewer, element, url) {
    this.viewer = viewer;
    this.element = element;
    this.name = element.dataset.volume;
    this.url = url;
    this.svg = element.querySelector("svg");
    this.nv = new Niivue({
      interactive: false, // input is handled here: a wheel at the last slice scrolls the page, a key is not taken twice
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isOrientationTextVisible: false,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      multiplanarPadPixels: 2,
      crosshairWidth: 0,
      sliceType: PLANES[viewer.across],
      isAntiAlias: false,
      logLevel: "error",
      dragMode: DRAG_MODE.none,
    });
    // NiiVue's letters come in data: images, which the page's policy forbids. The overlay has its own.
    this.nv.initText = async () => {};
    this.nv.drawLoadingText = () => {};
    const draw = this.nv.drawScene.bind(this.nv);
    this.nv.drawScene = () => {
      const { clientWidth, clientHeight } = this.svg.parentElement;
      if (!clientWidth || !clientHeight) return ""; // behind a tab, or hidden by the three planes
      const said = draw();
      this.overlay();
      return said;
    };
  }

  async load() {
    await this.nv.attachToCanvas(this.element.querySelector("canvas"), false);
    await this.nv.loadVolumes([{ url: this.url, name: `${this.name}.nii` }]);
    const volume = this.nv.volumes[0];
    this.window = [volume.cal_min, volume.cal_max];
    this.element.dataset.ready = "";
    this.show();
  }

  get ready() {
    return "ready" in this.element.dataset && this.element.offsetParent !== null;
  }

  frac(place) {
    return place.map((value, a) => (value + 0.5) / this.viewer.size[a]);
  }

  /** Draw the crosshair's slices. */
  show() {
    if (!this.ready) return;
    const { at, zoom, centre } = this.viewer;
    this.nv.scene.crosshairPos = this.frac(at.map(Math.round));
    const middle = this.nv.frac2mm([0.5, 0.5, 0.5]);
    const focus = this.nv.frac2mm(this.frac(centre));
    this.nv.scene.pan2Dxyzmm = [0, 1, 2].map((a) => middle[a] - focus[a] * zoom).concat(zoom);
    this.nv.drawScene();
  }

  tiles() {
    const ratio = this.nv.uiData.dpr;
    return this.nv.screenSlices.map((tile, index) => {
      let [left, top, width, height] = tile.leftTopWidthHeight.map((value) => value / ratio);
      const mirrored = width < 0;
      if (mirrored) [left, width] = [left + width, -width];
      return { left, top, width, height, mirrored, index, normal: NORMAL[tile.axCorSag], source: tile };
    });
  }

  /** Where a place is drawn in a tile, in pixels of the page. */
  point(tile, place) {
    const mm = this.nv.frac2mm(this.frac(place));
    const [across, up] = [0, 1, 2].filter((a) => a !== tile.normal);
    const { leftTopMM, fovMM } = tile.source;
    const right = (mm[across] - leftTopMM[0]) / fovMM[0];
    const upwards = (mm[up] - leftTopMM[1]) / fovMM[1];
    return [tile.left + (tile.mirrored ? 1 - right : right) * tile.width, tile.top + (1 - upwards) * tile.height];
  }

  /** The place under a pixel, and the axis across its tile; null beside the volume. */
  place(event) {
    const box = this.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const inside = (t) => x >= t.left && x < t.left + t.width && y >= t.top && y < t.top + t.height;
    const tile = this.tiles().find(inside);
    if (!tile) return null;
    const ratio = this.nv.uiData.dpr;
    const frac = this.nv.screenXY2TextureFrac(x * ratio, y * ratio, tile.index, false);
    const place = Array.from(frac, (value, a) => value * this.viewer.size[a] - 0.5);
    if (place.some((value, a) => !(value >= -0.5 && value <= this.viewer.size[a] - 0.5))) return null;
    place[tile.normal] = Math.round(this.viewer.at[tile.normal]);
    return { place, normal: tile.normal };
  }

  overlay() {
    if (!this.ready || !this.nv.volumes.length) return;
    const parts = [];
    for (const tile of this.tiles()) {
      const clip = shape("svg", { x: tile.left, y: tile.top, width: tile.width, height: tile.height,
        viewBox: `${tile.left} ${tile.top} ${tile.width} ${tile.height}` });
      const { marks, marked, rulers } = this.viewer;
      if (marked) clip.append(...this.crosshair(tile), ...marks.flatMap((mark) => this.ring(tile, mark)));
      clip.append(...rulers.flatMap((ruler) => this.ruler(tile, ruler)), ...this.letters(tile));
      parts.push(clip);
    }
    this.svg.replaceChildren(...parts);
  }

  crosshair(tile) {
    const [x, y] = this.point(tile, this.viewer.at);
    const line = (x1, y1, x2, y2) => shape("line", { class: "cross", x1, y1, x2, y2 });
    return [
      line(tile.left, y, x - CROSS_GAP, y), line(x + CROSS_GAP, y, tile.left + tile.width, y),
      line(x, tile.top, x, y - CROSS_GAP), line(x, y + CROSS_GAP, x, tile.top + tile.height),
    ];
  }

  scale(tile) {
    return tile.width / Math.abs(tile.source.fovMM[0]);
  }

  ring(tile, mark) {
    const { spacing, at } = this.viewer;
    const away = Math.abs(mark.at[tile.normal] - Math.round(at[tile.normal])) * spacing[tile.normal];
    if (away > Math.max(mark.diameter, spacing[tile.normal]) / 2 + 1e-6) return [];
    const [x, y] = this.point(tile, mark.at);
    const radius = (mark.diameter / 2 + RING_GAP_MM) * this.scale(tile);
    const tone = `${mark.tone}${mark.selected ? " selected" : ""}`;
    const parts = [shape("circle", { class: `ring ${tone}`, cx: x, cy: y, r: radius, "data-mark": mark.label })];
    if (mark.tone === "rejected") {
      const d = radius * 0.7;
      parts.push(shape("line", { class: "ring rejected", x1: x - d, y1: y + d, x2: x + d, y2: y - d }));
    }
    parts.push(shape("text", { class: `ring-name ${tone}`, x: x + radius * 0.75 + 3, y: y - radius * 0.75 }, mark.label));
    return parts;
  }

  ruler(tile, { normal, from, to }) {
    if (normal !== tile.normal || Math.round(from[normal]) !== Math.round(this.viewer.at[normal])) return [];
    const [[x1, y1], [x2, y2]] = [this.point(tile, from), this.point(tile, to)];
    const text = `${this.viewer.distance(from, to).toFixed(1)} mm`;
    return [
      shape("line", { class: "ruler", x1, y1, x2, y2 }),
      shape("text", { class: "ruler-length", x: Math.max(x1, x2) + 6, y: (y1 + y2) / 2 }, text),
    ];
  }

  letters(tile) {
    const [left, right, top, bottom] = LETTERS[tile.normal];
    const middle = { x: tile.left + tile.width / 2, y: tile.top + tile.height / 2 };
    return [
      shape("text", { class: "edge", x: tile.left + 6, y: middle.y }, left),
      shape("text", { class: "edge end", x: tile.left + tile.width - 6, y: middle.y }, right),
      shape("text", { class: "edge middle", x: middle.x, y: tile.top + 18 }, top),
      shape("text", { class: "edge middle", x: middle.x, y: tile.top + tile.height - 8 }, bottom),
    ];
  }
}

/** All panes of a study, in step. `root` holds the description of the volumes and an element for each. */
export class VolumeViewer {
  constructor(root) {
    const given = JSON.parse(root.dataset.volumes);
    this.root = root;
    this.size = given.size;
    this.spacing = given.spacing;
    this.affine = given.affine;
    this.across = given.across;
    this.numbers = given.numbers;
    this.at = given.size.map((n) => (n - 1) / 2);
    this.centre = [...this.at];
    this.zoom = 1;
    this.marks = [];
    this.marked = true;
    this.rulers = [];
    this.tool = "navigate";
    this.panes = [...root.querySelectorAll("[data-volume]")].map((element) => new Pane(this, element, element.dataset.url));
    this.pending = 0;
    for (const pane of this.panes) this.listen(pane);
    new ResizeObserver(() => this.refresh()).observe(root);
  }

  /** Load the first volume, then the others. */
  async load() {
    const [first, ...others] = this.panes;
    await first.load();
    this.root.dispatchEvent(new CustomEvent("viewer:ready"));
    for (const pane of others) await pane.load();
    this.root.dataset.loaded = "";
  }

  refresh() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      for (const pane of this.panes) {
        if (pane.ready) pane.nv.resizeListener();
        pane.show();
      }
      this.root.dispatchEvent(new CustomEvent("viewer:moved"));
    });
  }

  get position() {
    return Math.round(this.at[this.across]);
  }

  get number() {
    return this.numbers[this.position];
  }

  /** Which slice this is in the order of the PACS, from 1. */
  get order() {
    return this.descending ? this.numbers.length - this.position : this.position + 1;
  }

  get descending() {
    return this.numbers[0] > this.numbers[this.numbers.length - 1];
  }

  /** Move the crosshair; a place far from the middle of an enlarged view is brought there. */
  go(place, bring = false) {
    this.at = place.map((value, a) => clamp(value, 0, this.size[a] - 1));
    if (bring && this.zoom > 1) this.centre = [...this.at];
    this.refresh();
  }

  /** Turn to the slice that is `step` further on in the order of the PACS; false at the end of the stack. */
  turn(step, axis = this.across) {
    const order = axis === this.across && this.descending ? -1 : 1;
    const next = clamp(Math.round(this.at[axis]) + step * order, 0, this.size[axis] - 1);
    if (next === Math.round(this.at[axis])) return false;
    this.go(this.at.map((value, a) => (a === axis ? next : value)));
    return true;
  }

  goToNumber(number) {
    const nearest = this.numbers.reduce((best, n, k) => (Math.abs(n - number) < Math.abs(this.numbers[best] - number) ? k : best), 0);
    this.go(this.at.map((value, a) => (a === this.across ? nearest : value)));
  }

  /** Enlarge around a place, which stays where it is on the screen. */
  enlarge(factor, around = this.at) {
    const zoom = clamp(this.zoom * factor, 1, LARGEST_ZOOM);
    const kept = this.zoom / zoom;
    this.centre = this.centre.map((value, a) => around[a] + (value - around[a]) * kept);
    this.zoom = zoom;
    if (zoom === 1) this.centre = this.size.map((n) => (n - 1) / 2);
    this.refresh();
  }

  reset() {
    this.zoom = 1;
    this.centre = this.size.map((n) => (n - 1) / 2);
    this.rulers = [];
    for (const pane of this.panes) if (pane.window) this.setWindow(pane, ...pane.window);
    this.refresh();
  }

  /** Show the three planes of the first volume, or the slices of all volumes side by side. */
  threePlanes(on) {
    this.root.dataset.layout = on ? "planes" : "side";
    this.panes[0].nv.setSliceType(on ? SLICE_TYPE.MULTIPLANAR : PLANES[this.across]);
    this.refresh();
  }

  setMarks(marks) {
    this.marks = marks;
    this.refresh();
  }

  showMarks(on) {
    this.marked = on;
    this.refresh();
  }

  lps(place) {
    return this.affine.slice(0, 3).map((row) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3]);
  }

  distance(from, to) {
    const [a, b] = [this.lps(from), this.lps(to)];
    return Math.hypot(...a.map((value, n) => value - b[n]));
  }

  setWindow(pane, low, high) {
    const volume = pane.nv.volumes[0];
    if (!volume || (volume.cal_min === low && volume.cal_max === high)) return;
    [volume.cal_min, volume.cal_max] = [low, Math.max(high, low + 1)];
    pane.nv.updateGLVolume();
    pane.show();
  }

  listen(pane) {
    const element = pane.element.querySelector(".screen");
    let drag = null;

    element.addEventListener("wheel", (event) => {
      const page = document.scrollingElement;
      const scrolls = page.scrollHeight > innerHeight + 1;
      if (scrolls && !event.ctrlKey && !this.root.contains(document.activeElement)) return;
      const found = pane.place(event);
      if (event.ctrlKey) {
        this.enlarge(event.deltaY > 0 ? 1 / 1.2 : 1.2, found?.place);
        event.preventDefault();
      } else if (this.turn(event.deltaY > 0 ? 1 : -1, found?.normal)) event.preventDefault(); // at an end the page scrolls
    }, { passive: false });

    element.addEventListener("contextmenu", (event) => event.preventDefault());

    element.addEventListener("pointerdown", (event) => {
      const found = pane.place(event);
      if (!found) return;
      this.root.focus({ preventScroll: true });
      const tool = event.button === 2 ? "window" : event.button === 1 || event.shiftKey ? "pan" : this.tool;
      event.preventDefault();
      if (tool === "add") {
        this.root.dispatchEvent(new CustomEvent("viewer:place", { detail: { place: found.place, lps: this.lps(found.place) } }));
        return;
      }
      element.setPointerCapture(event.pointerId);
      const volume = pane.nv.volumes[0];
      drag = { tool, x: event.clientX, y: event.clientY, found, low: volume.cal_min, high: volume.cal_max, centre: [...this.centre] };
      if (tool === "navigate") this.go(found.place);
      if (tool === "ruler") {
        this.rulers.push({ normal: found.normal, from: found.place, to: found.place });
        this.refresh();
      }
    });

    element.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      if (drag.tool === "window") {
        const width = Math.max(drag.high - drag.low + dx, 2);
        const level = (drag.high + drag.low) / 2 + dy;
        this.setWindow(pane, level - width / 2, level + width / 2);
        return;
      }
      const found = pane.place(event);
      if (!found || found.normal !== drag.found.normal) return;
      if (drag.tool === "navigate") this.go(found.place);
      if (drag.tool === "ruler") this.rulers[this.rulers.length - 1].to = found.place;
      if (drag.tool === "pan") {
        this.centre = this.centre.map((value, a) => value + drag.found.place[a] - found.place[a]);
        pane.show(); // the next move is measured on the picture as it is now
      }
      this.refresh();
    });

    const end = () => { drag = null; };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
  }
}
