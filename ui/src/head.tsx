import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { answered, api } from "./api/client";
import { findings } from "./findings";
import { decimal, duration, rate, short, whole } from "./format";
import { recentRate, standing, useLive } from "./live";

export function useOverview() {
  return useQuery({
    queryKey: ["overview"],
    queryFn: async () => answered(await api.GET("/api/overview")),
    staleTime: 60_000,
  });
}

/** How many records of all streams were set aside ever: one that is given back counts once more, as what became of it then. */
export function setAside(streams: Record<string, { outcomes: Record<string, number> }>): number {
  return Object.values(streams).reduce(
    (sum, each) => sum + ["malformed", "rejected", "future"].reduce((part, name) => part + (each.outcomes[name] ?? 0), 0),
    0,
  );
}

/** The head of a page: its title, and the four questions: is it healthy, how many, any errors, what delay. */
export function Head({ title, children }: { title: string; children?: ReactNode }) {
  const live = useLive();
  const overview = useOverview().data;
  const status = live.status;
  const found = findings(live);
  const worst = found.some((each) => each.grade === "bad") ? "bad" : found.length ? "warn" : "good";
  const streams = Object.values(status?.streams ?? {});
  const read = streams.reduce((sum, each) => sum + Object.values(each.outcomes).reduce((a, b) => a + b, 0), 0);
  const perSecond = recentRate(live.epochs, status?.at);
  const last = status ? standing(status) : null;
  const words = !live.begun
    ? "connecting"
    : !live.connected
      ? "not connected"
      : worst === "good"
        ? "healthy"
        : worst === "warn"
          ? "something to look at"
          : "needs you";
  return (
    <header className="four">
      <div>
        <h1>{title}</h1>
        <p className="state small" role="status">
          <span className={`dot ${live.connected ? worst : live.begun ? "bad" : ""} ${live.connected ? "live" : ""}`} />
          <span className="soft">
            {overview?.pipeline ?? "pipeline"}: {words}
          </span>
        </p>
        {children}
      </div>
      <Question name="records" value={status ? whole(read) : "–"} note={`epoch ${status?.epoch ?? "–"}`} test="records" />
      <Question
        name="rate"
        value={`${rate(perSecond)}/s`}
        note={`≈ ${short(perSecond * 3600)} an hour`}
      />
      <Question name="set aside" value={status ? whole(setAside(status.streams)) : "–"} note={read ? `ever, ${decimal((100 * setAside(status?.streams ?? {})) / read)} %` : ""} test="aside" />
      <Question name="delay" value={duration(last?.waits)} note={last?.lag ? `${short(last.lag)} to read` : ""} test="delay" />
    </header>
  );
}

function Question({ name, value, note, test }: { name: string; value: string; note: string; test?: string }) {
  return (
    <div>
      <dl>
        <dt>{name}</dt>
        <dd data-test={test}>
          {value}
          <small>{note}</small>
        </dd>
      </dl>
    </div>
  );
}
