import { Tabs as Radix } from "radix-ui";
import type { ReactNode } from "react";
import { Refused } from "../api/client";
import { visible } from "../format";

export const OUTCOMES = ["accepted", "duplicate", "late", "future", "rejected", "malformed", "expired"] as const;

export function Swatch({ of }: { of: string }) {
  return <span className="swatch" style={{ background: `var(--${of}, var(--faint))` }} aria-hidden />;
}

export function Outcome({ name }: { name: string }) {
  return (
    <span className="tag">
      <Swatch of={name} />
      {name}
    </span>
  );
}

/** A text of ours or of the pipeline's author, in which what stands between backticks is something to type. */
export function Worded({ text }: { text: string }) {
  const parts = visible(text).split("`");
  return <bdi>{parts.length % 2 ? parts.map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part)) : visible(text)}</bdi>;
}

/** What went wrong with a request, and what to do instead. */
export function Said({ error }: { error: unknown }) {
  if (!error) return null;
  return (
    <div className="said" role="alert">
      <p>
        <bdi>{error instanceof Error ? error.message : String(error)}</bdi>
      </p>
      {error instanceof Refused && error.fix && (
        <p>
          <bdi>{error.fix}</bdi>
        </p>
      )}
    </div>
  );
}

export function Card({ title, note, tools, children, test }: { title: string; note?: ReactNode; tools?: ReactNode; children: ReactNode; test?: string }) {
  return (
    <section className="card" aria-label={title} data-test={test}>
      <header>
        <div className="row">
          <h2>{title}</h2>
          {note && <p>{note}</p>}
        </div>
        {tools}
      </header>
      {children}
    </section>
  );
}

export function Tabs({ names, value, onChange, children }: { names: readonly (readonly [string, string])[]; value: string; onChange: (name: string) => void; children: ReactNode }) {
  return (
    <Radix.Root value={value} onValueChange={onChange} className="stack">
      <Radix.List className="tabs" aria-label="Views">
        {names.map(([key, name]) => (
          <Radix.Trigger key={key} value={key}>
            {name}
          </Radix.Trigger>
        ))}
      </Radix.List>
      {children}
    </Radix.Root>
  );
}

export const Tab = Radix.Content;
