/** The way of a record, as it flows: producers, log, row stage, tables, replicas. */
import { Link } from "wouter";
import type { Overview, Status } from "../api/client";
import { bytes, duration, rate, short, whole } from "../format";
import { recentRate, type LiveState } from "../live";

interface Props {
  overview: Overview;
  status: Status;
  live: LiveState;
}

const LONG_AGO_S = 60;
const TABLES_SHOWN = 12;

export function Flow({ overview, status, live }: Props) {
  const arriving = appended(live);
  const reading = recentRate(live.epochs, status.at);
  const since = Date.parse(status.at) - 10_000;
  const recent = live.epochs.filter((each) => each.time > since);
  const spent = recent.reduce((sum, each) => sum + Object.values(each.seconds).reduce((a, b) => a + b, 0), 0);
  const took = recent.length ? spent / recent.length : null;
  const written: Record<string, number> = {};
  for (const each of recent) for (const [name, rows] of Object.entries(each.rows)) written[name] = (written[name] ?? 0) + rows;
  const lag = Object.values(status.streams).reduce((sum, each) => sum + (each.lag_records ?? 0), 0);
  return (
    <section aria-label="The flow" className="flow">
      <div className="station">
        <span className="label">producers</span>
        <span className="figure num">
          {arriving === null ? "–" : `${rate(arriving)}/s`} <small>arriving</small>
        </span>
        <ul>
          {overview.streams.map((each) => (
            <li key={each.name}>
              <bdi className="cut">{each.name}</bdi>
              <span className="faint">{each.format}</span>
            </li>
          ))}
        </ul>
      </div>
      <Channel speed={arriving ?? 0} />
      <Link href="/log" className={`station ${live.waiting || status.log_problem ? "bad" : ""}`} style={{ color: "inherit", textDecoration: "none" }}>
        <span className="label">
          <span>log</span>
          <span>{[...new Set(overview.streams.map((each) => each.log))].join(", ")}</span>
        </span>
        <span className="figure num">
          {short(lag)} <small>to read</small>
        </span>
        <ul>
          {Object.entries(status.streams).flatMap(([name, stream]) =>
            stream.partitions
              .filter((each) => each.lane === "main")
              .slice(0, 8)
              .map((each) => (
                <li key={`${name}/${each.partition}`} style={{ display: "grid", gap: 2 }}>
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
                </li>
              )),
          )}
        </ul>
      </Link>
      <Channel speed={reading} />
      <div className="station">
        <span className="label">
          <span>row stage</span>
          <span>{overview.streams.reduce((sum, each) => sum + each.rules.length, 0)} rules</span>
        </span>
        <span className="figure num">
          {rate(reading)}/s <small>read</small>
        </span>
        <ul>
          <li>
            <span>epoch takes</span>
            <span className="num">{duration(took)}</span>
          </li>
          <li>
            <span>epochs a second</span>
            <span className="num">{(recent.length / 10).toFixed(1)}</span>
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
      <Channel speed={total(status, ["accepted"]) ? reading : 0} />
      <div className="station">
        <span className="label">
          <span>tables, {status.tables.length}</span>
          <span>{bytes(status.state_bytes)}</span>
        </span>
        <ul>
          {status.tables.slice(0, TABLES_SHOWN).map((each) => (
            <li key={each.table} title={`${each.kind}, closed through ${each.closed_through ?? "nothing yet"}`}>
              <Link className="cut" href={`/tables?table=${encodeURIComponent(each.table)}`}>
                <bdi>{each.table}</bdi>
              </Link>
              <span className="num">
                {each.rows === null ? each.kind : short(each.rows)}
                {written[each.table] ? <span className="faint"> · {rate(written[each.table]! / 10)}/s</span> : null}
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
      <Channel speed={status.replicas.some((each) => each.state === "following") ? reading : 0} />
      <div className={`station ${worst(status)}`}>
        <span className="label">replicas</span>
        {status.replicas.length ? (
          <ul>
            {status.replicas.map((each) => (
              <li key={each.replica} style={{ display: "grid", gap: 1 }} title={each.why}>
                <span className="row between">
                  <Link className="cut" href="/settings">
                    <bdi>{each.replica}</bdi>
                  </Link>
                  <span className={`dot ${each.state === "following" ? "good" : each.state === "refused" ? "bad" : "warn"}`} />
                </span>
                <span className="faint">
                  {each.state}
                  {each.lag_epochs ? `, ${whole(each.lag_epochs)} epochs (${duration(each.lag_seconds)}) behind` : ""}
                </span>
              </li>
            ))}
          </ul>
        ) : (
          <p className="faint small">None. A replica copies tables to another system: name one in headrace.toml.</p>
        )}
      </div>
    </section>
  );
}

function Channel({ speed }: { speed: number }) {
  const width = speed <= 0 ? 2 : Math.min(9, 2 + Math.log10(1 + speed) * 1.7);
  // In steps: with each other length the water would jump.
  const seconds = speed <= 0 ? 0 : Math.max(1, Math.round(12 - Math.log10(1 + speed) * 2.2) / 2);
  return (
    <div className={`channel ${speed <= 0 ? "dry" : ""}`} aria-hidden>
      <svg viewBox="0 0 88 34" preserveAspectRatio="none" style={{ animationDuration: `${seconds}s` }}>
        <path d="M0 17 C 12 11, 32 23, 44 17 S 76 23, 88 17" pathLength={96} style={{ strokeWidth: width }} />
      </svg>
    </div>
  );
}

/** Records a second that were appended, told by how the ends of the log moved. */
function appended(live: LiveState): number | null {
  const samples = live.samples.filter((each) => each.ends !== null).slice(-11);
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || !last || last.at <= first.at || last.at - first.at > LONG_AGO_S * 1000) return null;
  return Math.max(0, ((last.ends! - first.ends!) * 1000) / (last.at - first.at));
}

function total(status: Status, names: string[]): number {
  return Object.values(status.streams).reduce((sum, each) => sum + names.reduce((part, name) => part + (each.outcomes[name] ?? 0), 0), 0);
}

function worst(status: Status): string {
  if (status.replicas.some((each) => each.state === "refused")) return "bad";
  return status.replicas.some((each) => each.state === "waiting") ? "warn" : "";
}
