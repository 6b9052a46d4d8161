/** Where somebody is on a page stands in its address, so that a reload or a link keeps it. */
import { useCallback } from "react";
import { useSearchParams } from "wouter";

export function usePlace(name: string, otherwise: string): [string, (value: string) => void] {
  const [words, setWords] = useSearchParams();
  const set = useCallback(
    (value: string) =>
      setWords(
        (before) => {
          const next = new URLSearchParams(before);
          if (value === otherwise) next.delete(name);
          else next.set(name, value);
          return next;
        },
        { replace: true },
      ),
    [name, otherwise, setWords],
  );
  return [words.get(name) ?? otherwise, set];
}
