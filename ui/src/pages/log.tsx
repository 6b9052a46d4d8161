import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { answered, api } from "../api/client";
import { bytes, cell, share, visible, whole } from "../format";
import { Head } from "../head";
import { Card, Said } from "../parts/bits";

export default function Log() {
  const asked = useQuery({
    queryKey: ["log"],
    queryFn: async () => answered(await api.GET("/api/log")),
    refetchInterval: 2000,
  });
  return (
    <>
      <Head title="Log" />
      <Said error={asked.error} />
      {asked.data?.map((each) => (
        <Card
          key={each.stream}
          title={each.stream}
          note={`${whole(each.records)} records, ${each.bytes_estimated ? "about " : ""}${bytes(each.bytes)}`}
          tools={<Link href={`/records?tab=log&stream=${encodeURIComponent(each.stream)}`}>look into it</Link>}
        >
          {each.problem && (
            <div className="said" role="alert" style={{ marginBottom: "0.8rem" }}>
              {visible(each.problem)}
            </div>
          )}
          <div className="pair" style={{ columnGap: "2.4rem" }}>
            <div className="scroll" tabIndex={0} role="region" aria-label={`Partitions of ${each.stream}`}>
              <table className="plain-table">
                <thead>
                  <tr>
                    <th scope="col">partition</th>
                    <th scope="col" className="n">first</th>
                    <th scope="col" className="n">end</th>
                    <th scope="col" className="n">records</th>
                    <th scope="col" className="n">bytes</th>
                    <th scope="col" className="n">share</th>
                  </tr>
                </thead>
                <tbody>
                  {each.partitions.map((part) => (
                    <tr key={part.partition}>
                      <td className="num">{part.partition}</td>
                      <td className="n">{whole(part.start)}</td>
                      <td className="n">{whole(part.end)}</td>
                      <td className="n">{whole(part.records)}</td>
                      <td className="n">{bytes(part.bytes)}</td>
                      <td className="n">{share(part.share, 1)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            <div className="scroll" tabIndex={0} role="region" aria-label={`Readers of ${each.stream}`}>
              <table className="plain-table">
                <thead>
                  <tr>
                    <th scope="col">reader</th>
                    <th scope="col">positions</th>
                    <th scope="col" className="n">records behind</th>
                  </tr>
                </thead>
                <tbody>
                  {each.readers.map((reader) => (
                    <tr key={reader.reader}>
                      <td>
                        <bdi>{visible(reader.reader)}</bdi>
                      </td>
                      <td className="num small soft">{reader.partitions.map((part) => `${part.partition}: ${part.position === null || part.position === undefined ? "–" : whole(part.position)}`).join(" · ")}</td>
                      <td className="n">{whole(reader.lag_records)}</td>
                    </tr>
                  ))}
                  {!each.readers.length && (
                    <tr>
                      <td colSpan={3} className="faint">
                        Nobody has read from it yet.
                      </td>
                    </tr>
                  )}
                </tbody>
              </table>
            </div>
          </div>
          <details style={{ marginTop: "0.9rem" }}>
            <summary className="soft small">settings</summary>
            <dl className="small" style={{ display: "grid", gridTemplateColumns: "max-content 1fr", gap: "0.1rem 1.2rem", marginTop: "0.5rem" }}>
              {Object.entries(each.settings).map(([name, value]) => (
                <div key={name} style={{ display: "contents" }}>
                  <dt className="faint">{name}</dt>
                  <dd>{value === null ? "none" : cell(value)}</dd>
                </div>
              ))}
            </dl>
          </details>
        </Card>
      ))}
    </>
  );
}
