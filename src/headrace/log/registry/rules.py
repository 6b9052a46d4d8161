"""The embedded registry's rules: what each call of Confluent's REST API does, apart from HTTP.

Statuses, codes and meanings follow Confluent's "Schema Registry API Reference". A refusal is a
`RegistryRefusal` with the HTTP status, the code and a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import RefusedError
from headrace.log.registry.avro_schema import SchemaInvalid
from headrace.log.registry.contents import KINDS, Content, read_content
from headrace.log.registry.storage import Reference, Storage, StoredSchema, StoredVersion

__all__ = ["COMPATIBILITIES", "MODES", "Registry", "RegistryRefusal", "Request"]

COMPATIBILITIES = (
    "NONE",
    *("BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"),
)
MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")
_DEFAULTS = {"compatibility": "BACKWARD", "mode": "READWRITE"}
_REFERENCES_MAX = 200
_VERSION_MAX = 2**31 - 1
_REASONS_MAX = 50


class RegistryRefusal(RefusedError):
    """A call that is refused, as the REST API says it."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def _no_subject(subject: str) -> RegistryRefusal:
    return RegistryRefusal(404, 40401, f"Subject '{subject}' not found.")


def _no_version(version: object) -> RegistryRefusal:
    return RegistryRefusal(404, 40402, f"Version {version} not found.")


def _invalid_schema(error: SchemaInvalid) -> RegistryRefusal:
    return RegistryRefusal(422, 42201, f"Invalid schema: {error.message}")


@dataclass(frozen=True)
class Request:
    """A schema as a client sends it."""

    kind: str
    text: str
    references: tuple[Reference, ...]
    id: int | None = None
    version: int | None = None

    @staticmethod
    def of(body: Any) -> Request:
        """Read a request's body. Raises RegistryRefusal."""
        if (
            not isinstance(body, Mapping)
            or not isinstance(body.get("schema"), str)
            or not body["schema"].strip()
        ):
            raise RegistryRefusal(422, 42201, "Invalid schema: the body needs a text 'schema'")
        given = body.get("references") or ()
        references: list[Reference] = []
        for each in (
            given if isinstance(given, list) and len(given) <= _REFERENCES_MAX else (None,) if given else ()
        ):
            match each:
                case {"name": str(name), "subject": str(subject), "version": int(version)}:
                    references.append(Reference(name, subject, version))
                case _:
                    what = "a reference needs a name, a subject and a version"
                    raise RegistryRefusal(422, 42201, f"Invalid schema: {what}")
        kind = str(body.get("schemaType") or "AVRO")
        own, number = (_whole(body, word) for word in ("id", "version"))
        return Request(kind, body["schema"], tuple(references), own, number)


def _whole(body: Mapping[str, Any], word: str) -> int | None:
    found = body.get(word)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or abs(found) > _VERSION_MAX:
        raise RegistryRefusal(422, 42202, f"'{word}' is a whole number")
    return found if found > 0 else None


class Registry:
    """Subjects, versions and schemas in one file. Calls may come from several threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def close(self) -> None:
        """Give back the file."""
        self._storage.close()

    # -- reading -------------------------------------------------------------------------------------------

    def subjects(self, *, prefix: str = "", deleted: bool = False, deleted_only: bool = False) -> list[str]:
        """Return the subjects that have versions."""
        found = self._storage.all_versions(deleted=deleted or deleted_only)
        alive = {each.subject for each in found if not each.deleted}
        names = dict.fromkeys(each.subject for each in found)
        return [n for n in names if n.startswith(prefix) and not (deleted_only and n in alive)]

    def schemas(
        self, *, prefix: str = "", deleted: bool = False, latest_only: bool = False
    ) -> list[StoredVersion]:
        """Return all versions of all subjects, or the latest of each."""
        found = [
            each for each in self._storage.all_versions(deleted=deleted) if each.subject.startswith(prefix)
        ]
        return list({each.subject: each for each in found}.values()) if latest_only else found

    def schema(self, number: int) -> StoredSchema:
        """Return the schema of an id; also when all its versions are softly deleted."""
        found = self._storage.schema(number)
        if found is None or not self._storage.versions_of_schema(number, deleted=True):
            raise RegistryRefusal(404, 40403, f"Schema {number} not found")
        return found

    def schema_by_guid(self, guid: str) -> StoredSchema:
        """Return the schema of a guid."""
        found = self._storage.schema_by_guid(guid.lower())
        if found is None or not self._storage.versions_of_schema(found.id, deleted=True):
            raise RegistryRefusal(404, 40403, f"Schema {guid[:100]} not found")
        return found

    def last_id(self) -> int:
        """Return the highest id given so far."""
        return self._storage.last_id()

    def versions_of_schema(self, number: int, *, deleted: bool = False) -> list[StoredVersion]:
        """Return where a schema is registered."""
        self.schema(number)
        return self._storage.versions_of_schema(number, deleted=deleted)

    def versions(
        self, subject: str, *, deleted: bool = False, deleted_only: bool = False
    ) -> list[StoredVersion]:
        """Return the versions of a subject; refused when it has none."""
        found = self._storage.versions(subject, deleted=deleted or deleted_only)
        if deleted_only:
            found = [each for each in found if each.deleted]
        if not found:
            raise _no_subject(subject)
        return found

    def version(self, subject: str, word: str, *, deleted: bool = False) -> StoredVersion:
        """Return a version: a number, -1 or `latest`."""
        number = _version_of(word)
        found = self._storage.versions(subject, deleted=deleted)
        if not found:
            raise _no_subject(subject)
        if number is None:
            return found[-1]
        for each in found:
            if each.version == number:
                return each
        raise _no_version(number)

    def referring(self, subject: str, word: str) -> list[int]:
        """Return the ids of the schemas that refer to a version."""
        return self._storage.referring(subject, self.version(subject, word).version)

    def find(
        self, subject: str, request: Request, *, normalize: bool = False, deleted: bool = False
    ) -> StoredVersion:
        """Return the version of a subject that has this content."""
        versions = self._storage.versions(subject, deleted=True)
        if not [each for each in versions if deleted or not each.deleted]:
            raise _no_subject(subject)
        content = self._content(request, normalize=normalize)
        schema = self._storage.schema_by_fingerprint(content.fingerprint)
        for each in reversed(versions):
            if schema is not None and each.schema.id == schema.id and (deleted or not each.deleted):
                return each
        raise RegistryRefusal(404, 40403, "Schema not found")

    def _content(self, request: Request, *, normalize: bool = False) -> Content:
        try:
            texts: dict[str, str] = {}
            self._gather(request.references, texts, ())
            return read_content(request.kind, request.text, texts, normalize=normalize)
        except SchemaInvalid as error:
            raise _invalid_schema(error) from None

    def _gather(
        self, references: Iterable[Reference], texts: dict[str, str], outer: tuple[Reference, ...]
    ) -> None:
        """Collect the texts that references name, what they need themselves first."""
        for reference in references:
            if reference.name in texts or reference in outer:
                continue
            if len(texts) >= _REFERENCES_MAX:
                raise SchemaInvalid(f"more than {_REFERENCES_MAX} references")
            versions = self._storage.versions(reference.subject, deleted=True)
            wanted = versions[-1].version if versions and reference.version == -1 else reference.version
            found = next((each for each in versions if each.version == wanted), None)
            if found is None:
                raise SchemaInvalid(
                    f"no version {reference.version} of subject '{reference.subject}', which it refers to"
                )
            self._gather(found.schema.references, texts, (*outer, reference))
            texts[reference.name] = found.schema.text

    def _stored_content(self, schema: StoredSchema) -> Content:
        return self._content(Request(schema.kind, schema.text, schema.references))

    # -- registering ---------------------------------------------------------------------------------------

    def register(self, subject: str, request: Request, *, normalize: bool = False) -> StoredVersion:
        """Register a content under a subject, unless it is its version already; refused when incompatible."""
        with self._storage.changing():
            mode = self.mode(subject)
            content = self._content(request, normalize=normalize)
            schema = self._storage.schema_by_fingerprint(content.fingerprint)
            versions = self._storage.versions(subject)
            for each in versions:
                if (
                    schema is not None
                    and each.schema.id == schema.id
                    and request.version in (None, each.version)
                ):
                    return each
            importing = mode == "IMPORT"
            if mode.startswith("READONLY"):
                raise RegistryRefusal(422, 42205, f"Subject '{subject}' is in read-only mode")
            if importing != (request.id is not None):
                what = "needs an id in IMPORT mode" if importing else "takes an id only in IMPORT mode"
                raise RegistryRefusal(422, 42205, f"Subject '{subject}' {what}")
            if not importing:
                reasons = self._reasons(content, versions, self.compatibility(subject))
                if reasons:
                    what = "Schema being registered is incompatible with an earlier schema"
                    told = ", ".join(reasons)
                    raise RegistryRefusal(409, 409, f'{what} for subject "{subject}", details: [{told}]')
            number = self._keep(schema, content, request)
            version = request.version or self._storage.last_version(subject) + 1
            if importing and any(
                each.version == version for each in self._storage.versions(subject, deleted=True)
            ):
                raise RegistryRefusal(422, 42205, f"Version {version} of subject '{subject}' is taken")
            self._storage.add_version(subject, version, number)
            return next(each for each in self._storage.versions(subject) if each.version == version)

    def _keep(self, schema: StoredSchema | None, content: Content, request: Request) -> int:
        if schema is not None:
            if request.id not in (None, schema.id):
                raise RegistryRefusal(422, 42205, f"The schema has the id {schema.id} already")
            return schema.id
        number = request.id or self._storage.last_id() + 1
        if request.id is not None and self._storage.schema(number) is not None:
            raise RegistryRefusal(422, 42205, f"Id {number} belongs to another schema")
        self._storage.add_schema(
            number, content.guid, content.fingerprint, content.kind, content.text, request.references
        )
        return number

    # -- compatibility -------------------------------------------------------------------------------------

    def check(
        self, subject: str, request: Request, word: str | None, *, normalize: bool = False
    ) -> list[str]:
        """Return why a schema is incompatible with a version; None: with those that the level names."""
        level = self.compatibility(subject)
        if word is None or (_version_of(word) is None and not self._storage.versions(subject)):
            against = self._storage.versions(subject)
        else:
            against = [self.version(subject, word)]
            level = level if level == "NONE" or level.endswith("_TRANSITIVE") else f"{level}_TRANSITIVE"
        return self._reasons(self._content(request, normalize=normalize), against, level)

    def _reasons(self, content: Content, versions: list[StoredVersion], level: str) -> list[str]:
        """Return a text per difference, then the version, the schema and the level of the comparison."""
        if level == "NONE" or not versions:
            return []
        compared = versions if level.endswith("_TRANSITIVE") else versions[-1:]
        direction = level.removesuffix("_TRANSITIVE")
        for stored in reversed(compared):
            old = self._stored_content(stored.schema)
            found = []
            if direction in ("BACKWARD", "FULL"):
                found += [(each, "new", "old") for each in content.problems_reading(old)]
            if direction in ("FORWARD", "FULL"):
                found += [(each, "old", "new") for each in old.problems_reading(content)]
            if found:
                told = [
                    f"{{errorType:'{each.kind}', description:'{each.text}, when the {reader} schema reads "
                    f"data of the {writer} one', path:'{each.path}'}}"
                    for each, reader, writer in found[:_REASONS_MAX]
                ]
                return [
                    *told,
                    f"{{oldSchemaVersion: {stored.version}}}",
                    f"{{oldSchema: '{stored.schema.text}'}}",
                    f"{{compatibility: '{level}'}}",
                ]
        return []

    # -- deleting ------------------------------------------------------------------------------------------

    def delete_subject(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete all versions, softly, or for good those that are softly deleted already."""
        with self._storage.changing():
            self._writable(subject)
            known = self._storage.versions(subject, deleted=True)
            alive = [each for each in known if not each.deleted]
            if not known:
                raise _no_subject(subject)
            if permanent and alive:
                what = f"Subject '{subject}' was not deleted first before being permanently deleted"
                raise RegistryRefusal(404, 40405, what)
            if not permanent and not alive:
                what = f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
                raise RegistryRefusal(404, 40404, what)
            chosen = known if permanent else alive
            for each in chosen:
                self._unreferred(each)
            self._storage.delete_versions(subject, permanent=permanent)
            for name in _DEFAULTS:
                self._storage.set_setting(name, None, subject)
            return [each.version for each in chosen]

    def delete_version(self, subject: str, word: str, *, permanent: bool = False) -> int:
        """Delete one version; see `delete_subject`."""
        with self._storage.changing():
            self._writable(subject)
            found = self.version(subject, word, deleted=True)
            if _version_of(word) is None and not permanent:
                found = self.version(subject, word)
            place = f"Subject '{subject}' Version {found.version}"
            if permanent and not found.deleted:
                what = f"{place} was not deleted first before being permanently deleted"
                raise RegistryRefusal(404, 40407, what)
            if not permanent and found.deleted:
                what = f"{place} was soft deleted. Set permanent=true to delete permanently"
                raise RegistryRefusal(404, 40406, what)
            self._unreferred(found)
            self._storage.delete_versions(subject, found.version, permanent=permanent)
            return found.version

    def _unreferred(self, version: StoredVersion) -> None:
        if self._storage.referring(version.subject, version.version):
            what = f"One or more references exist to the schema {version.subject}:{version.version}"
            raise RegistryRefusal(422, 42206, what)

    def _writable(self, subject: str) -> None:
        if self.mode(subject).startswith("READONLY"):
            raise RegistryRefusal(422, 42205, f"Subject '{subject}' is in read-only mode")

    # -- settings ------------------------------------------------------------------------------------------

    def compatibility(self, subject: str = "") -> str:
        """Return the level that holds for a subject."""
        return self._setting("compatibility", subject) or _DEFAULTS["compatibility"]

    def mode(self, subject: str = "") -> str:
        """Return the mode that holds for a subject; READONLY_OVERRIDE of the whole registry comes first."""
        whole = self._storage.setting("mode") or _DEFAULTS["mode"]
        return whole if whole == "READONLY_OVERRIDE" else self._storage.setting("mode", subject) or whole

    def _setting(self, name: str, subject: str) -> str | None:
        return self._storage.setting(name, subject) or self._storage.setting(name)

    def own_setting(self, name: str, subject: str, *, default_to_global: bool = False) -> str:
        """Return a subject's own `compatibility` or `mode`; refused when it has none."""
        if not subject:
            return self._storage.setting(name) or _DEFAULTS[name]
        found = self._storage.setting(name, subject)
        if found is None and not default_to_global:
            code, what = (
                (40408, "subject-level compatibility")
                if name == "compatibility"
                else (40409, "subject-level mode")
            )
            raise RegistryRefusal(404, code, f"Subject '{subject}' does not have {what} configured")
        if name == "mode":
            return self.mode(subject)
        return found or self.compatibility(subject)

    def set_setting(self, name: str, value: Any, subject: str = "", *, force: bool = False) -> str:
        """Set the level or the mode of a subject, or without one of the whole registry."""
        known, code = (COMPATIBILITIES, 42203) if name == "compatibility" else (MODES, 42204)
        word = value.upper() if isinstance(value, str) else ""
        if word not in known or (name == "mode" and word == "READONLY_OVERRIDE" and subject):
            raise RegistryRefusal(422, code, f"Invalid {name}. Valid values are: {', '.join(known)}")
        with self._storage.changing():
            if name == "mode" and word == "IMPORT" and not force:
                found = self._storage.versions(subject) if subject else self._storage.all_versions()
                if found and self._setting("mode", subject) != "IMPORT":
                    what = "Cannot import since found existing subjects"
                    raise RegistryRefusal(422, 42205, what)
            self._storage.set_setting(name, word, subject)
        return word

    def drop_setting(self, name: str, subject: str) -> str:
        """Let a subject follow the whole registry again; returns what it had."""
        before = self.own_setting(name, subject)
        with self._storage.changing():
            self._storage.set_setting(name, None, subject)
        return before

    def reset_setting(self, name: str) -> None:
        """Let the whole registry have the default again."""
        with self._storage.changing():
            self._storage.set_setting(name, None)

    @staticmethod
    def kinds() -> list[str]:
        """Return the kinds of schema that can be registered."""
        return sorted(KINDS, reverse=True)


def _version_of(word: str) -> int | None:
    """Return the number; None for the latest."""
    if word in ("latest", "-1"):
        return None
    if not word.isdecimal() or not 1 <= int(word) <= _VERSION_MAX:
        what = "It should be between 1 and 2^31-1, or latest"
        raise RegistryRefusal(
            422, 42202, f"The specified version '{word[:50]}' is not a valid version id. {what}."
        )
    return int(word)
