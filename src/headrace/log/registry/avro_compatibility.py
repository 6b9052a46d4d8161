"""Whether data of one Avro schema can be read with another one, and if not, why.

The rules are those of the Avro specification, "Schema Resolution". The words of the kinds of difference are
those that Confluent's registry uses, so that tools which look for them find them.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.log.registry.avro_schema import AvroType

__all__ = ["Difference", "reading_problems"]

_PROMOTIONS = {
    "long": ("int",),
    "float": ("int", "long"),
    "double": ("int", "long", "float"),
    "string": ("bytes",),
    "bytes": ("string",),
}


@dataclass(frozen=True)
class Difference:
    """Why one schema cannot read another: a kind in capitals, where in the reading schema, a sentence."""

    kind: str
    path: str
    text: str


def reading_problems(reader: AvroType, writer: AvroType) -> list[Difference]:
    """Return why `reader` cannot read what `writer` wrote; empty when it can."""
    return _Comparison().compare(reader, writer, "")


class _Comparison:
    def __init__(self) -> None:
        self.open: set[tuple[int, int]] = set()
        self.fine: set[tuple[int, int]] = set()

    def compare(self, reader: AvroType, writer: AvroType, path: str) -> list[Difference]:
        pair = (id(reader), id(writer))
        if pair in self.open or pair in self.fine:
            return []  # a recursive schema: this pair is being compared further out
        self.open.add(pair)
        found = self._compare(reader, writer, path)
        # A pair that failed in one place has to fail in another one too.
        self.open.discard(pair)
        if not found:
            self.fine.add(pair)
        return found

    def _compare(self, reader: AvroType, writer: AvroType, path: str) -> list[Difference]:
        if writer.kind == "union":
            return [
                problem for branch in writer.branches for problem in self._against_union(reader, branch, path)
            ]
        if reader.kind == "union":
            return self._against_union(reader, writer, path)
        if reader.kind != writer.kind:
            if writer.kind in _PROMOTIONS.get(reader.kind, ()):
                return []
            return [_type_mismatch(reader, writer, path)]
        if reader.kind in ("array", "map"):
            word = "items" if reader.kind == "array" else "values"
            return self.compare(reader.inner, writer.inner, f"{path}/{word}")
        found: list[Difference] = []
        if reader.name and not _same_name(reader, writer):
            found.append(
                Difference(
                    "NAME_MISMATCH",
                    f"{path}/name",
                    f"the name '{reader.name}' was '{writer.name}'; keep it, or add an alias",
                )
            )
        if reader.kind == "fixed" and reader.size != writer.size:
            what = f"the size of fixed '{reader.simple_name}' is {reader.size}, it was {writer.size}"
            found.append(Difference("FIXED_SIZE_MISMATCH", f"{path}/size", what))
        if reader.kind == "enum" and reader.default is None:
            missing = [each for each in writer.symbols if each not in reader.symbols]
            if missing:
                what = f"the enum '{reader.simple_name}' lacks {', '.join(missing)}, and has no default"
                found.append(Difference("MISSING_ENUM_SYMBOLS", f"{path}/symbols", what))
        if reader.kind == "record":
            found += self._fields(reader, writer, path)
        return found

    def _fields(self, reader: AvroType, writer: AvroType, path: str) -> list[Difference]:
        found: list[Difference] = []
        written = {each.name: each for each in writer.fields}
        for at, wanted in enumerate(reader.fields):
            place = f"{path}/fields/{at}"
            names = (wanted.name, *wanted.aliases)
            source = next((written[name] for name in names if name in written), None)
            if source is not None:
                found += self.compare(wanted.type, source.type, f"{place}/type")
            elif not wanted.has_default:
                what = f"the field '{wanted.name}' has no default, and is missing in the schema that wrote"
                found.append(Difference("READER_FIELD_MISSING_DEFAULT_VALUE", place, what))
        return found

    def _against_union(self, reader: AvroType, writer: AvroType, path: str) -> list[Difference]:
        if reader.kind != "union":
            return self.compare(reader, writer, path)
        named = [b for b in reader.branches if b.kind == writer.kind and b.name and _same_name(b, writer)]
        if named:
            return self.compare(named[0], writer, path)
        if any(not self.compare(branch, writer, path) for branch in reader.branches):
            return []
        what = f"no branch of the union takes '{writer.name or writer.kind}'"
        return [Difference("MISSING_UNION_BRANCH", path or "/", what)]


def _same_name(reader: AvroType, writer: AvroType) -> bool:
    # Unqualified names decide, as Avro 1.12 says; an alias stands for the whole name or its last part.
    names = {reader.simple_name, *(alias.rpartition(".")[2] for alias in reader.aliases)}
    return writer.simple_name in names


def _type_mismatch(reader: AvroType, writer: AvroType, path: str) -> Difference:
    return Difference("TYPE_MISMATCH", path or "/", f"the type '{reader.kind}' cannot read '{writer.kind}'")
