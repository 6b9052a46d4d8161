/** What happens in the run, as it happens: one stream of events for the whole page. */
import { useEffect, useSyncExternalStore } from "react";
import type { EpochLine, Status } from "./api/client";

export interface Epoch {
  epoch: number;
  at: string;
  /** The same in Unix milliseconds: lists of epochs are gone through several times a second. */
  time: number;
  records: number;
  outcomes: Record<string, number>;
  seconds: Record<string, number>;
  rows: Record<string, number>;
}

export interface LiveState {
  connected: boolean;
  /** Whether a connection was ever made: before, nothing is wrong yet. */
  begun: boolean;
  run: string;
  status: Status | null;
  epochs: Epoch[];
  /** The statuses of the last ten seconds, oldest first: rates are told by how they differ. */
  recent: Status[];
  /** How many lines of the journal have come. */
  lines: number;
  waiting: string;
}

const EPOCHS_KEPT = 1200;
const RECENT_MS = 10_500;
const RECENT_MAX = 12;

let state: LiveState = {
  connected: false,
  begun: false,
  run: "",
  status: null,
  epochs: [],
  recent: [],
  lines: 0,
  waiting: "",
};
const listeners = new Set<() => void>();

function set(change: Partial<LiveState>) {
  state = { ...state, ...change };
  for (const listener of listeners) listener();
}

function added<T>(before: T[], more: T[], kept: number): T[] {
  return [...before, ...more].slice(-kept);
}

function epochOf(line: { epoch: number; at: string; seconds: Record<string, number>; rows: Record<string, number>; outcomes: Record<string, Record<string, number>> }, records: number): Epoch {
  const outcomes: Record<string, number> = {};
  for (const counts of Object.values(line.outcomes))
    for (const [name, count] of Object.entries(counts)) outcomes[name] = (outcomes[name] ?? 0) + count;
  return { epoch: line.epoch, at: line.at, time: Date.parse(line.at), records, outcomes, seconds: line.seconds, rows: line.rows };
}

async function begin() {
  const answer = await fetch("/api/epochs");
  if (!answer.ok) return;
  const lines = ((await answer.json()) as EpochLine[]).map((line) => epochOf(line, line.records));
  const known = new Set(lines.map((each) => each.epoch));
  set({ epochs: [...lines, ...state.epochs.filter((each) => !known.has(each.epoch))].slice(-EPOCHS_KEPT) });
}

/** How many records wait to be read (null: not every log says), and for how long the oldest does (null: none says).
 *  Not how far a frontier lies behind the clock: one that nobody sends to stands still, and nothing is late. */
export function standing(status: Status): { lag: number | null; waits: number | null } {
  const streams = Object.values(status.streams);
  const known = streams.every((each) => each.lag_records !== null);
  const waits = streams.map((each) => each.lag_seconds).filter((each) => each !== null && each !== undefined);
  return {
    lag: known ? streams.reduce((sum, each) => sum + (each.lag_records ?? 0), 0) : null,
    waits: waits.length ? Math.max(...waits) : null,
  };
}

/** The statuses of the last ten seconds; two at least, for a log that is away makes them rare. */
function recently(statuses: Status[]): Status[] {
  const last = Date.parse(statuses.at(-1)!.at);
  return statuses.filter((each, place) => place >= statuses.length - 2 || last - Date.parse(each.at) <= RECENT_MS);
}

function connect(): () => void {
  const events = new EventSource("/api/live");
  const on = (kind: string, take: (body: any) => void) =>
    events.addEventListener(kind, (event) => take(JSON.parse((event as MessageEvent<string>).data)));
  on("hello", (body: { run: string; fresh: boolean }) => {
    if (state.run && state.run !== body.run) set({ epochs: [], recent: [], waiting: "" });
    set({ connected: true, begun: true, run: body.run });
    if (body.fresh) void begin();
  });
  on("status", (status: Status) =>
    set({ status, waiting: status.waiting, recent: recently(added(state.recent, [status], RECENT_MAX)) }),
  );
  on("epochs", (body: { epochs: any[] }) => {
    const last = state.epochs.at(-1)?.epoch ?? -1;
    const fresh = body.epochs
      .filter((line) => line.epoch > last || line.epoch === 1)
      .map((line) => epochOf(line, (Object.values(line.records) as number[]).reduce((a, b) => a + b, 0)));
    set({ epochs: added(state.epochs, fresh, EPOCHS_KEPT) });
  });
  on("journal", (body: { lines: unknown[] }) => set({ lines: state.lines + body.lines.length }));
  on("waiting", (body: { why: string }) => set({ waiting: body.why }));
  events.onerror = () => set({ connected: false });
  return () => events.close();
}

/** Keeps the page connected; used once. */
export function useConnection() {
  useEffect(connect, []);
}

export function useLive(): LiveState {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => state,
  );
}

/** Up to which second, in Unix time, everything that came was read: now, less how long the oldest record waits.
 *  Undefined while nobody knows. A number, so that nothing is drawn anew but when it changes. */
export function useReadUntil(): number | undefined {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => (state.status ? Math.floor(Date.parse(state.status.at) / 1000 - (standing(state.status).waits ?? 0)) : undefined),
  );
}

/** Records a second over the last `seconds` before `at`, told by the epochs; `counted` says which of an epoch's. */
export function recentRate(epochs: Epoch[], at: string | undefined, seconds = 10, counted = (epoch: Epoch) => epoch.records): number {
  const last = epochs.at(-1);
  if (!last) return 0;
  const until = Math.max(last.time, at ? Date.parse(at) : 0);
  let records = 0;
  for (let place = epochs.length - 1; place >= 0; place -= 1) {
    const each = epochs[place]!;
    if (each.time < until - seconds * 1000) break;
    records += counted(each);
  }
  return records / seconds;
}
