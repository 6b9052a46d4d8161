"""Prints the description of the page's API: `python -m headrace.web.page.describe`."""

from __future__ import annotations

import json
import sys

from headrace.web.page.app import openapi_document

__all__ = ["description"]


def description() -> str:
    """Return the OpenAPI document as the checkout keeps it."""
    return json.dumps(openapi_document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(description())
