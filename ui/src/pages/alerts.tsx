import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { answered, api } from "../api/client";
import { decimal, duration, instant, visible } from "../format";
import { Head } from "../head";
import { useLive } from "../live";
import { Card, Said, Worded } from "../parts/bits";

const ORDER = ["firing", "pending", "unknown", "resolved", "ok"];
const SILENCES = [30, 120, 1440];

export default function Alerts() {
  const queries = useQueryClient();
  const at = useLive().status?.at;
  const asked = useQuery({
    queryKey: ["alerts"],
    queryFn: async () => answered(await api.GET("/api/alerts")),
    refetchInterval: 2000,
  });
  const silence = useMutation({
    mutationFn: async (given: { name: string; minutes: number }) =>
      answered(await api.POST("/api/alerts/{name}/silence", { params: { path: { name: given.name } }, body: { minutes: given.minutes } })),
    onSuccess: () => void queries.invalidateQueries({ queryKey: ["alerts"] }),
  });
  const alerts = (asked.data?.alerts ?? []).toSorted((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name));
  const loud = alerts.filter((each) => each.state === "firing" || each.state === "pending" || each.state === "unknown");
  const calm = alerts.filter((each) => !loud.includes(each));
  return (
    <>
      <Head title="Alerts" />
      <Said error={asked.error ?? silence.error} />
      {asked.data && !loud.length && <p className="calm">None of {alerts.length} alerts fires.</p>}
      {loud.map((each) => (
        <section key={each.name} className={`finding ${each.state === "firing" && each.severity === "critical" ? "bad" : ""}`} aria-label={each.name}>
          <span className={`dot ${each.severity === "critical" ? "bad" : "warn"}`} aria-hidden />
          <strong>
            <Worded text={each.summary || each.name} />
          </strong>
          <span className="row">
            {each.silenced_until ? (
              <button className="button" onClick={() => silence.mutate({ name: each.name, minutes: 0 })}>
                Tell again
              </button>
            ) : (
              <>
              <span className="faint small">silence for</span>
              {SILENCES.map((minutes) => (
                <button key={minutes} className="button" onClick={() => silence.mutate({ name: each.name, minutes })} aria-label={`Silence ${each.name} for ${duration(minutes * 60)}`}>
                  {duration(minutes * 60)}
                </button>
              ))}
              </>
            )}
          </span>
          <span className="fix">
            {each.name}, {each.severity}, {each.state}
            {each.since && at ? ` for ${duration((Date.parse(at) - Date.parse(each.since)) / 1000)}` : ""}
            {each.value !== null && each.value !== undefined ? `, value ${decimal(each.value)}` : ""}
            {each.subject ? `, ${visible(each.subject)}` : ""}
            {each.silenced_until ? `, silent until ${instant(each.silenced_until)}` : ""}. <Worded text={each.problem || each.help} />
          </span>
        </section>
      ))}
      <div className="pair">
        {calm.length > 0 && (
          <Card title="Quiet">
            <table className="plain-table">
              <thead>
                <tr>
                  <th scope="col">alert</th>
                  <th scope="col">severity</th>
                  <th scope="col">declared by</th>
                </tr>
              </thead>
              <tbody>
                {calm.map((each) => (
                  <tr key={each.name}>
                    <td>
                      <bdi>{visible(each.name)}</bdi>
                      <p className="faint small">
                        <Worded text={each.summary} />
                      </p>
                    </td>
                    <td>{each.severity}</td>
                    <td>{each.origin === "pipeline" ? "the pipeline" : "Headrace"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Card>
        )}
        <Card title="What has changed" note="the newest first">
          {asked.data?.recent.length ? (
            <table className="plain-table">
              <thead>
                <tr>
                  <th scope="col">time</th>
                  <th scope="col">alert</th>
                  <th scope="col">became</th>
                </tr>
              </thead>
              <tbody>
                {asked.data.recent.slice(0, 100).map((each, place) => (
                  <tr key={place}>
                    <td className="num">{instant(String(each.time))}</td>
                    <td>
                      <bdi>{visible(String(each.name))}</bdi>
                    </td>
                    <td>{visible(String(each.to))}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          ) : (
            <p className="empty">No alert has changed its state in this run.</p>
          )}
        </Card>
      </div>
    </>
  );
}
