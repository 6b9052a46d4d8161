"""What an engine's process does with memory that it needs no more."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

ASK = """
import pyarrow as pa
from headrace.store.memory import return_freed_memory

return_freed_memory()
print(pa.default_memory_pool().backend_name)
"""


def pool_of_a_process(**variables: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=inherited | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="this Arrow has no jemalloc")
def test_arrow_takes_its_memory_from_the_allocator_that_gives_back_most() -> None:
    assert pool_of_a_process() == "jemalloc"


def test_who_chose_an_allocator_for_arrow_gets_it() -> None:
    assert pool_of_a_process(ARROW_DEFAULT_MEMORY_POOL="system") == "system"
