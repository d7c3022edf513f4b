// The explorer of a page: pictures that lie on each other, and their numbers. What they are stands
// in #explorer-about (explorer.py), their codes in .explorer-data (quantised.py). Text of the page
// is set as text, never as HTML. The files of this folder are one script, in their order.
"use strict";
const root = document.getElementById("explorer");
const told = JSON.parse(document.getElementById("explorer-about").textContent);
const state = {
  scene: 0,
  layout: "flip",
  view: 0,
  last: 0,
  pair: [0, 0],
  split: 0.5,
  zoom: 1,
  x: 0.5,
  y: 0.5,
  pixel: null,
  masked: false,
  threshold: null,
  windows: {},
};
const MAX_ZOOM = 64,
  WHEEL = 1.2,
  NEAR = 24,
  STILL = 4;
const KEYS = [
  ["← → ↑ ↓", "move the chosen pixel, with Shift by ten"],
  ["n p", "next, previous picture"],
  ["b", "back to the picture before"],
  ["f s g", "flip, swipe, side by side"],
  ["+ − 0", "zoom in, out, whole picture"],
  ["m", "mask of uncertain pixels"],
  ["r", "window as at first"],
  [", .", "previous, next scene or slice"],
];
const ui = {};
let scene = null,
  panels = [],
  waiting = 0;

// ---- elements -------------------------------------------------------------------------------

function h(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null)
      made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const button = (text, press, more = {}) =>
  h("button", { type: "button", onclick: press, ...more }, text);
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const short = (v) => String(Number(v.toPrecision(4)));
const group = (legend, ...children) => h("fieldset", {}, h("legend", {}, legend), ...children);
function say(text) {
  ui.status.textContent = text;
}

// ---- numbers --------------------------------------------------------------------------------

async function inflated(text) {
  const letters = atob(text),
    bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpacked(k) {
  const about = told.scenes[k];
  if (about.ready) return about;
  const bytes = await inflated(root.querySelectorAll(".explorer-data")[k].textContent);
  let at = 0;
  for (const view of about.views) {
    const count = view.shape[0] * view.shape[1] * view.shape[2],
      width = view.shape[2];
    const codes = new Uint16Array(count),
      beside = view.mean ? about.views[0].codes : null;
    for (let i = 0, left = 0; i < count; i++) {
      const z = bytes[at + i] | (bytes[at + count + i] << 8),
        d = (z >>> 1) ^ -(z & 1);
      left = view.left && i % width ? left + d : d;
      codes[i] = beside ? left + beside[i] : left; // modulo 65536
    }
    at += 2 * count;
    view.codes = codes;
    view.canvas = h("canvas", { width, height: view.shape[1] });
  }
  about.ready = true;
  return about;
}

// Of a pixel of the scene; a view of fewer pixels has there what covers it.
function numbers(view, row, column) {
  const [channels, height, width] = view.shape,
    scale = scene.scales[view.scale];
  const r = Math.floor(((row + 0.5) * height) / scene.size[0]);
  const c = Math.floor(((column + 0.5) * width) / scene.size[1]);
  return Array.from({ length: channels }, (_, k) => {
    const code = view.codes[(k * height + r) * width + c];
    return code === told.nothing ? NaN : scale.low + scale.step * code;
  });
}

const printed = (v, scale) => (isNaN(v) ? "none" : v.toFixed(scene.scales[scale].decimals));
const having = (role) => scene.views.find((view) => view.role === role);

// ---- colours --------------------------------------------------------------------------------

const windowKey = (scale) => `${scale} ${scene.scales[scale].ends}`;
const ends = (scale) => state.windows[windowKey(scale)] || scene.scales[scale].ends;

function colour(t) {
  const at = t * (told.colours.length - 1),
    k = Math.min(Math.floor(at), told.colours.length - 2);
  return told.colours[k].map((v, c) => v + (at - k) * (told.colours[k + 1][c] - v));
}

// Red, green and blue of each code, one table a channel.
function tables(scale) {
  const { low, step, map } = scene.scales[scale],
    [black, white] = ends(scale);
  const made = [0, 1, 2].map(() => new Uint8ClampedArray(65536));
  for (let code = 0; code < 65536; code++) {
    const t = clamp((low + step * code - black) / (white - black || 1), 0, 1);
    const shown = map ? colour(t) : [255 * t, 255 * t, 255 * t];
    made.forEach((table, c) => {
      table[code] = shown[c];
    });
  }
  return made;
}

function painted(view) {
  const spread = state.masked ? having("spread") : null;
  const stamp = `${ends(view.scale)} ${spread ? state.threshold : ""}`;
  if (view.stamp === stamp) return view.canvas;
  const [channels, height, width] = view.shape,
    size = height * width,
    luts = tables(view.scale);
  const picture = new ImageData(width, height),
    out = picture.data,
    codes = view.codes;
  const limit = spread ? limitCode() : 0,
    wide = scene.size[1];
  for (let i = 0; i < size; i++) {
    const column = i % width,
      row = (i - column) / width;
    let empty = false;
    for (let c = 0; c < 3; c++) {
      const code = codes[(channels === 3 ? c * size : 0) + i];
      empty = empty || code === told.nothing;
      out[4 * i + c] = luts[c][code];
    }
    const r = Math.floor(((row + 0.5) * scene.size[0]) / height);
    const hidden =
      spread && spread.codes[r * wide + Math.floor(((column + 0.5) * wide) / width)] > limit;
    // Masked pixels are striped, which reads without colours too.
    const shade = hidden && (row + column) % 4 < 2 ? 0.72 : 1;
    if (empty || hidden) for (let c = 0; c < 3; c++) out[4 * i + c] = shade * told.empty[c];
    out[4 * i + 3] = 255;
  }
  view.canvas.getContext("2d").putImageData(picture, 0, 0);
  view.stamp = stamp;
  return view.canvas;
}

function limitCode() {
  const scale = scene.scales.spread;
  return (state.threshold - scale.low) / scale.step;
}
