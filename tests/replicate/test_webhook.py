"""The webhook replica passes what every replica has to pass, and what is its own, on a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from json_targets import WebhookTarget

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError
from headrace.operate.secrets import Secret
from headrace.replicate.protocol import Position
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


@pytest.fixture
def target(tmp_path: Path) -> Iterator[WebhookTarget]:
    target = WebhookTarget(tmp_path / "cursors")
    yield target
    target.stop()


def test_two_pipelines_post_to_one_endpoint_under_keys_of_their_own(
    target: WebhookTarget, tmp_path: Path
) -> None:
    theirs = replace(FIRST, store_id="another-store")
    for folder, cursor, who in (("ours", FIRST, "ann"), ("theirs", theirs, "bob")):
        with opened(target, path=str(tmp_path / folder)) as writer:
            writer.take(THINGS.name, None, cursor)
            writer.write(chunk([thing(who, 1)], epoch=1, cursor=cursor))
    assert {row["who"] for row in target.rows(THINGS.name)} == {"ann", "bob"}


class TestWebhook(ReplicaConformance):
    test_a_column_of_another_type_is_refused_with_what_to_do = None  # an endpoint has no types
    test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks = None  # a million are, in the soak

    @pytest.mark.parametrize("code", [429, 408, 500, 503])
    def test_what_is_not_ready_is_posted_again_with_the_same_key(
        self, target: WebhookTarget, code: int
    ) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            target.answers = [code]
            with pytest.raises(TransientError, match=str(code)):
                writer.write(chunk([thing("ann", 1)], epoch=1))
        with opened(target) as writer:  # another writer, which nobody gave the chunk to
            assert writer.cursors()[THINGS.name].position == Position.at(1)
        assert target.posts == ["a-store/copy/some%20%22things%22/1/1-1--1"] * 2
        assert len(target.rows(THINGS.name)) == 1

    @pytest.mark.parametrize("written", ["an older build", "another build", "half a file"])
    def test_a_body_that_another_build_wrote_down_is_not_posted_and_its_changes_are(
        self, target: WebhookTarget, written: str
    ) -> None:
        rows = [thing("ann", 1)]
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            target.answers = [503]
            with pytest.raises(TransientError):
                writer.write(chunk(rows, epoch=1))
        (path,) = target.folder.glob("*.pending.json")
        facts = json.loads(path.read_text())
        if written == "an older build":
            facts["body"] = json.dumps({**facts["body"], "rows": [{"who": "ann", "_version": 1}]})
        else:
            facts["body"]["rows"] = [{"who": "ann", "_version": 1}]
        path.write_text(json.dumps(facts)[: 20 if written == "half a file" else None])
        with opened(target) as writer:
            assert writer.cursors() == {THINGS.name: FIRST}
            assert len(target.posts) == 1
            second = replace(FIRST, generation=2)
            writer.take(THINGS.name, FIRST, second)
            writer.write(chunk(rows, epoch=1, cursor=second))
        assert target.posts[1] == "a-store/copy/some%20%22things%22/2/1-1--1"
        assert len(target.rows(THINGS.name)) == 1
        assert not path.exists()

    def test_a_body_of_the_build_before_sweeps_had_a_beginning_is_posted(self, target: WebhookTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            target.answers = [503]
            with pytest.raises(TransientError):
                writer.write(chunk([thing("ann", 1)], epoch=1))
        (path,) = target.folder.glob("*.pending.json")
        facts = json.loads(path.read_text())
        del facts["body"]["sweep_from"], facts["cursor"]["kept_below"]
        path.write_text(json.dumps(facts))
        with opened(target) as writer:
            assert writer.cursors()[THINGS.name].position == Position.at(1)
        assert target.posts == ["a-store/copy/some%20%22things%22/1/1-1--1"] * 2

    @pytest.mark.parametrize("code", [302, 404])
    def test_what_an_operator_must_see_to_stands_still(self, target: WebhookTarget, code: int) -> None:
        secret = Secret("Bearer of a secret")
        with opened(target, authorization=secret) as writer:
            writer.take(THINGS.name, None, FIRST)
            target.answers = [code]
            with pytest.raises(RefusedError, match=str(code)) as raised:
                writer.write(chunk([thing("ann", 1)], epoch=1))
        assert target.authorization == "Bearer of a secret"
        assert "secret" not in str(raised.value)

    def test_only_the_rows_to_blame_are_set_aside(self, target: WebhookTarget) -> None:
        target.refuse(THINGS.name)
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing(f"user {i}", i) for i in range(30)], epoch=1))
            assert len(target.rows(THINGS.name)) == 29
            assert len(target.posts) == len(set(target.posts))
            second = replace(FIRST, generation=2)
            writer.take(THINGS.name, replace(FIRST, position=Position.at(1)), second)

    def test_a_server_that_is_not_there_is_tried_again(self, target: WebhookTarget) -> None:
        with opened(target) as writer, target.outage():
            writer.take(THINGS.name, None, FIRST)
            with pytest.raises(TransientError, match="cannot be reached"):
                writer.write(chunk([thing("ann", 1)], epoch=1))

    @pytest.mark.parametrize("url", ["ftp://host/x", "host", "https://me:pw@host/x"])
    def test_an_address_that_is_none_is_refused_without_being_shown(
        self, target: WebhookTarget, url: str
    ) -> None:
        with pytest.raises(ProfileError) as raised, opened(target, url=url):
            pass
        error: HeadraceError = raised.value
        assert "pw" not in str(error)
