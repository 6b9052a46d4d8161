/** A record that was set aside: looked at, corrected, given back, and what came of that. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { answered, api, type DeadLetter, type DeadLetterGroup, type Reason, type Redrive, type RedrivePreview } from "../api/client";
import { instant, visible, whole } from "../format";
import { Outcome, Said } from "./bits";

/** What names a group in an address. */
export const keyOf = (group: Pick<DeadLetterGroup, "stream" | "outcome" | "rule">) => `${group.stream} ${group.outcome} ${group.rule}`;

export function Letter({ letter, onGiven }: { letter: DeadLetter; onGiven: () => void }) {
  const [editing, setEditing] = useState(false);
  return (
    <article className="letter" data-test="letter">
      <div className="row between">
        <span className="row">
          <code>{letter.address}</code>
          {letter.key !== null && letter.key !== undefined && (
            <span className="soft small">
              key <bdi>{visible(letter.key).slice(0, 120)}</bdi>
            </span>
          )}
          <span className="faint small num">{instant(letter.record_time)}</span>
        </span>
        {letter.accepted ? (
          <span className="row small" role="status">
            <Outcome name="accepted" /> given back, and accepted
          </span>
        ) : (
          <button className="button" onClick={() => setEditing(!editing)} aria-expanded={editing}>
            {editing ? "Leave it" : "Fix…"}
          </button>
        )}
      </div>
      <Reasons of={letter.reasons} />
      {letter.again && <SetAsideAgain stream={letter.stream} again={letter.again} />}
      {editing ? (
        <Fix letter={letter} onGiven={onGiven} />
      ) : (
        <pre tabIndex={0}>
          <bdi>{letter.value === null || letter.value === undefined ? "(a tombstone: no value)" : visible(pretty(letter.value)).slice(0, 4000)}</bdi>
        </pre>
      )}
    </article>
  );
}

function Reasons({ of }: { of: Reason[] }) {
  return (
    <ul className="small">
      {of.map((each, at) => (
        <li key={at}>
          <strong>
            <bdi>{visible(each.rule)}</bdi>
          </strong>
          : <bdi>{visible(each.detail)}</bdi>
        </li>
      ))}
    </ul>
  );
}

/** What came of it when it was given back: it failed again, and stands elsewhere now. */
function SetAsideAgain({ stream, again }: { stream: string; again: NonNullable<DeadLetter["again"]> }) {
  const place = new URLSearchParams({ group: keyOf({ stream, outcome: again.outcome, rule: again.reasons[0]?.rule ?? "" }), letter: again.address });
  return (
    <div className="said stack" style={{ gap: "0.35rem" }} role="status" data-test="again">
      <span className="row">
        Given back, and set aside again: <Outcome name={again.outcome} />
        <Link href={`/records?${place}`}>see and correct what came back</Link>
      </span>
      <Reasons of={again.reasons} />
    </div>
  );
}

/** JSON with breaks between its fields; its digits stay as they are, so it is only laid out, never parsed. */
function pretty(text: string): string {
  if (!/^\s*\{[\s\S]*\}\s*$/.test(text) || text.length > 20_000) return text;
  let out = "";
  let depth = 0;
  let inText = false;
  for (let at = 0; at < text.length; at += 1) {
    const one = text[at]!;
    if (inText) {
      out += one;
      if (one === "\\") out += text[(at += 1)] ?? "";
      else if (one === '"') inText = false;
    } else if (one === '"') {
      inText = true;
      out += one;
    } else if (one === "{" || one === "[") {
      depth += 1;
      out += one === "{" && depth === 1 ? "{\n  " : one;
    } else if (one === "}" || one === "]") {
      depth -= 1;
      out += one === "}" && depth === 0 ? "\n}" : one;
    } else if (one === "," && depth === 1) out += ",\n  ";
    else out += one === ":" ? ": " : one.trim() ? one : "";
  }
  return inText ? text : out;
}

function Fix({ letter, onGiven }: { letter: DeadLetter; onGiven: () => void }) {
  const [text, setText] = useState(letter.value ?? "");
  const [before] = useState(letter.again?.address);
  const decided = letter.again?.address !== before;
  if (!letter.text)
    return (
      <div className="stack">
        <p className="soft small">Its bytes are no text (or too many to show), so they cannot be edited here. It can be given back as it is, or from a file: headrace dead-letters redrive {letter.address} --with FILE</p>
        <GiveBack asked={{ addresses: [letter.address], assignments: [] }} onGiven={onGiven} decided={decided} />
      </div>
    );
  return (
    <div className="stack">
      <textarea rows={Math.min(14, 3 + Math.ceil(text.length / 110))} aria-label="The corrected record" spellCheck={false} dir="ltr" value={text} onChange={(event) => setText(event.target.value)} />
      <GiveBack asked={{ addresses: [letter.address], assignments: [], value: text === letter.value ? null : text }} onGiven={onGiven} decided={decided} />
    </div>
  );
}

export function GiveBack({ asked, onGiven, many = false, decided = false }: { asked: Redrive; onGiven: () => void; many?: boolean; decided?: boolean }) {
  const queries = useQueryClient();
  const [field, setField] = useState("");
  const body: Redrive = many && field.trim() ? { ...asked, assignments: field.split("\n").map((each) => each.trim()).filter(Boolean) } : asked;
  const [seen, setSeen] = useState("");
  const preview = useMutation({
    mutationFn: async (given: Redrive) => answered(await api.POST("/api/dead-letters/preview", { body: given })),
    onSuccess: (_, given) => setSeen(JSON.stringify(given)),
  });
  const give = useMutation({
    mutationFn: async (given: Redrive) => answered(await api.POST("/api/dead-letters/redrive", { body: given })),
    onSuccess: () => {
      onGiven();
      void queries.invalidateQueries();
    },
  });
  const fresh = preview.data && seen === JSON.stringify(body);
  if (give.data && decided) return null; // what came of it is told above
  if (give.data)
    return (
      <p className="said good" role="status">
        {whole(give.data.records)} given back. The pipeline takes {give.data.records === 1 ? "it" : "them"} now; what becomes of {give.data.records === 1 ? "it" : "each"} is said where it stands here.
      </p>
    );
  return (
    <div className="stack" style={{ gap: "0.6rem" }}>
      {many && (
        <input placeholder="field=value to set in each, or nothing: as they are" aria-label="Field to set" value={field} onChange={(event) => setField(event.target.value)} />
      )}
      {fresh && (
        <div className="stack" style={{ gap: "0.5rem" }} aria-label="Preview">
          {preview.data!.samples.map((each) => (
            <div key={each.address} className="diff">
              <code className="small">{each.address}</code>
              {each.changed && (
                <pre className="before">
                  <bdi>{visible(each.before ?? "")}</bdi>
                </pre>
              )}
              <pre className={each.changed ? "after" : ""}>
                <bdi>{visible(each.after ?? "(a tombstone)")}</bdi>
              </pre>
            </div>
          ))}
          <Verdict preview={preview.data!} />
          {preview.data!.records > preview.data!.samples.length && <p className="faint small">and {whole(preview.data!.records - preview.data!.samples.length)} more</p>}
        </div>
      )}
      <div className="row">
        {fresh ? (
          <button className="button main" onClick={() => give.mutate(body)} disabled={give.isPending}>
            Give {whole(preview.data!.records)} back{preview.data!.samples.some((each) => each.changed) ? "" : " as they are"}
            {preview.data!.checked > 0 && !preview.data!.outcomes["accepted"] && " all the same"}
          </button>
        ) : (
          <button className="button main" onClick={() => preview.mutate(body)} disabled={preview.isPending}>
            Preview
          </button>
        )}
        <span className="faint small">Given back, a record goes through no check of time, and is accepted at most once.</span>
      </div>
      <Said error={preview.error ?? give.error} />
    </div>
  );
}

/** What the row stage says of a correction before it is sent. */
function Verdict({ preview }: { preview: RedrivePreview }) {
  if (preview.unchecked) return <p className="said">What would become of it is not known now: {visible(preview.unchecked)}</p>;
  if (!preview.checked) return null;
  const good = preview.outcomes["accepted"] ?? 0;
  const one = preview.records === 1;
  const warned = Object.entries(preview.warned);
  return (
    <div className={good === preview.checked ? "said good" : "said"} data-test="verdict" role="status">
      {one ? (
        <span className="row">
          {good ? "It would be accepted, if it is no copy of a record that was." : "It would be set aside again:"} <Outcome name={Object.keys(preview.outcomes)[0]!} />
        </span>
      ) : (
        <span className="row">
          {preview.checked === preview.records ? "They would get:" : `Of the first ${whole(preview.checked)}:`}
          {Object.entries(preview.outcomes).map(([name, records]) => (
            <span key={name} className="row" style={{ gap: "0.3rem" }}>
              <strong className="num">{whole(records)}</strong> <Outcome name={name} />
            </span>
          ))}
          {good > 0 && <span className="faint small">copies of accepted records do not count again</span>}
        </span>
      )}
      {one ? <Reasons of={preview.samples[0]?.reasons ?? []} /> : <Counted rules={Object.entries(preview.broken)} />}
      {warned.length > 0 && <p className="small">Only warned of: {warned.map(([rule]) => visible(rule)).join(", ")}</p>}
    </div>
  );
}

function Counted({ rules }: { rules: [string, number][] }) {
  return (
    <ul className="small">
      {rules.map(([rule, records]) => (
        <li key={rule}>
          <strong>
            <bdi>{visible(rule)}</bdi>
          </strong>{" "}
          broken by {whole(records)}
        </li>
      ))}
    </ul>
  );
}
