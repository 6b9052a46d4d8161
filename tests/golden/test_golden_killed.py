"""Golden cases in processes that are killed after every step of an epoch; the answers never change."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import canonical
import pytest
from golden_case import load_case

pytestmark = [pytest.mark.soak, pytest.mark.untraced, pytest.mark.timeout(1800)]

CASES = (
    "conflicting_duplicates",
    "count_distinct",
    "every_outcome",
    "having_is_left_again",
    "reference_join",
    "rows_latest_by_key",
    "sessions_merge_across_epochs",
    "two_streams",
    "unnest_items",
)
_CHILD = Path(__file__).with_name("killed_child.py")
_STEPS_MAX = 100


@pytest.mark.parametrize("name", CASES)
def test_a_case_whose_process_is_killed_after_every_step_gives_what_is_expected(
    name: str, tmp_path: Path
) -> None:
    killed_after = set()
    # Each process lives a step longer than the one before.
    for step in range(1, _STEPS_MAX):
        words = [sys.executable, str(_CHILD), name, str(tmp_path), str(step)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed_after.add(done.stderr.split()[-1].partition(":")[0])
    assert killed_after >= {"read", "table", "outcomes", "ledger", "commit"}
    different = canonical.differences(load_case(name).expected, json.loads(done.stdout))
    assert not different, "\n".join(different[:20])
