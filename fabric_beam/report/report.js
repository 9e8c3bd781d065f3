"use strict";
// Draws the charts of the page as SVG. Texts go in as text nodes only, so nothing in the data can become markup.
(() => {
  const { axis, charts, marks } = JSON.parse(document.getElementById("data").textContent);
  const figures = [...document.querySelectorAll("figure.chart")];
  const pad = { left: 50, right: 14, bottom: 24 };
  const resetButton = document.getElementById("reset");
  if (!axis) return;

  let view = [0, axis.bins]; // the bins that are shown: from, to
  let cursor = null; // the bin under the pointer

  const svg = (name, attributes = {}, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const html = (name, className, ...children) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...children);
    return node;
  };
  const short = (value) => {
    for (const [unit, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= unit) return +(value / unit).toPrecision(3) + " " + prefix;
    return String(+value.toPrecision(3)); // also turns 0.30000000000000004 into 0.3
  };
  const exact = (value) => value == null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: 12 });
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // Time
  const SECOND = 1e3, MINUTE = 6e4, HOUR = 36e5, DAY = 864e5;
  const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500].concat(
    [1, 2, 5, 10, 15, 30].map((n) => n * SECOND), [1, 2, 5, 10, 15, 30].map((n) => n * MINUTE),
    [1, 2, 3, 6, 12].map((n) => n * HOUR), [1, 2, 4, 7, 14].map((n) => n * DAY));
  const formats = new Map();
  const format = (time, options) => {
    const key = JSON.stringify(options);
    if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options }));
    return formats.get(key).format(time);
  };
  const clock = { hour: "2-digit", minute: "2-digit" };
  const day = { day: "numeric", month: "short" };
  const timeOf = (bin) => axis.start + bin * axis.step;
  const timeTicks = (from, to, width) => {
    const step = STEPS.find((one) => (to - from) / one <= width / (one < MINUTE ? 84 : 62));
    if (!step) { // months and years have no fixed length
      const months = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600].find((n) => (to - from) / (n * 30.4 * DAY) <= width / 80) || 1200;
      const first = new Date(from), ticks = [];
      for (let m = Math.ceil((first.getUTCFullYear() * 12 + first.getUTCMonth()) / months) * months; ; m += months) {
        const time = Date.UTC(Math.floor(m / 12), m % 12);
        if (time > to) return ticks;
        if (time >= from) ticks.push([time, format(time, months < 12 ? { month: "short", year: "numeric" } : { year: "numeric" })]);
      }
    }
    const ticks = [];
    for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
      const options = time % DAY === 0 ? day : step >= MINUTE ? clock
        : { ...clock, second: "2-digit", ...(step < SECOND && { fractionalSecondDigits: 3 }) };
      ticks.push([time, format(time, options)]);
    }
    return ticks;
  };
  const binText = (bin) => {
    const from = timeOf(bin), to = timeOf(bin + 1);
    const fine = axis.step % MINUTE ? { ...clock, second: "2-digit", ...(axis.step % SECOND && { fractionalSecondDigits: 3 }) } : clock;
    const start = format(from, { weekday: "short", ...day, year: "numeric" });
    if (axis.step >= DAY && axis.step % DAY === 0)
      return axis.step === DAY ? start : start + " to " + format(to - DAY, { weekday: "short", ...day, year: "numeric" });
    return `${start}, ${format(from, fine)} to ${format(to, fine)}`;
  };

  // Values
  const valueTicks = (low, high, most, log) => {
    if (log) {
      const ticks = [], decades = Math.log10(high / low);
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
        for (const m of decades * 3 < most * 1.5 ? [1, 2, 5] : [1]) ticks.push(m * 10 ** e);
      return ticks.filter((tick) => tick >= low && tick <= high);
    }
    const raw = high / most || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
    const ticks = [];
    for (let i = 0; i * step <= high; i++) ticks.push(i * step);
    return ticks;
  };

  const makeChart = (figure) => {
    const chart = charts[+figure.dataset.chart];
    const plot = figure.querySelector(".plot");
    const hidden = new Set();
    const first = figure === figures[0];
    const top = first && marks.length ? 26 : 8;
    const tip = html("div", "tip");
    tip.hidden = true;
    let frame, cursorLine, brush, dragFrom = null;

    const shown = () => chart.series.filter((_, index) => !hidden.has(index));
    const x = (bin) => pad.left + (bin - view[0]) / (view[1] - view[0]) * (frame.width - pad.left - pad.right);
    const binAt = (px) => view[0] + (px - pad.left) / (frame.width - pad.left - pad.right) * (view[1] - view[0]);

    const scale = (from, to) => {
      let low = Infinity, high = 0;
      for (let bin = from; bin < to; bin++) {
        let sum = 0;
        for (const one of shown()) {
          const value = one.values[bin];
          if (value == null) continue;
          sum += value;
          if (chart.kind === "line") { low = Math.min(low, value); high = Math.max(high, value); }
        }
        if (chart.kind === "stack") high = Math.max(high, sum);
      }
      const log = chart.log && low > 0 && low < Infinity;
      high = high || 1;
      const bottom = frame.height - pad.bottom, height = bottom - top;
      if (log) { low *= 0.8; high *= 1.2; } else { low = 0; high *= 1.04; }
      const y = log
        ? (value) => bottom - Math.log(value / low) / Math.log(high / low) * height
        : (value) => bottom - value / high * height;
      return { y, bottom, ticks: valueTicks(low, high, height / 36, log) };
    };

    const draw = () => {
      frame = { width: plot.clientWidth, height: plot.clientHeight - 8 };
      if (frame.width < 80) return;
      const [from, to] = [Math.max(Math.floor(view[0]), 0), Math.min(Math.ceil(view[1]), axis.bins)];
      const { y, bottom, ticks } = scale(from, to);
      const right = frame.width - pad.right;
      const root = svg("svg", { viewBox: `0 0 ${frame.width} ${frame.height}`, "aria-hidden": "true" });
      for (const tick of ticks) {
        root.append(svg("line", { class: "grid", x1: pad.left, x2: right, y1: y(tick), y2: y(tick) }));
        root.append(svg("text", { x: pad.left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
      }
      root.append(svg("line", { class: "base", x1: pad.left, x2: right, y1: bottom, y2: bottom }));
      for (const [time, label] of timeTicks(timeOf(view[0]), timeOf(view[1]), right - pad.left)) {
        const at = x((time - axis.start) / axis.step);
        root.append(svg("line", { class: "base", x1: at, x2: at, y1: bottom, y2: bottom + 4 }));
        root.append(svg("text", { x: at, y: bottom + 19, "text-anchor": "middle" }, label));
      }
      const clipId = `clip${figure.dataset.chart}`;
      root.append(svg("clipPath", { id: clipId }, svg("rect", { x: pad.left, y: 0, width: right - pad.left, height: bottom + 1 })));
      const inside = svg("g", { "clip-path": `url(#${clipId})` });
      const visible = marks.filter((mark) => mark.to >= view[0] && mark.from < view[1]);
      inside.append(...(chart.kind === "stack" ? areas(from, to, y) : lines(from, to, y)));
      for (const mark of visible) {
        const at = x(mark.from), width = Math.max(x(mark.to) - at, 3);
        inside.append(svg("rect", { class: "band", x: at, width, y: top, height: bottom - top }));
        if (first) inside.append(svg("rect", { class: "lane", x: at, width, y: top - 3, height: 3 }));
      }
      cursorLine = svg("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
      brush = svg("rect", { class: "brush", y: top, height: bottom - top, visibility: "hidden" });
      inside.append(brush, cursorLine);
      root.append(inside);
      if (first) root.append(...badges(visible, right));
      plot.replaceChildren(root, tip);
      point();
    };

    const areas = (from, to, y) => {
      const base = new Float64Array(to - from);
      const wide = x(1) - x(0) > 7;
      return shown().map((one) => {
        // Each bin is a box as wide as its window: narrow ones in one outline, wide ones apart.
        const boxes = [];
        let outline = "", back = "";
        for (let bin = from; bin < to; bin++) {
          const low = base[bin - from], high = base[bin - from] += one.values[bin] || 0;
          let left = x(bin), rightEdge = x(bin + 1);
          if (wide) {
            const width = Math.min(rightEdge - left - 2, 64), middle = (left + rightEdge) / 2;
            if (high > low) boxes.push(`M${(middle - width / 2).toFixed(1)} ${y(low).toFixed(1)}V${y(high).toFixed(1)}h${width.toFixed(1)}V${y(low).toFixed(1)}Z`);
          } else {
            outline += `${outline ? "L" : "M"}${left.toFixed(2)} ${y(high).toFixed(1)}H${rightEdge.toFixed(2)}`;
            back = `L${rightEdge.toFixed(2)} ${y(low).toFixed(1)}H${left.toFixed(2)}` + back;
          }
        }
        return svg("path", { class: `area ${one.colour}`, d: wide ? boxes.join("") : outline + back + "Z" });
      });
    };

    const lines = (from, to, y) => shown().map((one) => {
      let d = "", last = -Infinity;
      for (let bin = Math.max(from - chart.gap, 0); bin < Math.min(to + chart.gap, axis.bins); bin++) {
        const value = one.values[bin];
        if (value == null) continue;
        const at = `${x(bin + 0.5).toFixed(2)} ${y(value).toFixed(1)}`;
        d += bin - last <= chart.gap ? `L${at}` : `M${at}h.01`; // h.01 makes a lone value a dot
        last = bin;
      }
      return svg("path", { class: `path ${one.colour}`, d });
    });

    // One badge for findings that would overlap, by the first (highest) number of them.
    const badges = (visible, right) => {
      const groups = [];
      for (const mark of [...visible].sort((a, b) => a.from - b.from)) {
        const at = clamp(x((mark.from + mark.to) / 2), pad.left + 9, right - 9), last = groups.at(-1);
        if (last && at - last.at < 52) last.marks.push(mark);
        else groups.push({ at, marks: [mark] });
      }
      return groups.map(({ at, marks: group }) => {
        const numbers = group.map((mark) => mark.number).sort((a, b) => a - b);
        const all = numbers.join(", "), text = all.length > 6 ? `${numbers[0]} +${numbers.length - 1}` : all;
        const width = Math.max(18, text.length * 6.6 + 10);
        const badge = svg("g", { class: "mark" },
          svg("title", {}, group.map((mark) => `${mark.number}: ${mark.label}`).join("\n")),
          svg("rect", { x: at - width / 2, y: 2, width, height: 18, rx: 9 }), svg("text", { x: at, y: 15 }, text));
        badge.addEventListener("click", () => { location.hash = `finding-${numbers[0]}`; });
        return badge;
      });
    };

    const point = () => {
      const at = cursor == null || !frame ? null : x(cursor + 0.5);
      const visible = at != null && at >= pad.left && at <= frame.width - pad.right;
      cursorLine?.setAttribute("visibility", visible ? "visible" : "hidden");
      if (!visible) { tip.hidden = true; return; }
      cursorLine.setAttribute("x1", at);
      cursorLine.setAttribute("x2", at);
    };

    const explain = (bin) => {
      const list = html("dl");
      const rows = shown().map((one) => [one.name, one.colour, one.values[bin]]).reverse();
      if (chart.kind === "stack" && rows.length > 1) rows.push(["all", "", rows.reduce((sum, row) => sum + (row[2] || 0), 0)]);
      for (const [name, colour, value] of rows) list.append(html("i", `swatch ${colour}`), html("dt", "", name), html("dd", "", exact(value)));
      const why = marks.filter((mark) => mark.from < bin + 1 && mark.to > bin)
        .map((mark) => html("div", "why", `${mark.number}: ${mark.label}`));
      tip.replaceChildren(html("div", "detail", binText(bin)), list, ...why);
      tip.hidden = false;
      const at = x(bin + 0.5);
      const left = at + 14 + tip.offsetWidth < frame.width ? at + 14 : Math.max(at - 14 - tip.offsetWidth, 0);
      tip.style.left = `${left}px`;
    };

    const hover = (bin) => {
      cursor = bin == null ? null : clamp(Math.floor(bin), 0, axis.bins - 1);
      for (const one of all) one.point();
      if (cursor != null) {
        for (const one of all) if (one.tip !== tip) one.tip.hidden = true;
        explain(cursor);
        plot.setAttribute("aria-valuenow", cursor);
        plot.setAttribute("aria-valuetext", tip.innerText.replace(/\s+/g, " "));
      }
    };

    plot.addEventListener("pointermove", (event) => {
      if (!frame) return;
      const bin = clamp(binAt(event.clientX - plot.getBoundingClientRect().left), view[0], view[1] - 0.001);
      hover(bin);
      if (dragFrom == null) return;
      const [a, b] = [x(Math.min(dragFrom, bin)), x(Math.max(dragFrom, bin))];
      brush.setAttribute("x", a);
      brush.setAttribute("width", b - a);
      brush.setAttribute("visibility", "visible");
    });
    plot.addEventListener("pointerdown", (event) => {
      if (event.button || event.target.closest(".mark")) return;
      dragFrom = clamp(binAt(event.clientX - plot.getBoundingClientRect().left), view[0], view[1]);
      plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointerup", (event) => {
      if (dragFrom == null) return;
      const bin = clamp(binAt(event.clientX - plot.getBoundingClientRect().left), view[0], view[1]);
      const [a, b] = [Math.min(dragFrom, bin), Math.max(dragFrom, bin)];
      dragFrom = null;
      brush.setAttribute("visibility", "hidden");
      if (x(b) - x(a) > 8) zoom(Math.floor(a), Math.ceil(b));
    });
    plot.addEventListener("pointercancel", () => { dragFrom = null; brush.setAttribute("visibility", "hidden"); });
    plot.addEventListener("pointerleave", () => { if (dragFrom == null) hover(null); });
    plot.addEventListener("dblclick", () => zoom(0, axis.bins));
    plot.addEventListener("blur", () => hover(null));
    plot.addEventListener("keydown", (event) => {
      const stride = Math.max(1, Math.round((view[1] - view[0]) / (event.shiftKey ? 10 : 200)));
      const move = { ArrowRight: stride, ArrowLeft: -stride, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") zoom(0, axis.bins);
      if (!move) return;
      event.preventDefault();
      hover(clamp((cursor ?? (view[0] + view[1]) / 2) + move, Math.ceil(view[0]), Math.ceil(view[1]) - 1));
    });
    for (const button of figure.querySelectorAll("[data-series]"))
      button.addEventListener("click", () => {
        const index = +button.dataset.series;
        if (!hidden.delete(index)) hidden.add(index);
        button.setAttribute("aria-pressed", String(!hidden.has(index)));
        draw();
      });
    plot.tabIndex = 0;
    plot.setAttribute("role", "slider");
    plot.setAttribute("aria-valuemin", 0);
    plot.setAttribute("aria-valuemax", axis.bins - 1);
    plot.setAttribute("aria-valuenow", 0);
    plot.setAttribute("aria-valuetext", "use the arrow keys for the values");
    new ResizeObserver(draw).observe(plot);
    return { draw, point, tip };
  };

  const all = figures.map(makeChart);
  const zoom = (from, to) => {
    view = [clamp(from, 0, axis.bins - 1), clamp(Math.max(to, from + 1), 1, axis.bins)];
    resetButton.hidden = view[0] === 0 && view[1] === axis.bins;
    for (const one of all) one.draw();
  };
  resetButton.addEventListener("click", () => zoom(0, axis.bins));
  for (const link of document.querySelectorAll("a.number[data-from]"))
    link.addEventListener("click", () => {
      const from = +link.dataset.from, to = +link.dataset.to, margin = Math.max((to - from) * 2, 10);
      zoom(Math.floor(from - margin), Math.ceil(to + margin));
    });
  addEventListener("beforeprint", () => { for (const rule of document.querySelectorAll("details")) rule.open = true; });
})();
