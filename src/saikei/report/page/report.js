"use strict";
(() => {
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const COLOURS = { original: "#8b95a5", given: "#64748b", kept: "#3b82f6", fresh: "#f59e0b", fused: "#a855f7", quantized: "#14b8a6" };
  const GOOD = "#10b981", BAD = "#ef4444", GREY = "#8b95a5";

  // Text from a record becomes text nodes and attributes alone, never markup.
  const make = (tag, attributes = {}, text = "", parent = null) => {
    const element = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const short = (value) => {
    const size = Math.abs(value);
    for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= limit) return `${+(value / limit).toPrecision(3)}${unit}`;
    }
    return String(+value.toPrecision(4));
  };

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  const show = (element, lines) => {
    tip.replaceChildren(...lines.map((line, number) => {
      const row = document.createElement(number ? "div" : "b");
      row.textContent = line;
      return row;
    }));
    tip.hidden = false;
    const box = element.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const above = box.top - own.height - 10;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 60 ? above : box.bottom + 10) + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  const explain = (element, lines) => {
    element.setAttribute("tabindex", "0");
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", lines.join(", "));
    element.classList.add("mark");
    for (const event of ["pointerenter", "focus"]) element.addEventListener(event, () => show(element, lines));
    for (const event of ["pointerleave", "blur"]) element.addEventListener(event, hide);
  };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const ticks = (low, high, count) => {
    const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) || power;
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(Math.abs(value) < step / 1e6 ? 0 : value);
    return found;
  };

  // Axes of a chart: where numbers are on the page.
  const frame = (box, xs, ys, xLabel, yLabel, height = 380, options = {}) => {
    const width = Math.max(280, box.clientWidth);
    const margin = { left: options.left ?? 62, right: 16, top: 12, bottom: 48 };
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    box.replaceChildren(svg);
    const range = (values, zero) => {
      let low = Math.min(...values), high = Math.max(...values);
      if (zero) low = Math.min(0, low);
      if (!(high > low)) { low -= 0.5; high += 0.5; }
      const room = (high - low) * 0.06;
      return [zero && low === 0 ? 0 : low - room, high + room];
    };
    const [x0, x1] = range(xs, options.zero ?? true), [y0, y1] = range(ys, false);
    const x = (value) => margin.left + ((value - x0) / (x1 - x0)) * (width - margin.left - margin.right);
    const y = (value) => height - margin.bottom - ((value - y0) / (y1 - y0)) * (height - margin.top - margin.bottom);
    const grid = make("g", { class: "grid" }, "", svg);
    for (const value of ticks(x0, x1, Math.max(3, Math.floor(width / 110)))) {
      if (options.whole && !Number.isInteger(value)) continue;
      make("line", { x1: x(value), x2: x(value), y1: margin.top, y2: height - margin.bottom, class: value === 0 ? "zero" : "" }, "", grid);
      make("text", { x: x(value), y: height - margin.bottom + 18, "text-anchor": "middle" }, short(value), grid);
    }
    if (options.rows) {
      // Rows have names in place of numbers.
    } else for (const value of ticks(y0, y1, 6)) {
      make("line", { x1: margin.left, x2: width - margin.right, y1: y(value), y2: y(value) }, "", grid);
      make("text", { x: margin.left - 8, y: y(value) + 4, "text-anchor": "end" }, options.power ? (Number.isInteger(value) ? short(10 ** value) : "") : short(value), grid);
    }
    make("text", { x: (margin.left + width - margin.right) / 2, y: height - 8, "text-anchor": "middle", class: "label" }, xLabel, grid);
    if (yLabel) make("text", { x: 14, y: (height - margin.bottom) / 2, "text-anchor": "middle", class: "label", transform: `rotate(-90 14 ${(height - margin.bottom) / 2})` }, yLabel, grid);
    return { svg, x, y, width, height, margin };
  };
  const path = (svg, points, attributes) => {
    let pen = "M", d = "";
    for (const point of points) {
      if (!point) { pen = "M"; continue; }
      d += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      pen = "L";
    }
    return make("path", { d, fill: "none", ...attributes }, "", svg);
  };
  const legend = (box, entries) => {
    const list = document.createElement("div");
    list.className = "legend";
    for (const [colour, text] of entries) {
      const key = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = colour;
      key.append(dot, text);
      list.append(key);
    }
    box.append(list);
  };
  const marker = (svg, kind, x, y, colour, strong) => {
    const shape = { fresh: `M${x} ${y - 7}L${x + 7} ${y}L${x} ${y + 7}L${x - 7} ${y}Z`, quantized: `M${x - 5} ${y - 5}h10v10h-10Z`, fused: `M${x} ${y - 7}L${x + 6} ${y - 3.5}V${y + 3.5}L${x} ${y + 7}L${x - 6} ${y + 3.5}V${y - 3.5}Z` }[kind];
    const look = { fill: colour, opacity: strong ? 1 : 0.5 };
    if (shape) return make("path", { d: shape, ...look }, "", svg);
    return make("circle", { cx: x, cy: y, r: kind === "original" || kind === "given" ? 7 : 5.5, ...look }, "", svg);
  };

  const draw = {
    front(box, chart, view) {
      const axis = chart.axes.find((one) => one.name === view);
      const xs = chart.points.map((p) => p.x[view]).concat(axis.limit ?? []);
      const { svg, x, y, height, margin } = frame(box, xs, chart.points.flatMap((p) => [p.low, p.high]), axis.label, chart.label, 420);
      if (axis.limit != null) {
        path(svg, [[x(axis.limit), margin.top], [x(axis.limit), height - margin.bottom]], { stroke: BAD, "stroke-dasharray": "6 4", "stroke-width": 1.5 });
        make("text", { x: x(axis.limit) + 5, y: margin.top + 12, fill: BAD }, "budget", svg);
      }
      const steps = [];
      axis.front.forEach(([cost, value], number) => { if (number) steps.push([x(cost), steps.at(-1)[1]]); steps.push([x(cost), y(value)]); });
      path(svg, steps, { stroke: GOOD, "stroke-dasharray": "2 3", "stroke-width": 1.5 });
      for (const p of chart.points) {
        const at = x(p.x[view]), colour = COLOURS[p.kind];
        path(svg, [[at, y(p.low)], [at, y(p.high)]], { stroke: colour, opacity: 0.35 });
        if (p.chosen) make("circle", { cx: at, cy: y(p.y), r: 12, fill: "none", stroke: GOOD, "stroke-width": 2.5 }, "", svg);
        explain(marker(svg, p.kind, at, y(p.y), colour, p.strong), p.text);
      }
      legend(box, [...Object.entries(chart.kinds).map(([kind, text]) => [COLOURS[kind], text]), [GOOD, "Pareto front, and a ring: to ship"]]);
    },
    choices(box, chart) {
      const rows = chart.rows, narrow = box.clientWidth < 560;
      const height = 60 + 34 * rows.length;
      const { svg, x, y } = frame(box, rows.flatMap((r) => [r.low, r.high, 0]), [0.5, rows.length + 0.5], chart.label.replace(narrow ? /,.*/ : /^$/, ""), "", height, { zero: false, rows: true, left: narrow ? 12 : 230 });
      rows.forEach((row, number) => {
        const level = y(rows.length - number), colour = !row.clear ? GREY : row.good ? GOOD : BAD;
        if (!narrow) make("text", { x: 222, y: level + 4, "text-anchor": "end" }, row.name.length > 32 ? `${row.name.slice(0, 31)}…` : row.name, svg);
        path(svg, [[x(row.low), level], [x(row.high), level]], { stroke: colour, "stroke-width": 1.5 });
        explain(make("circle", { cx: x(row.value), cy: level, r: 5.5, fill: colour }, "", svg), [row.name, ...row.text]);
      });
    },
    training(box, chart, view) {
      const key = chart.views.find((one) => one.name === view), factor = key.share ? 100 : 1;
      const lines = chart.lines.filter((line) => line.values[view]);
      const values = lines.flatMap((line) => line.values[view].filter((v) => v !== null).map((v) => factor * v));
      const longest = Math.max(1, ...lines.map((line) => line.values[view].length));
      const { svg, x, y } = frame(box, [1, longest], values.length ? values : [0, 1], "epoch", key.label + (key.share ? " (%)" : ""), 380, { zero: false, whole: true });
      for (const line of lines) {
        const points = line.values[view].map((v, i) => (v === null ? null : [x(i + 1), y(factor * v)]));
        path(svg, points, { stroke: COLOURS[line.kind], "stroke-width": line.strong ? 3 : 1.3, opacity: line.strong ? 1 : 0.65, "stroke-dasharray": line.kind === "fresh" ? "5 4" : "none" });
        const last = points.findLastIndex((point) => point);
        if (last >= 0) explain(make("circle", { cx: points[last][0], cy: points[last][1], r: 4.5, fill: COLOURS[line.kind] }, "", svg), [line.name, `epoch ${last + 1}: ${short(factor * line.values[view][last])}`]);
      }
    },
    library(box, chart) {
      const high = Math.min(...[0, 1].map((side) => Math.max(...chart.points.map((p) => p[side]))));
      const { svg, x, y } = frame(box, chart.points.map((p) => p[0]).concat(0), chart.points.map((p) => p[1]).concat(0), `predicted divergence (${chart.unit})`, "measured", 300);
      path(svg, [[x(0), y(0)], [x(high), y(high)]], { stroke: GREY, "stroke-dasharray": "5 4" });
      for (const [predicted, real] of chart.points) explain(make("circle", { cx: x(predicted), cy: y(real), r: 5, fill: COLOURS.kept }, "", svg), [`predicted ${short(predicted)}`, `measured ${short(real)} ${chart.unit}`]);
    },
    sensitivity(box, chart, view) {
      // One line for each layer, from the first (light) to the last (dark); the steepest have names.
      const lines = chart.lines.filter((line) => !view || line.view === view), all = lines.flatMap((line) => line.points);
      const narrow = box.clientWidth < 560, named = [...lines].sort((a, b) => b.points.at(-1)[1] - a.points.at(-1)[1]).slice(0, 5);
      const least = Math.min(...all.map((p) => p[1]).filter((value) => value > 0)), power = Boolean(chart.power) && Number.isFinite(least);
      const level = (value) => (power ? Math.log10(Math.max(value, least)) : value);
      const { svg, x, y, width } = frame(box, all.map((p) => 100 * p[0]).concat(0), all.map((p) => level(p[1])).concat(power ? [] : 0), chart.x, chart.label, 380, { power, left: 84 });
      lines.forEach((line, number) => {
        const depth = lines.length > 1 ? number / (lines.length - 1) : 0, colour = `hsl(${215 + 80 * depth} 80% ${62 - 12 * depth}%)`;
        const points = (power ? [] : [[0, 0]]).concat(line.points);
        path(svg, points.map((p) => [x(100 * p[0]), y(level(p[1]))]), { stroke: colour, "stroke-width": named.includes(line) ? 2.2 : 1.2, opacity: named.includes(line) ? 1 : 0.6 });
        for (const p of line.points) explain(make("circle", { cx: x(100 * p[0]), cy: y(level(p[1])), r: 4, fill: colour }, "", svg), [line.name, `${chart.x.replace(" (%)", "")}: ${(100 * p[0]).toFixed(1)} %`, `${chart.label}: ${short(p[1])}`, ...(p[2] ? [p[2]] : [])]);
        const [last, loss] = line.points.at(-1), right = x(100 * last) + 8 + 6.5 * line.name.length < width;
        if (!narrow && named.includes(line)) make("text", { x: x(100 * last) + (right ? 7 : -7), y: y(level(loss)) - 6, "text-anchor": right ? "start" : "end" }, line.name, svg);
      });
    },
    slider(box, chart, view, chosen = 0) {
      // Losses differ by orders of magnitude: the axis has their powers of ten.
      const points = chart.points, least = Math.min(...points.map((p) => p.loss).filter((loss) => loss > 0));
      const level = (loss) => Math.log10(Math.max(loss, least));
      const { svg, x, y } = frame(box, points.map((p) => p.costs[chart.axis]).concat(chart.original[chart.axis]), points.map((p) => level(p.loss)), chart.label, `predicted divergence (${chart.unit})`, 280, { power: true, left: 84 });
      path(svg, points.map((p) => [x(p.costs[chart.axis]), y(level(p.loss))]), { stroke: COLOURS.kept, "stroke-width": 2, "stroke-dasharray": "3 3" });
      const p = points[chosen];
      explain(make("circle", { cx: x(p.costs[chart.axis]), cy: y(level(p.loss)), r: 7, fill: COLOURS.kept }, "", svg), [`${short(p.costs[chart.axis])} ${chart.label}`, `divergence ${short(p.loss)} ${chart.unit}, predicted`]);
    },
    settings(box, chart) {
      // Parallel coordinates: an axis for each setting, and the metric last.
      const axes = [...chart.axes, chart.metric], width = Math.max(280, box.clientWidth, 92 * axes.length), height = 320;
      const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
      svg.style.maxWidth = "none";
      box.replaceChildren(svg);
      const at = (number) => 56 + (number * (width - 112)) / Math.max(1, axes.length - 1), top = 40, bottom = height - 24;
      const column = (number) => chart.lines.map((line) => (number < chart.axes.length ? line.values[number] : line.y));
      const scales = axes.map((name, number) => {
        const values = column(number).filter((value) => value !== null), numeric = values.every((value) => typeof value === "number");
        if (!numeric) {
          const known = [...new Set(values.map(String))].sort();
          return { ends: known.map((text, place) => [place / Math.max(1, known.length - 1), text]), place: (value) => known.indexOf(String(value)) / Math.max(1, known.length - 1) };
        }
        const positive = number < chart.axes.length && Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values);
        const level = (value) => (positive ? Math.log10(value) : value), low = Math.min(...values.map(level)), high = Math.max(...values.map(level));
        const ends = [[0, short(Math.min(...values))], [1, short(Math.max(...values))]];
        return { ends: high > low ? ends : [[0.5, ends[0][1]]], place: (value) => (high > low ? (level(value) - low) / (high - low) : 0.5) };
      });
      const y = (share) => bottom - share * (bottom - top), grid = make("g", { class: "grid" }, "", svg);
      axes.forEach((name, number) => {
        make("line", { x1: at(number), x2: at(number), y1: top, y2: bottom, class: "zero" }, "", grid);
        make("text", { x: at(number), y: 14, "text-anchor": "middle", class: "label" }, name.replace(/_/g, " ").slice(0, 18), grid);
        for (const [share, text] of scales[number].ends) make("text", { x: at(number), y: y(share) + (share > 0.5 ? -6 : 16), "text-anchor": "middle" }, text, grid);
      });
      for (const line of chart.lines) {
        const values = [...line.values, line.y], points = values.map((value, number) => (value === null ? null : [at(number), y(scales[number].place(value))]));
        path(svg, points, { stroke: COLOURS[line.kind], "stroke-width": line.strong ? 2.5 : 1.3, opacity: line.strong ? 1 : 0.55 });
        const last = points.at(-1), text = chart.axes.map((name, number) => `${name.replace(/_/g, " ")} ${line.values[number] === null ? "–" : typeof line.values[number] === "number" ? short(line.values[number]) : line.values[number]}`);
        explain(make("circle", { cx: last[0], cy: last[1], r: 4.5, fill: COLOURS[line.kind] }, "", svg), [line.name, `${chart.metric} ${short(line.y)}`, ...text]);
      }
    },
    calibration(box, chart) {
      const { svg, x, y } = frame(box, [0, 100], [0, 100], "confidence (%)", "right (%)", 300);
      path(svg, [[x(0), y(0)], [x(100), y(100)]], { stroke: GREY, "stroke-dasharray": "5 4" });
      chart.lines.forEach((line, number) => {
        const colour = number ? GOOD : COLOURS.original;
        path(svg, line.bins.map(([c, s]) => [x(100 * c), y(100 * s)]), { stroke: colour, "stroke-width": 2 });
        for (const [c, s, n] of line.bins) explain(make("circle", { cx: x(100 * c), cy: y(100 * s), r: Math.min(8, 3 + Math.log10(n)), fill: colour }, "", svg), [line.name, `confidence ${(100 * c).toFixed(1)} %, right ${(100 * s).toFixed(1)} %`, `${n} samples`]);
      });
      legend(box, chart.lines.map((line, number) => [number ? GOOD : COLOURS.original, line.name]));
    },
  };

  const views = (chart) => (chart.axes ?? chart.views ?? []).filter((one) => one.name).map((one) => [one.name, one.label.replace(/ per sample| \(.*/, "")]);
  const state = {};
  const redraw = (id) => {
    const box = document.getElementById(`chart-${id}`);
    if (box && draw[id]) draw[id](box, charts[id], state[id], state[`${id}-at`]);
  };
  for (const group of document.querySelectorAll(".views[data-for]")) {
    const id = group.dataset.for, known = views(charts[id]);
    state[id] = known.length ? known[0][0] : null;
    if (known.length < 2) continue;
    for (const [name, label] of known) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-pressed", String(name === state[id]));
      button.addEventListener("click", () => {
        state[id] = name;
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        redraw(id);
      });
      group.append(button);
    }
  }
  const all = () => { hide(); for (const id of Object.keys(charts)) redraw(id); };

  const range = document.getElementById("budget-range");
  if (range) {
    const chart = charts.slider, text = (id, value) => { document.getElementById(id).textContent = value; };
    const moved = () => {
      const point = chart.points[range.value], cost = point.costs[chart.axis];
      state["slider-at"] = Number(range.value);
      // A structure is the answer for all budgets below the next one.
      const next = chart.points[Number(range.value) + 1]?.costs[chart.axis] ?? Infinity;
      text("budget-text", `${short(cost)}${next < Infinity ? ` to ${short(next)}` : ""} ${chart.label} (from ${(100 * cost / chart.original[chart.axis]).toFixed(1)} % of the original)`);
      range.setAttribute("aria-valuetext", `${short(cost)} ${chart.label}`);
      text("budget-loss", `${short(point.loss)} ${chart.unit}`);
      text("budget-costs", Object.entries(point.costs).map(([name, value]) => `${short(value)} ${{ macs: "MACs", params: "parameters" }[name] ?? name}`).join(", "));
      const inside = chart.measured.filter((one) => one.cost < next);
      const best = inside.sort((a, b) => b.value - a.value)[0];
      text("budget-best", best ? `${best.name}: ${chart.metric} ${best.metric}` : "none: all are larger");
      const list = document.getElementById("budget-changes");
      list.replaceChildren(...(point.changes.length ? point.changes : ["nothing: the original"]).map((change) => {
        const item = document.createElement("li");
        item.textContent = change;
        return item;
      }));
      redraw("slider");
    };
    const limit = charts.front.axes.find((one) => one.name === chart.axis)?.limit;
    const inside = chart.points.filter((point) => limit == null || point.costs[chart.axis] <= limit).length;
    range.value = Math.max(0, inside - 1);
    range.addEventListener("input", moved);
    moved();
  }

  // A click on a heading sorts the table; numbers are compared as numbers, k, M and G counted.
  const UNITS = { k: 1e3, M: 1e6, G: 1e9 };
  const number = (text) => {
    const found = text.replace(/,/g, "").replace("\u2212", "-").match(/^[+-]?\d*\.?\d+(?:e[+-]?\d+)?\s*([kMG])?/);
    return found ? parseFloat(found[0]) * (UNITS[found[1]] ?? 1) : NaN;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        for (const other of cell.parentNode.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const value = (row) => row.cells[column].textContent.trim();
        const rows = [...body.rows].sort((a, b) => {
          const one = number(value(a)), two = number(value(b));
          const order = Number.isNaN(one) || Number.isNaN(two) ? value(a).localeCompare(value(b)) : one - two;
          return down ? -order : order;
        });
        body.append(...rows);
      });
    });
  }
  for (const button of document.querySelectorAll("button[data-fold]")) {
    button.addEventListener("click", () => {
      for (const block of button.closest(".graph").querySelectorAll("details")) block.open = button.dataset.fold === "open";
    });
  }
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = getComputedStyle(root).colorScheme === "dark" ? "light" : "dark";
  });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 120); });
  all();
})();
