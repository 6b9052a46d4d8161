import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { answered, api, type ReplicaState, type SettingChange, type SettingLine } from "../api/client";
import { bytes, duration, instant, visible, whole } from "../format";
import { Head } from "../head";
import { useLive } from "../live";
import { Card, Said, Worded } from "../parts/bits";

/** Options that are so many bytes, and a value that is. */
const SIZE = /(_bytes|bytes_max|memory_limit)$/;
const WHOLE = /^\d{4,}$/;

const ORIGINS = { profile: "profile", producer: "as it was started", run: "changed at run time" };

export default function Settings() {
  const asked = useQuery({
    queryKey: ["settings"],
    queryFn: async () => answered(await api.GET("/api/settings")),
    staleTime: 600_000,
  });
  const replicas = useLive().status?.replicas ?? [];
  return (
    <>
      <Head title="Settings" />
      {replicas.length > 0 && (
        <Card title="Replicas" note="take effect at once, in this run and in later ones">
          <div className="stack">
            {replicas.map((each) => (
              <Replica key={each.replica} replica={each} />
            ))}
          </div>
        </Card>
      )}
      <Said error={asked.error} />
      {asked.data && (
        <>
          {asked.data.changes.length > 0 && <Changes changes={asked.data.changes} file={asked.data.file} />}
          <p className="soft">
            The effective profile <strong>{asked.data.profile}</strong>. Each value says where it comes from: {asked.data.file}, a change at run time, or else it is the default. What has a button changes at once, and stays so when the pipeline starts again; everything else changes in {asked.data.file} and needs a restart. Secrets are never shown.
          </p>
          {asked.data.sections.map((section) => (
            <Card key={section.title} title={section.title}>
              <div className="scroll" tabIndex={0} role="region" aria-label={`Options of ${section.title}`}>
                <table className="plain-table options">
                  <thead className="hidden">
                    <tr>
                      <th scope="col">key</th>
                      <th scope="col">value</th>
                      <th scope="col">what it does</th>
                      <th scope="col">change</th>
                    </tr>
                  </thead>
                  <tbody>
                    {section.lines.map((line) => (
                      <Option key={line.key} line={line} />
                    ))}
                  </tbody>
                </table>
              </div>
            </Card>
          ))}
        </>
      )}
    </>
  );
}

function Changes({ changes, file }: { changes: SettingChange[]; file: string }) {
  const queries = useQueryClient();
  const undo = useMutation({
    mutationFn: async () => answered(await api.POST("/api/settings/undo")),
    onSuccess: () => void queries.invalidateQueries({ queryKey: ["settings"] }),
  });
  return (
    <Card
      title="Changed at run time"
      note={`until it is undone, or ${file} says something else; its line for ${file} stands beside it`}
      tools={
        <button className="button" onClick={() => undo.mutate()} disabled={undo.isPending}>
          Undo the last
        </button>
      }
      test="changes"
    >
      <ul className="stack" style={{ gap: "0.35rem" }}>
        {changes.map((each) => (
          <li key={each.at + each.key} className="row">
            <code>{each.key}</code>
            <span>
              {visible(each.before)} → <strong>{visible(each.after)}</strong>
            </span>
            <span className="faint small num">{instant(each.at)}</span>
            {each.profile && <code className="small">{visible(each.profile)}</code>}
          </li>
        ))}
      </ul>
      <Said error={undo.error} />
    </Card>
  );
}

function Option({ line }: { line: SettingLine }) {
  const [editing, setEditing] = useState(false);
  return (
    <>
      <tr>
        <td className="mono" style={{ width: "24ch" }}>
          {line.key}
        </td>
        <td style={{ width: "24ch", fontWeight: line.origin === "default" ? 400 : 640 }}>
          <bdi>{visible(line.value)}</bdi>
          {SIZE.test(line.key) && WHOLE.test(line.value) && <span className="faint small"> {bytes(Number(line.value))}</span>}
          {line.origin !== "default" && <span className="faint small"> {ORIGINS[line.origin]}</span>}
        </td>
        <td className="soft">
          <Worded text={line.help} />
        </td>
        <td className="n">
          {line.changeable && (
            <button className="button plain small" onClick={() => setEditing(!editing)} aria-expanded={editing} aria-label={`Change ${line.changeable}`}>
              {editing ? "Leave it" : "Change…"}
            </button>
          )}
        </td>
      </tr>
      {editing && (
        <tr>
          <td colSpan={4}>
            <Editor line={line} done={() => setEditing(false)} />
          </td>
        </tr>
      )}
    </>
  );
}

function Editor({ line, done }: { line: SettingLine; done: () => void }) {
  const queries = useQueryClient();
  const key = line.changeable ?? "";
  const [value, setValue] = useState(line.value);
  const preview = useMutation({
    mutationFn: async (given: string) => ({ given, change: answered(await api.POST("/api/settings/preview", { body: { key, value: given } })) }),
  });
  const change = useMutation({
    mutationFn: async (given: string) => answered(await api.POST("/api/settings/change", { body: { key, value: given } })),
    onSuccess: () => {
      void queries.invalidateQueries({ queryKey: ["settings"] });
      done();
    },
  });
  const seen = preview.data?.given === value ? preview.data.change : undefined;
  return (
    <form
      className="stack"
      style={{ gap: "0.5rem" }}
      onSubmit={(event) => {
        event.preventDefault();
        if (seen) change.mutate(value);
        else preview.mutate(value);
      }}
    >
      <div className="row">
        {line.choices?.length ? (
          <select aria-label={`New value of ${key}`} value={value} onChange={(event) => setValue(event.target.value)}>
            {line.choices.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        ) : (
          <input aria-label={`New value of ${key}`} value={value} onChange={(event) => setValue(event.target.value)} />
        )}
        <button className="button main" disabled={preview.isPending || change.isPending}>
          {seen ? "Change it" : "Preview"}
        </button>
      </div>
      {seen && (
        <p className="small" role="status">
          From {visible(seen.before)} to <strong>{visible(seen.after)}</strong>, in this run and in later ones. What changes: {visible(seen.effect)}.
          {seen.profile && (
            <>
              {" "}
              The same in the profile: <code>{visible(seen.profile)}</code>
            </>
          )}
        </p>
      )}
      <Said error={preview.error ?? change.error} />
    </form>
  );
}

function Replica({ replica }: { replica: ReplicaState }) {
  const paused = replica.state === "paused";
  const tell = useMutation({
    mutationFn: async () =>
      answered(
        await api.POST("/api/replicas/{name}/{action}", {
          params: { path: { name: replica.replica, action: paused || replica.state === "refused" ? "resume" : "pause" } },
        }),
      ),
  });
  return (
    <div className="stack" style={{ gap: "0.4rem" }}>
      <div className="row between">
        <span className="row">
          <span className={`dot ${replica.state === "following" ? "good" : replica.state === "refused" ? "bad" : "warn"}`} />
          <strong>
            <bdi>{visible(replica.replica)}</bdi>
          </strong>
          <span className="soft">
            {replica.kind}, {replica.state}
            {replica.lag_epochs ? `, ${whole(replica.lag_epochs)} epochs (${duration(replica.lag_seconds)}) behind` : ""}
          </span>
        </span>
        <button className="button" onClick={() => tell.mutate()} disabled={tell.isPending}>
          {paused ? "Resume" : replica.state === "refused" ? "Try again" : "Pause"}
        </button>
      </div>
      {replica.why && (
        <p className="small soft">
          <bdi>{visible(replica.why)}</bdi> {replica.fix && <bdi>({visible(replica.fix)})</bdi>}
        </p>
      )}
      <Said error={tell.error} />
    </div>
  );
}
