/** What is wrong with a run and what to do about it, in words. */
import type { LiveState } from "./live";
import { duration, share, whole } from "./format";

export interface Finding {
  grade: "warn" | "bad";
  what: string;
  fix: string;
  at?: string;
}

const BAD = ["malformed", "rejected", "future"];
const BAD_SHARE = 0.02;
const LATE_SHARE = 0.02;
const OVER_EPOCHS_S = 300;
const BEHIND_S = 30;
const FAR_BEHIND_S = 300;

/** How it stands with what waits for so long. */
export function graded(behind_s: number): "" | Finding["grade"] {
  return behind_s > FAR_BEHIND_S ? "bad" : behind_s > BEHIND_S ? "warn" : "";
}

export function findings(live: LiveState): Finding[] {
  const found: Finding[] = [];
  if (live.begun && !live.connected)
    found.push({
      grade: "bad",
      what: "This page has lost the pipeline.",
      fix: "What you see is how it stood. The page comes back by itself when the run does: see its terminal, or `headrace logs`.",
    });
  if (live.waiting)
    found.push({ grade: "bad", what: "The pipeline waits for its log.", fix: live.waiting, at: "/log" });
  const status = live.status;
  if (!status) return found;
  if (status.log_problem) found.push({ grade: "warn", what: "A log does not answer.", fix: status.log_problem, at: "/log" });
  for (const [name, stream] of Object.entries(status.streams)) {
    const lag = stream.lag_seconds ?? 0;
    const grade = graded(lag);
    if (grade && (stream.lag_records ?? 0) > 0)
      found.push({
        grade,
        what: `${name} is ${duration(lag)} behind (${whole(stream.lag_records ?? 0)} records).`,
        fix: "It is catching up if the number falls. If it rises, see which stage takes the time under Epochs.",
      });
  }
  for (const replica of status.replicas) {
    if (replica.state === "refused" || replica.state === "waiting")
      found.push({
        grade: replica.state === "refused" ? "bad" : "warn",
        what: `Replica ${replica.replica} is ${replica.state}: ${replica.why}`,
        fix: replica.fix || "The pipeline goes on without it; it catches up when its target is back.",
        at: "/settings",
      });
    else if (replica.state === "paused")
      found.push({ grade: "warn", what: `Replica ${replica.replica} is paused.`, fix: "Resume it under Settings.", at: "/settings" });
    if (replica.rows_refused)
      found.push({
        grade: "warn",
        what: `Replica ${replica.replica}: its target refused ${whole(replica.rows_refused)} rows.`,
        fix: "They are kept beside the project; `headrace replicas` shows why.",
      });
  }
  for (const signal of status.telemetry)
    if (signal.problem)
      found.push({
        grade: "warn",
        what: `The receiver of ${signal.signal} takes nothing: ${signal.problem}; ${whole(signal.dropped)} were dropped.`,
        fix: "The pipeline goes on without it. See telemetry in headrace.toml, and whether the receiver runs.",
        at: "/settings",
      });
  const since = Date.parse(status.at) - OVER_EPOCHS_S * 1000;
  const totals: Record<string, number> = {};
  let records = 0;
  for (const epoch of live.epochs) {
    if (epoch.time < since) continue;
    records += epoch.records;
    for (const [name, count] of Object.entries(epoch.outcomes)) totals[name] = (totals[name] ?? 0) + count;
  }
  const bad = BAD.reduce((sum, name) => sum + (totals[name] ?? 0), 0);
  if (records > 50 && bad / records > BAD_SHARE)
    found.push({
      grade: bad / records > 0.2 ? "bad" : "warn",
      what: `${share(bad, records)} of the records of the last five minutes were set aside.`,
      fix: "See which rule they broke, correct one, and give them back.",
      at: "/records",
    });
  const late = totals["late"] ?? 0;
  if (records > 50 && late / records > LATE_SHARE)
    found.push({
      grade: "warn",
      what: `${share(late, records)} of the records of the last five minutes came too late.`,
      fix: "They count in no window. A longer allowed_lateness would take them.",
      at: "/records?tab=late",
    });
  for (const alert of status.alerts)
    if (alert.state === "firing" && !alert.silenced_until)
      found.push({
        grade: alert.severity === "critical" ? "bad" : "warn",
        what: alert.summary || `Alert ${alert.name} fires.`,
        fix: alert.problem || alert.help,
        at: "/alerts",
      });
  for (const table of status.tables)
    if (table.rebuilding)
      found.push({ grade: "warn", what: `Table ${table.table} is being computed anew.`, fix: "Its old rows are shown until it has caught up.", at: `/tables?table=${encodeURIComponent(table.table)}` });
  return found;
}
