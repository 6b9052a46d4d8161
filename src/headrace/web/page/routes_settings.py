"""Routes about the run's surroundings: its journal, its settings, and what its replicas can be told."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from headrace.declare.durations import format_duration
from headrace.operate.changing import JOURNAL_LEVEL, Change, RunSettings, poller_key, rate_key
from headrace.operate.journal_reading import Part
from headrace.operate.profiles import PROFILE_FILE, Profile
from headrace.operate.secrets import Secret
from headrace.web.page import models_settings as models
from headrace.web.page.models import REFUSED
from headrace.web.page.sources import PageSources

__all__ = ["settings_routes"]

_HIDDEN = "••••••"
_LAST_SECOND = 4_102_444_800  # the year 2100


def settings_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api", tags=["settings"], responses={422: REFUSED})

    @router.get("/journal")
    def journal(
        level: Literal["info", "warning", "error"] = "info",
        contains: Annotated[str, Query(max_length=200)] = "",
        part: Part | None = None,
        limit: Annotated[int, Query(ge=1, le=2_000)] = 500,
        since: Annotated[float, Query(ge=0, le=_LAST_SECOND)] = 0,
        until: Annotated[float, Query(ge=0, le=_LAST_SECOND)] = _LAST_SECOND,
    ) -> models.JournalPage:
        """The last lines of the journal, oldest first: of this level or worse, of one part, of some time."""
        between = (datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC))
        lines = sources.journal(level=level, text=contains, limit=limit, part=part, between=between)
        return models.JournalPage(lines=[models.JournalLine(**line) for line in lines])

    @router.get("/settings")
    def settings() -> models.Settings:
        """The effective profile: every option, and where its value comes from."""
        profile = sources.runtime.project.profile
        return models.Settings(
            profile=profile.name,
            file=PROFILE_FILE,
            sections=_sections(sources, profile),
            changes=[_change(each) for each in sources.runtime.settings.changes()],
        )

    @router.post("/settings/preview")
    def preview(asked: models.ChangeSetting) -> models.SettingChange:
        """What a change of a setting would do; nothing is done."""
        return _change(sources.runtime.settings.preview(asked.key, asked.value))

    @router.post("/settings/change")
    def change(asked: models.ChangeSetting) -> models.SettingChange:
        """Change a setting, in this run and in later ones."""
        return _change(sources.runtime.settings.change(asked.key, asked.value))

    @router.post("/settings/undo")
    def undo() -> models.SettingChange:
        """Take the last change back, and say which it was."""
        return _change(sources.runtime.settings.undo())

    @router.post("/replicas/{name}/{action}")
    def tell(
        name: Annotated[str, Path(max_length=200)], action: Literal["pause", "resume"]
    ) -> models.ReplicaTold:
        """Pause or resume a replica, in this run and in later ones."""
        sources.runtime.replicas.tell(name, action)
        return models.ReplicaTold(replica=name, action=action)

    return router


def _change(change: Change) -> models.SettingChange:
    return models.SettingChange(**dataclasses.asdict(change))


def _sections(sources: PageSources, profile: Profile) -> list[models.SettingSection]:
    settings = sources.runtime.settings
    level = models.SettingLine(
        key="level",
        value=settings.value(JOURNAL_LEVEL),
        origin="default",
        help="the least level of lines that the run writes about itself",
    )
    found = [models.SettingSection(title="journal", lines=[level])]
    producers = _producers(settings)
    if producers:
        found.append(models.SettingSection(title="producers", lines=producers))
    found += [_section(f"streams.{name}", profile.stream(name)) for name in sources.runtime.plan.streams]
    for line in dataclasses.fields(Profile):
        value = getattr(profile, line.name)
        if dataclasses.is_dataclass(value):
            found.append(_section(line.name, value))
    found += [_section(f"replicas.{name}", options) for name, options in profile.replicas.items()]
    for section in found:
        for shown in section.lines:
            key = f"{section.title}.{shown.key}"
            if key in settings.keys:
                shown.changeable, shown.value = key, settings.value(key)
                shown.choices = list(settings.choices(key))
                if settings.changed(key):
                    shown.origin = "run"
    return found


def _producers(settings: RunSettings) -> list[models.SettingLine]:
    """Return the rates of the generators that run, and whether pollers work."""
    changed = {each.key for each in settings.changes()}
    rates = [
        models.SettingLine(
            key=f"{stream}.rate",
            value=rate,
            origin="run" if rate_key(stream) in changed else "producer",
            help="events a second of the generator, until it ends; unlimited: as many as the log takes; "
            "paused: none",
            changeable=rate_key(stream),
        )
        for stream, rate in settings.rates().items()
    ]
    pollers = [
        models.SettingLine(
            key=f"{stream}.poller",
            value=settings.value(poller_key(stream)),
            origin="default",
            help="whether the API of this stream is polled; paused: it goes on later where it stood",
        )
        for stream in settings.pollers()
    ]
    return rates + pollers


def _section(title: str, options: Any) -> models.SettingSection:
    lines = [
        models.SettingLine(
            key=each.name,
            value=_shown(getattr(options, each.name)),
            origin="default" if getattr(options, each.name) == each.default else "profile",
            help=each.metadata["help"],
        )
        for each in dataclasses.fields(options)
        if "help" in each.metadata
    ]
    return models.SettingSection(title=title, lines=lines)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Secret):
        return _HIDDEN
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple | list):
        return ", ".join(str(each) for each in value) or "none"
    if isinstance(value, dict):
        # What a client library is told may be a password.
        return ", ".join(f"{name} = {_HIDDEN}" for name in value) or "none"
    return str(value)
