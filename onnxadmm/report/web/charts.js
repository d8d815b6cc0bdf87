"use strict";
// Charts: drawn by uPlot in the colours of the page, which may turn dark or be printed.
const holder = document.getElementById("chart-data");
const charts = JSON.parse(holder.textContent);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const words = (value, unit) => {
  if (value === null || value === undefined) return "\u2013";
  if (unit === "%") return `${value.toFixed(2)} %`;
  return Math.abs(value) >= 10000 ? compact.format(value) : String(+value.toPrecision(4));
};
const ticks = (value, unit) => {
  if (value === null) return null;
  if (unit === "%") return `${+value.toFixed(2)} %`;
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(0).replace("e-", "e\u2212");
  return Math.abs(value) >= 1000 ? compact.format(value) : String(+value.toPrecision(3));
};

// On a logarithmic scale: seven powers of ten at the most below the largest value, and lines at some of them only.
const span = (low, high) => {
  const top = Math.ceil(Math.log10(high));
  return [10 ** Math.max(Math.floor(Math.log10(low)), top - 7), 10 ** top];
};
const powers = (low, high) => {
  const [first, last] = [low, high].map(Math.log10).map(Math.round);
  const step = Math.max(1, Math.ceil((last - first) / 4));
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, number) => 10 ** (last - number * step)).reverse();
};

// Shares do not go beyond all and nothing.
const shares = (low, high) => {
  const room = Math.max((high - low) * 0.08, 0.5);
  return [Math.max(0, low - room), Math.min(100, high + room)];
};

// What the legend tells: the value at the cursor; without one the last of a line, the sum of bars.
const told = (series, place) => {
  const values = series.told ?? series.values;
  if (place !== null && place !== undefined) return values[place];
  return series.summed ? values.reduce((sum, value) => sum + value, 0) : values.findLast(value => value !== null);
};

function draw(chart) {
  const box = document.getElementById(`chart-${chart.id}`);
  const bars = chart.kind === "bars" ? uPlot.paths.bars({ size: [0.92], gap: 1 }) : undefined;
  const half = (chart.x[1] - chart.x[0]) / 2;
  const axis = {
    stroke: () => colour("quiet"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: () => colour("line"), width: 1 },
    ticks: { stroke: () => colour("line"), width: 1, size: 4 },
  };
  const series = chart.series.map(each => ({
    label: each.name,
    stroke: () => colour(each.colour),
    fill: bars && (() => colour(each.colour)),
    width: bars ? 0 : 2,
    dash: each.dash ? [6, 4] : undefined,
    paths: bars,
    spanGaps: true,
    points: { show: !bars && (chart.x.length < 20 || each.values.filter(value => value !== null).length === 1) },
    value: (_, value, number, place) => words(told(each, place), chart.unit),
  }));
  const boundary = plot => {
    if (chart.boundary === null) return;
    const x = Math.round(plot.valToPos(chart.boundary, "x", true));
    const { top, height } = plot.bbox;
    plot.ctx.save();
    plot.ctx.strokeStyle = plot.ctx.fillStyle = colour("quiet");
    plot.ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, top);
    plot.ctx.lineTo(x, top + height);
    plot.ctx.stroke();
    plot.ctx.restore();
  };
  const options = {
    width: box.clientWidth,
    height: 190,
    legend: { live: true, markers: { width: bars ? 5 : 1, fill: "none", stroke: (_, number) => (number > 0 ? `var(--${chart.series[number - 1].colour})` : null), dash: (_, number) => (chart.series[number - 1]?.dash ? "dashed" : "solid") } },
    padding: [10, 10, 0, 0],
    cursor: { sync: chart.sync ? { key: chart.sync } : undefined, y: false, drag: { x: true, y: false } },
    scales: { x: { time: false, range: bars && ((_, low, high) => [low - half, high + half]) }, y: chart.kind === "log" ? { distr: 3, range: (_, low, high) => span(low, high) } : bars ? { range: (_, low, high) => [0, high * 1.05 || 1] } : chart.unit === "%" ? { range: (_, low, high) => shares(low, high) } : {} },
    axes: [
      { ...axis, size: 32, space: 48 },
      { ...axis, size: 58, space: 28, splits: chart.kind === "log" ? (plot, _, low, high) => powers(low, high) : undefined, filter: (_, values) => values, values: (_, values) => values.map(value => ticks(value, chart.unit)) },
    ],
    series: [{ label: chart.along, value: (_, value, number, place) => (place !== null ? words(value) : bars ? "all" : words(chart.x.at(-1))) }, ...series],
    hooks: { draw: [boundary] },
  };
  const plot = new uPlot(options, [chart.x, ...chart.series.map(each => each.values)], box);
  new ResizeObserver(() => {
    if (box.clientWidth !== plot.width && box.clientWidth > 0) plot.setSize({ width: box.clientWidth, height: 190 });
  }).observe(box);
  return plot;
}

const plots = charts.map(draw);
const again = () => plots.forEach(plot => plot.redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
for (const [event, printing] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    document.documentElement.toggleAttribute("data-print", printing);
    again();
  });
}
