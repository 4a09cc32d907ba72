// Charts as SVG, drawn anew with each view: only what changed is touched. Series differ by dash, marker and colour, and
// every chart has its numbers as a table, so that nothing is told by colour alone.

import { h } from "./dom.js";

const WIDTH = 400;
const HEIGHT = 170;
const LEFT = 46;
const BOTTOM = 22;
const TOP = 8;
const RIGHT = 10;
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const MARKERS = ["circle", "square", "triangle", "diamond"];
const LEGEND_MOST = 16;

/**
 * Lines over whole numbers, such as rounds.
 *
 * @param {{title: string, unit: string, xLabel: string,
 *          series: {name: string, points: [number, number][], strong?: boolean}[], zero?: boolean}} chart
 */
export function lines({ title, unit, xLabel, series, zero = false }) {
  const points = series.flatMap((line) => line.points);
  if (!points.length) return empty(title);
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [x0, x1] = spread(Math.min(...xs), Math.max(...xs), 1);
  const ticks = niceTicks(zero ? Math.min(0, ...ys) : Math.min(...ys), Math.max(...ys));
  const [y0, y1] = [ticks[0], ticks[ticks.length - 1]];
  const at = ([x, y]) => [
    LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT),
    TOP + (1 - (y - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM),
  ];
  return figure(
    title,
    unit,
    series,
    xLabel,
    h(
      "svg",
      { class: "fp-chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": summary(title, unit, series) },
      ticks.map((tick) => gridLine(at([x0, tick])[1], short(tick))),
      wholeTicks(x0, x1).map((x) => text(at([x, y0])[0], HEIGHT - 6, String(x), "middle")),
      series.map((line, number) => drawn(line, number, at)),
    ),
  );
}

function drawn(line, number, at) {
  const placed = line.points.map(at);
  const path = placed.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const every = Math.max(1, Math.ceil(placed.length / 12));
  return h(
    "g",
    { key: line.name, class: `fp-series fp-hue-${number % 8} ${line.strong ? "fp-strong" : ""}` },
    h("path", { d: path, "stroke-dasharray": line.strong ? "" : DASHES[(number >> 1) % DASHES.length] }),
    placed.filter((_, i) => i % every === 0 || i === placed.length - 1).map(([x, y]) => marker(number, x, y)),
  );
}

function marker(number, x, y) {
  const kind = MARKERS[number % MARKERS.length];
  if (kind === "circle") return h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 3 });
  const shapes = { square: "-3 -3 3 -3 3 3 -3 3", triangle: "0 -4 4 3 -4 3", diamond: "0 -4 4 0 0 4 -4 0" };
  return h("polygon", { points: shapes[kind], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
}

/**
 * One horizontal bar a name, each of parts that are stacked.
 *
 * @param {{title: string, unit: string, parts: string[], rows: {name: string, values: number[]}[],
 *          format?: (value: number) => string}} chart
 */
export function bars({ title, unit, parts, rows, format = short }) {
  if (!rows.length) return empty(title);
  const sums = rows.map((row) => row.values.reduce((sum, value) => sum + value, 0));
  const most = Math.max(...sums) || 1;
  return h(
    "figure",
    { class: "fp-figure", "data-chart": title },
    h("figcaption", {}, title, unit ? h("span", { class: "fp-unit" }, ` ${unit}`) : null),
    h(
      "table",
      { class: "fp-bars" },
      parts.length > 1
        ? h("caption", {}, parts.map((part, i) => [h("span", { class: `fp-key fp-fill-${i % 8}` }), ` ${part}  `]))
        : null,
      h(
        "tbody",
        {},
        rows.map((row, number) =>
          h(
            "tr",
            { key: row.name },
            h("th", { scope: "row" }, row.name),
            h(
              "td",
              { class: "fp-bars-bar" },
              row.values.map((value, i) =>
                h("span", {
                  class: `fp-fill-${i % 8}`,
                  style: `width:${((value / most) * 100).toFixed(2)}%`,
                  title: `${parts[i] ?? ""} ${format(value)}`,
                }),
              ),
            ),
            h("td", { class: "fp-number" }, format(sums[number])),
          ),
        ),
      ),
    ),
  );
}

function figure(title, unit, series, xLabel, picture) {
  return h(
    "figure",
    { class: "fp-figure", "data-chart": title },
    h("figcaption", {}, title, unit ? h("span", { class: "fp-unit" }, ` ${unit}`) : null),
    picture,
    h(
      "ul",
      { class: "fp-legend" },
      series.slice(0, LEGEND_MOST).map((line, number) =>
        h(
          "li",
          { key: line.name },
          h(
            "svg",
            { class: `fp-series fp-hue-${number % 8} ${line.strong ? "fp-strong" : ""}`, viewBox: "0 0 24 10", "aria-hidden": "true" },
            h("path", { d: "M0 5L24 5", "stroke-dasharray": line.strong ? "" : DASHES[(number >> 1) % DASHES.length] }),
            marker(number, 12, 5),
          ),
          `${line.name} `,
          h("b", {}, line.points.length ? short(line.points[line.points.length - 1][1]) : "–"),
        ),
      ),
    ),
    numbers(series, xLabel),
  );
}

/** The same numbers as a table, for whoever would rather read or hear them. */
function numbers(series, xLabel) {
  const rows = [...new Set(series.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b).slice(-12);
  const found = series.map((line) => new Map(line.points));
  return h(
    "details",
    { class: "fp-numbers" },
    h("summary", {}, "Numbers"),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, xLabel), series.map((line) => h("th", { scope: "col" }, line.name)))),
      h(
        "tbody",
        {},
        rows.map((x) =>
          h("tr", { key: x }, h("th", { scope: "row" }, x), found.map((line) => h("td", { class: "fp-number" }, line.has(x) ? short(line.get(x)) : "–"))),
        ),
      ),
    ),
  );
}

function empty(title) {
  return h(
    "figure",
    { class: "fp-figure", "data-chart": title },
    h("figcaption", {}, title),
    h("p", { class: "fp-quiet" }, "Nothing yet."),
  );
}

function summary(title, unit, series) {
  const last = series
    .filter((line) => line.points.length)
    .slice(0, LEGEND_MOST)
    .map((line) => `${line.name} ${short(line.points[line.points.length - 1][1])}`);
  return `${title}${unit ? `, ${unit}` : ""}. Newest: ${last.join(", ")}`;
}

function gridLine(y, label) {
  return [
    h("line", { class: "fp-grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.toFixed(1), y2: y.toFixed(1) }),
    text(LEFT - 6, y + 4, label, "end"),
  ];
}

function text(x, y, words, anchor) {
  return h("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor }, words);
}

function spread(low, high, least) {
  return high - low < least ? [low, low + least] : [low, high];
}

function niceTicks(low, high) {
  if (high - low < 1e-9) high = low + (Math.abs(low) || 1) * 0.1;
  const raw = (high - low) / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= raw);
  const ticks = [];
  for (let tick = Math.floor(low / step) * step; ticks.length < 8; tick += step) {
    ticks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    if (tick >= high - step / 1e6) break;
  }
  return ticks;
}

function wholeTicks(x0, x1) {
  const step = Math.max(1, Math.ceil((x1 - x0) / 8));
  const ticks = [];
  for (let x = Math.ceil(x0); x <= x1; x += step) ticks.push(x);
  return ticks;
}

/** A number in few characters. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(3));
}
