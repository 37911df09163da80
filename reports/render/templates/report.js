"use strict";
// The page is readable without this: it adds filters, sorting, arrow keys, and unpacks pages.
// What it puts into the page as markup was escaped when the report was made.
const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
const byId = (id) => document.getElementById(id);

// Pages that are packed: a line of base64 and deflate each, in the order of `data-packed`.
let lines = null;

async function unpack(section) {
  const note = section.querySelector(".packed");
  lines ??= byId("packed").textContent.trim().split("\n");
  section.removeAttribute("data-packed");
  try {
    const bytes = Uint8Array.from(atob(lines[section.packed]), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    section.innerHTML = await new Response(stream).text();
  } catch (error) {
    note.textContent = "This page could not be unpacked: " + error;
  }
}

function look() {
  const target = byId(location.hash.slice(1));
  const section = target?.closest("section.cell");
  if (section?.hasAttribute("data-packed")) unpack(section);
}

// Filters: words that a row must hold, and how the cell counts. The matrix fades with them.
function filters() {
  const list = byId("list");
  const rows = all("tbody tr", list).map((row) => ({
    row,
    text: row.textContent.toLowerCase(),
    standing: row.dataset.standing,
    place: null,
  }));
  const links = new Map(all(".matrix a").map((link) => [link.hash, link]));
  for (const item of rows) item.place = links.get(item.row.querySelector("a").hash);
  const find = byId("find");
  const show = byId("show");
  const apply = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const item of rows) {
      const stands = !show.value || item.standing === show.value ||
        (show.value === "trouble" && item.standing !== "fine");
      const fits = stands && words.every((word) => item.text.includes(word));
      item.row.hidden = !fits;
      item.place?.classList.toggle("faded", !fits);
      found += fits;
    }
    byId("found").textContent = found + " of " + rows.length;
  };
  find.addEventListener("input", apply);
  show.addEventListener("change", apply);
  all(".filters").forEach((box) => { box.hidden = false; });
  apply();
}

// A click on a column's head sorts the cells by it, another one the other way round.
function sorting() {
  const list = byId("list");
  const body = list.tBodies[0];
  const heads = all("thead th", list);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const number = head.classList.contains("num");
      const up = head.getAttribute("aria-sort") === (number ? "descending" : null);
      const value = (row) => {
        const cell = row.cells[column];
        const text = cell.dataset.sort ?? cell.textContent.trim();
        return number ? (Number(text) || 0) : text;
      };
      const sign = up ? 1 : -1;
      const order = Array.from(body.rows, (row) => [value(row), row]).sort((a, b) =>
        sign * (number ? a[0] - b[0] : a[0].localeCompare(b[0], "en", { numeric: true })));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...order.map((pair) => pair[1]));
    });
  });
}

// One stop for the Tab key in the matrix; the arrow keys go on from there.
function arrows() {
  const matrix = document.querySelector(".matrix");
  const grid = all("tbody tr", matrix).map((row) => all("td", row).map((cell) => all("a", cell)));
  const places = new Map();
  grid.forEach((row, y) => row.forEach((place, x) => place.forEach((link, z) => {
    places.set(link, [y, x, z]);
    link.tabIndex = -1;
  })));
  let stop = places.keys().next().value;
  stop.tabIndex = 0;
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  matrix.addEventListener("keydown", (event) => {
    if (!moves[event.key] || !places.has(event.target)) return;
    const [down, right] = moves[event.key];
    let [y, x, z] = places.get(event.target);
    let next = down ? grid[y][x][z + down] : null;
    while (!next && grid[y += down]?.[x += right]) next = grid[y][x].at(down < 0 ? -1 : 0);
    event.preventDefault();
    next?.focus();
  });
  matrix.addEventListener("focusin", (event) => {
    if (!places.has(event.target)) return;
    stop.tabIndex = -1;
    stop = event.target;
    stop.tabIndex = 0;
  });
}

all("section[data-packed]").forEach((section, number) => { section.packed = number; });
addEventListener("hashchange", look);
if (byId("list")) {
  filters();
  sorting();
  arrows();
}
look();
