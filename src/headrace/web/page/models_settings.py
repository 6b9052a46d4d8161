"""What the page's API answers and takes about the journal, settings and replicas; see `models`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["ChangeSetting", "JournalLine", "JournalPage", "ReplicaTold", "SettingChange", "Settings"]


class JournalLine(BaseModel):
    """A line of the journal; `facts` is what it says beside time, level and event."""

    at: str
    level: str
    event: str
    facts: dict[str, Any]


class JournalPage(BaseModel):
    """Lines of the journal, oldest first."""

    lines: list[JournalLine]


class SettingLine(BaseModel):
    """An option; `changeable` is the key by which it may change while the pipeline runs, or nothing.

    `origin` says where its value comes from: a default, the profile, whoever started the producer, or a
    change at run time. `choices` are the words that it may be; nothing where it takes more than words.
    """

    key: str
    value: str
    origin: Literal["default", "profile", "producer", "run"]
    help: str
    changeable: str = ""
    choices: list[str] = Field(default_factory=list)


class SettingChange(BaseModel):
    """A change that was or would be made; `profile` is the line of headrace.toml that says the same."""

    key: str
    before: str
    after: str
    effect: str
    profile: str
    at: str


class ChangeSetting(BaseModel):
    """What a setting is to be, as the profile would say it, without quotes."""

    key: str = Field(max_length=100)
    value: str = Field(max_length=200)


class SettingSection(BaseModel):
    title: str
    lines: list[SettingLine]


class Settings(BaseModel):
    """The effective profile; a secret is never shown. `changes` at run time, the newest first."""

    profile: str
    file: str
    sections: list[SettingSection]
    changes: list[SettingChange]


class ReplicaTold(BaseModel):
    """What a replica was told."""

    replica: str
    action: str
