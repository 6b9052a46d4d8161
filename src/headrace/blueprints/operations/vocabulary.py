"""What the services, pages and payments of the example are called, and how often each comes."""

from __future__ import annotations

import numpy as np

from headrace.produce.kernels import string_table

__all__ = [
    "CURRENCIES",
    "HOSTS",
    "KINDS",
    "KIND_SHARES",
    "LEVELS",
    "LEVEL_SHARES",
    "LEVEL_SHARES_IN_TROUBLE",
    "MESSAGES",
    "MESSAGES_PER_LEVEL",
    "PAGES",
    "REFERRERS",
    "SERVICES",
    "SERVICE_MS",
    "STATUSES",
    "STATUS_SHARES",
    "STATUS_SHARES_IN_TROUBLE",
]

KINDS = ("log", "click", "transaction")
KIND_SHARES = np.cumsum([0.6, 0.25, 0.15])

SERVICES = ("gateway", "checkout", "payments", "search", "catalogue", "accounts")
SERVICE_MS = np.array([12.0, 45.0, 80.0, 60.0, 20.0, 30.0])
"""The median duration of each service's calls."""
HOSTS = 3
LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")
LEVEL_SHARES = np.cumsum([0.15, 0.77, 0.07, 0.01])
LEVEL_SHARES_IN_TROUBLE = np.cumsum([0.05, 0.35, 0.15, 0.45])

MESSAGES_PER_LEVEL = 4
MESSAGES = string_table(
    [
        *("cache looked up", "connection reused", "query planned", "token still valid"),
        *("request served", "session opened", "order passed on", "page rendered"),
        *("answer was slow", "tried again", "queue is filling", "old client version"),
        *("request failed", "connection refused", "timed out after 5 s", "answer was not readable"),
    ]
)
"""Four of each level, in the order of LEVELS."""

PAGES = string_table(["/", "/search", "/product", "/cart", "/checkout", "/account", "/help", "/offers"])
REFERRERS = string_table(["", "search engine", "newsletter", "social network", "partner"])

CURRENCIES = ("EUR", "USD", "GBP")
STATUSES = ("ok", "failed", "pending")
STATUS_SHARES = np.cumsum([0.94, 0.02, 0.04])
STATUS_SHARES_IN_TROUBLE = np.cumsum([0.35, 0.6, 0.05])
