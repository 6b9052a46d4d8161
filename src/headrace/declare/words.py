"""Words for people: finds the one that an author meant, and makes a stranger's safe to print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["counted", "did_you_mean", "listed", "nearest", "printable"]

_LISTED_MAX = 12


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like `word`, case ignored; None when none is near."""
    from difflib import get_close_matches  # needed only once something is wrong: `import headrace` stays fast

    spelling = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), spelling, n=1, cutoff=0.6)
    return spelling[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'X'?"`, or nothing when no known word is near."""
    found = nearest(word, known)
    return f"; did you mean '{found}'?" if found else ""


def counted(count: int, what: str) -> str:
    """Return a number of things: `1 record`, `12,345 records`; `what` is the word for several."""
    one = what.removesuffix("es" if what.endswith("ches") else "s")
    return f"{count:,} {what if count != 1 else one}"


def listed(names: Sequence[str]) -> str:
    """Return the first names, `…` when there are more; `none` when there are none."""
    return ", ".join([*names[:_LISTED_MAX], *("…" for _ in names[_LISTED_MAX : _LISTED_MAX + 1])]) or "none"


def printable(text: str, keep: str = "") -> str:
    """Return text that cannot command a terminal: what is not printable, nor in `keep`, is escaped."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode()
        for sign in text
    )
