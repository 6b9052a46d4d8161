/** How numbers, times and texts from records are written. Times are UTC, as everywhere in Headrace. */

const WHOLE = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });

export const whole = (value: number) => WHOLE.format(value);
export const short = (value: number) => (Math.abs(value) < 10_000 ? WHOLE.format(value) : SHORT.format(value));

export function decimal(value: number): string {
  const size = Math.abs(value);
  if (size >= 1000) return WHOLE.format(value);
  return value.toLocaleString("en-GB", { maximumFractionDigits: size >= 100 ? 1 : size >= 1 ? 2 : 3 });
}

export function rate(value: number): string {
  return value >= 10 ? short(value) : value.toFixed(1);
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.001) return "0 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function bytes(value: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

export function clock(iso: string | null | undefined): string {
  return iso ? iso.slice(11, 19) : "–";
}

export function instant(iso: string | null | undefined): string {
  if (!iso) return "–";
  return iso.replace("T", " ").replace(/\.0*(?=[+Z]|$)/, "").replace(/(\.\d{3})\d+/, "$1").replace(/(\+00:00|Z)$/, "");
}

export const share = (part: number, all: number) =>
  all ? `${((100 * part) / all).toLocaleString("en-GB", { maximumFractionDigits: part / all < 0.01 ? 2 : 1 })} %` : "–";

// Control characters, and marks that turn the direction of a text around: a record must not be able to make
// the page say something else than what it holds.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

export function visible(text: string): string {
  return text.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A value of a row as one line of text. */
export function cell(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return visible(value);
  if (typeof value === "number") return Number.isInteger(value) ? WHOLE.format(value) : String(value);
  if (typeof value === "boolean") return value ? "true" : "false";
  return visible(JSON.stringify(value));
}

export function csv(columns: { name: string }[], rows: unknown[][]): string {
  const one = (value: unknown) => {
    let text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    // A spreadsheet would run these as formulas.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map((each) => one(each.name)), ...rows.map((row) => row.map(one))].map((row) => row.join(",")).join("\n");
}

export function download(name: string, content: string | Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(typeof content === "string" ? new Blob([content], { type: "text/csv;charset=utf-8" }) : content);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  URL.revokeObjectURL(link.href);
}
