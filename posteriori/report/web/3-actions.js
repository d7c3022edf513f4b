// What a user does.
// ---- what a user does -----------------------------------------------------------------------

function show(k) {
  const count = scene.views.length,
    to = (k + count) % count;
  if (to !== state.view) state.last = state.view;
  state.view = to;
  if (state.layout === "flip") arrange();
  say(scene.views[to].name);
}

function layout(name) {
  state.layout = name;
  arrange();
  say(
    {
      flip: "Flip through pictures",
      swipe: "Swipe between two pictures",
      grid: "All pictures side by side",
    }[name],
  );
}

function zoomAt(factor, x = state.x, y = state.y) {
  const before = rectangle(),
    zoom = clamp(state.zoom * factor, 1, MAX_ZOOM),
    side = 1 / zoom;
  // What lies under the pointer stays there.
  state.x = x - ((x - before.x) / before.side) * side + side / 2;
  state.y = y - ((y - before.y) / before.side) * side + side / 2;
  state.zoom = zoom;
  settle();
}

function settle() {
  const part = rectangle();
  state.x = part.x + part.side / 2;
  state.y = part.y + part.side / 2;
  refresh();
}

function setWindow(level, width) {
  if (!isFinite(level) || !isFinite(width)) return;
  const half = Math.max(width, 1e-12 * (Math.abs(level) || 1)) / 2;
  state.windows[windowKey(activeView().scale)] = [level - half, level + half];
  refresh();
}

function resetWindow() {
  delete state.windows[windowKey(activeView().scale)];
  refresh();
}

function choose(row, column) {
  const [height, width] = scene.size;
  state.pixel = [clamp(row, 0, height - 1), clamp(column, 0, width - 1)];
  const part = rectangle(),
    x = (state.pixel[1] + 0.5) / width,
    y = (state.pixel[0] + 0.5) / height;
  if (x < part.x || x > part.x + part.side) state.x = x;
  if (y < part.y || y > part.y + part.side) state.y = y;
  readout();
  settle();
}

function mask(on) {
  state.masked = on && Boolean(having("spread"));
  refresh();
  if (having("spread")) say(state.masked ? `Mask: ${ui.hidden.textContent}` : "No mask");
}

function listen(panel) {
  const canvas = panel.canvas;
  let held = null;
  const spot = (event) => {
    const box = canvas.getBoundingClientRect(),
      part = rectangle();
    const u = (event.clientX - box.left) / box.width,
      v = (event.clientY - box.top) / box.height;
    return { u, v, x: part.x + u * part.side, y: part.y + v * part.side, box };
  };
  canvas.addEventListener("pointerdown", (event) => {
    const at = spot(event),
      near = Math.abs(at.u - state.split) * at.box.width < NEAR;
    const splits = panel.views.length > 1 && near;
    held = {
      px: event.clientX,
      py: event.clientY,
      x: state.x,
      y: state.y,
      moved: false,
      what: splits ? "split" : event.shiftKey ? "window" : "pan",
      ends: ends(panel.scale),
    };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const at = spot(event),
      dx = event.clientX - held.px,
      dy = event.clientY - held.py;
    held.moved = held.moved || Math.hypot(dx, dy) > STILL;
    if (!held.moved) return;
    if (held.what === "split") return setSplit(at.u);
    if (held.what === "window") {
      const [black, white] = held.ends,
        span = white - black;
      return setWindow(
        (black + white) / 2 + (span * dy) / at.box.height,
        span * Math.exp((2 * dx) / at.box.width),
      );
    }
    state.x = held.x - dx / at.box.width / state.zoom;
    state.y = held.y - dy / at.box.height / state.zoom;
    settle();
  });
  canvas.addEventListener("pointerup", (event) => {
    const at = spot(event);
    if (held && !held.moved)
      choose(Math.floor(at.y * scene.size[0]), Math.floor(at.x * scene.size[1]));
    held = null;
  });
  canvas.addEventListener("pointercancel", () => {
    held = null;
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      // Only over a picture in use, else the page scrolls.
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      const at = spot(event);
      zoomAt(event.deltaY < 0 ? WHEEL : 1 / WHEEL, at.x, at.y);
    },
    { passive: false },
  );
}

function setSplit(share) {
  state.split = clamp(share, 0, 1);
  ui.split.value = 100 * state.split;
  draw();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select"))
    return;
  const step = event.shiftKey ? 10 : 1,
    [row, column] = state.pixel || scene.size.map((side) => side >> 1);
  const moves = {
    ArrowUp: [-step, 0],
    ArrowDown: [step, 0],
    ArrowLeft: [0, -step],
    ArrowRight: [0, step],
  };
  const act = {
    n: () => show(state.view + 1),
    p: () => show(state.view - 1),
    b: () => show(state.last),
    f: () => layout("flip"),
    s: () => layout("swipe"),
    g: () => layout("grid"),
    "+": () => zoomAt(2),
    "=": () => zoomAt(2),
    "-": () => zoomAt(0.5),
    0: () => zoomAt(0),
    m: () => mask(!state.masked),
    r: resetWindow,
    ",": () => visit(state.scene - 1),
    ".": () => visit(state.scene + 1),
  }[event.key];
  if (moves[event.key] && event.target.matches("canvas")) {
    const [down, right] = moves[event.key];
    choose(row + (state.pixel ? down : 0), column + (state.pixel ? right : 0));
  } else if (act) act();
  else return;
  event.preventDefault();
}
