/** The frame of a dashboard's chart: its title, what can be downloaded of it, and a larger view. */
import { useRef, useState, type ReactNode } from "react";
import { csv, download, visible } from "../format";
import { colour } from "../theme";

interface Props {
  title: string;
  /** What its numbers are, in words. */
  about?: string;
  narrow?: boolean;
  test?: string;
  /** Columns and rows for CSV; absent while there are none. */
  data?: { columns: { name: string }[]; rows: unknown[][] };
  picture: (height: number) => ReactNode;
  more?: ReactNode;
  said?: ReactNode;
  /** Whether it is drawn on a canvas, so that there is a PNG of it. */
  drawn: boolean;
}

export function Frame({ title, about, narrow, test, data, picture, more, said, drawn }: Props) {
  const large = useRef<HTMLDialogElement>(null);
  const box = useRef<HTMLElement>(null);
  const screen = useRef<HTMLDivElement>(null);
  const [open, setOpen] = useState(false);
  const shown = visible(title);
  const asCsv = () => data && download(`${title}.csv`, csv(data.columns, data.rows));
  return (
    <article ref={box} className={`card ${narrow ? "narrow" : ""}`} aria-label={shown} data-test={test}>
      <header>
        <h2>
          <bdi>{shown}</bdi>
        </h2>
        <span className="tools">
          <button className="button plain small" disabled={!data} onClick={asCsv} aria-label={`${shown} as CSV`}>
            CSV
          </button>
          {drawn && (
            <button className="button plain small" disabled={!data?.rows.length} onClick={() => paint(title, box.current)} aria-label={`${shown} as PNG`}>
              PNG
            </button>
          )}
          <button
            className="button plain small"
            aria-label={`${shown}, larger`}
            onClick={() => {
              setOpen(true);
              large.current?.showModal();
            }}
          >
            larger
          </button>
        </span>
      </header>
      {said}
      {about && (
        <p className="faint small about">
          <bdi>{visible(about)}</bdi>
        </p>
      )}
      {picture(190)}
      <dialog ref={large} onClose={() => setOpen(false)} aria-label={shown}>
        {open && (
          <div className="stack screen" ref={screen}>
            <header className="row between">
              <h2>{shown}</h2>
              <span className="row">
                <button className="button" onClick={() => void (document.fullscreenElement ? document.exitFullscreen() : screen.current?.requestFullscreen())}>
                  Full screen
                </button>
                <button className="button" onClick={() => large.current?.close()}>
                  Close
                </button>
              </span>
            </header>
            {about && (
              <p className="soft small">
                <bdi>{visible(about)}</bdi>
              </p>
            )}
            {picture(Math.max(300, Math.round(window.innerHeight * 0.5)))}
            {more}
          </div>
        )}
      </dialog>
    </article>
  );
}

const EDGE = 24;

/** Downloads what a chart's canvas shows, below its title and beside nothing else. */
function paint(title: string, box: HTMLElement | null): void {
  const drawn = box?.querySelector("canvas");
  if (!drawn) return;
  const names = [...(box?.querySelectorAll(".u-series") ?? [])].slice(1);
  const made = document.createElement("canvas");
  made.width = drawn.width + 2 * EDGE;
  made.height = drawn.height + 4 * EDGE;
  const pen = made.getContext("2d")!;
  pen.fillStyle = colour("card");
  pen.fillRect(0, 0, made.width, made.height);
  pen.fillStyle = colour("ink");
  pen.font = "600 18px Inter, sans-serif";
  pen.fillText(visible(title), EDGE, EDGE + 6, drawn.width);
  pen.drawImage(drawn, EDGE, 2 * EDGE);
  pen.font = "14px Inter, sans-serif";
  let place = EDGE;
  for (const each of names) {
    const label = each.querySelector("th .u-label")?.textContent ?? "";
    const mark = each.querySelector<HTMLElement>(".u-marker");
    pen.fillStyle = mark ? getComputedStyle(mark).borderTopColor || getComputedStyle(mark).backgroundColor : colour("ink");
    pen.fillRect(place, made.height - EDGE - 10, 10, 10);
    pen.fillStyle = colour("soft");
    pen.fillText(label, place + 16, made.height - EDGE);
    place += 16 + pen.measureText(label).width + 20;
  }
  made.toBlob((blob) => blob && download(`${title}.png`, blob), "image/png");
}
