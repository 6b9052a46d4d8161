import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { answered, api, type PanelLine, type Rows } from "../api/client";
import { decimal, short, visible } from "../format";
import { Head } from "../head";
import { useReadUntil } from "../live";
import { Said } from "../parts/bits";
import { Chart, colourOf, type Series } from "../parts/chart";
import { Frame } from "../parts/frame";
import { Grid } from "../parts/grid";
import { RangePicker, useRange, type Range } from "../parts/range";
import { RunCharts } from "../parts/run_charts";

const EVERY_MS = 4000;
const OVER_TIME = new Set(["line", "area", "bar"]);
const NARROW = new Set(["gauge", "number", "pie"]);

type Brush = (from: number, to: number) => void;

export default function Dashboards() {
  const { range, said, say, brush } = useRange();
  const panels = useQuery({
    queryKey: ["panels"],
    queryFn: async () => answered(await api.GET("/api/panels")),
    staleTime: 600_000,
  });
  return (
    <>
      <Head title="Dashboards" />
      <RangePicker range={range} said={said} say={say} />
      <Said error={panels.error} />
      {panels.data && !panels.data.length && (
        <div className="empty">
          <strong>This pipeline declares no panels.</strong>
          <p>A panel is a query over its tables and how it is drawn. One line of pipeline.py makes one:</p>
          <pre className="card">pipeline.panel("Records by minute", "SELECT minute, sum(records) FROM outcomes_by_minute GROUP BY 1 ORDER BY 1", kind="line")</pre>
        </div>
      )}
      <div className="panels">{panels.data?.map((each) => <Panel key={each.number} panel={each} range={range} brush={brush} />)}</div>
      <h2>The run itself</h2>
      <RunCharts range={range} brush={brush} />
    </>
  );
}

function Panel({ panel, range, brush }: { panel: PanelLine; range: Range; brush: Brush }) {
  const asked = useQuery({
    queryKey: ["panel", panel.number],
    queryFn: async () => answered(await api.GET("/api/panels/{number}/rows", { params: { path: { number: panel.number } } })),
    refetchInterval: EVERY_MS,
    placeholderData: (before) => before,
  });
  const title = visible(panel.title);
  const data = asked.data;
  const now = asked.dataUpdatedAt / 1000;
  const timed = OVER_TIME.has(panel.kind) && data?.columns[0]?.kind === "time";
  return (
    <Frame
      title={panel.title}
      about={panel.about}
      narrow={NARROW.has(panel.kind)}
      test={`panel-${panel.number}`}
      data={data}
      drawn={timed}
      said={<Said error={asked.error} />}
      picture={(height) =>
        // Its place is kept, or what somebody is about to press would move when the rows come.
        data ? <Picture panel={panel} data={data} height={height} between={timed ? range.between(now, firstOf(data)) : undefined} brush={brush} /> : <div style={{ height }} aria-busy="true" />
      }
      more={
        <details>
          <summary>Query and rows</summary>
          <pre className="card" style={{ margin: "0.6rem 0" }}>
            {panel.query}
          </pre>
          {data && <Grid data={data} label={`Rows of ${title}`} height={240} />}
        </details>
      }
    />
  );
}

function Picture({ panel, data, height, between, brush }: { panel: PanelLine; data: Rows; height: number; between?: [number, number]; brush: Brush }) {
  if (!data.rows.length) return <p className="empty">Its query gives no rows yet.</p>;
  const unit = visible(panel.unit);
  switch (panel.kind) {
    case "line":
    case "area":
    case "bar":
      return data.columns[0]?.kind === "time" ? <OverTime panel={panel} data={data} height={height} between={between} brush={brush} /> : <Bars data={data} unit={unit} />;
    case "pie":
      return <Pie data={data} unit={unit} />;
    case "gauge":
    case "number":
      return <Figure data={data} unit={unit} gauge={panel.kind === "gauge"} />;
    case "horizontal_bar":
    case "map":
    case "funnel":
      return <Bars data={data} unit={unit} funnel={panel.kind === "funnel"} />;
    default:
      return <Grid data={data} label={panel.title} height={height + 40} />;
  }
}

const firstOf = (data: Rows) => data.rows.reduce((first, row) => Math.min(first, Date.parse(String(row[0])) / 1000 || first), Infinity);
const numberOf = (value: unknown) => (value === null || value === undefined ? null : Number(value));
const textOf = (value: unknown) => (value === null || value === undefined ? "(none)" : visible(String(value)));

function OverTime({ panel, data, height, between, brush }: { panel: PanelLine; data: Rows; height: number; between?: [number, number]; brush: Brush }) {
  const { times, series } = useMemo(() => seriesOf(data), [data]);
  const stacked = panel.kind !== "line" && series.length > 1;
  const until = useReadUntil();
  return <Chart label={panel.title} times={times} series={series} kind={panel.kind as "line" | "area" | "bar"} stacked={stacked} height={height} unit={visible(panel.unit)} legend={series.length > 1} between={between} onBrush={brush} until={until} />;
}

/** A time and several numbers: a series each. A time, a word and a number: a series for every word. */
function seriesOf(data: Rows): { times: number[]; series: Series[] } {
  const at = data.rows.map((row) => Date.parse(String(row[0])) / 1000);
  const times = [...new Set(at)].filter(Number.isFinite).sort((a, b) => a - b);
  const place = new Map(times.map((each, index) => [each, index]));
  const made = new Map<string, (number | null)[]>();
  const take = (name: string, time: number, value: unknown) => {
    let values = made.get(name);
    if (!values) made.set(name, (values = times.map(() => null)));
    const index = place.get(time);
    if (index !== undefined) values[index] = numberOf(value);
  };
  const words = data.columns.length > 2 && data.columns[1]!.kind !== "number";
  data.rows.forEach((row, index) => {
    if (words) take(textOf(row[1]), at[index]!, row[2]);
    else for (let column = 1; column < data.columns.length; column += 1) take(visible(data.columns[column]!.name), at[index]!, row[column]);
  });
  const known = new Set(["accepted", "duplicate", "late", "future", "rejected", "malformed", "expired"]);
  return { times, series: [...made].map(([name, values]) => ({ name, values, ...(known.has(name) ? { colour: name } : {}) })) };
}

function Bars({ data, unit, funnel = false }: { data: Rows; unit: string; funnel?: boolean }) {
  const values = data.rows.slice(0, 24).map((row) => [textOf(row[0]), numberOf(row[1]) ?? 0] as const);
  const most = Math.max(...values.map(([, value]) => value), 0) || 1;
  return (
    <div className="bars" style={{ alignContent: "start" }}>
      {values.map(([name, value], at) => (
        <BarLine key={`${name}${at}`} name={name} value={value} width={(100 * value) / most} colour={funnel ? "var(--flow)" : `var(--${colourOf(0)})`} note={funnel ? `${decimal((100 * value) / most)} %` : unit} centre={funnel} />
      ))}
      {data.rows.length > 24 && <span className="faint small">and {data.rows.length - 24} more</span>}
    </div>
  );
}

function BarLine({ name, value, width, colour, note, centre }: { name: string; value: number; width: number; colour: string; note: string; centre: boolean }) {
  return (
    <>
      <bdi className="cut" style={{ maxWidth: "14ch" }} title={name}>
        {name}
      </bdi>
      <span className={centre ? "" : "track"} style={{ display: "grid", justifyItems: centre ? "center" : "start" }}>
        <i style={{ width: `${width}%`, background: colour, height: centre ? 18 : 9, borderRadius: 3, minWidth: 2, display: "block" }} />
      </span>
      <span className="num small">
        {short(value)} <span className="faint">{note}</span>
      </span>
    </>
  );
}

function Pie({ data, unit }: { data: Rows; unit: string }) {
  const values = data.rows.map((row) => [textOf(row[0]), Math.max(0, numberOf(row[1]) ?? 0)] as const);
  const shown = values.slice(0, 7);
  const rest = values.slice(7).reduce((sum, [, value]) => sum + value, 0);
  const parts = rest ? [...shown, ["others", rest] as const] : shown;
  const all = parts.reduce((sum, [, value]) => sum + value, 0) || 1;
  const round = 2 * Math.PI * 40;
  let turned = 0;
  return (
    <div className="pie">
      <svg viewBox="0 0 120 120" role="img" aria-label={parts.map(([name, value]) => `${name} ${decimal((100 * value) / all)} %`).join(", ")}>
        {parts.map(([name, value], at) => {
          const length = (value / all) * round;
          const arc = <circle key={name} cx="60" cy="60" r="40" fill="none" stroke={`var(--${colourOf(at)})`} strokeWidth="22" strokeDasharray={`${Math.max(0, length - 1.2)} ${round}`} strokeDashoffset={-turned} transform="rotate(-90 60 60)" />;
          turned += length;
          return arc;
        })}
        <text x="60" y="58" textAnchor="middle" fontSize="15" fontWeight="600" fill="var(--ink)">
          {short(all)}
        </text>
        <text x="60" y="71" textAnchor="middle" fontSize="8" fill="var(--faint)">
          {unit}
        </text>
      </svg>
      <ul>
        {parts.map(([name, value], at) => (
          <li key={name}>
            <span className="swatch" style={{ background: `var(--${colourOf(at)})` }} />
            <bdi className="cut grow">{name}</bdi>
            <span className="num">{decimal((100 * value) / all)} %</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Figure({ data, unit, gauge }: { data: Rows; unit: string; gauge: boolean }) {
  const value = numberOf(data.rows[0]?.at(-1));
  if (value === null) return <p className="empty">No value yet.</p>;
  const most = unit === "%" ? 100 : Math.max(10, 10 ** Math.ceil(Math.log10(Math.max(value, 1))));
  return (
    <div style={{ alignSelf: "center", display: "grid", gap: "0.7rem", paddingBottom: "0.6rem" }}>
      <span className="huge">
        {decimal(value)} <span style={{ fontSize: "1rem", color: "var(--soft)", letterSpacing: 0 }}>{unit}</span>
      </span>
      {gauge && (
        <span className="bar" style={{ height: 10 }} role="meter" aria-label="value" aria-valuemin={0} aria-valuemax={most} aria-valuenow={value}>
          <i style={{ width: `${Math.min(100, (100 * value) / most)}%` }} />
        </span>
      )}
      {gauge && (
        <span className="row between faint small num">
          <span>0</span>
          <span>
            {short(most)} {unit}
          </span>
        </span>
      )}
    </div>
  );
}
