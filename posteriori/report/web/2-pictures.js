// Panels, and what is drawn into them.
// ---- drawing --------------------------------------------------------------------------------

function rectangle() {
  const side = 1 / state.zoom;
  return {
    side,
    x: clamp(state.x - side / 2, 0, 1 - side),
    y: clamp(state.y - side / 2, 0, 1 - side),
  };
}

function drawPanel(panel) {
  const box = panel.canvas.getBoundingClientRect(),
    ratio = window.devicePixelRatio || 1;
  const across = Math.max(1, Math.round(box.width * ratio)),
    down = Math.max(1, Math.round(box.height * ratio));
  if (panel.canvas.width !== across) panel.canvas.width = across;
  if (panel.canvas.height !== down) panel.canvas.height = down;
  const pen = panel.canvas.getContext("2d"),
    part = rectangle();
  panel.views.forEach((view, k) => {
    const [, height, width] = view.shape;
    pen.save();
    pen.beginPath();
    pen.rect(k ? state.split * across : 0, 0, across, down);
    pen.clip();
    pen.imageSmoothingEnabled = part.side * width > across;
    pen.drawImage(
      painted(view),
      part.x * width,
      part.y * height,
      part.side * width,
      part.side * height,
      0,
      0,
      across,
      down,
    );
    pen.restore();
  });
  if (panel.views.length > 1) {
    for (const [wide, ink] of [
      [5, "#000"],
      [2, "#fff"],
    ]) {
      pen.fillStyle = ink;
      pen.fillRect(state.split * across - (wide * ratio) / 2, 0, wide * ratio, down);
    }
  }
  if (state.pixel) drawChosen(pen, part, across, down, ratio);
}

function drawChosen(pen, part, across, down, ratio) {
  const [height, width] = scene.size,
    [row, column] = state.pixel;
  const x = ((column / width - part.x) / part.side) * across,
    y = ((row / height - part.y) / part.side) * down;
  const w = across / (width * part.side),
    t = down / (height * part.side),
    room = Math.max(0, 4 * ratio - w / 2);
  for (const [wide, ink] of [
    [4, "#000"],
    [2, "#fff"],
  ]) {
    pen.lineWidth = wide * ratio;
    pen.strokeStyle = ink;
    pen.strokeRect(x - room, y - room, w + 2 * room, t + 2 * room);
  }
}

function draw() {
  if (!waiting)
    waiting = requestAnimationFrame(() => {
      waiting = 0;
      panels.forEach(drawPanel);
    });
}

// ---- panels ---------------------------------------------------------------------------------

const activeView = () =>
  scene.views[state.layout === "swipe" ? state.pair[0] : state.layout === "flip" ? state.view : 0];

function makePanel(views, small) {
  const name = views.map((view) => view.name).join(" | "),
    scale = views[0].scale;
  const canvas = h("canvas", {
    tabindex: 0,
    role: "img",
    "aria-describedby": "explorer-keys",
    "aria-label": `${name}, ${scene.size[1]} by ${scene.size[0]} pixels`,
  });
  const caption = h("figcaption", {}, h("b", {}, name), " ", h("span", { class: "ex-ends" }));
  if (scene.scales[scale].map) {
    const stops = told.colours.map((rgb) => `rgb(${rgb})`).join(",");
    const bar = h("div", { class: "bar" });
    bar.style.background = `linear-gradient(to right,${stops})`;
    caption.append(bar);
  }
  const figure = h("figure", { class: "ex-panel" }, canvas, caption);
  canvas.style.aspectRatio = `${scene.size[1]} / ${scene.size[0]}`;
  if (!small) figure.style.width = `min(100%, calc(66vh * ${scene.size[1] / scene.size[0]}))`;
  const panel = { canvas, views, figure, scale };
  listen(panel);
  return panel;
}

function arrange() {
  const all = scene.views,
    chosen = state.layout;
  const sets =
    chosen === "grid"
      ? all.map((v) => [v])
      : chosen === "swipe"
        ? [state.pair.map((k) => all[k])]
        : [[all[state.view]]];
  const focused = ui.stage.contains(document.activeElement);
  panels = sets.map((views) => makePanel(views, chosen === "grid"));
  ui.stage.className = `ex-stage ex-${chosen}`;
  ui.stage.replaceChildren(...panels.map((panel) => panel.figure));
  if (focused) panels[0].canvas.focus({ preventScroll: true });
  ui.flips.hidden = chosen !== "flip";
  ui.swipes.hidden = chosen !== "swipe";
  for (const [name, one] of Object.entries(ui.layouts))
    one.setAttribute("aria-pressed", name === chosen);
  [...ui.flips.children].forEach((one, k) => one.setAttribute("aria-pressed", k === state.view));
  Object.assign(root.dataset, { layout: chosen, view: all[state.view].name });
  refresh();
}

// Everything that follows from window, mask, zoom and chosen pixel.
function refresh() {
  for (const panel of panels) {
    const [black, white] = ends(panel.scale).map(short),
      map = scene.scales[panel.scale].map;
    panel.figure.querySelector(".ex-ends").textContent = map
      ? `${black} to ${white}`
      : `black ${black}, white ${white}`;
    panel.canvas.style.touchAction = state.zoom > 1 ? "none" : "pan-y";
  }
  const scale = activeView().scale,
    known = scene.scales[scale],
    [black, white] = ends(scale);
  const { low, high } = known;
  for (const [pair, value, least, most] of [
    [ui.level, (black + white) / 2, Math.min(low, black), Math.max(high, white)],
    [ui.width, white - black, 0, Math.max(high - low, white - black)],
  ]) {
    Object.assign(pair[0], { min: least, max: most, step: (most - least) / 400 || 1 });
    if (document.activeElement !== pair[0]) pair[0].value = value;
    if (document.activeElement !== pair[1]) pair[1].value = short(value);
  }
  ui.windowed.textContent = `of ${activeView().name}`;
  ui.mask.checked = state.masked;
  root.dataset.zoom = state.zoom;
  maskText();
  draw();
}

function maskText() {
  const spread = having("spread");
  if (!spread) return;
  const limit = limitCode(),
    count = spread.codes.reduce((sum, code) => sum + (code > limit), 0);
  const share = ((100 * count) / spread.codes.length).toFixed(1);
  const text = `standard deviation over ${short(state.threshold)}: ${share} % of the pixels`;
  ui.threshold.value = state.threshold;
  ui.threshold.setAttribute("aria-valuetext", text);
  ui.hidden.textContent = text;
}
