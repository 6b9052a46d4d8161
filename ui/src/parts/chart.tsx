/** Lines, areas and stacked bars over time, on a canvas. */
import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import { decimal, whole } from "../format";
import { colour, useTheme } from "../theme";
import { cutOf, openFrom, peaksOf } from "./scale";

export interface Series {
  name: string;
  values: (number | null)[];
  colour?: string;
}

interface Props {
  times: number[]; // seconds
  series: Series[];
  kind?: "line" | "area" | "bar";
  stacked?: boolean;
  height?: number;
  unit?: string;
  label: string;
  sync?: string;
  legend?: boolean;
  /** What is shown of the time, in seconds; absent: all of it. */
  between?: [number, number];
  /** Told the part of the time over which somebody drew. */
  onBrush?: (from: number, to: number) => void;
  /** How far everything was read, in seconds: minutes and windows that end later are drawn lighter. Absent: all are over. */
  until?: number;
}

const BRUSH_PIXELS_MIN = 8;
const MARK_PIXELS = 5;
const VEIL = 0.62;
/** A time with seconds, under a tick: half of it stands beyond the last one. */
const TICK_TOLD_PIXELS = 50;
/** Over more than this, ticks are told without seconds, and may stand closer: five minutes have some on a small chart, too. */
const SECONDS_TOLD_MAX = 240;
const PALETTE = ["flow", "late", "future", "rejected", "duplicate", "malformed", "expired", "accepted"];

export const colourOf = (place: number) => PALETTE[place % PALETTE.length]!;

export function Chart({ times, series, kind = "line", stacked = false, height = 170, unit = "", label, sync, legend = true, between, onBrush, until }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme();
  const names = series.map((each) => `${each.name}/${each.colour ?? ""}`).join("\n");
  const data = useMemo(() => dataOf(times, series, stacked), [times, series, stacked]);
  const [uncut, showUncut] = useState(false);
  const open = useMemo(() => openFrom(times, until), [times, until]);
  const cut = useMemo(() => cutOf(times, data.shown.slice(1) as (number | null)[][], between, open), [times, data, between?.[0], between?.[1], open]);
  const top = cut && !uncut ? cut.top : null;
  const held = useRef(data);
  held.current = data;
  const told = useRef({ between, onBrush, top, open });
  told.current = { between, onBrush, top, open };
  const brushed = Boolean(onBrush);

  useEffect(() => {
    const place = box.current;
    if (!place) return;
    const options = optionsOf({ series, kind, stacked, height, unit, width: place.clientWidth, sync, legend, raw: () => held.current.raw, brushed, marked: cut !== null, top: () => told.current.top, open: () => told.current.open, between: () => told.current.between, onBrush: (from, to) => told.current.onBrush?.(from, to) });
    const made = new uPlot(options, held.current.shown, place);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: place.clientWidth, height }));
    watch.observe(place);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
    // The plot is made anew when its looks change; new data only flows in.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [names, kind, stacked, height, unit, theme, sync, legend, brushed, cut !== null]);

  useEffect(() => plot.current?.setData(data.shown), [data, between?.[0], between?.[1], top, open]);
  const last = series.map((each) => `${each.name} ${decimal(lastOver(each.values, open) ?? 0)} ${unit}`);
  const unfinished = open < times.length ? "what is lighter at the end is not over yet" : undefined;
  const beyond = cut && `peaks up to ${decimal(cut.peak)} ${unit}`.trim();
  return (
    <div className="plot">
      <div className="chart" ref={box} role="img" title={unfinished} data-open={times.length - open} aria-label={`${label}: ${[...last.slice(0, 6), ...(beyond ? [beyond] : []), ...(unfinished ? [unfinished] : [])].join(", ")}`} />
      {beyond && (
        <button className="button plain small peaks" onClick={() => showUncut(!uncut)}>
          {uncut ? "cut the peaks off" : `▲ ${beyond}: show them whole`}
        </button>
      )}
    </div>
  );
}

function dataOf(times: number[], series: Series[], stacked: boolean) {
  const raw = series.map((each) => each.values);
  if (!stacked) return { shown: [times, ...raw] as uPlot.AlignedData, raw };
  const sums: number[] = times.map(() => 0);
  const layers = raw.map((values) => values.map((value, at) => (sums[at] = sums[at]! + (value ?? 0))));
  return { shown: [times, ...layers] as uPlot.AlignedData, raw };
}

/** The last value of a time that is over; where none is, the last of all. */
function lastOver(values: (number | null)[], open: number): number | null {
  return values.slice(0, open).findLast((value) => value !== null) ?? values.findLast((value) => value !== null) ?? null;
}

function stepOf(times: ArrayLike<number>): number {
  return times.length > 1 ? times[times.length - 1]! - times[times.length - 2]! : 60;
}

function optionsOf(given: {
  series: Series[];
  kind: "line" | "area" | "bar";
  stacked: boolean;
  height: number;
  width: number;
  unit: string;
  sync?: string;
  legend: boolean;
  raw: () => (number | null)[][];
  brushed: boolean;
  /** Whether there are values that are, or may be, cut off; `top` is above which, null while all are shown. */
  marked: boolean;
  top: () => number | null;
  /** The place of the first time that is not over yet. */
  open: () => number;
  between: () => [number, number] | undefined;
  onBrush: (from: number, to: number) => void;
}): uPlot.Options {
  const { series, kind, stacked, height, unit, width, sync, legend, raw, between } = given;
  // A bar stands between its time and the next one, so the last one needs room.
  const span = (plot: uPlot, least: number, most: number): [number, number] => between() ?? [least, kind === "bar" ? most + stepOf(plot.data[0]) : most];
  const ink = colour("faint");
  const hair = colour("hair");
  const bars = uPlot.paths.bars!({ size: [0.86, 60], align: 1, radius: 0.12 });
  const axis = { stroke: ink, grid: { stroke: hair, width: 1 }, ticks: { show: false }, font: "11px Inter" };
  // Of stacked layers the highest is drawn first, so that each lower one covers its part.
  return {
    width,
    height,
    padding: [given.marked ? 26 : 8, TICK_TOLD_PIXELS / 2, 0, 0],
    legend: { show: legend, live: true },
    cursor: { points: { size: 6 }, y: false, ...(given.brushed ? { drag: { x: true, y: false, setScale: false } } : {}), ...(sync ? { sync: { key: sync } } : {}) },
    hooks: {
      setSelect: [
        (plot) => {
          if (!given.brushed || plot.select.width < BRUSH_PIXELS_MIN) return;
          const [from, to] = [plot.select.left, plot.select.left + plot.select.width].map((place) => plot.posToVal(place, "x"));
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          given.onBrush(Math.floor(from!), Math.ceil(to!));
        },
      ],
      draw: [(plot) => veilOpen(plot, given.open(), kind), (plot) => markPeaks(plot, given.top(), between())],
    },
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
    scales: { x: { time: true, range: span }, y: { range: (_, __, most) => [0, (given.top() ?? most) > 0 ? (given.top() ?? most) * 1.08 : 1] } },
    axes: [
      { ...axis, space: (_, __, from, to) => (to - from > SECONDS_TOLD_MAX ? 44 : 70), size: 26, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toISOString().slice(11, (ticks[1] ?? at + 60) - (ticks[0] ?? at) < 60 ? 19 : 16)) },
      { ...axis, size: 48, space: 32, values: (_, ticks) => ticks.map((value) => (value >= 10_000 ? `${whole(value / 1000)}k` : decimal(value))) },
    ],
    series: [
      { value: (_, at, __, place) => (at === null ? "–" : new Date(at * 1000).toISOString().slice(11, 19) + (place !== null && place >= given.open() ? ", not over yet" : "")), label: "time" },
      ...series.map((each, place) => {
        const name = each.colour ?? colourOf(place);
        const stroke = colour(name) || name;
        return {
          label: each.name,
          stroke,
          width: kind === "bar" ? 0 : 1.6,
          points: { show: () => kind !== "bar" && (raw()[place] ?? []).filter((value) => value !== null).length < 3 },
          spanGaps: true,
          ...(kind === "bar" ? { paths: bars, fill: stroke } : {}),
          ...(kind === "area" && !stacked ? { fill: `${stroke}26` } : {}),
          value: (_: uPlot, __: number, ___: number, at: number | null) => {
            const values = raw()[place] ?? [];
            const value = at === null ? lastOver(values, given.open()) : values[at];
            return value === null || value === undefined ? "–" : `${decimal(value)}${unit ? ` ${unit}` : ""}`;
          },
        } satisfies uPlot.Series;
      }),
    ],
    ...(stacked
      ? {
          bands: series.slice(1).map((_, place) => ({ series: [place + 2, place + 1] as [number, number] })),
        }
      : {}),
  };
}

/** Makes lighter what is not over yet: it is lower than it will be, and would look like a fall. */
function veilOpen(plot: uPlot, open: number, kind: "line" | "area" | "bar"): void {
  const times = plot.data[0];
  if (open >= times.length) return;
  // A line falls, or rises, on its way from the last time that is over.
  const begins = times[kind === "bar" ? open : Math.max(0, open - 1)]!;
  const { left, top, width, height } = plot.bbox;
  const from = Math.max(left, plot.valToPos(begins, "x", true));
  if (from >= left + width) return;
  plot.ctx.save();
  plot.ctx.globalAlpha = VEIL;
  plot.ctx.fillStyle = colour("card");
  plot.ctx.fillRect(from, top, left + width - from, height);
  plot.ctx.globalAlpha = 1;
  plot.ctx.strokeStyle = colour("faint");
  plot.ctx.lineWidth = devicePixelRatio;
  plot.ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  plot.ctx.beginPath();
  plot.ctx.moveTo(from, top);
  plot.ctx.lineTo(from, top + height);
  plot.ctx.stroke();
  plot.ctx.restore();
}

/** Draws a small triangle at the top edge wherever values are cut off. */
function markPeaks(plot: uPlot, top: number | null, between?: [number, number]): void {
  if (top === null) return;
  const [times, ...layers] = plot.data;
  const size = MARK_PIXELS * devicePixelRatio;
  const edge = plot.bbox.top - size / 2;
  plot.ctx.fillStyle = colour("late");
  for (const place of peaksOf(times, layers as (number | null)[][], top, between)) {
    const at = plot.valToPos(times[place]!, "x", true);
    plot.ctx.beginPath();
    plot.ctx.moveTo(at, edge - size);
    plot.ctx.lineTo(at + size, edge);
    plot.ctx.lineTo(at - size, edge);
    plot.ctx.fill();
  }
}
