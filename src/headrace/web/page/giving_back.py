"""Letters on their way back, as a request to the page chooses and changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import RefusedError
from headrace.operate.redrive import Address, Change, replace_exactly, set_fields
from headrace.operate.redrive_parts import GoingBack

if TYPE_CHECKING:
    from headrace.operate import Runtime
    from headrace.web.page.models_records import Redrive

__all__ = ["going_back"]


def going_back(runtime: Runtime, asked: Redrive) -> GoingBack:
    """Return the letters that a request chose; of a group, `rule` is the first that they broke.

    Raises RefusedError for a request that says too little or too much.
    """
    return GoingBack(
        runtime.answers,  # the client that a command would open
        _change_of(asked),
        addresses=[Address.parse(each) for each in asked.addresses],
        stream=asked.stream,
        outcome=asked.outcome,
        first_rule=asked.rule,
    )


def _change_of(asked: Redrive) -> Change | None:
    if not asked.addresses and asked.stream is None and asked.outcome is None and asked.rule is None:
        raise RefusedError("nothing was chosen", fix="name addresses, or a stream, an outcome or a rule")
    if asked.value is not None and asked.assignments:
        raise RefusedError("a new record and fields at once", fix="give one of them")
    if asked.value is not None and len(asked.addresses) != 1:
        raise RefusedError("a new record stands for one address", fix="choose one record")
    if asked.value is not None:
        return replace_exactly(asked.value.encode("utf-8", "surrogatepass"))
    return set_fields(asked.assignments) if asked.assignments else None
