/** The part of time that dashboards show: the last so long, or what was drawn over in a chart. */
import { useMemo } from "react";
import { Link } from "wouter";
import { usePlace } from "../place";

const LENGTHS = [
  ["15", "15 minutes"],
  ["30", "30 minutes"],
  ["120", "2 hours"],
  ["720", "12 hours"],
  ["2880", "2 days"],
  ["20160", "14 days"],
] as const;
const OTHERWISE = "120";
const LEAST_S = 10;
const SHOWN_LEAST_S = 60;

export interface Range {
  /** Minutes until now; of a part that was drawn over, its length. */
  minutes: number;
  /** The end in Unix seconds, of a part that was drawn over. */
  until?: number;
  /** The two instants of a chart whose first point is `first`: "the last two hours" of what has run for two minutes
   *  begin with it, or all of it would be a line at the right edge. */
  between: (now: number, first?: number) => [number, number];
}

export function useRange(): { range: Range; said: string; say: (value: string) => void; brush: (from: number, to: number) => void } {
  const [said, say] = usePlace("range", OTHERWISE);
  const range = useMemo(() => rangeOf(said), [said]);
  const brush = useMemo(() => (from: number, to: number) => say(`${from}-${Math.max(to, from + LEAST_S)}`), [say]);
  return { range, said, say, brush };
}

function rangeOf(said: string): Range {
  const part = partOf(said);
  if (part) return { minutes: Math.max(1, Math.ceil((part[1] - part[0]) / 60)), until: part[1], between: () => part };
  const known = LENGTHS.find(([each]) => each === said)?.[0] ?? OTHERWISE;
  return { minutes: Number(known), between: (now, first) => [Math.max(now - Number(known) * 60, Math.min(first ?? 0, now - SHOWN_LEAST_S)), now] };
}

/** The two instants, in Unix seconds, of a part of time that stands in an address. */
export function partOf(said: string): [number, number] | undefined {
  const [from, to] = said.split("-").map(Number);
  return from !== undefined && to !== undefined && from > 0 && to > from ? [from, to] : undefined;
}

export const wordsOf = ([from, to]: [number, number]) => [from, to].map((at) => new Date(at * 1000).toISOString().replace("T", " ").slice(5, 19)).join(" to ");

export function RangePicker({ range, said, say }: { range: Range; said: string; say: (value: string) => void }) {
  const [from, to] = range.between(0);
  return (
    <div className="row" role="group" aria-label="Time range">
      {range.until === undefined ? (
        <>
          <label className="row small">
            the last
            <select aria-label="Time range" value={LENGTHS.some(([each]) => each === said) ? said : OTHERWISE} onChange={(event) => say(event.target.value)}>
              {LENGTHS.map(([value, words]) => (
                <option key={value} value={value}>
                  {words}
                </option>
              ))}
            </select>
          </label>
          <span className="faint small">Draw over a part of a chart to look closer.</span>
        </>
      ) : (
        <>
          <strong className="num small" data-test="range">
            {wordsOf([from, to])}
          </strong>
          <button className="button" onClick={() => say(`${from - (to - from)}-${from}`)}>
            earlier
          </button>
          <button className="button" onClick={() => say(`${to}-${to + (to - from)}`)}>
            later
          </button>
          <button className="button" onClick={() => say(`${Math.round(from - (to - from) / 2)}-${Math.round(to + (to - from) / 2)}`)}>
            wider
          </button>
          <Link className="button" href={`/logs?range=${from}-${to}`}>
            lines of that time
          </Link>
          <button className="button main" onClick={() => say(OTHERWISE)}>
            Back to now
          </button>
        </>
      )}
    </div>
  );
}
