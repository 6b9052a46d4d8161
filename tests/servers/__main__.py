"""Fetches the jars of every server, or of those that are named."""

import sys

from servers.jars import POMS, ServerMissing, fetched

for name in sys.argv[1:] or sorted(folder.name for folder in POMS.iterdir()):
    try:
        print(f"{name}: {fetched(name)}")
    except ServerMissing as missing:
        sys.exit(str(missing))
