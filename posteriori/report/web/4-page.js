// What is told of a pixel, the controls, and the start.

const ROWS = [
  "measurement",
  "mean",
  "spread",
  "low",
  "high",
  "reference",
  "baseline",
  "backprojection",
  "residual",
  "sample",
];
const SVG = new DOMParser().parseFromString("<svg>", "text/html").querySelector("svg").namespaceURI;
const INKS = { 1: ["var(--ink)"], 3: ["#d43d3d", "#2c9a4b", "#3b78e0"] };

// Heading, role and numbers of the channels as text, a row of the table each.
function rowsAt(row, column) {
  const kept = scene.views.filter((view) => ROWS.includes(view.role));
  kept.sort((a, b) => ROWS.indexOf(a.role) - ROWS.indexOf(b.role));
  return kept.map((view) => [
    view.name,
    view.role,
    numbers(view, row, column).map((v) => printed(v, view.scale)),
  ]);
}

function readout() {
  if (!state.pixel) return;
  const [row, column] = state.pixel;
  const rows = rowsAt(row, column);
  const wide = Math.max(...rows.map(([, , texts]) => texts.length));
  const made = rows.map(([name, role, texts]) =>
    h(
      "tr",
      { "data-role": role },
      h("th", { scope: "row" }, name),
      ...texts.map((text) => h("td", texts.length < wide ? { colspan: wide } : {}, text)),
    ),
  );
  const heads =
    wide === 3 ? ["", "red", "green", "blue"].map((t) => h("th", { scope: "col" }, t)) : [];
  ui.readout.replaceChildren(
    h("p", { class: "ex-where" }, `Row ${row}, column ${column}`),
    plot(row, column),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { "aria-label": `Numbers at row ${row}, column ${column}` },
        h("thead", {}, h("tr", {}, ...heads)),
        h("tbody", {}, ...made),
      ),
    ),
  );
  root.dataset.pixel = `${row},${column}`;
  const brief = rows.filter(([, role]) => ["measurement", "mean", "low", "high"].includes(role));
  const texts = brief.map(([name, , numbers_]) => `${name} ${numbers_.join(", ")}`);
  say(`Row ${row}, column ${column}: ${texts.join("; ")}`);
}

// The samples of a pixel as dots over their interval, the mean a line, y a diamond; a line of them
// for each channel. The table has the same numbers.
function plot(row, column) {
  const at = (role) => {
    const view = having(role);
    return view && view.scale === "scene" ? numbers(view, row, column) : null;
  };
  const samples = scene.views
    .filter((v) => v.role === "sample")
    .map((v) => numbers(v, row, column));
  const [mean, low, high, y] = ["mean", "low", "high", "measurement"].map(at);
  const all = [...samples, mean, low, high, y].flatMap((v) => v || []).filter((v) => !isNaN(v));
  const least = Math.min(...all),
    span = Math.max(...all) - least || 1;
  const x = (v) => 10 + (260 * (v - least)) / span;
  const svg = (tag, given) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
    return made;
  };
  const drawing = svg("svg", { viewBox: `0 0 280 ${26 * mean.length}`, "aria-hidden": "true" });
  mean.forEach((m, c) => {
    const line = 13 + 26 * c,
      ink = INKS[mean.length][c];
    const add = (tag, given) => drawing.append(svg(tag, given));
    if (low) {
      add("rect", {
        x: x(low[c]),
        y: line - 8,
        height: 16,
        fill: ink,
        opacity: 0.2,
        width: Math.max(1, x(high[c]) - x(low[c])),
      });
    }
    for (const s of samples)
      add("circle", { cx: x(s[c]), cy: line, r: 3, fill: ink, opacity: 0.6 });
    add("rect", { x: x(m) - 1, y: line - 10, width: 2, height: 20, fill: ink });
    if (y && y.length === mean.length && !isNaN(y[c])) {
      const at = x(y[c]);
      add("path", {
        d: `M${at - 5} ${line}l5 -6 5 6 -5 6z`,
        fill: "none",
        stroke: ink,
        "stroke-width": 2,
      });
    }
  });
  return drawing;
}

// A slider and a number of the same thing.
function twins(label, change) {
  const changed = (event) => change(event.target.valueAsNumber);
  const made = [
    h("input", { type: "range", "aria-label": `${label}, slider`, oninput: changed }),
    h("input", { type: "number", step: "any", "aria-label": label, onchange: changed }),
  ];
  return [made, h("div", { class: "ex-row" }, h("span", {}, label), ...made)];
}

function built() {
  const names = { flip: "Flip", swipe: "Swipe", grid: "Side by side" };
  ui.layouts = Object.fromEntries(
    Object.entries(names).map(([key, text]) => [key, button(text, () => layout(key))]),
  );
  ui.places = h("div", { class: "ex-buttons" });
  ui.flips = h("div", { class: "ex-buttons", role: "group", "aria-label": "Picture" });
  ui.split = h("input", {
    type: "range",
    min: 0,
    max: 100,
    step: 0.5,
    value: 50,
    "aria-label": "Divider",
    oninput: () => setSplit(ui.split.valueAsNumber / 100),
  });
  ui.pair = [0, 1].map((k) =>
    h("select", {
      "aria-label": k ? "Right picture" : "Left picture",
      onchange: (event) => {
        state.pair[k] = event.target.selectedIndex;
        arrange();
      },
    }),
  );
  ui.swipes = h("div", { class: "ex-row" }, ui.pair[0], ui.split, ui.pair[1]);
  ui.stage = h("div", { class: "ex-stage" });
  const middle = () => (ends(activeView().scale)[0] + ends(activeView().scale)[1]) / 2;
  const width = () => ends(activeView().scale)[1] - ends(activeView().scale)[0];
  const [level, levels] = twins("Level", (v) => setWindow(v, width()));
  const [wide, widths] = twins("Window", (v) => setWindow(middle(), v));
  Object.assign(ui, {
    level,
    width: wide,
    windowed: h("span", { class: "ex-soft" }),
    presets: h("div", { class: "ex-buttons" }),
    status: h("p", { role: "status", class: "ex-unseen" }),
  });
  ui.mask = h("input", { type: "checkbox", onchange: () => mask(ui.mask.checked) });
  ui.threshold = h("input", {
    type: "range",
    "aria-label": "Threshold of the standard deviation",
    oninput: () => {
      state.threshold = ui.threshold.valueAsNumber;
      state.masked = true;
      refresh();
    },
  });
  ui.hidden = h("p", { class: "ex-soft" });
  ui.masks = group(
    "Mask of uncertain pixels",
    h("label", {}, ui.mask, " hide pixels of"),
    ui.threshold,
    ui.hidden,
  );
  ui.readout = h(
    "div",
    { class: "ex-readout" },
    h(
      "p",
      { class: "ex-soft" },
      "Click a pixel, or use the arrow keys on a picture, to read its numbers.",
    ),
  );
  ui.notes = h("p", { class: "ex-soft" });
  const keys = KEYS.flatMap(([key, text]) => [h("dt", {}, key), h("dd", {}, text)]);
  const zooms = [
    button("−", () => zoomAt(0.5), { "aria-label": "Zoom out" }),
    button("+", () => zoomAt(2), { "aria-label": "Zoom in" }),
    button("Whole", () => zoomAt(0)),
  ];
  root.append(
    h("h2", {}, "Explore"),
    h(
      "div",
      { class: "ex-bar" },
      h(
        "div",
        { class: "ex-buttons", role: "group", "aria-label": "Layout" },
        ...Object.values(ui.layouts),
      ),
      h("div", { class: "ex-buttons", role: "group", "aria-label": "Zoom" }, ...zooms),
      ui.places,
    ),
    h(
      "div",
      { class: "ex-body" },
      h("div", {}, ui.flips, ui.swipes, ui.stage),
      h(
        "div",
        { class: "ex-side" },
        group("Window and level", ui.windowed, levels, widths, ui.presets),
        ui.masks,
        ui.readout,
      ),
    ),
    ui.notes,
    h(
      "details",
      { id: "explorer-keys" },
      h("summary", {}, "Keys"),
      h(
        "dl",
        {},
        ...keys,
        h("dt", {}, "drag"),
        h("dd", {}, "moves what is zoomed; with Shift level and window; the divider"),
        h("dt", {}, "wheel"),
        h("dd", {}, "zooms over the picture that was clicked last"),
      ),
    ),
    ui.status,
  );
}

function presets() {
  const stated = scene.scales.scene.ends,
    made = [button("As at first", resetWindow)];
  const spread = activeView().scale === "scene" && stated[0] <= -900 && stated[1] >= 400;
  for (const [name, [level, width]] of spread ? Object.entries(told.hounsfield) : []) {
    made.push(
      button(name, () => setWindow(level, width), {
        title: `${level} ± ${width / 2}, Hounsfield units`,
      }),
    );
  }
  ui.presets.replaceChildren(...made);
}

function places() {
  const names = told.scenes.map((one) => one.name),
    many = names.length > 1;
  if (!many) return;
  const pick = (event) => visit(Number(event.target.value));
  const slices = names.length > 8;
  const made = slices
    ? h("input", {
        type: "range",
        min: 0,
        max: names.length - 1,
        value: state.scene,
        "aria-label": "Slice",
        oninput: pick,
      })
    : h(
        "select",
        { "aria-label": "Scene", onchange: pick },
        ...names.map((name, k) => h("option", { value: k, selected: k === state.scene }, name)),
      );
  ui.place = made;
  ui.placed = h("span", { class: "ex-soft" });
  ui.places.replaceChildren(made, ui.placed);
}

// Another scene, with the same view, zoom and, where there is such a one, pixel.
async function visit(k) {
  if (k < 0 || k >= told.scenes.length) return;
  const name = scene ? scene.views[state.view].name : null;
  const size = scene ? String(scene.size) : "",
    asked = (state.asked = k);
  const found = await unpacked(k);
  if (state.asked !== asked) return;
  scene = found;
  state.scene = k;
  const same = (name_, role) =>
    Math.max(
      0,
      scene.views.findIndex((v) => v.name === name_ || v.role === role),
    );
  state.view = same(name, name === null ? "mean" : undefined);
  state.last = 0;
  state.pair = [same(null, "measurement"), 0];
  if (!state.pair[0]) state.pair[1] = same(null, "sample");
  if (String(scene.size) !== size) state.pixel = null;
  furnish();
  arrange();
  readout();
  root.dataset.scene = k;
}

// What depends on the scene.
function furnish() {
  const { views, scales, shown, drawn, bits } = scene,
    spread = scales.spread;
  ui.flips.replaceChildren(...views.map((view, k) => button(view.name, () => show(k))));
  ui.pair.forEach((list, k) => {
    list.replaceChildren(...views.map((view) => h("option", {}, view.name)));
    list.selectedIndex = state.pair[k];
  });
  ui.masks.hidden = !spread;
  if (spread) {
    Object.assign(ui.threshold, { min: 0, max: spread.high, step: spread.high / 400 || 1 });
    if (state.threshold === null) state.threshold = scene.threshold;
  }
  if (ui.place) {
    ui.place.value = state.scene;
    ui.placed.textContent = ui.place.matches("input") ? scene.name : "";
  }
  const said = Object.entries(scales).map(
    ([name, s]) => `${name === "scene" ? "pictures" : name} ±${s.error}`,
  );
  const notes = [...scene.notes, `Numbers are kept in ${bits} bits and told to within:`];
  if (shown < drawn)
    notes.unshift(
      `Samples 0 to ${shown - 1} of ${drawn} are here;`,
      "mean, standard deviation and interval are of all of them.",
    );
  ui.notes.textContent = `${notes.join(" ")} ${said.join(", ")}.`;
  presets();
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    root.append(
      h(
        "p",
        {},
        "This browser is too old for the explorer; the pictures below hold all of the page.",
      ),
    );
    root.hidden = false;
    return;
  }
  built();
  root.addEventListener("keydown", pressed);
  places();
  root.hidden = false;
  await visit(0);
  new ResizeObserver(draw).observe(ui.stage);
  root.dataset.ready = "true";
}

// Without the explorer the page is what it is without a script.
start().catch((error) => {
  root.hidden = true;
  console.error(error);
});
