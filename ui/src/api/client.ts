import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type Overview = Schemas["Overview"];
export type Status = Schemas["Status"];
export type Ledger = Schemas["Ledger"];
export type EpochLine = Schemas["EpochLine"];
export type Rows = Schemas["Rows"];
export type Column = Schemas["Column"];
export type PanelLine = Schemas["PanelLine"];
export type DeadLetter = Schemas["DeadLetter"];
export type DeadLetterGroup = Schemas["DeadLetterGroup"];
export type LateGroup = Schemas["LateGroup"];
export type Reason = Schemas["Reason"];
export type Redrive = Schemas["Redrive"];
export type RedrivePreview = Schemas["RedrivePreview"];
export type JournalLine = Schemas["JournalLine"];
export type LogStream = Schemas["LogStream"];
export type ReplicaState = Schemas["ReplicaState"];
export type WhyAnswer = Schemas["Why"];
export type WhyRecord = Schemas["WhyRecord"];
export type MetricSeries = Schemas["MetricSeries"];
export type SettingChange = Schemas["SettingChange"];
export type SettingLine = Schemas["SettingLine"];
export type TableLine = Schemas["TableLine"];

export const api = createClient<paths>({ baseUrl: "" });

/** What the server said against a request, and what to do instead. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly fix: string,
  ) {
    super(message);
  }
}

/** Returns the data of an answer, or throws `Refused`. */
export function answered<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data !== undefined) return answer.data;
  const said = answer.error as { error?: string; fix?: string } | undefined;
  throw new Refused(said?.error ?? `the server answered ${answer.response.status}`, said?.fix ?? "");
}
