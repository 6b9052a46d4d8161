import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef, useState } from "react";
import { answered, api, type JournalLine } from "../api/client";
import { useAsked } from "../asked";
import { cell, clock, visible } from "../format";
import { Head } from "../head";
import { useLive } from "../live";
import { Said } from "../parts/bits";
import { partOf, wordsOf } from "../parts/range";
import { usePlace } from "../place";

const LEVELS = ["info", "warning", "error"] as const;
const PARTS = ["run", "log", "producers", "records", "replicas", "alerts", "settings", "telemetry"] as const;

export default function Journal() {
  const live = useLive();
  const [level, setLevel] = usePlace("level", "info");
  const [told, setTold] = usePlace("part", "");
  const [contains, setContains] = usePlace("contains", "");
  const [said, say] = usePlace("range", "");
  const [follow, setFollow] = useState(true);
  const part = useMemo(() => partOf(said), [said]);
  const known = LEVELS.find((each) => each === level) ?? "info";
  const by = PARTS.find((each) => each === told);
  const asked = useAsked(["journal", known, by, contains, said], live.lines, async () => {
    const between = part ? { since: part[0], until: part[1] } : {};
    return answered(await api.GET("/api/journal", { params: { query: { level: known, part: by, contains, limit: 2000, ...between } } }));
  });
  const lines = useMemo(() => asked.data?.lines ?? [], [asked.data]);
  return (
    <>
      <Head title="Logs" />
      <div className="row">
        <select aria-label="Level" value={known} onChange={(event) => setLevel(event.target.value)}>
          <option value="info">everything</option>
          <option value="warning">warnings and errors</option>
          <option value="error">errors</option>
        </select>
        <select aria-label="Part" value={by ?? ""} onChange={(event) => setTold(event.target.value)}>
          <option value="">of every part</option>
          {PARTS.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
        <input type="search" placeholder="lines that contain…" aria-label="Lines that contain" value={contains} onChange={(event) => setContains(event.target.value)} />
        {part && (
          <span className="row small">
            <strong className="num" data-test="lines-of">
              {wordsOf(part)}
            </strong>
            <button className="button" onClick={() => say("")}>
              All times
            </button>
          </span>
        )}
        <label className="row small">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} /> follow
        </label>
        <span className="faint small">What the run says about itself. Records and secrets never stand here.</span>
      </div>
      <Said error={asked.error} />
      {asked.data && !lines.length ? <p className="empty">No line like that.</p> : <Lines lines={lines} follow={follow} />}
    </>
  );
}

function Lines({ lines, follow }: { lines: JournalLine[]; follow: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const seen = useVirtualizer({ count: lines.length, getScrollElement: () => box.current, estimateSize: () => 21, overscan: 20 });
  useEffect(() => {
    if (follow && lines.length) seen.scrollToIndex(lines.length - 1);
    // Only new lines move the view.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [lines, follow]);
  const items = seen.getVirtualItems();
  return (
    <div className="lines" ref={box} tabIndex={0} role="log" aria-label="Lines of the journal">
      <div style={{ height: items[0]?.start ?? 0 }} />
      {items.map((item) => {
        const line = lines[item.index]!;
        return (
          <div className="line" key={item.key} ref={seen.measureElement} data-index={item.index}>
            <span className="faint" title={line.at}>
              {line.at.slice(5, 10)} {clock(line.at).slice(0, 8)}
            </span>
            <span className={line.level}>{visible(line.level)}</span>
            <bdi>{visible(line.event)}</bdi>
            <bdi className="soft">
              {Object.entries(line.facts)
                .map(([name, value]) => `${visible(name)}=${typeof value === "number" ? value : cell(value)}`)
                .join("  ")}
            </bdi>
          </div>
        );
      })}
      <div style={{ height: seen.getTotalSize() - (items.at(-1)?.end ?? 0) }} />
    </div>
  );
}
