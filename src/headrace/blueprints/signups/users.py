"""Makes a record of a user as the API gives it. The poller calls `flatten` for each one."""

from datetime import datetime
from typing import Any


def flatten(user: dict[str, Any], polled_at: datetime) -> dict[str, Any]:
    """Return the record of a user.

    A field that is missing raises KeyError, and one of another shape TypeError: the poller then appends the
    user as it came, and the pipeline sets it aside as a dead letter.
    """
    place, street = user["location"], user["location"]["street"]
    address = f"{street['number']} {street['name']}, {place['city']}, {place['state']}, {place['country']}"
    return {
        "id": user["login"]["uuid"],
        "polled_at": polled_at.isoformat(),
        "first_name": user["name"]["first"],
        "last_name": user["name"]["last"],
        "gender": user["gender"],
        "address": address,
        "post_code": str(place["postcode"]),
        "email": user["email"],
        "username": user["login"]["username"],
        "registered_date": user["registered"]["date"],
        "phone": user["phone"],
        "picture": user["picture"]["medium"],
    }
