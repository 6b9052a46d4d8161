/** How far up a chart goes. A history that is loaded in seconds, or a backlog that is worked off, must not press
 *  hours of usual traffic to the ground: its values are cut off at the top, marked there, and said in words. */

export interface Cut {
  /** The greatest value that is shown as it is. */
  top: number;
  /** The greatest of all. */
  peak: number;
}

const TIMES_MIN = 3;
const USUAL_SHARE = 0.75;
const NEAR = 4;
const FAR = 10;
const LASTING = 3;
/** A time that stands alone does not tell how long it lasts: as long as most do. */
const ALONE_S = 60;

/** Where to cut: when the peak is 10 times what three quarters of the times stay below, what is 4 times that or less
 *  is shown. Times at which nothing was say nothing of what is usual. What goes on for three times up to now is
 *  not cut off: an incident is seen as high as it is. Null: everything is shown as it is. */
export function cutOf(times: ArrayLike<number>, layers: (number | null)[][], between?: [number, number], open = times.length): Cut | null {
  const all = heightsOf(times, layers, between);
  const found = all.filter((each) => each > 0);
  // What is not over yet is lower than it will be, and must not end what goes on.
  const over = all.slice(0, open).filter((each) => each > 0);
  const heights = found.toSorted((a, b) => a - b);
  if (heights.length < TIMES_MIN) return null;
  const usual = heights[Math.floor((heights.length - 1) * USUAL_SHARE)]!;
  const peak = heights.at(-1)!;
  const lasts = (heights: number[]) => heights.length >= LASTING && heights.slice(-LASTING).every((each) => each > NEAR * usual);
  if (peak < FAR * usual || lasts(found) || lasts(over)) return null;
  return { top: heights.findLast((each) => each <= NEAR * usual)!, peak };
}

/** From which place on times are not over at `until`: minutes and windows that are still filled. Each of `times` is the
 *  beginning of one, as long as the shortest way to the next. Instants at which something was measured are always
 *  over: they do not lie on whole minutes. */
export function openFrom(times: ArrayLike<number>, until: number | undefined): number {
  if (until === undefined || !times.length) return times.length;
  const all = Array.from(times);
  const step = Math.min(...all.slice(1).map((at, place) => at - all[place]!));
  const length = Number.isFinite(step) ? step : ALONE_S;
  const whole = Math.min(length, ALONE_S);
  if (length <= 0 || all.some((at) => at % whole !== 0)) return all.length;
  const open = all.findIndex((at) => at + length > until);
  return open < 0 ? all.length : open;
}

/** Where the values are that are cut off: of those beside each other only the greatest, by its place in `times`. */
export function peaksOf(times: ArrayLike<number>, layers: (number | null)[][], top: number, between?: [number, number]): number[] {
  const heights = heightsOf(times, layers, between);
  const found: number[] = [];
  let before = false;
  heights.forEach((height, place) => {
    const over = height > top;
    if (over && !before) found.push(place);
    else if (over && height > heights[found.at(-1)!]!) found[found.length - 1] = place;
    before = over;
  });
  return found;
}

/** The greatest value at each time; 0 outside of what is shown. */
function heightsOf(times: ArrayLike<number>, layers: (number | null)[][], between?: [number, number]): number[] {
  return Array.from(times, (at, place) =>
    between && (at < between[0] || at > between[1]) ? 0 : Math.max(0, ...layers.map((values) => values[place] ?? 0)),
  );
}
