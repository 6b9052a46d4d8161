/** A table of rows that draws only what is seen, however many there are. */
import { flexRender, getCoreRowModel, useReactTable, type ColumnDef } from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useMemo, useRef } from "react";
import type { Rows } from "../api/client";
import { cell, instant } from "../format";

interface Props {
  data: Rows;
  label: string;
  height?: number;
  order?: string;
  descending?: boolean;
  onOrder?: (column: string) => void;
  onAsk?: (row: unknown[]) => void;
}

const ROW = 28;

export function Grid({ data, label, height = 520, order, descending, onOrder, onAsk }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const columns = useMemo<ColumnDef<unknown[]>[]>(
    () =>
      data.columns.map((column, at) => ({
        id: `${at}`,
        accessorFn: (row) => row[at],
        header: column.name,
        cell: (given) => {
          const value = given.getValue();
          if (value === null) return <span className="null">–</span>;
          const text = column.kind === "time" && typeof value === "string" ? instant(value) : cell(value);
          if (onAsk && column.kind === "number")
            return (
              <button className="ask" title="Why is this number this?" onClick={() => onAsk(given.row.original)}>
                {text}
              </button>
            );
          return <bdi title={text.length > 60 ? text.slice(0, 2000) : undefined}>{text.slice(0, 400)}</bdi>;
        },
      })),
    [data.columns, onAsk],
  );
  const table = useReactTable({ data: data.rows, columns, getCoreRowModel: getCoreRowModel() });
  const rows = table.getRowModel().rows;
  const seen = useVirtualizer({ count: rows.length, getScrollElement: () => box.current, estimateSize: () => ROW, overscan: 12 });
  const items = seen.getVirtualItems();
  const above = items[0]?.start ?? 0;
  const below = seen.getTotalSize() - (items.at(-1)?.end ?? 0);
  return (
    <div className="grid" ref={box} style={{ maxHeight: height }} tabIndex={0} role="region" aria-label={label}>
      <table aria-rowcount={rows.length}>
        <thead>
          <tr>
            {data.columns.map((column, at) => {
              const sorted = order === column.name ? (descending ? "descending" : "ascending") : undefined;
              const name = (
                <>
                  <bdi>{cell(column.name)}</bdi>
                  {sorted && <span aria-hidden> {descending ? "↓" : "↑"}</span>}
                </>
              );
              return (
                <th key={at} scope="col" className={column.kind === "number" ? "n" : ""} aria-sort={sorted}>
                  {onOrder ? (
                    <button onClick={() => onOrder(column.name)} title={column.type}>
                      {name}
                    </button>
                  ) : (
                    <span title={column.type}>{name}</span>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {above > 0 && (
            <tr aria-hidden style={{ height: above }}>
              <td colSpan={data.columns.length} />
            </tr>
          )}
          {items.map((item) => (
            <tr key={item.key}>
              {rows[item.index]!.getVisibleCells().map((each, at) => (
                <td key={each.id} className={data.columns[at]!.kind === "number" ? "n" : ""}>
                  {flexRender(each.column.columnDef.cell, each.getContext())}
                </td>
              ))}
            </tr>
          ))}
          {below > 0 && (
            <tr aria-hidden style={{ height: below }}>
              <td colSpan={data.columns.length} />
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}
