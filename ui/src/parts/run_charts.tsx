/** Charts of what the run observes of itself; their history is kept for 14 days. */
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { answered, api, type MetricSeries } from "../api/client";
import { visible } from "../format";
import { Said } from "./bits";
import { Chart, type Series } from "./chart";
import { Frame } from "./frame";
import type { Range } from "./range";

/** Metric, title, unit, the label that makes a series, and what a value is divided by. */
const CHARTS = [
  ["headrace_records_total", "Records by outcome", "/s", "outcome", 1],
  ["headrace_processing_delay_seconds", "Processing delay", "s", "stream", 1],
  ["headrace_lag_records", "Records that wait", "records", "stream", 1],
  ["headrace_replica_lag_seconds", "Replicas behind", "s", "replica", 1],
  ["headrace_process_cpu_ratio", "Processor", "cores", "", 1],
  ["headrace_process_resident_memory_bytes", "Memory", "MB", "", 1e6],
] as const;
const OUTCOMES = new Set(["accepted", "duplicate", "late", "future", "rejected", "malformed", "expired"]);

export function RunCharts({ range, brush }: { range: Range; brush: (from: number, to: number) => void }) {
  const asked = useQuery({
    queryKey: ["run charts", range.minutes, range.until],
    queryFn: async () =>
      answered(
        await api.GET("/api/history", { params: { query: { names: CHARTS.map(([name]) => name), minutes: range.minutes, until: range.until ?? null } } }),
      ),
    refetchInterval: range.until === undefined ? 5000 : false,
    placeholderData: (before) => before,
  });
  const first = Math.min(...(asked.data ?? []).map((each) => each.times[0] ?? Infinity));
  const between = range.between(asked.dataUpdatedAt / 1000, first);
  return (
    <>
      <Said error={asked.error} />
      <div className="panels">
        {asked.data &&
          CHARTS.map(([name, title, unit, label, by]) => {
            const found = asked.data.filter((each) => each.name === name);
            return found.length ? <RunChart key={name} found={found} title={title} unit={unit} label={label} by={by} between={between} brush={brush} /> : null;
          })}
      </div>
    </>
  );
}

function RunChart({ found, title, unit, label, by, between, brush }: { found: MetricSeries[]; title: string; unit: string; label: string; by: number; between: [number, number]; brush: (from: number, to: number) => void }) {
  const { times, series } = useMemo(() => joined(found, label, by), [found, label, by]);
  const columns = useMemo(() => [{ name: "time" }, ...series.map((each) => ({ name: each.name }))], [series]);
  const rows = useMemo(() => times.map((at, place) => [new Date(at * 1000).toISOString(), ...series.map((each) => each.values[place])]), [times, series]);
  return (
    <Frame
      title={title}
      test={`run-${title}`}
      data={{ columns, rows }}
      drawn
      picture={(height) => <Chart label={title} times={times} series={series} kind="area" height={height} unit={unit} legend={series.length > 1} between={between} onBrush={brush} />}
    />
  );
}

/** One series for each value of a label; what has the same value at the same time is added up. */
function joined(found: MetricSeries[], label: string, by: number): { times: number[]; series: Series[] } {
  const times = [...new Set(found.flatMap((each) => each.times))].sort((a, b) => a - b);
  const place = new Map(times.map((each, at) => [each, at]));
  const made = new Map<string, (number | null)[]>();
  for (const each of found) {
    const name = visible(each.labels[label] ?? "value");
    const values = made.get(name) ?? times.map(() => null);
    made.set(name, values);
    each.times.forEach((time, at) => {
      const value = each.values[at];
      if (value === null || value === undefined) return;
      const index = place.get(time)!;
      values[index] = (values[index] ?? 0) + value / by;
    });
  }
  return { times, series: [...made].map(([name, values]) => ({ name, values, ...(OUTCOMES.has(name) ? { colour: name } : {}) })) };
}
