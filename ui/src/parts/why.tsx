/** Why is this number this: the records behind a row of a table, and what was left out. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { Link } from "wouter";
import { answered, api, type WhyAnswer, type WhyRecord } from "../api/client";
import { cell, instant, visible, whole } from "../format";
import { Said, Swatch } from "./bits";

export function Why({ table, asked, close }: { table: string; asked: string; close: () => void }) {
  const box = useRef<HTMLDialogElement>(null);
  const answer = useQuery({
    queryKey: ["why", table, asked],
    queryFn: async () => answered(await api.POST("/api/tables/{name}/why", { params: { path: { name: table } }, body: { row: rowOf(asked) } })),
    retry: false,
    staleTime: Infinity,
    gcTime: 0,
  });
  useEffect(() => box.current?.showModal(), []);
  return (
    <dialog ref={box} onClose={close} aria-label="Why is this number this?" className="why">
      <div className="stack">
        <header className="row between">
          <h2>Why is this number this?</h2>
          <span className="row">
            <button className="button" onClick={() => void answer.refetch()} disabled={answer.isFetching}>
              {answer.isFetching ? "looking" : "Look again"}
            </button>
            <button className="button" onClick={() => box.current?.close()}>
              Close
            </button>
          </span>
        </header>
        <Said error={answer.error} />
        {answer.isLoading && <p className="soft">Reading the part of the log in which its records lie…</p>}
        {answer.data && <Answer found={answer.data} />}
      </div>
    </dialog>
  );
}

function rowOf(asked: string): Record<string, unknown> {
  try {
    const row: unknown = JSON.parse(asked);
    return row !== null && typeof row === "object" ? (row as Record<string, unknown>) : {};
  } catch {
    return {}; // an address that was cut: the answer says what is missing
  }
}

function Answer({ found }: { found: WhyAnswer }) {
  return (
    <>
      <dl className="facts">
        {Object.entries(found.row).map(([name, value]) => (
          <div key={name}>
            <dt>
              <bdi>{visible(name)}</bdi>
            </dt>
            <dd>
              <bdi>{value === null ? "–" : typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value) ? instant(value) : cell(value).slice(0, 400)}</bdi>
            </dd>
          </div>
        ))}
      </dl>
      <p>
        <strong data-test="why-records">{whole(found.records)}</strong> {found.records === 1 ? "record" : "records"} of <bdi>{visible(found.stream)}</bdi>{" "}
        {found.records === 1 ? "stands" : "stand"} behind this row
        {found.window_start && found.window_end ? `: events from ${instant(found.window_start)} to ${instant(found.window_end)}` : ""}.{" "}
        <span className="faint">
          As of epoch {whole(found.epoch)}; {whole(found.scanned)} records of that time were read again.
        </span>
      </p>
      {found.notes.map((each) => (
        <p key={each} className="said" role="note">
          Not everything could be looked at: {visible(each)}.
        </p>
      ))}
      <Records records={found.samples} all={found.records} />
      <h3>What is not in it</h3>
      {!found.left_out.length && <p className="soft">Nothing of that time was left out.</p>}
      {found.left_out.map((each) => (
        <details key={each.what + each.why} className="letter" style={{ gap: 0 }} data-test={`left-${each.what}`}>
          <summary className="row" style={{ cursor: "pointer" }}>
            <Swatch of={each.what} />
            <strong className="num">{whole(each.records)}</strong> {visible(each.what)}
            <bdi className="soft small">{visible(each.why)}</bdi>
          </summary>
          <Records records={each.samples} all={each.records} />
        </details>
      ))}
      {found.left_out.some((each) => ["malformed", "rejected", "future"].includes(each.what)) && (
        <p>
          <Link href="/records">Correct what was set aside</Link>, and it counts.
        </p>
      )}
    </>
  );
}

function Records({ records, all }: { records: WhyRecord[]; all: number }) {
  if (!records.length) return null;
  return (
    <div className="scroll why-records" tabIndex={0} role="region" aria-label="Records">
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">record</th>
            <th scope="col">happened</th>
            <th scope="col">came</th>
            <th scope="col">its text</th>
          </tr>
        </thead>
        <tbody>
          {records.map((each) => (
            <tr key={each.address}>
              <td className="mono">{visible(each.address)}</td>
              <td className="num">{instant(each.event_time)}</td>
              <td className="num">{instant(each.record_time)}</td>
              <td>
                <bdi className="mono">{visible(each.value).slice(0, 1000)}</bdi>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {all > records.length && <p className="faint small">The first {whole(records.length)} of {whole(all)}.</p>}
    </div>
  );
}
