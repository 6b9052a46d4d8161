import { useMutation, useQuery } from "@tanstack/react-query";
import { answered, api, type ReplicaState } from "../api/client";
import { duration, visible, whole } from "../format";
import { Head } from "../head";
import { useLive } from "../live";
import { Card, Said } from "../parts/bits";

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
          <p className="soft">
            The effective profile <strong>{asked.data.profile}</strong>. What stands in bold is said in {asked.data.file}, the rest are defaults. Changed there, it takes effect with the next run. Secrets are never shown.
          </p>
          {asked.data.sections.map((section) => (
            <Card key={section.title} title={section.title}>
              <div className="scroll" tabIndex={0} role="region" aria-label={`Options of ${section.title}`}>
                <table className="plain-table">
                  <thead className="hidden">
                    <tr>
                      <th scope="col">key</th>
                      <th scope="col">value</th>
                      <th scope="col">what it does</th>
                    </tr>
                  </thead>
                  <tbody>
                    {section.lines.map((line) => (
                      <tr key={line.key}>
                        <td className="mono" style={{ width: "24ch" }}>
                          {line.key}
                        </td>
                        <td style={{ width: "24ch", fontWeight: line.declared ? 640 : 400 }}>
                          <bdi>{visible(line.value)}</bdi>
                        </td>
                        <td className="soft">{line.help}</td>
                      </tr>
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
