/** What the API answers, asked again when something has changed: one question at a time. */
import { keepPreviousData, useQuery, type UseQueryResult } from "@tanstack/react-query";
import { useEffect, useRef } from "react";

/**
 * Asks at once, and again as soon as the answer is there, while `changed` is another than when it was asked.
 * So a slow answer is shown, late, instead of being asked for anew; and one answer is kept, not one for every
 * change.
 */
export function useAsked<Answer>(key: unknown[], changed: unknown, ask: () => Promise<Answer>): UseQueryResult<Answer> {
  const now = useRef(changed);
  now.current = changed;
  const asked = useRef<unknown>(undefined);
  const query = useQuery({
    queryKey: key,
    queryFn: () => {
      asked.current = now.current;
      return ask();
    },
    placeholderData: keepPreviousData,
  });
  const { isFetching, refetch } = query;
  useEffect(() => {
    if (!isFetching && asked.current !== changed) void refetch();
  }, [isFetching, changed, refetch]);
  return query;
}
