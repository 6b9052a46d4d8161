/** Light and dark: as the system says, until somebody chooses. */
import { useSyncExternalStore } from "react";

const KEY = "headrace.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

function chosen(): "light" | "dark" {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : dark.matches ? "dark" : "light";
}

export function applyTheme(): void {
  document.documentElement.dataset.theme = chosen();
  for (const listener of listeners) listener();
}

dark.addEventListener("change", applyTheme);

export function toggleTheme(): void {
  localStorage.setItem(KEY, chosen() === "dark" ? "light" : "dark");
  applyTheme();
}

export function useTheme(): "light" | "dark" {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light"),
  );
}

/** A colour of the style sheet, for canvases. */
export const colour = (name: string) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
