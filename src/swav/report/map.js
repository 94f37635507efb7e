"use strict";
/* The map of the report: every picture is a point; pan, zoom, point at, choose, name, save.
   Texts of the run reach the page by textContent alone, and files by links to what is in memory. */
(() => {
const by = (id) => document.getElementById(id);
const data = JSON.parse(by("map-data").textContent);
const canvas = by("map-canvas"), context = canvas.getContext("2d"), sheet = by("map-sheet");
const { names, x, y, near, cluster, label, classes, called, side } = data;
const count = names.length, across = Math.ceil(Math.sqrt(count));
const everyone = names.map((_, index) => index);
const hasPictures = sheet !== null;
const DOT = count > 5000 ? 1.6 : 3.2, REACH = 12, MOST_THUMBNAILS = 400, MOST_SHOWN = 200, MOST_TITLES = 20, MARGIN = 24;

const view = { scale: 1, left: 0, top: 0 };      // pixels = left + scale * x, of points from 0 to 10,000
let width = 0, height = 0, hovered = -1, chosen = -1, drawing = false;
let selected = new Set(), lasso = null, lassoing = false, drag = null, colours = [], order = [], found = null;

/* ---- what is said of a picture ------------------------------------------------------------ */
const clusterTitle = (number) => number < 0 ? "no cluster"
  : called[number] ? `cluster ${number}: ${called[number]}` : `cluster ${number}`;
const labelTitle = (index) => !label.length || label[index] < 0 ? ""
  : classes[label[index]] ?? `label ${label[index]}`;
const sentence = (index) =>
  [names[index], clusterTitle(cluster[index]), labelTitle(index)].filter(Boolean).join(", ");
const pictures = (number) => `${number.toLocaleString("en")} picture${number === 1 ? "" : "s"}`;
const say = (text) => { by("map-said").textContent = text; };

/* ---- drawing ------------------------------------------------------------------------------ */
const dark = matchMedia("(prefers-color-scheme: dark)");
const colourOf = (number) => number < 0 ? "hsl(0 0% 60%)"
  : `hsl(${(number * 137.508) % 360} ${60 + 10 * (number % 3)}% ${dark.matches ? 64 : 44}%)`;
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const recolour = () => {
  const group = by("map-colour").value === "label" ? label : cluster;
  colours = everyone.map((index) => colourOf(group[index] ?? -1));
  order = [...everyone].sort((one, other) => group[one] - group[other]);  // to change colours seldom
  draw();
};
const across_ = (index) => view.left + view.scale * x[index];
const down = (index) => view.top + view.scale * y[index];
const draw = () => {
  if (!drawing) { drawing = true; requestAnimationFrame(paint); }
};
const seen = (indices) => {
  const inside = [];
  for (const index of indices) {
    const column = across_(index), row = down(index);
    if (column > -MARGIN && row > -MARGIN && column < width + MARGIN && row < height + MARGIN) inside.push(index);
  }
  return inside;
};
const thumbnail = (target, index, left, top, size) => target.drawImage(
  sheet, (index % across) * side, Math.floor(index / across) * side, side, side, left, top, size, size);
const ring = (index, radius, colour) => {
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(across_(index), down(index), radius, 0, 7);
  context.stroke();
};
function paint() {
  drawing = false;
  const ratio = devicePixelRatio || 1, inside = seen(order);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const asPictures = hasPictures && inside.length <= MOST_THUMBNAILS && inside.length < count;
  const size = Math.min(side, 48);
  const faint = selected.size > 0 || found !== null;
  let colour = null;
  context.globalAlpha = .9;
  for (const index of inside) {
    if (faint) context.globalAlpha = selected.has(index) || found?.has(index) ? .9 : .2;
    if (colours[index] !== colour) context.fillStyle = colour = colours[index];
    const column = across_(index), row = down(index);
    if (asPictures) {
      context.fillRect(column - size / 2 - 2, row - size / 2 - 2, size + 4, size + 4);
      thumbnail(context, index, column - size / 2, row - size / 2, size);
    } else {
      context.fillRect(column - DOT, row - DOT, 2 * DOT, 2 * DOT);
    }
  }
  context.globalAlpha = 1;
  paintTitles();
  const ink = variable("--ink"), radius = asPictures ? size / 2 + 4 : 7;
  if (chosen >= 0) { near[chosen].forEach((index) => ring(index, radius - 2, ink)); ring(chosen, radius, variable("--accent")); }
  if (lasso) {
    context.strokeStyle = ink;
    context.beginPath();
    lasso.forEach(([column, row]) => context.lineTo(column, row));
    context.stroke();
  }
  if (hovered >= 0) paintHovered(ink);
}
function paintTitles() {
  if (by("map-colour").value !== "cluster") return;
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.lineWidth = 4;
  context.strokeStyle = variable("--paper");
  context.fillStyle = variable("--ink");
  for (const [place, { number, column, row }] of middles.entries()) {
    if (place >= MOST_TITLES && !called[number]) continue;
    const text = called[number] ? `${number}: ${called[number]}` : String(number);
    const left = view.left + view.scale * column, top = view.top + view.scale * row;
    context.strokeText(text, left, top);
    context.fillText(text, left, top);
  }
}
function paintHovered(ink) {
  ring(hovered, 7, ink);
  if (!hasPictures) return;
  const size = Math.max(96, side), gap = 14;
  const left = Math.min(Math.max(across_(hovered) + gap, 4), width - size - 4);
  const above = down(hovered) - size - gap;
  const top = above > 4 ? above : Math.min(down(hovered) + gap, height - size - 4);
  context.imageSmoothingEnabled = side > 32;
  context.fillStyle = variable("--card");
  context.fillRect(left - 3, top - 3, size + 6, size + 6);
  context.strokeStyle = ink;
  context.lineWidth = 1;
  context.strokeRect(left - 3, top - 3, size + 6, size + 6);
  thumbnail(context, hovered, left, top, size);
  context.imageSmoothingEnabled = true;
}
const middles = (() => {                           // of every cluster, the largest first
  const members = new Map();
  cluster.forEach((number, index) => {
    if (number < 0) return;
    if (!members.has(number)) members.set(number, []);
    members.get(number).push(index);
  });
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  return [...members].sort((a, b) => b[1].length - a[1].length).map(([number, rows]) => (
    { number, column: middle(rows.map((row) => x[row])), row: middle(rows.map((row) => y[row])) }));
})();

/* ---- moving ------------------------------------------------------------------------------- */
function fit() {
  view.scale = (Math.min(width, height) - 2 * MARGIN) / 10000;
  view.left = (width - 10000 * view.scale) / 2;
  view.top = (height - 10000 * view.scale) / 2;
  draw();
}
function zoom(factor, column = width / 2, row = height / 2) {
  const scale = Math.min(Math.max(view.scale * factor, .01), 20);
  view.left = column - (column - view.left) * scale / view.scale;
  view.top = row - (row - view.top) * scale / view.scale;
  view.scale = scale;
  draw();
}
const isSeen = (index) => seen([index]).length > 0;
const zoomByKey = (factor) => chosen >= 0 && isSeen(chosen)
  ? zoom(factor, across_(chosen), down(chosen)) : zoom(factor);
function pan(right, downwards) { view.left += right; view.top += downwards; draw(); }
function showOnMap(index) {
  const column = across_(index), row = down(index);
  if (column < MARGIN || row < MARGIN || column > width - MARGIN || row > height - MARGIN) pan(width / 2 - column, height / 2 - row);
}
const closest = (column, row) => {
  let best = -1, least = REACH * REACH;
  for (let index = 0; index < count; index++) {
    const distance = (across_(index) - column) ** 2 + (down(index) - row) ** 2;
    if (distance < least) { least = distance; best = index; }
  }
  return best;
};

/* ---- choosing ----------------------------------------------------------------------------- */
function tile(index, size = 72) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = sentence(index);
  button.setAttribute("aria-label", sentence(index));
  if (hasPictures) {
    const picture = document.createElement("canvas");
    picture.width = picture.height = side;
    picture.style.width = picture.style.height = `${size}px`;
    thumbnail(picture.getContext("2d"), index, 0, 0, side);
    button.append(picture);
  } else {
    button.textContent = names[index];
  }
  button.addEventListener("click", () => choose(index));
  return button;
}
function choose(index) {
  chosen = index;
  by("map-detail").hidden = false;
  const large = tile(index, 160);
  if (data.served && data.pictures[index] >= 0) {  // the file at its full size
    const link = document.createElement("a");
    link.href = `picture/${data.pictures[index]}`;
    link.target = "_blank";
    link.rel = "noopener";
    link.textContent = "Open at full size";
    by("map-picture").replaceChildren(large, link);
  } else {
    by("map-picture").replaceChildren(large);
  }
  by("map-name").textContent = names[index];
  by("map-about").textContent = [clusterTitle(cluster[index]), labelTitle(index)].filter(Boolean).join(", ");
  by("map-near").replaceChildren(...near[index].map((other) => tile(other, 56)));
  by("map-cluster").hidden = cluster[index] < 0;
  by("cluster-name").disabled = !data.clustering;
  by("cluster-name").value = called[cluster[index]] ?? "";
  by("cluster-number").textContent = cluster[index];
  showOnMap(index);
  say(sentence(index));
  draw();
}
function select(indices) {
  selected = new Set(indices);
  const some = [...selected].slice(0, MOST_SHOWN), rest = selected.size - some.length;
  by("map-selection").hidden = !selected.size;
  by("map-count").textContent = pictures(selected.size) + (rest ? `, the first ${MOST_SHOWN} shown` : "");
  by("map-selected").replaceChildren(...some.map((index) => tile(index, 48)));
  say(`${pictures(selected.size)} selected`);
  draw();
}
const selectCluster = (number) => select(everyone.filter((index) => cluster[index] === number));
function enclosed(line) {                          // even-odd: a ray to the right
  const inside = [];
  for (let index = 0; index < count; index++) {
    const column = across_(index), row = down(index);
    let odd = false;
    for (let here = 0, before = line.length - 1; here < line.length; before = here++) {
      const [x1, y1] = line[here], [x2, y2] = line[before];
      if ((y1 > row) !== (y2 > row) && column < (x2 - x1) * (row - y1) / (y2 - y1) + x1) odd = !odd;
    }
    if (odd) inside.push(index);
  }
  return inside;
}
function search() {
  const words = by("map-find").value.trim().toLowerCase();
  found = null;
  if (words) {
    found = new Set(everyone.filter((index) => sentence(index).toLowerCase().includes(words)));
    say(`${pictures(found.size)} found`);
  }
  by("select-found").disabled = !found;
  draw();
}

/* ---- saving ------------------------------------------------------------------------------- */
const cell = (value) => /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
const csv = (rows) => rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`${name} saved`);
}
async function send(where, body) {
  try {
    const answer = await fetch(where, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    say(await answer.text());
  } catch {
    say("not saved: swav view does not answer");
  }
}
function saveNames() {
  if (data.served) return send("names", { clustering: data.clustering, names: called });
  const rows = Object.entries(called).filter(([, name]) => name)
    .map(([number, name]) => [data.clustering, number, name]);
  return download("names.csv", csv([["clustering", "cluster", "name"], ...rows]));
}
function saveSelection() {
  const name = by("selection-name").value.trim() || "selection", indices = [...selected];
  if (data.served) return send("selections", { name, rows: indices.map((index) => data.rows[index]) });
  const rows = indices.map((index) => [
    names[index], cluster[index] < 0 ? "" : cluster[index], called[cluster[index]] ?? "", data.rows[index]]);
  return download(`${name}.csv`, csv([["path", "cluster", "name", "row"], ...rows]));
}
function nameCluster(event) {
  event.preventDefault();
  const number = cluster[chosen];
  called[number] = by("cluster-name").value.trim();
  by("map-about").textContent = clusterTitle(number);
  say(`${clusterTitle(number)}; not saved yet`);
  draw();
}

/* ---- pointer and keyboard ----------------------------------------------------------------- */
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const fingers = new Map();                         // where each pointer on the map is
function pinch(event) {                            // two fingers move the map and zoom about their middle
  const gap = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  const before = [...fingers.values()];
  fingers.set(event.pointerId, place(event));
  const after = [...fingers.values()], [column, row] = middle(after), [left, top] = middle(before);
  pan(column - left, row - top);
  zoom(gap(after) / Math.max(gap(before), 1), column, row);
}
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, place(event));
  if (fingers.size === 2) { drag = lasso = null; return; }
  const [column, row] = place(event);
  if (lassoing) lasso = [[column, row]];
  else drag = { column, row, moved: 0 };
});
canvas.addEventListener("pointermove", (event) => {
  if (fingers.size === 2 && fingers.has(event.pointerId)) { pinch(event); return; }
  const [column, row] = place(event);
  if (lasso) { lasso.push([column, row]); draw(); return; }
  if (drag) {
    drag.moved += Math.abs(column - drag.column) + Math.abs(row - drag.row);
    pan(column - drag.column, row - drag.row);
    Object.assign(drag, { column, row });
    return;
  }
  const index = closest(column, row);
  if (index !== hovered) { hovered = index; canvas.title = index < 0 ? "" : sentence(index); draw(); }
});
canvas.addEventListener("pointerup", (event) => {
  fingers.delete(event.pointerId);
  const index = closest(...place(event));
  if (lasso) { const line = lasso; lasso = null; toggleLasso(false); select(enclosed(line)); }
  else if (drag && drag.moved < 5 && index >= 0) choose(index);
  drag = null;
});
canvas.addEventListener("pointercancel", (event) => { fingers.delete(event.pointerId); drag = lasso = null; draw(); });
canvas.addEventListener("pointerleave", () => { hovered = -1; draw(); });
canvas.addEventListener("wheel", (event) => {      // else the page scrolls
  if (!event.ctrlKey && document.activeElement !== canvas) return;
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...place(event));
}, { passive: false });
let stepping = false;                              // whether Tab goes from picture to picture
function step(forwards) {
  const inside = seen(everyone);
  if (!inside.length) return;
  const at = inside.indexOf(chosen);
  choose(inside[(at + (forwards ? 1 : -1) + inside.length) % inside.length]);
  hovered = chosen;
}
const KEYS = {
  ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0),
  ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
  "+": () => zoomByKey(1.4), "=": () => zoomByKey(1.4), "-": () => zoomByKey(1 / 1.4), 0: fit,
  Enter: () => { stepping = true; step(true); },
  " ": () => {
    if (chosen < 0) return;
    const rest = new Set(selected);
    if (!rest.delete(chosen)) rest.add(chosen);
    select(rest);
  },
  Escape: () => { stepping = false; hovered = -1; say("Tab leaves the map"); draw(); },
};
canvas.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && stepping) { event.preventDefault(); step(!event.shiftKey); return; }
  const act = event.ctrlKey || event.altKey || event.metaKey ? null : KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
});
canvas.addEventListener("blur", () => { stepping = false; });
function toggleLasso(on) {
  lassoing = on;
  by("map-lasso").setAttribute("aria-pressed", String(on));
  canvas.style.cursor = on ? "crosshair" : "";
}

/* ---- sheets of clusters ------------------------------------------------------------------- */
const sheets = [...document.querySelectorAll("#sheets > article")];
function arrangeSheets() {
  const word = by("sheet-find").value.trim().toLowerCase(), byTightness = by("sheet-order").value === "tightness";
  for (const each of sheets) each.hidden = !each.textContent.toLowerCase().includes(word);
  const ordered = byTightness ? [...sheets].sort((a, b) => b.dataset.tightness - a.dataset.tightness) : sheets;
  by("sheets").append(...ordered);
}

/* ---- start -------------------------------------------------------------------------------- */
const onClick = (id, act) => by(id).addEventListener("click", act);
onClick("map-in", () => zoom(1.4));
onClick("map-out", () => zoom(1 / 1.4));
onClick("map-whole", fit);
onClick("map-lasso", () => toggleLasso(!lassoing));
onClick("select-found", () => select(found));
onClick("select-cluster", () => selectCluster(cluster[chosen]));
onClick("select-none", () => select([]));
onClick("save-names", saveNames);
onClick("save-selection", saveSelection);
by("map-cluster").addEventListener("submit", nameCluster);
by("map-find").addEventListener("input", search);
by("map-colour").addEventListener("change", recolour);
by("map-colour").querySelector("[value=label]").disabled = !label.length;
by("save-names").disabled = !data.clustering;
for (const button of document.querySelectorAll("button[data-cluster]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    selectCluster(Number(button.dataset.cluster));
    by("map").scrollIntoView();
    by("map-selected").querySelector("button")?.focus({ preventScroll: true });
  });
}
by("map-tools").hidden = false;
if (sheets.length > 1) {
  by("sheet-tools").hidden = false;
  by("sheet-order").addEventListener("change", arrangeSheets);
  by("sheet-find").addEventListener("input", arrangeSheets);
}
dark.addEventListener("change", recolour);
new ResizeObserver(() => {
  const box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1, first = !width;
  [width, height] = [box.width, box.height];
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (first) fit(); else draw();
}).observe(canvas);
if (sheet) sheet.decode().then(draw, () => say("the thumbnails cannot be shown"));
recolour();
by("map").dataset.ready = "yes";
})();
