import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { Link } from "wouter";
import { answered, api, type Ledger, type Status } from "../api/client";
import { useAsked } from "../asked";
import { findings } from "../findings";
import { bytes, clock, decimal, duration, rate, short, visible, whole } from "../format";
import { Head, useOverview } from "../head";
import { useLive, type Epoch, type LiveState } from "../live";
import { Card, OUTCOMES, Swatch } from "../parts/bits";
import { Chart } from "../parts/chart";
import { Flow } from "../parts/flow";

const SHOWN_S = 300;
const DELAY = "headrace_processing_delay_seconds";

export function Pipeline() {
  const live = useLive();
  const overview = useOverview().data;
  const ledger = useAsked(["ledger"], live.status?.epoch, async () => answered(await api.GET("/api/ledger"))).data;
  return (
    <>
      <Head title="Pipeline" />
      <Wrong live={live} />
      {overview && live.status && <Flow overview={overview} status={live.status} live={live} />}
      {ledger && <Balance ledger={ledger} />}
      {live.status?.spark && <Spark facts={live.status.spark} />}
      <Charts live={live} />
      <div className="pair">
        <Epochs epochs={live.epochs} />
        {live.status && <Frontiers status={live.status} />}
      </div>
    </>
  );
}

function Spark({ facts }: { facts: NonNullable<Status["spark"]> }) {
  const all = facts.seconds["triggerExecution"] ?? Object.values(facts.seconds).reduce((a, b) => a + b, 0);
  // What Spark says its own page is, is a link only where it is one.
  const page = facts.page && /^https?:\/\//.test(facts.page) ? facts.page : undefined;
  return (
    <Card
      title="Spark"
      note={`${visible(facts.master)}, application ${visible(facts.application)}`}
      tools={
        page ? (
          <a href={page} target="_blank" rel="noreferrer">
            Spark's own page
          </a>
        ) : (
          <span className="faint small">Spark's own page is off: spark.ui.enabled</span>
        )
      }
      test="spark"
    >
      <div className="row" style={{ gap: "1.6rem" }}>
        <span>
          <strong className="num">{whole(facts.executors)}</strong> {facts.executors === 1 ? "executor" : "executors"}
        </span>
        <span>micro-batch {facts.batch === null ? "not yet" : whole(facts.batch)}</span>
        <span>{duration(all)} for the last one</span>
        <span data-test="spark-rates">
          <strong className="num">{perSecond(facts.input_rate)}</strong> come in, <strong className="num">{perSecond(facts.processing_rate)}</strong> can be processed
        </span>
        <span className="soft small">
          {Object.entries(facts.seconds)
            .filter(([name]) => name !== "triggerExecution")
            .map(([name, seconds]) => `${visible(name)} ${duration(seconds)}`)
            .join(", ")}
        </span>
      </div>
      {facts.workers_problem && <p className="faint small" style={{ marginTop: "0.6rem" }}>Workers are not known: {visible(facts.workers_problem)} (spark.master_page)</p>}
      {facts.workers && <Workers workers={facts.workers} />}
    </Card>
  );
}

function Workers({ workers }: { workers: NonNullable<NonNullable<Status["spark"]>["workers"]> }) {
  if (!workers.length) return <p className="faint small" style={{ marginTop: "0.6rem" }}>No worker is there: the master has nobody to start executors on.</p>;
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label="Workers of Spark" style={{ marginTop: "0.6rem" }}>
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">worker</th>
            <th scope="col">state</th>
            <th scope="col" className="n">cores in use</th>
            <th scope="col" className="n">memory in use</th>
          </tr>
        </thead>
        <tbody>
          {workers.map((each) => (
            <tr key={each.worker}>
              <td className="mono">{visible(each.worker)}</td>
              <td>{visible(each.state)}</td>
              <td className="n">{`${whole(each.cores_used)} of ${whole(each.cores)}`}</td>
              <td className="n">{`${bytes(each.memory_used_bytes)} of ${bytes(each.memory_bytes)}`}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const perSecond = (value: number | null) => (value === null ? "–" : `${rate(value)}/s`);

function Wrong({ live }: { live: LiveState }) {
  const found = findings(live);
  if (!live.begun) return null;
  if (!found.length)
    return (
      <p className="calm" data-test="wrong">
        Nothing is wrong.
      </p>
    );
  return (
    <ul className="stack" style={{ gap: "0.5rem" }} aria-label="What is wrong" data-test="wrong">
      {found.map((each) => (
        <li key={each.what} className={`finding ${each.grade}`}>
          <span className={`dot ${each.grade}`} aria-hidden />
          <strong>
            <bdi>{each.what}</bdi>
          </strong>
          {each.at ? <Link href={each.at}>look</Link> : <span />}
          <span className="fix">
            <bdi>{each.fix}</bdi>
          </span>
        </li>
      ))}
    </ul>
  );
}

function Balance({ ledger }: { ledger: Ledger }) {
  return (
    <Card title="What became of every record" note={`as of epoch ${whole(ledger.epoch)}`} test="balance">
      <div className="stack">
        {Object.entries(ledger.streams).map(([name, stream]) => {
          const kinds = OUTCOMES.filter((each) => stream.outcomes[each]);
          const sum = Object.values(stream.outcomes).reduce((a, b) => a + b, 0);
          return (
            <div key={name}>
              <div className="balance">
                <span className="term">
                  <b data-test={`read-${name}`}>{whole(stream.read)}</b>
                  <span>
                    read from <bdi>{name}</bdi>
                  </span>
                </span>
                <span className="sign">=</span>
                {kinds.map((kind, at) => (
                  <span key={kind} className="row" style={{ gap: "0.55rem", alignItems: "start" }}>
                    {at > 0 && <span className="sign">+</span>}
                    <span className="term">
                      <b data-test={`outcome-${name}-${kind}`}>{whole(stream.outcomes[kind]!)}</b>
                      <span>
                        <Swatch of={kind} />
                        {kind}
                      </span>
                    </span>
                  </span>
                ))}
                {!kinds.length && <span className="sign">0</span>}
                <span className="grow" />
                <span className={sum === stream.read && ledger.balanced ? "calm" : "state"}>
                  {sum === stream.read && ledger.balanced ? "✓ adds up" : `does NOT add up: ${whole(sum)}`}
                </span>
              </div>
              <div className="strip" aria-hidden>
                {kinds.map((kind) => (
                  <i key={kind} style={{ flexGrow: stream.outcomes[kind]!, background: `var(--${kind})` }} />
                ))}
              </div>
            </div>
          );
        })}
      </div>
    </Card>
  );
}

function Charts({ live }: { live: LiveState }) {
  // Once a second, with the status: epochs come more often, and each new picture costs frames.
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const { times, records, bad, stages } = useMemo(() => bySecond(live.epochs, live.status?.at), [live.status?.at]);
  const rates = useMemo(() => [
    { name: "read", values: records, colour: "flow" },
    { name: "set aside or late", values: bad, colour: "rejected" },
  ], [records, bad]);
  const delays = useQuery({
    queryKey: ["delays"],
    queryFn: async () => answered(await api.GET("/api/history", { params: { query: { names: [DELAY], minutes: 30 } } })),
    refetchInterval: 5000,
    placeholderData: (before) => before,
  }).data;
  const behind = useMemo(() => {
    const streams = (delays ?? []).filter((each) => each.name === DELAY);
    const times = [...new Set(streams.flatMap((each) => each.times))].sort((a, b) => a - b);
    return {
      times,
      series: streams.map((each) => {
        const at = new Map(each.times.map((time, place) => [time, each.values[place] ?? null]));
        return { name: each.labels["stream"] ?? "delay", values: times.map((time) => at.get(time) ?? null) };
      }),
    };
  }, [delays]);
  return (
    <div className="pair">
      <Card title="Records a second" note="last five minutes">
        <Chart label="Records a second" times={times} series={rates} kind="area" unit="/s" sync="pipeline" />
      </Card>
      <Card title="Time in epochs" note="seconds of work a second, by stage">
        <Chart label="Time in epochs" times={times} series={stages} kind="bar" stacked unit="s" sync="pipeline" />
      </Card>
      <Card title="Processing delay" note="last half hour">
        <Chart label="Processing delay" times={behind.times} series={behind.series} kind="area" unit="s" />
      </Card>
    </div>
  );
}

const STAGES = ["read", "rows", "duplicates", "compute", "write", "commit"];
const STAGE_COLOURS = ["duplicate", "flow", "future", "late", "rejected", "accepted"];

function bySecond(epochs: Epoch[], at: string | undefined) {
  const last = Math.floor(Math.max(epochs.at(-1)?.time ?? 0, at ? Date.parse(at) : 0) / 1000);
  const first = Math.max(last - SHOWN_S, Math.floor((epochs[0]?.time ?? 0) / 1000) || last);
  const times = Array.from({ length: Math.max(0, last - first) }, (_, place) => first + place);
  const empty = () => times.map(() => 0);
  const records = empty();
  const bad = empty();
  const stages = STAGES.map((name, place) => ({ name, values: empty(), colour: STAGE_COLOURS[place] }));
  for (const epoch of epochs) {
    const place = Math.floor(epoch.time / 1000) - first;
    if (place < 0 || place >= times.length) continue;
    records[place]! += epoch.records;
    for (const name of ["malformed", "rejected", "future", "late"]) bad[place]! += epoch.outcomes[name] ?? 0;
    for (const stage of stages) stage.values[place]! += epoch.seconds[stage.name] ?? 0;
  }
  return { times, records, bad, stages };
}

function Epochs({ epochs }: { epochs: Epoch[] }) {
  const last = epochs.slice(-8).reverse();
  return (
    <Card title="Epochs" note="each one is committed whole, or not at all">
      {last.length ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="The last epochs">
          <table className="plain-table">
            <thead>
              <tr>
                <th scope="col">epoch</th>
                <th scope="col">committed</th>
                <th scope="col" className="n">records</th>
                <th scope="col" className="n">took</th>
                <th scope="col">where the time went</th>
              </tr>
            </thead>
            <tbody>
              {last.map((each) => {
                const all = Object.values(each.seconds).reduce((a, b) => a + b, 0);
                return (
                  <tr key={each.epoch}>
                    <td className="num">{whole(each.epoch)}</td>
                    <td className="num">{clock(each.at)}</td>
                    <td className="n">{whole(each.records)}</td>
                    <td className="n">{duration(all)}</td>
                    <td style={{ width: "38%" }}>
                      <div className="strip" style={{ margin: "0.3rem 0 0", height: 8 }} title={STAGES.map((name) => `${name} ${duration(each.seconds[name] ?? 0)}`).join(", ")}>
                        {STAGES.map((name, at) => (
                          <i key={name} style={{ flexGrow: (each.seconds[name] ?? 0) / (all || 1), minWidth: 0, background: `var(--${STAGE_COLOURS[at]})` }} />
                        ))}
                      </div>
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      ) : (
        <p className="empty">No epoch yet: nothing has arrived in the log.</p>
      )}
    </Card>
  );
}

function Frontiers({ status }: { status: Status }) {
  const now = Date.parse(status.at);
  const lanes = Object.entries(status.streams).flatMap(([stream, each]) =>
    each.partitions.filter((part) => part.lane === "main").map((part) => ({ stream, ...part })),
  );
  const behind = lanes.map((each) => (each.frontier ? Math.max(0, (now - Date.parse(each.frontier)) / 1000) : null));
  const most = Math.max(10, ...behind.map((each) => each ?? 0));
  return (
    <Card title="Frontier" note="how far record time has come in each partition">
      <div className="bars">
        {lanes.map((each, at) => (
          <FrontierLine key={`${each.stream}/${each.partition}`} name={`${each.stream} ${each.partition}`} behind={behind[at] ?? null} most={most} frontier={each.frontier} lag={each.lag_records} />
        ))}
      </div>
      <p className="faint small" style={{ marginTop: "0.7rem" }}>
        A window is closed when the frontier has passed its end by the allowed lateness. {decimal(status.throughput.records_per_second)} records a second over the last {duration(status.throughput.seconds)}.
      </p>
    </Card>
  );
}

function FrontierLine({ name, behind, most, frontier, lag }: { name: string; behind: number | null; most: number; frontier: string | null; lag: number | null }) {
  return (
    <>
      <bdi className="mono">{name}</bdi>
      <span className="track">
        <i style={{ width: `${behind === null ? 0 : 100 - (95 * behind) / most}%`, background: behind !== null && behind > 30 ? "var(--late)" : "var(--flow)" }} />
      </span>
      <span className="num small soft">
        {frontier ? `${clock(frontier)}, ${duration(behind)} behind` : "nothing read yet"}
        {lag ? `, ${short(lag)} to read` : ""}
      </span>
    </>
  );
}

