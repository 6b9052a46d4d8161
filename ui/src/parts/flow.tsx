/** The way of a record, as it flows: producers, log, row stage, tables, replicas. */
import { Link } from "wouter";
import type { Overview, Status } from "../api/client";
import { flowsOf, placeOf, type Edge, type Flows, type Grade } from "../flows";
import { bytes, duration, rate, short, whole } from "../format";
import type { LiveState } from "../live";

interface Props {
  overview: Overview;
  status: Status;
  live: LiveState;
}

const OVER_S = 10;
const TABLES_SHOWN = 12;
const PARTITIONS_SHOWN = 8;

export function Flow({ overview, status, live }: Props) {
  const flows = flowsOf(live, status);
  return (
    <section aria-label="The flow" className="flow">
      <Producers overview={overview} flows={flows} />
      <Channel edge={flows.edges.log} test="log" />
      <Log overview={overview} status={status} flows={flows} />
      <Channel edge={flows.edges.rows} test="rows" />
      <RowStage overview={overview} status={status} live={live} flows={flows} />
      <Channel edge={flows.edges.tables} test="tables" />
      <Tables status={status} live={live} />
      <Channel edge={flows.edges.replicas} test="replicas" />
      <Replicas status={status} flows={flows} />
    </section>
  );
}

/** The name of a station, and how it stands. */
function Label({ name, note, state, grade }: { name: string; note?: string; state: string; grade: Grade }) {
  return (
    <span className="label">
      <span>{name}</span>
      <span className="row">
        <span>{note}</span>
        <span className={`dot ${grade || "good"}`} title={state}>
          <span className="hidden">{state}</span>
        </span>
      </span>
    </span>
  );
}

function Producers({ overview, flows }: { overview: Overview; flows: Flows }) {
  const { arriving, arrivals } = flows;
  return (
    <div className="station">
      <Label name="producers" state={arriving === null ? "not known yet" : arriving ? "records arrive" : "nothing arrives"} grade={flows.edges.log.grade} />
      <span className="figure num">
        {perSecond(arriving)} <small>arriving</small>
      </span>
      <ul>
        {overview.streams.map((each) => (
          <li key={each.name}>
            <bdi className="cut">{each.name}</bdi>
            <span className="num">
              <span className="faint">{each.format}</span>
              {overview.streams.length > 1 && ` · ${perSecond(arrivals[each.name] ?? null)}`}
            </span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Log({ overview, status, flows }: { overview: Overview; status: Status; flows: Flows }) {
  const lag = Object.values(status.streams).reduce((sum, each) => sum + (each.lag_records ?? 0), 0);
  const { grade } = flows.edges.rows;
  const away = status.waiting || status.log_problem;
  return (
    <Link href="/log" className={`station ${away ? "bad" : ""}`} style={{ color: "inherit", textDecoration: "none" }}>
      <Label name="log" note={[...new Set(overview.streams.map((each) => each.log))].join(", ")} state={away ? "does not answer" : grade ? "far behind" : "answers"} grade={away ? "bad" : grade} />
      <span className="figure num">
        {short(lag)} <small>to read</small>
      </span>
      <ul>
        {Object.entries(status.streams).flatMap(([name, stream]) =>
          stream.partitions
            .filter((each) => each.lane === "main")
            .slice(0, PARTITIONS_SHOWN)
            .map((each) => (
              <li key={`${name}/${each.partition}`} style={{ display: "grid", gridTemplateColumns: "minmax(0, 1fr)", gap: 2 }}>
                <span className="row between">
                  <bdi>
                    {name} {each.partition}
                  </bdi>
                  <span className="num">
                    {whole(each.position)}
                    {each.end !== null && each.end > each.position ? ` of ${whole(each.end)}` : ""}
                  </span>
                </span>
                <span className="bar">
                  <i style={{ width: `${each.end ? (100 * each.position) / each.end : each.position ? 100 : 0}%` }} />
                </span>
                <span className="small faint num">
                  {perSecond(flows.reads[placeOf(name, each)] ?? null)}
                  {each.lag_seconds ? `, ${duration(each.lag_seconds)} behind` : ""}
                </span>
              </li>
            )),
        )}
      </ul>
    </Link>
  );
}

function RowStage({ overview, status, live, flows }: { overview: Overview; status: Status; live: LiveState; flows: Flows }) {
  const since = Date.parse(status.at) - OVER_S * 1000;
  const recent = live.epochs.filter((each) => each.time > since);
  const spent = recent.reduce((sum, each) => sum + Object.values(each.seconds).reduce((a, b) => a + b, 0), 0);
  const waiting = live.waiting || status.waiting;
  return (
    <div className="station">
      <Label
        name="row stage"
        note={`${overview.streams.reduce((sum, each) => sum + each.rules.length, 0)} rules`}
        state={waiting ? "waits for the log" : recent.length ? "works" : "nothing to do"}
        grade={waiting ? "bad" : ""}
      />
      <span className="figure num">
        {perSecond(flows.reading)} <small>read</small>
      </span>
      <ul>
        <li title="from record time to the commit, in the mean">
          <span>delay</span>
          <span className="num">{duration(flows.delay)}</span>
        </li>
        <li>
          <span>epoch takes</span>
          <span className="num">{duration(recent.length ? spent / recent.length : null)}</span>
        </li>
        <li>
          <span>epochs a second</span>
          <span className="num">{(recent.length / OVER_S).toFixed(1)}</span>
        </li>
        <li>
          <Link href="/records">set aside</Link>
          <span className="num">{whole(total(status, ["malformed", "rejected", "future"]))}</span>
        </li>
        <li>
          <Link href="/records?tab=late">late</Link>
          <span className="num">{whole(total(status, ["late"]))}</span>
        </li>
      </ul>
    </div>
  );
}

function Tables({ status, live }: { status: Status; live: LiveState }) {
  const anew = status.tables.some((each) => each.rebuilding);
  const written: Record<string, number> = {};
  const since = Date.parse(status.at) - OVER_S * 1000;
  for (const each of live.epochs) if (each.time > since) for (const [name, rows] of Object.entries(each.rows)) written[name] = (written[name] ?? 0) + rows;
  return (
    <div className="station">
      <Label name={`tables, ${status.tables.length}`} note={bytes(status.state_bytes)} state={anew ? "some are computed anew" : "up to the last epoch"} grade={anew ? "warn" : ""} />
      <ul>
        {status.tables.slice(0, TABLES_SHOWN).map((each) => (
          <li key={each.table} title={`${each.kind}, closed through ${each.closed_through ?? "nothing yet"}`}>
            <Link className="cut" href={`/tables?table=${encodeURIComponent(each.table)}`}>
              <bdi>{each.table}</bdi>
            </Link>
            <span className="num">
              {each.rebuilding ? "computed anew" : each.rows === null ? each.kind : short(each.rows)}
              {written[each.table] ? <span className="faint"> · {rate(written[each.table]! / OVER_S)}/s</span> : null}
            </span>
          </li>
        ))}
        {status.tables.length > TABLES_SHOWN && (
          <li>
            <Link href="/tables">{status.tables.length - TABLES_SHOWN} more</Link>
          </li>
        )}
      </ul>
    </div>
  );
}

function Replicas({ status, flows }: { status: Status; flows: Flows }) {
  const grade = flows.edges.replicas.grade;
  return (
    <div className={`station ${grade}`}>
      {status.replicas.length ? (
        <>
          <Label name="replicas" state={grade === "bad" ? "one was refused" : grade ? "one waits" : "they follow"} grade={grade} />
          <ul>
            {status.replicas.map((each) => (
              <li key={each.replica} style={{ display: "grid", gridTemplateColumns: "minmax(0, 1fr)", gap: 1 }} title={each.why}>
                <span className="row between">
                  <Link className="cut" href="/settings">
                    <bdi>{each.replica}</bdi>
                  </Link>
                  <span className={`dot ${each.state === "following" ? "good" : each.state === "refused" ? "bad" : "warn"}`} />
                </span>
                <span className="faint">
                  {each.state}
                  {flows.sent[each.replica] ? `, ${perSecond(flows.sent[each.replica]!)}` : ""}
                  {each.lag_epochs ? `, ${whole(each.lag_epochs)} ${each.lag_epochs === 1 ? "epoch" : "epochs"} (${duration(each.lag_seconds)}) behind` : ""}
                </span>
              </li>
            ))}
          </ul>
        </>
      ) : (
        <>
          <span className="label">replicas</span>
          <p className="faint small">None. A replica copies tables to another system: name one in headrace.toml.</p>
        </>
      )}
    </div>
  );
}

function Channel({ edge, test }: { edge: Edge; test: string }) {
  const speed = edge.speed ?? 0;
  const width = speed <= 0 ? 2 : Math.min(9, 2 + Math.log10(1 + speed) * 1.7);
  // In steps: with each other length the water would jump.
  const seconds = speed <= 0 ? 0 : Math.max(1, Math.round(12 - Math.log10(1 + speed) * 2.2) / 2);
  return (
    <div className={`channel ${speed <= 0 ? "dry" : ""} ${edge.grade}`} data-test={`edge-${test}`}>
      <div className="water" aria-hidden>
        <svg viewBox="0 0 88 34" preserveAspectRatio="none" style={{ animationDuration: `${seconds}s` }}>
          <path d="M0 17 C 12 11, 32 23, 44 17 S 76 23, 88 17" pathLength={96} style={{ strokeWidth: width }} />
        </svg>
      </div>
      {edge.sentence && (
        <>
          <p className="hidden">{edge.sentence}</p>
          <p className="told num" aria-hidden>
            <b>{perSecond(edge.speed)}</b>
            {edge.notes.map((each) => (
              <span key={each}>{each}</span>
            ))}
          </p>
        </>
      )}
    </div>
  );
}

const perSecond = (speed: number | null) => (speed === null ? "–" : `${rate(speed)}/s`);

function total(status: Status, names: string[]): number {
  return Object.values(status.streams).reduce((sum, each) => sum + names.reduce((part, name) => part + (each.outcomes[name] ?? 0), 0), 0);
}
