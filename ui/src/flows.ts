/** What flows between the stations of a pipeline: told by how the statuses of the last ten seconds differ. */
import type { ReplicaState, Status } from "./api/client";
import { graded } from "./findings";
import { duration, rate, short, whole } from "./format";
import { recentRate, type LiveState } from "./live";

export type Grade = "" | "warn" | "bad";

/** One edge of the flow: what is written on it, what it says to those who hear it, and how it stands. */
export interface Edge {
  /** Records or rows a second; null while that is not known. */
  speed: number | null;
  /** What waits, and how old it is: short enough for the edge. */
  notes: string[];
  /** The same as a sentence. */
  sentence: string;
  grade: Grade;
}

export interface Flows {
  arriving: number | null;
  /** By stream. */
  arrivals: Record<string, number | null>;
  /** Records a second that were read, by stream, lane and partition. */
  reads: Record<string, number>;
  /** Rows a second, by replica. */
  sent: Record<string, number | null>;
  reading: number;
  /** From record time to commit, of what was committed lately. */
  delay: number | null;
  edges: Record<"log" | "rows" | "tables" | "replicas", Edge>;
}

const LONG_AGO_S = 60;
const OVER_S = 10;

interface Change {
  first: Status;
  last: Status;
  seconds: number;
}

export const placeOf = (stream: string, part: { lane: string; partition: number }) => `${stream}/${part.lane}/${part.partition}`;

export function flowsOf(live: LiveState, status: Status): Flows {
  const change = changeOf(live.recent);
  const ends = changeOf(live.recent.filter((each) => Object.values(each.streams).every((stream) => stream.lag_records !== null)));
  const arrivals = Object.fromEntries(Object.keys(status.streams).map((name) => [name, arrivalOf(name, ends)]));
  const known = Object.values(arrivals);
  const arriving = known.length && known.every((each) => each !== null) ? known.reduce((sum, each) => sum! + each!, 0) : null;
  const reading = recentRate(live.epochs, status.at, OVER_S);
  const sent = Object.fromEntries(status.replicas.map((each) => [each.replica, sentOf(each, change)]));
  const delay = delayOf(change, "record");
  const event = delayOf(change, "event");
  return {
    arriving,
    arrivals,
    reads: readsOf(change),
    sent,
    reading,
    delay,
    edges: {
      log: arrivingEdge(status, arriving, event === null || delay === null ? null : Math.max(0, event - delay)),
      rows: readingEdge(live, status, reading),
      tables: acceptedEdge(live, status, delayOf(change, "read")),
      replicas: copiedEdge(status, sent),
    },
  };
}

/** The first and the last of some statuses; null where they do not tell of the last seconds. */
function changeOf(statuses: Status[]): Change | null {
  const first = statuses[0];
  const last = statuses.at(-1);
  if (!first || !last) return null;
  const seconds = (Date.parse(last.at) - Date.parse(first.at)) / 1000;
  return seconds > 0 && seconds <= LONG_AGO_S ? { first, last, seconds } : null;
}

/** Records a second that were appended to a stream's log, told by how its ends moved. */
function arrivalOf(name: string, change: Change | null): number | null {
  const before = change?.first.streams[name];
  if (!change || !before) return null;
  const ends = new Map(before.partitions.map((each) => [placeOf(name, each), each.end]));
  let records = 0;
  for (const each of change.last.streams[name]?.partitions ?? []) {
    const end = ends.get(placeOf(name, each));
    // A partition that was not known before did not get all of its records since.
    if (typeof end === "number" && each.end !== null) records += Math.max(0, each.end - end);
  }
  return records / change.seconds;
}

function readsOf(change: Change | null): Record<string, number> {
  const reads: Record<string, number> = {};
  if (!change) return reads;
  for (const [name, stream] of Object.entries(change.last.streams)) {
    const before = new Map(change.first.streams[name]?.partitions.map((each) => [placeOf(name, each), each.position]));
    for (const each of stream.partitions) {
      const position = before.get(placeOf(name, each));
      if (position !== undefined) reads[placeOf(name, each)] = Math.max(0, each.position - position) / change.seconds;
    }
  }
  return reads;
}

/** Rows a second that a replica was sent; it counts since the run began, so less than before is a new run. */
function sentOf(replica: ReplicaState, change: Change | null): number | null {
  const before = change?.first.replicas.find((each) => each.replica === replica.replica);
  const after = change?.last.replicas.find((each) => each.replica === replica.replica);
  if (!change || !before || !after) return null;
  const rows = (each: ReplicaState) => each.tables.reduce((sum, table) => sum + table.rows_sent, 0);
  return Math.max(0, rows(after) - rows(before)) / change.seconds;
}

/** How long records were under way to their commit, in the mean, since event time, record time or reading. */
function delayOf(change: Change | null, since: string): number | null {
  let records = 0;
  let seconds = 0;
  for (const [name, stream] of Object.entries(change?.last.latencies ?? {})) {
    const after = stream[since];
    const before = change!.first.latencies[name]?.[since] ?? { records: 0, seconds: 0 };
    if (!after || after.records <= before.records) continue;
    records += after.records - before.records;
    seconds += after.seconds - before.seconds;
  }
  return records ? Math.max(0, seconds / records) : null;
}

function arrivingEdge(status: Status, arriving: number | null, old: number | null): Edge {
  const notes = old === null ? [] : [`${duration(old)} old`];
  return {
    speed: arriving,
    notes,
    sentence: said("From the producers to the log", arriving, "records", old === null ? [] : [`${duration(old)} old when they arrive`]),
    grade: status.log_problem ? "warn" : "",
  };
}

function readingEdge(live: LiveState, status: Status, reading: number): Edge {
  const streams = Object.values(status.streams);
  const known = streams.filter((each) => each.lag_records !== null);
  const lag = known.reduce((sum, each) => sum + each.lag_records!, 0);
  const behind = Math.max(0, ...streams.map((each) => each.lag_seconds ?? 0));
  const notes = known.length ? [`${short(lag)} to read`] : [];
  if (lag && behind) notes.push(`${duration(behind)} behind`);
  const waiting = live.waiting || status.waiting;
  return {
    speed: reading,
    notes,
    sentence: said("From the log to the row stage", reading, "records", waiting ? ["the log is away", ...notes] : notes),
    grade: waiting ? "bad" : status.log_problem ? "warn" : lag ? graded(behind) : "",
  };
}

function acceptedEdge(live: LiveState, status: Status, took: number | null): Edge {
  const accepted = recentRate(live.epochs, status.at, OVER_S, (each) => each.outcomes["accepted"] ?? 0);
  return {
    speed: accepted,
    notes: took === null ? [] : [`${duration(took)} to commit`],
    sentence: said("From the row stage to the tables", accepted, "records", took === null ? [] : [`${duration(took)} from reading to the commit`]),
    grade: "",
  };
}

function copiedEdge(status: Status, sent: Record<string, number | null>): Edge {
  const speeds = Object.values(sent).filter((each) => each !== null);
  const speed = speeds.length ? speeds.reduce((sum, each) => sum + each, 0) : null;
  const epochs = Math.max(0, ...status.replicas.map((each) => each.lag_epochs));
  const behind = Math.max(0, ...status.replicas.map((each) => each.lag_seconds));
  const notes = epochs ? [`${short(epochs)} ${epochs === 1 ? "epoch" : "epochs"}`] : [];
  if (epochs && behind) notes.push(`${duration(behind)} behind`);
  return {
    speed,
    notes,
    sentence: status.replicas.length
      ? said("From the tables to the replicas", speed, "rows", epochs ? [`${whole(epochs)} ${epochs === 1 ? "epoch" : "epochs"} not copied yet`, ...notes.slice(1)] : [])
      : "",
    grade: worst(status),
  };
}

export function worst(status: Status): Grade {
  if (status.replicas.some((each) => each.state === "refused")) return "bad";
  return status.replicas.some((each) => each.state === "waiting") ? "warn" : "";
}

function said(way: string, speed: number | null, what: string, notes: string[]): string {
  const first = speed === null ? "not known yet" : `${rate(speed)} ${what} a second`;
  return `${way}: ${[first, ...notes].join(", ")}.`;
}
