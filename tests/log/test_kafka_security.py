"""Users, passwords, certificates and tokens: on a real broker with a listener for each way."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from headrace.engine.spark.engine import refuse_unfit
from headrace.engine.spark.fetching import RangeReader
from headrace.engine.spark.task import LaneTask
from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.backoff import when_ready
from headrace.log.kafka import KafkaLog, KafkaSecurity, KafkaSettings, open_kafka_log
from headrace.operate.project import load_project
from headrace.operate.runtime import open_log
from log.certificates import Authority
from log.kafka_streams import Counted, admin, make_topic, ones, take, topic_name
from log.token_endpoint import AUDIENCE, ISSUER, TokenEndpoint, token_endpoint
from servers.guard import free_ports, wait_until
from servers.kafka import TEST_JVM, KafkaBroker, kafka_broker

PASSWORD = "tops3cret"
WRONG = "wr0ng-secret"
LISTENERS = {
    "SCRAM": "SASL_SSL",
    "SCRAM512": "SASL_SSL",
    "TLS": "SSL",
    "MTLS": "SSL",
    "PLAIN": "SASL_PLAINTEXT",
    "OAUTH": "SASL_PLAINTEXT",
}


@dataclass
class Guarded:
    broker: KafkaBroker
    ca: Path
    other_ca: Path
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]
    tokens: TokenEndpoint

    def scram(self, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        return {
            "mechanism": "SCRAM-SHA-256",
            "user": "ada",
            "password": password,
            "ca": str(self.ca),
            **more,
        }

    def plain(self, password: str = PASSWORD) -> dict[str, Any]:
        return {"mechanism": "PLAIN", "user": "ada", "password": password}

    def oauth(self, secret: str = PASSWORD) -> dict[str, Any]:
        return {
            "mechanism": "OAUTHBEARER",
            "client_id": "ada",
            "client_secret": secret,
            "token_url": self.tokens.url,
        }

    def works(self, listener: str, **security: Any) -> None:
        """Append and read through a listener."""
        settings = self.settings(listener, security)
        log = open_kafka_log(settings, "events")
        try:
            log.append(ones(3))
            assert take(log).records.num_rows == 3
        finally:
            log.close()

    def fails(self, listener: str, **security: Any) -> HeadraceError:
        """Open, which must fail soon and say no secret."""
        settings = self.settings(listener, security)
        began = time.monotonic()
        with pytest.raises(HeadraceError) as told:
            open_kafka_log(settings, "events")
        assert time.monotonic() - began < 10
        for text in (str(told.value), repr(told.value), repr(settings), repr(pickle.dumps(told.value))):
            assert PASSWORD not in text and WRONG not in text
        return told.value

    def set_password(self, password: str) -> None:
        """Give the user another password, on the brokers alone."""
        client = admin(self.broker.bootstrap)
        wait_until(lambda: bool(client.list_topics(timeout=5).brokers), what="the broker answers")
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        wanted = UserScramCredentialUpsertion("ada", how, password.encode())
        client.alter_user_scram_credentials([wanted])["ada"].result(20)

    def forbid(self, topic: str, what: AclOperation) -> None:
        """Let the user do everything with a topic but that."""
        client, place = admin(self.broker.bootstrap), (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
        rules = {AclOperation.ALL: AclPermissionType.ALLOW, what: AclPermissionType.DENY}
        wanted = [AclBinding(*place, "User:ada", "*", each, how) for each, how in rules.items()]
        for done in client.create_acls(wanted).values():
            done.result(20)
        every = AclBindingFilter(*place, None, None, AclOperation.ANY, AclPermissionType.ANY)
        wait_until(lambda: len(client.describe_acls(every).result(20)) == 2, what="the broker knows them")

    def settings(self, listener: str, security: Mapping[str, Any]) -> KafkaSettings:
        return KafkaSettings(
            brokers=self.broker.addresses[listener],
            topic=topic_name(),
            partitions=1,
            security=KafkaSecurity(**security),
        )


def broker_properties(certificate: Path, ca: Path, keys: Path) -> dict[str, str]:
    modules = "org.apache.kafka.common.security"
    scram = f"{modules}.scram.ScramLoginModule required;"
    oauth = "listener.name.oauth"
    return {
        # Who has no rule is let in, so that rules are for the tests of rules.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca),
        "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "listener.name.scram.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.scram512.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram512.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": (
            f'{modules}.plain.PlainLoginModule required user_ada="{PASSWORD}";'
        ),
        f"{oauth}.sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{oauth}.oauthbearer.sasl.jaas.config": f"{modules}.oauthbearer.OAuthBearerLoginModule required;",
        f"{oauth}.oauthbearer.sasl.server.callback.handler.class": (
            f"{modules}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        f"{oauth}.sasl.oauthbearer.jwks.endpoint.url": keys.as_uri(),
        f"{oauth}.sasl.oauthbearer.expected.audience": AUDIENCE,
        f"{oauth}.sasl.oauthbearer.expected.issuer": ISSUER,
    }


@pytest.fixture(scope="module")
def guarded(kafka_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    certificate, key = authority.signed("broker")
    both = folder / "broker.pem"
    both.write_text(key.read_text() + certificate.read_text())
    with ExitStack() as undo:
        tokens = undo.enter_context(token_endpoint(folder, "ada", PASSWORD))
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={tokens.keys.as_uri()}"
        broker = undo.enter_context(
            kafka_broker(
                broker_properties(both, authority.ca, tokens.keys),
                listeners=LISTENERS,
                scram_users={"ada": PASSWORD},
                jvm=(*TEST_JVM, allowed),
            )
        )
        client, stranger = authority.signed("client", PASSWORD), other.signed("stranger")
        yield Guarded(broker, authority.ca, other.ca, client, stranger, tokens)


# --- who the client is


def test_scram_over_tls(guarded: Guarded) -> None:
    guarded.works("SCRAM", **guarded.scram())


def test_scram_with_the_longer_hash(guarded: Guarded) -> None:
    longer = {**guarded.scram(), "mechanism": "SCRAM-SHA-512"}
    guarded.works("SCRAM512", **longer)
    for told in (
        guarded.fails("SCRAM512", **{**longer, "password": WRONG}),
        guarded.fails("SCRAM512", **guarded.scram()),  # this listener takes no other
    ):
        assert isinstance(told, RefusedError)


def test_a_wrong_password_is_refused_soon_and_not_repeated(guarded: Guarded) -> None:
    told = guarded.fails("SCRAM", **guarded.scram(WRONG))
    assert isinstance(told, RefusedError)
    assert "the brokers refuse the user, password or token" in str(told)


def test_plain_with_a_right_and_a_wrong_password(guarded: Guarded) -> None:
    guarded.works("PLAIN", **guarded.plain())
    told = guarded.fails("PLAIN", **guarded.plain(WRONG))
    assert isinstance(told, RefusedError)


def test_a_mechanism_that_the_listener_does_not_take_is_refused(guarded: Guarded) -> None:
    security = {**guarded.scram(), "mechanism": "PLAIN"}
    assert isinstance(guarded.fails("SCRAM", **security), RefusedError)


def test_a_token_of_an_endpoint(guarded: Guarded) -> None:
    guarded.works("OAUTH", **guarded.oauth())
    assert guarded.tokens.given > 0


def test_a_client_secret_that_the_token_endpoint_refuses(guarded: Guarded) -> None:
    assert isinstance(guarded.fails("OAUTH", **guarded.oauth(WRONG)), RefusedError)


def test_a_token_endpoint_that_is_down_is_waited_for(guarded: Guarded) -> None:
    [port] = free_ports(1)
    told = guarded.fails("OAUTH", **{**guarded.oauth(), "token_url": f"http://127.0.0.1:{port}/token"})
    assert isinstance(told, TransientError)
    assert "the token endpoint gives no token" in str(told)


# --- whom the client trusts, and who trusts it


def test_tls_without_a_user(guarded: Guarded) -> None:
    guarded.works("TLS", ca=str(guarded.ca))


def test_a_broker_of_another_ca_is_refused(guarded: Guarded) -> None:
    told = guarded.fails("SCRAM", **guarded.scram(ca=str(guarded.other_ca)))
    assert isinstance(told, RefusedError)
    assert "the certificate or the CA does not fit" in str(told)


def test_a_ca_file_that_is_not_there_is_named(guarded: Guarded) -> None:
    told = guarded.fails("TLS", ca="/nowhere/ca.pem")
    assert isinstance(told, RefusedError)
    assert "ssl.ca.location" in str(told)


def test_a_client_shows_a_certificate_of_its_own(guarded: Guarded) -> None:
    certificate, key = guarded.client
    own = {"certificate": str(certificate), "key": str(key), "ca": str(guarded.ca)}
    guarded.works("MTLS", key_password=PASSWORD, **own)
    assert isinstance(guarded.fails("MTLS", key_password=WRONG, **own), RefusedError)


@pytest.mark.parametrize("whose", ["nobody", "stranger"])
def test_a_client_without_a_certificate_that_the_broker_trusts_is_refused(
    guarded: Guarded, whose: str
) -> None:
    certificate, key = guarded.stranger
    own = {"certificate": str(certificate), "key": str(key)} if whose == "stranger" else {}
    told = guarded.fails("MTLS", ca=str(guarded.ca), **own)
    assert isinstance(told, RefusedError)
    assert "the brokers want a certificate of the client" in str(told)


# --- the wrong door


def test_a_client_without_tls_at_a_listener_with_it_is_told_what_to_look_at(guarded: Guarded) -> None:
    told = guarded.fails("TLS")
    assert "takes connections, but gives no answer to Kafka's protocol over PLAINTEXT" in str(told)
    assert "which security this listener wants" in str(told)


def test_a_client_with_tls_at_a_listener_without_it_is_told_what_to_look_at(guarded: Guarded) -> None:
    told = guarded.fails("PLAINTEXT", ca=str(guarded.ca))
    assert "does not answer to TLS" in str(told)


@pytest.mark.slow
def test_a_guarded_broker_that_was_killed_is_waited_for_and_not_mistaken_for_one_that_refuses(
    guarded: Guarded,
) -> None:
    log = open_kafka_log(guarded.settings("SCRAM", guarded.scram()), "events")
    log.append(ones(2))
    assert take(log).records.num_rows == 2
    guarded.broker.kill()
    guarded.broker.start(wait=False)

    def back() -> bool:
        try:
            return take(log, {0: 0}).records.num_rows == 2
        except TransientError:
            return False

    with pytest.raises(TransientError):
        take(log, {0: 0})
    wait_until(back, what="the broker is back", seconds=60, process=guarded.broker.process)
    log.close()


@pytest.mark.soak
def test_a_run_whose_password_is_refused_in_mid_run_goes_on_alone_when_the_brokers_take_it_again(
    guarded: Guarded, tmp_path: Path
) -> None:
    log = open_kafka_log(guarded.settings("SCRAM", guarded.scram()), "events")
    with Counted(log, tmp_path) as run:
        log.append(ones(5))
        run.wait_for(5)
        try:
            guarded.set_password(WRONG)
            guarded.broker.kill()
            guarded.broker.start()
            wait_until(
                lambda: any("refuse the user" in str(each) for each in run.waits) or run.failure is not None,
                what="the run says why it waits",
                seconds=60,
            )
        finally:
            guarded.set_password(PASSWORD)
        when_ready(lambda: log.append(ones(2)), threading.Event(), lambda pause: None)
        run.wait_for(7)
        run.stop()
        assert run.waits[-1] is None
        assert run.total() == (7, 7)
        assert PASSWORD not in str(run.waits) and WRONG not in str(run.waits)
    log.close()


# --- what the user may do


@pytest.mark.parametrize("forbidden", ["READ", "WRITE", "DESCRIBE"])
def test_a_user_who_may_not_use_a_topic_is_told_so(guarded: Guarded, forbidden: str) -> None:
    settings = guarded.settings("PLAIN", guarded.plain())
    make_topic(guarded.broker.bootstrap, settings.topic)
    guarded.forbid(settings.topic, AclOperation[forbidden])
    with ExitStack() as undo, pytest.raises(RefusedError, match="the user may not use this topic"):
        log = open_kafka_log(settings, "events")
        undo.callback(log.close)
        if forbidden == "WRITE":
            log.append(ones(1))
        else:
            wait_until(lambda: take(log, {0: 0}).records.num_rows > 0, what="it is refused")


def test_a_lane_that_the_user_may_not_change_is_told_with_what_mends_it(guarded: Guarded) -> None:
    settings = replace(guarded.settings("PLAIN", guarded.plain()), retention=timedelta(days=2))
    lane = f"{settings.topic}.redrive"
    make_topic(guarded.broker.bootstrap, lane, retention_ms="86400000")
    guarded.forbid(lane, AclOperation.ALTER_CONFIGS)
    log = open_kafka_log(settings, "events")
    log.append(ones(2))
    log.lane("redrive").append(ones(1))
    [warning] = log.warnings
    assert "has retention 1 day and needs 2 days" in warning
    assert f"--entity-name {lane} --add-config retention.ms=172800000" in warning
    assert not log.creation_times
    refuse_unfit({"events": log})  # Spark may run over it
    log.close()


# --- through a profile

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("guarded")
pipeline.stream("events", schema="n BIGINT NOT NULL")
pipeline.table("total", "SELECT count(*) AS records FROM events")
"""
PROFILE = """
[profiles.kafka]
streams.events = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}", partitions = 1, tls = "yes", \
ca = "{ca}", sasl = "SCRAM-SHA-256", user = "ada", password = "${{env:KAFKA_PASSWORD}}" }}
"""


@pytest.mark.slow
def test_a_profile_takes_the_password_from_the_environment_and_tells_it_to_nobody(
    guarded: Guarded, tmp_path: Path
) -> None:
    address = guarded.broker.addresses["SCRAM"]
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    profile = PROFILE.format(brokers=address, topic=topic_name(), ca=guarded.ca)
    (tmp_path / "headrace.toml").write_text(profile)
    (tmp_path / "events.ndjson").write_text('{"n": 1}\n{"n": 2}\n')

    def headrace(*words: str, password: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headrace", *words, "--profile", "kafka"]
        environment = {**os.environ, "KAFKA_PASSWORD": password}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False
        )

    sent = headrace("produce", "events", "events.ndjson", password=PASSWORD)
    assert sent.returncode == 0, sent.stderr
    ran = headrace("run", "--until-caught-up", password=PASSWORD)
    assert ran.returncode == 0, ran.stderr
    assert "2 accepted" in ran.stdout
    refused = headrace("run", "--until-caught-up", password=WRONG)
    assert refused.returncode == 1
    assert "the brokers refuse the user, password or token" in refused.stderr
    said = [each for done in (sent, ran, refused) for each in (done.stdout, done.stderr)]
    journal = (tmp_path / ".headrace/logs/headrace.log").read_text()
    assert json.loads(journal.splitlines()[0])["event"] == "run started"
    for text in (*said, journal):
        assert PASSWORD not in text and WRONG not in text


@pytest.mark.parametrize("listener", ["MTLS", "OAUTH"])
def test_a_profile_gives_a_certificate_or_a_client_of_a_token_endpoint(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: str
) -> None:
    certificate, key = guarded.client
    own = f'ca = "{guarded.ca}", certificate = "{certificate}", key = "{key}"'
    opens = 'key_password = "${env:SECRET}"'
    token = f'token_url = "{guarded.tokens.url}", client_id = "ada", client_secret = "${{env:SECRET}}"'
    security = f"{own}, {opens}" if listener == "MTLS" else f'sasl = "OAUTHBEARER", {token}'
    brokers = guarded.broker.addresses[listener]
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text(
        f'[profiles.kafka]\nstreams.events = {{ log = "kafka", brokers = "{brokers}", '
        f'topic = "{topic_name()}", partitions = 1, {security} }}\n'
    )
    monkeypatch.setenv("SECRET", PASSWORD)
    log = open_log(load_project(tmp_path, profile="kafka"), "events")
    assert isinstance(log, KafkaLog)
    log.append(ones(3))
    assert take(log).records.num_rows == 3
    # An executor of Spark reads there with what it is sent.
    sent = pickle.loads(pickle.dumps(LaneTask(log.settings, log.topic_id, {0: 0}, loading=False)))
    reader = RangeReader(sent, lose=False)
    [part] = reader.read(0, 0, 3)
    assert part.records.num_rows == 3
    reader.close()
    log.close()
