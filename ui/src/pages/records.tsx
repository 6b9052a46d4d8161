import { useQuery } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { answered, api, type DeadLetterGroup, type LateGroup } from "../api/client";
import { useAsked } from "../asked";
import { duration, instant, share, visible, whole } from "../format";
import { Head, useOverview } from "../head";
import { useLive } from "../live";
import { Outcome, Said, Swatch, Tab, Tabs } from "../parts/bits";
import { Grid } from "../parts/grid";
import { GiveBack, keyOf, Letter } from "../parts/letter";
import { usePlace } from "../place";

export default function Records() {
  const [tab, setTab] = usePlace("tab", "aside");
  return (
    <>
      <Head title="Records" />
      <Tabs
        names={[
          ["aside", "Set aside"],
          ["late", "Late"],
          ["log", "In the log"],
        ]}
        value={tab}
        onChange={setTab}
      >
        <Tab value="aside">
          <Aside />
        </Tab>
        <Tab value="late">
          <Late />
        </Tab>
        <Tab value="log">
          <Peek />
        </Tab>
      </Tabs>
    </>
  );
}

/** After something was given back, the groups are asked for until so many answers in a row told of nothing more decided. */
const ANSWERS_MORE = 20;

function Aside() {
  const [chosen, choose] = usePlace("group", "");
  const [only, show] = usePlace("letter", "");
  const [answers, setAnswers] = useState(0);
  const told = useRef(0);
  const epochs = useLive().epochs;
  const epoch = epochs.findLast((each) => ["malformed", "rejected", "future"].some((name) => each.outcomes[name]))?.epoch;
  // What was given back is decided in one of the next epochs; only what is set aside once more is seen by its outcome.
  const asked = useAsked(["groups"], answers ? epochs.at(-1)?.epoch : epoch, async () => {
    const found = answered(await api.GET("/api/dead-letters/groups"));
    const decided = found.reduce((sum, each) => sum + each.accepted + each.again, 0);
    const news = decided !== told.current;
    told.current = decided;
    setAnswers((left) => (left && news ? ANSWERS_MORE : Math.max(0, left - 1)));
    return found;
  });
  if (asked.error) return <Said error={asked.error} />;
  const groups = asked.data;
  if (!groups) return null;
  if (!groups.length)
    return (
      <div className="empty">
        <strong>Nothing was set aside.</strong>
        <p>A record that cannot be read, breaks a rule, or comes from the future would stand here, with its bytes and the reason, and could be corrected and given back.</p>
      </div>
    );
  const all = groups.reduce((sum, each) => sum + each.records, 0);
  const group = groups.find((each) => keyOf(each) === chosen) ?? groups[0]!;
  return (
    <div className="split">
      <nav className="list" aria-label="Reasons">
        {groups.map((each) => (
          <button key={keyOf(each)} aria-pressed={each === group} onClick={() => (show(""), choose(keyOf(each)))}>
            <span className="row" style={{ flexWrap: "nowrap", gap: "0.45rem", minWidth: 0 }}>
              <Swatch of={each.outcome} />
              <bdi className="cut">{visible(each.rule || each.outcome)}</bdi>
            </span>
            <span className="num small">{whole(each.records)}</span>
            <span className="under">
              {each.outcome}, {share(each.records, all)}, {visible(each.stream)}
              {each.accepted > 0 && `, ${whole(each.accepted)} accepted since`}
              {each.again > 0 && `, ${whole(each.again)} failed again`}
            </span>
          </button>
        ))}
      </nav>
      <Group key={keyOf(group)} group={group} only={only} all={() => show("")} onGiven={() => setAnswers(ANSWERS_MORE)} />
    </div>
  );
}

function Group({ group, only, all, onGiven }: { group: DeadLetterGroup; only: string; all: () => void; onGiven: () => void }) {
  const [everything, setEverything] = useState(false);
  const query = { stream: group.stream, outcome: group.outcome, rule: group.rule, limit: 50, ...(only ? { address: only } : {}) };
  const asked = useAsked(["letters", keyOf(group), only], `${group.records} ${group.accepted} ${group.again}`, async () => answered(await api.GET("/api/dead-letters", { params: { query } })));
  return (
    <section className="stack" aria-label="Records of this reason">
      <div className="row between">
        <div>
          <div className="row">
            <Outcome name={group.outcome} />
            <h2>
              <bdi>{visible(group.rule)}</bdi>
            </h2>
          </div>
          <p className="soft small" style={{ marginTop: "0.25rem" }}>
            <bdi>{visible(group.detail)}</bdi>
          </p>
          <p className="faint small">
            {whole(group.records)} records, from {instant(group.first)} to {instant(group.last)}
            {group.accepted > 0 && `; ${whole(group.accepted)} of them given back, and accepted since`}
            {group.again > 0 && `; ${whole(group.again)} given back, and set aside again`}
          </p>
        </div>
        <button className="button" onClick={() => setEverything(!everything)} aria-expanded={everything}>
          Give all back…
        </button>
      </div>
      {everything && <GiveBack asked={{ addresses: [], assignments: [], stream: group.stream, outcome: group.outcome, rule: group.rule }} onGiven={onGiven} many />}
      <Said error={asked.error} />
      {only && (
        <div className="row small">
          <span className="soft">
            Only <code>{visible(only)}</code>
            {asked.data && !asked.data.letters.length && ", which is not here any more"}
          </span>
          <button className="button" onClick={all}>
            All of this reason
          </button>
        </div>
      )}
      {asked.data?.letters.map((each) => <Letter key={each.address} letter={each} onGiven={onGiven} />)}
      {asked.data?.more && <p className="faint small">The first 50. The command line lists all: headrace dead-letters list</p>}
    </section>
  );
}

const bandOf = (group: LateGroup) => `${group.stream} ${group.over_seconds}`;
const bound = (seconds: number) => (seconds < 3600 ? `${seconds / 60} min` : `${seconds / 3600} h`);

function tooLate(group: LateGroup): string {
  if (group.below_seconds === null) return `${bound(group.over_seconds)} or more too late`;
  if (!group.over_seconds) return `less than ${bound(group.below_seconds)} too late`;
  return `${bound(group.over_seconds)} to ${bound(group.below_seconds)} too late`;
}

function Late() {
  const [chosen, choose] = usePlace("band", "");
  const epoch = useLive().epochs.findLast((each) => each.outcomes["late"])?.epoch;
  const asked = useAsked(["late"], epoch, async () => answered(await api.GET("/api/late/groups")));
  if (asked.error) return <Said error={asked.error} />;
  const groups = asked.data;
  if (!groups) return null;
  if (!groups.length)
    return (
      <div className="empty">
        <strong>Nothing came late.</strong>
        <p>A record whose event time lies further before the time at which it reached the log than its stream allows would stand here, by how much it came too late. It counts in no window.</p>
      </div>
    );
  const all = groups.reduce((sum, each) => sum + each.records, 0);
  const group = groups.find((each) => bandOf(each) === chosen) ?? groups[0]!;
  return (
    <div className="split">
      <nav className="list" aria-label="How late">
        {groups.map((each) => (
          <button key={bandOf(each)} aria-pressed={each === group} onClick={() => choose(bandOf(each))}>
            <span className="row" style={{ flexWrap: "nowrap", gap: "0.45rem", minWidth: 0 }}>
              <Swatch of="late" />
              <span className="cut">{tooLate(each)}</span>
            </span>
            <span className="num small">{whole(each.records)}</span>
            <span className="under">
              {share(each.records, all)}, {visible(each.stream)}
            </span>
          </button>
        ))}
      </nav>
      <Band key={bandOf(group)} group={group} />
    </div>
  );
}

function Band({ group }: { group: LateGroup }) {
  const line = useOverview().data?.streams.find((each) => each.name === group.stream);
  const query = { over_seconds: group.over_seconds, below_seconds: group.below_seconds, limit: 100 };
  const asked = useAsked(["late", bandOf(group)], group.records, async () =>
    answered(await api.GET("/api/late/{stream}/rows", { params: { path: { stream: group.stream }, query } })),
  );
  return (
    <section className="stack" aria-label="Rows of this band">
      <div>
        <div className="row">
          <Outcome name="late" />
          <h2>{tooLate(group)}</h2>
        </div>
        <p className="soft small" style={{ marginTop: "0.25rem" }}>
          <bdi>{visible(group.stream)}</bdi> allows {line ? duration(line.allowed_lateness_seconds) : "less"} between event time and the log. These {whole(group.records)} rows are kept here and count in no window; {duration(group.most_seconds)} more would have taken them all.
        </p>
        <p className="faint small">
          {whole(group.records)} rows, from {instant(group.first)} to {instant(group.last)}
        </p>
      </div>
      <Said error={asked.error} />
      {asked.data && <Grid data={asked.data} label="Late rows" />}
      {asked.data?.cut && <p className="faint small">The last 100. All of them: SELECT * FROM late_{group.stream}</p>}
    </section>
  );
}

function Peek() {
  const overview = useOverview().data;
  const [stream, setStream] = usePlace("stream", "");
  const [contains, setContains] = usePlace("contains", "");
  const [where, setWhere] = usePlace("where", "");
  const [follow, setFollow] = useState(true);
  const chosen = Boolean(contains || where);
  const names = overview?.streams.map((each) => each.name) ?? [];
  const name = names.includes(stream.replace("@redrive", "")) ? stream : names[0];
  const asked = useQuery({
    queryKey: ["peek", name, contains, where],
    queryFn: async () =>
      answered(
        await api.GET("/api/log/{stream}/records", { params: { path: { stream: name! }, query: { last: chosen ? 500 : 60, contains, where } } }),
      ),
    enabled: Boolean(name),
    // A condition runs in a process of its own, each time.
    refetchInterval: follow ? (where ? 5000 : 2000) : false,
    placeholderData: (before) => before,
    retry: false,
  });
  return (
    <section className="stack" aria-label="Records in the log">
      <div className="row">
        <select aria-label="Stream" value={name} onChange={(event) => setStream(event.target.value)}>
          {names.flatMap((each) => [
            <option key={each}>{each}</option>,
            <option key={`${each}@redrive`} value={`${each}@redrive`}>
              {each}, given back
            </option>,
          ])}
        </select>
        <input type="search" placeholder="of the last 500, those that contain…" aria-label="Records that contain" value={contains} onChange={(event) => setContains(event.target.value)} />
        <label className="row small">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} /> follow
        </label>
        <span className="faint small">Looking moves nobody's position.</span>
      </div>
      <form
        className="row"
        key={where}
        onSubmit={(event) => {
          event.preventDefault();
          setWhere(String(new FormData(event.currentTarget).get("where") ?? ""));
        }}
      >
        <input name="where" type="search" className="mono grow" defaultValue={where} placeholder="of the last 500, those where… in SQL: total_amount > 100 OR key IS NULL" aria-label="Records where" spellCheck={false} autoComplete="off" />
        <button className="button">Choose</button>
      </form>
      <Said error={asked.error} />
      {asked.data && !asked.data.length && <p className="empty">{chosen ? "None of the last records is like that." : "Nothing has been appended yet. `headrace produce` and `headrace generate` append."}</p>}
      {asked.data?.toReversed().map((each) => (
        <details key={each.address} className="letter" style={{ gap: 0 }}>
          <summary className="row" style={{ flexWrap: "nowrap", cursor: "pointer" }}>
            <code>{each.address}</code>
            <span className="faint small num">{instant(each.record_time)}</span>
            {each.key !== null && <bdi className="small soft">{visible(each.key ?? "").slice(0, 60)}</bdi>}
            <bdi className="mono cut grow">{each.form === "tombstone" ? "(a tombstone)" : visible(each.value.replace(/\s+/g, " ")).slice(0, 300)}</bdi>
          </summary>
          <pre style={{ marginTop: "0.6rem" }}>
            <bdi>{visible(each.value)}</bdi>
          </pre>
          {each.problem && <p className="small">{visible(each.problem)}</p>}
        </details>
      ))}
    </section>
  );
}
