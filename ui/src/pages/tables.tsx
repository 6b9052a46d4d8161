import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import { answered, api, type Overview, type TableLine } from "../api/client";
import { csv, download, duration, instant, short, whole } from "../format";
import { Head, useOverview } from "../head";
import { useLive } from "../live";
import { Card, Said, Tab, Tabs } from "../parts/bits";
import { Grid } from "../parts/grid";
import { Why } from "../parts/why";
import { usePlace } from "../place";

const CONSOLE = " sql";
const PAGE = 200;

export default function Tables() {
  const overview = useOverview().data;
  const status = useLive().status;
  const [chosen, choose] = usePlace("table", "");
  if (!overview) return <Head title="Tables" />;
  const names = [...overview.tables.map((each) => each.name), ...overview.relations];
  const table = chosen === CONSOLE || names.includes(chosen) ? chosen : (names[0] ?? CONSOLE);
  const rows = new Map(status?.tables.map((each) => [each.table, each.rows]));
  return (
    <>
      <Head title="Tables" />
      <div className="split">
        <nav className="list" aria-label="Tables">
          <button aria-pressed={table === CONSOLE} onClick={() => choose(CONSOLE)}>
            <strong>SQL console</strong>
            <span className="under">ask anything of the tables</span>
          </button>
          {overview.tables.map((each) => (
            <button key={each.name} aria-pressed={table === each.name} onClick={() => choose(each.name)}>
              <bdi className="cut">{each.name}</bdi>
              <span className="num faint small">{rows.get(each.name) === null || rows.get(each.name) === undefined ? "" : short(rows.get(each.name)!)}</span>
              <span className="under">
                {each.kind}
                {each.window ? `, ${each.window}` : ""}
              </span>
            </button>
          ))}
          <p className="faint small" style={{ padding: "0.8rem 0.65rem 0.2rem" }}>
            kept by Headrace
          </p>
          {overview.relations.map((name) => (
            <button key={name} aria-pressed={table === name} onClick={() => choose(name)}>
              <bdi className="cut">{name}</bdi>
            </button>
          ))}
        </nav>
        {table === CONSOLE ? <Console /> : <One key={table} name={table} line={overview.tables.find((each) => each.name === table)} overview={overview} />}
      </div>
    </>
  );
}

function One({ name, line, overview }: { name: string; line?: TableLine; overview: Overview }) {
  const [view, setView] = usePlace("view", "rows");
  const [order, setOrder] = usePlace("order", "");
  const [direction, setDirection] = usePlace("dir", "desc");
  const [contains, setContains] = usePlace("contains", "");
  const [from, setFrom] = usePlace("from", "0");
  const [asking, ask] = usePlace("why", "");
  const [typed, setTyped] = useState(contains);
  const state = useLive().status?.tables.find((each) => each.table === name);
  useEffect(() => {
    const timer = setTimeout(() => typed !== contains && (setContains(typed), setFrom("0")), 300);
    return () => clearTimeout(timer);
  }, [typed, contains, setContains, setFrom]);
  const first = line?.columns.find((each) => each.name === "window_start")?.name ?? "";
  const sorted = order || first;
  const asked = useQuery({
    queryKey: ["rows", name, sorted, direction, contains, from],
    queryFn: async () =>
      answered(
        await api.GET("/api/tables/{name}/rows", {
          params: { path: { name }, query: { limit: PAGE, offset: Number(from) || 0, order: sorted, descending: direction === "desc", contains } },
        }),
      ),
    placeholderData: (before) => before,
    refetchInterval: 3000,
    enabled: view === "rows",
  });
  const reorder = (column: string) => {
    setOrder(column);
    setDirection(sorted === column && direction === "desc" ? "asc" : "desc");
  };
  const offset = Number(from) || 0;
  const columns = asked.data?.columns;
  const askWhy = useMemo(() => {
    if (!line || line.kind === "view" || !columns) return undefined;
    // The key tells a row apart, also when its numbers have changed by the time that it is asked for.
    const kept = columns.map((each, at) => [each.name, at] as const).filter(([each]) => !line.key.length || line.key.includes(each));
    return (row: unknown[]) => ask(JSON.stringify(Object.fromEntries(kept.map(([each, at]) => [each, row[at]]))));
  }, [line, columns, ask]);
  return (
    <section className="stack" aria-label={name}>
      {asking && <Why table={name} asked={asking} close={() => ask("")} />}
      <div className="row between">
        <div>
          <h2 style={{ fontSize: "1.15rem" }}>
            <bdi>{name}</bdi>
          </h2>
          <p className="soft small">
            {line ? `${line.kind}${line.window ? `, ${line.window}` : ""}, from ${[...line.sources, ...line.references].join(", ")}` : "a relation that Headrace keeps"}
            {state?.rows !== null && state?.rows !== undefined ? `, ${whole(state.rows)} groups or rows kept` : ""}
            {state?.closed_through ? `, closed through ${instant(state.closed_through)}` : ""}
            {line?.keep_seconds ? `, kept ${duration(line.keep_seconds)}` : ""}
            {state?.corrections ? `, ${whole(state.corrections)} corrections` : ""}
          </p>
          {state?.partial_since && (
            <p className="small" data-test="partial">
              Complete from {instant(state.partial_since)} on: when this table began, the log no longer held all that came before.
            </p>
          )}
        </div>
      </div>
      <Tabs names={line ? [["rows", "Rows"], ["schema", "Schema"], ["query", "Query"]] : [["rows", "Rows"]]} value={view} onChange={setView}>
        <Tab value="rows" className="stack">
          <div className="row">
            <input type="search" placeholder="rows that contain…" aria-label="Rows that contain" value={typed} onChange={(event) => setTyped(event.target.value)} />
            <span className="grow" />
            <button className="button" disabled={offset === 0} onClick={() => setFrom(String(Math.max(0, offset - PAGE)))}>
              back
            </button>
            <span className="num small soft">
              {whole(offset + 1)} to {whole(offset + (asked.data?.rows.length ?? 0))}
            </span>
            <button className="button" disabled={!asked.data?.cut} onClick={() => setFrom(String(offset + PAGE))}>
              further
            </button>
            <button className="button" disabled={!asked.data} onClick={() => asked.data && download(`${name}.csv`, csv(asked.data.columns, asked.data.rows))}>
              CSV
            </button>
          </div>
          <Said error={asked.error} />
          {askWhy && asked.data?.rows.length ? <p className="faint small">A number can be asked why: click it, and see the records it was made of.</p> : null}
          {asked.data && (asked.data.rows.length ? (
            <Grid data={asked.data} label={`Rows of ${name}`} order={sorted} descending={direction === "desc"} onOrder={reorder} onAsk={askWhy} height={600} />
          ) : (
            <p className="empty">{contains ? "No row contains that." : "No rows yet. A windowed table shows a window with its first accepted record."}</p>
          ))}
        </Tab>
        {line && (
          <Tab value="schema">
            <table className="plain-table">
              <thead>
                <tr>
                  <th scope="col">column</th>
                  <th scope="col">type</th>
                  <th scope="col">key</th>
                </tr>
              </thead>
              <tbody>
                {line.columns.map((each) => (
                  <tr key={each.name}>
                    <td>
                      <bdi>{each.name}</bdi>
                    </td>
                    <td className="mono">{each.type}</td>
                    <td>{line.key.includes(each.name) ? "yes" : ""}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Tab>
        )}
        {line && (
          <Tab value="query">
            <pre className="card">{line.query}</pre>
            <p className="faint small" style={{ marginTop: "0.6rem" }}>
              `headrace explain {name}` shows the three parts it is taken apart into. Streams: {overview.streams.map((each) => each.name).join(", ")}.
            </p>
          </Tab>
        )}
      </Tabs>
    </section>
  );
}

function Console() {
  const [kept, keep] = usePlace("sql", "SELECT * FROM epochs ORDER BY epoch DESC LIMIT 20");
  const [sql, setSql] = useState(kept);
  const run = useMutation({
    mutationFn: async (text: string) => answered(await api.POST("/api/query", { body: { sql: text, rows_max: 5000 } })),
  });
  const ask = () => {
    keep(sql);
    run.mutate(sql);
  };
  return (
    <Card title="SQL console" note="one SELECT in DuckDB's SQL; reads only, 5 seconds and 5,000 rows at most">
      <div className="stack">
        <textarea
          rows={6}
          value={sql}
          spellCheck={false}
          aria-label="Query"
          onChange={(event) => setSql(event.target.value)}
          onKeyDown={(event) => {
            if ((event.ctrlKey || event.metaKey) && event.key === "Enter") ask();
          }}
        />
        <div className="row">
          <button className="button main" onClick={ask} disabled={run.isPending}>
            {run.isPending ? "running" : "Run"}
          </button>
          <span className="faint small">Ctrl + Enter</span>
          <span className="grow" />
          {run.data && (
            <>
              <span className="soft small num">
                {whole(run.data.rows.length)} rows{run.data.cut ? ", and there are more" : ""}, {duration(run.data.seconds)}
              </span>
              <button className="button" onClick={() => download("query.csv", csv(run.data.columns, run.data.rows))}>
                CSV
              </button>
            </>
          )}
        </div>
        <Said error={run.error} />
        {run.data && <Grid data={run.data} label="The answer" height={480} />}
      </div>
    </Card>
  );
}
