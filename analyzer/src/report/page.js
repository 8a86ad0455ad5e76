// What the report gains where scripts may run: search, zoom, and moving about by keyboard. The page
// says everything without it. It reads and writes nothing but this page, and puts strings of the
// trace back only as text.
"use strict";
(() => {
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const make = (name, parent, attributes = {}) => {
    const space = name === "line" || name === "text" ? "http://www.w3.org/2000/svg" : null;
    const made = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  };
  const titleOf = (element) => element.querySelector(":scope > title")?.textContent ?? "";
  const percent = (share) => (share * 100).toFixed(3) + "%";
  const share = (element, name) => parseFloat(element.getAttribute(name) ?? "0") / 100;

  // Durations as the page writes them.
  const digits = (value) => value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0);
  const short = (text) => text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  const duration = (ns) => {
    const units = [[1e9, "s"], [1e6, "ms"], [1e3, "\u00b5s"]];
    for (const [size, unit] of units) if (ns >= size * 0.9995) return short(digits(ns / size)) + "\u00a0" + unit;
    return Math.round(ns) + "\u00a0ns";
  };

  let focusSearch = () => {};
  // Search: rows of waterfalls, boxes of paths, and rows of tables.
  const search = () => {
    const nav = document.querySelector("nav") ?? document.querySelector(".trail");
    if (!nav || nav.querySelector(".search")) return;
    const form = make("span", nav, { class: "search", role: "search" });
    const input = make("input", form, {
      type: "search", placeholder: "Find a span, stage, trace, error  (/)", "aria-label": "Find on this page",
    });
    const said = make("output", form, { class: "dim", "aria-live": "polite" });
    const places = () => [
      ...all(".waterfall .hit, .flame .box").map((element) => [element, titleOf(element).toLowerCase()]),
      ...all("main table tbody tr").map((element) => [element, element.textContent.toLowerCase()]),
    ];
    let found = [];
    let current = -1;
    const say = () => {
      said.textContent = !input.value.trim() ? "" : !found.length ? "nothing found"
        : (current >= 0 ? current + 1 + " of " : "") + found.length;
    };
    const run = () => {
      const text = input.value.trim().toLowerCase();
      all(".found, .current").forEach((element) => element.classList.remove("found", "current"));
      found = text ? places().filter(([, words]) => words.includes(text)).map(([element]) => element) : [];
      found.forEach((element) => element.classList.add("found"));
      current = -1;
      say();
    };
    const go = (step) => {
      if (!found.length) return;
      found[current]?.classList.remove("current");
      current = (current + step + found.length) % found.length;
      const element = found[current];
      for (let up = element.parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
      element.classList.add("current");
      element.scrollIntoView({ block: "center" });
      say();
    };
    input.addEventListener("input", run);
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); go(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape") { input.value = ""; run(); input.blur(); }
    });
    focusSearch = () => { input.focus(); input.select(); };
  };
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); focusSearch(); }
  });

  // Paths: a click makes a box as wide as the picture.
  const flames = (svg) => {
    const boxes = all(".box", svg).map((element) => ({
      element,
      x: share(element, "x"),
      width: share(element, "width"),
      y: parseFloat(element.getAttribute("y")),
      name: titleOf(element).split("\n")[0].split(" \u203a ").pop(),
    }));
    if (!boxes.length) return;
    const top = { x: 0, width: 1, y: -1 };
    let focus = top;
    let at = 0;
    const hint = make("p", svg.parentElement, { class: "hint" });
    const draw = () => {
      for (const box of boxes) {
        const x = (box.x - focus.x) / focus.width;
        const width = box.width / focus.width;
        const isAbove = box.y <= focus.y && box.x <= focus.x + 1e-9 && box.x + box.width >= focus.x + focus.width - 1e-9;
        const isIn = isAbove || (x > -1e-6 && x + width < 1 + 1e-4);
        box.element.setAttribute("display", isIn ? "inline" : "none");
        box.element.setAttribute("x", percent(isAbove ? 0 : x));
        box.element.setAttribute("width", percent(isAbove ? 1 : width));
        let label = box.element.querySelector("text");
        const has = (isAbove ? 1 : width) * svg.clientWidth > 34;
        if (has && !label) {
          label = make("text", box.element, { x: "7", y: "13" });
          label.textContent = box.name;
        }
        if (label) label.setAttribute("display", has ? "inline" : "none");
      }
      hint.textContent = focus === top ? "Click a box to look into it; arrow keys and Enter do the same."
        : "Showing \u201c" + focus.name + "\u201d. Click it again, or press Escape, for the whole.";
    };
    const into = (box) => { focus = focus === box ? top : box; draw(); };
    const select = (index) => {
      boxes[at]?.element.classList.remove("current");
      at = index;
      boxes[at].element.classList.add("current");
      svg.setAttribute("aria-label", titleOf(boxes[at].element));
    };
    boxes.forEach((box, index) => box.element.addEventListener("click", () => { select(index); into(box); }));
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const here = boxes[at];
      const level = boxes.filter((box) => box.y === here.y);
      const beside = level[level.indexOf(here) + (event.key === "ArrowRight" ? 1 : -1)];
      const inside = (inner, outer) => inner.x >= outer.x - 1e-9 && inner.x + inner.width <= outer.x + outer.width + 1e-9;
      const rows = [...new Set(boxes.map((box) => box.y))].sort((a, b) => a - b);
      const next = {
        ArrowRight: beside,
        ArrowLeft: beside,
        ArrowDown: boxes.find((box) => box.y === rows[rows.indexOf(here.y) + 1] && inside(box, here)),
        ArrowUp: boxes.find((box) => box.y === rows[rows.indexOf(here.y) - 1] && inside(here, box)),
      }[event.key];
      if (next) { select(boxes.indexOf(next)); event.preventDefault(); }
      if (event.key === "Enter" || event.key === " ") { into(here); event.preventDefault(); }
      if (event.key === "Escape") { focus = top; draw(); }
    });
    draw();
  };

  // Waterfalls: drag over a part of the time to look closer.
  const waterfall = (svg) => {
    const bars = svg.querySelector(".bars");
    const whole = parseFloat(svg.dataset.ns ?? "0");
    if (!bars || !(whole > 0)) return;
    const [left, width] = [share(bars, "x"), share(bars, "width")];
    const full = bars.viewBox.baseVal.width;
    const height = bars.viewBox.baseVal.height;
    let view = [0, 1];
    const hint = make("p", svg.parentElement, { class: "hint" });
    const ticks = () => {
      all(":scope > .grid, :scope > .tick", svg).forEach((element) => element.remove());
      const [from, to] = view;
      const span = (to - from) * whole;
      const rough = span / 6;
      const decade = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((factor) => factor * decade).find((size) => size >= rough * 0.999) ?? rough;
      const before = svg.querySelector(":scope > svg");
      for (let ns = Math.ceil(from * whole / step) * step; ns <= to * whole + step * 1e-6; ns += step) {
        const along = (ns / whole - from) / (to - from);
        if (along >= 0.97) continue;
        const x = percent(left + along * width);
        before.before(make("line", svg, { class: "grid", x1: x, x2: x, y1: "20", y2: "100%" }));
        const text = make("text", svg, { class: "tick", x, y: "13", "text-anchor": along < 0.04 ? "start" : "middle" });
        text.textContent = ns === 0 ? "0" : duration(ns);
        before.before(text);
      }
    };
    const draw = () => {
      const [from, to] = view;
      bars.setAttribute("viewBox", from * full + " 0 " + (to - from) * full + " " + height);
      ticks();
      hint.textContent = from === 0 && to === 1
        ? "Drag over a part of the time to look closer; with the picture focused, + \u2212 and arrow keys do the same."
        : duration(from * whole) + " to " + duration(to * whole) + ". Double click, or press 0, for the whole.";
    };
    const show = (from, to) => {
      const least = Math.min(1, 1000 / whole);
      const size = Math.min(1, Math.max(to - from, least));
      const start = Math.min(Math.max(0, from), 1 - size);
      view = [start, start + size];
      draw();
    };
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      const along = ((event.clientX - box.left) / box.width - left) / width;
      return view[0] + Math.min(1, Math.max(0, along)) * (view[1] - view[0]);
    };
    let began = null;
    svg.addEventListener("pointerdown", (event) => { if (event.button === 0) began = [at(event), event.clientX]; });
    svg.addEventListener("pointerup", (event) => {
      if (!began) return;
      const [from, x] = began;
      began = null;
      if (Math.abs(event.clientX - x) > 8) show(Math.min(from, at(event)), Math.max(from, at(event)));
    });
    svg.addEventListener("dblclick", () => show(0, 1));
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const [from, to] = view;
      const size = to - from;
      const act = {
        "+": () => show(from + size / 4, to - size / 4),
        "=": () => show(from + size / 4, to - size / 4),
        "-": () => show(from - size / 2, to + size / 2),
        "0": () => show(0, 1),
        Escape: () => show(0, 1),
        ArrowLeft: () => show(from - size / 4, to - size / 4),
        ArrowRight: () => show(from + size / 4, to + size / 4),
      }[event.key];
      if (act && !event.ctrlKey && !event.metaKey) { act(); event.preventDefault(); }
    });
    draw();
  };

  const start = () => {
    search();
    all(".flame").forEach(flames);
    all(".waterfall").forEach(waterfall);
  };
  start();
  // A page that is asked for again while a run is being recorded.
  document.addEventListener("retake:replaced", start);
})();
