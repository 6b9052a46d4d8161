"""Who may ask the page: hosts, origins, the token; and random requests, none of which may be our mistake."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_support import RunningPage, running_page

from headrace.errors import ProfileError
from headrace.operate.page_options import PageOptions
from headrace.operate.secrets import Secret
from headrace.web.page.describe import description
from headrace.web.page.serve import check_page

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-these-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PANELS_TOKEN = "another-token-for-panels"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    folder = tmp_path_factory.mktemp("guarded") / "commerce"
    tokens = {"token": Secret(TOKEN), "panels_token": Secret(PANELS_TOKEN)}
    with running_page(folder, events_hours=0.02, names=("pipes.example",), **tokens) as made:
        yield made


def routes() -> list[tuple[str, str]]:
    document = json.loads(description())
    filled = {"name": "event_counts", "number": "0", "stream": "events", "action": "pause"}
    return [
        (verb.upper(), re.sub(r"{(\w+)}", lambda found: filled[found[1]], path))
        for path, verbs in document["paths"].items()
        for verb in verbs
    ]


def test_every_route_without_the_token_is_401(page: RunningPage) -> None:
    others = [
        ("GET", "/"),
        ("GET", "/pipeline"),
        ("GET", "/api/openapi.json"),
        ("GET", "/assets/x.js"),
        ("GET", "/metrics"),
        ("PUT", "/"),
    ]
    for verb, path in routes() + others:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"headrace_{page.port}={TOKEN}"}):
            assert page.ask(verb, path, {} if verb == "POST" else None, headers)[0] == 401, (verb, path)
    assert page.ask("GET", "/api/status", headers=BEARER)[0] == 200


def test_the_token_for_panels_reads_panels_and_metrics_and_does_nothing_else(page: RunningPage) -> None:
    shown = {"Authorization": f"Bearer {PANELS_TOKEN}"}
    for path in ("/api/panels", "/api/panels/0/rows", "/metrics"):
        assert page.ask("GET", path, headers=shown)[0] == 200, path
    allowed = {("GET", "/api/panels"), ("GET", "/api/panels/0/rows")}
    others = [
        ("GET", "/"),
        ("GET", "/api/openapi.json"),
        ("GET", "/metrics/"),
        ("POST", "/metrics"),
        ("GET", "/api/panels/0/rows/../../../status"),
        ("GET", "/api/panels%2F..%2Fstatus"),
        ("POST", "/api/panels/0/rows"),
    ]
    for verb, path in set(routes()) - allowed | set(others):
        status, answer, _ = page.ask(verb, path, {} if verb == "POST" else None, shown)
        assert status == 403, (verb, path)
        assert "panels and metrics" in answer["error"]
    assert page.ask("POST", "/login", headers={"Content-Length": "0", **shown})[0] == 403
    assert page.ask("GET", "/metrics", headers={"Authorization": f"Bearer {PANELS_TOKEN}x"})[0] == 401
    assert page.ask("GET", "/metrics", headers={**shown, "Host": "evil.example"})[0] == 421


def test_a_strangers_host_name_is_refused_on_every_verb(page: RunningPage) -> None:
    for verb, path in routes():
        for host in (
            "evil.example",
            "evil.example:8600",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil.example",
        ):
            assert page.ask(verb, path, headers={**BEARER, "Host": host})[0] == 421, (verb, path, host)
    for host in ("localhost", "127.0.0.1:1", "[::1]:8600", "pipes.example", "PIPES.example:8600"):
        assert page.ask("GET", "/api/overview", headers={**BEARER, "Host": host})[0] == 200, host


def test_what_changes_something_must_not_come_from_another_site(page: RunningPage) -> None:
    changing = [(verb, path) for verb, path in routes() if verb != "GET"]
    assert len(changing) >= 4
    for verb, path in changing:
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://localhost:{page.port}"},  # another name, another origin
            {"Origin": f"file://127.0.0.1:{page.port}"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            assert page.ask(verb, path, {}, {**BEARER, **headers})[0] == 403, (verb, path, headers)
    own = {**BEARER, "Origin": f"http://127.0.0.1:{page.port}", "Sec-Fetch-Site": "same-origin"}
    assert page.ask("POST", "/api/query", {"sql": "SELECT 1"}, own)[0] == 200


def test_a_browser_gets_a_form_and_then_a_cookie_that_scripts_cannot_read(page: RunningPage) -> None:
    status, form, _ = page.ask("GET", "/", headers={"Accept": "text/html"})
    assert status == 401
    assert 'type="password"' in form
    assert "<script" not in form
    request = urllib.request.Request(page.address + "/login", data=b"token=wrong", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)
    with socket.create_connection(("127.0.0.1", page.port)) as asked:
        body = f"token={TOKEN}".encode()
        asked.sendall(
            b"POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = asked.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 303")
    cookie = re.search(r"set-cookie: ([^\r]*)", answer)
    assert cookie is not None
    assert "HttpOnly" in cookie[1]
    assert "SameSite=Strict" in cookie[1]
    assert TOKEN not in cookie[1]
    assert page.ask("GET", "/api/status", headers={"Cookie": cookie[1].partition(";")[0]})[0] == 200


def test_every_answer_carries_the_policy(page: RunningPage) -> None:
    for path, headers in (
        ("/", BEARER),
        ("/api/status", BEARER),
        ("/api/status", {}),
        ("/api/nothing", BEARER),
    ):
        policy = page.ask("GET", path, headers=headers)[2]["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


def test_a_path_cannot_leave_the_folder_of_the_page(page: RunningPage) -> None:
    for path in (
        "/../app.py",
        "/assets/../../page/app.py",
        "/%2e%2e/page/app.py",
        "/..%2fpage%2fapp.py",
        "/%00",
    ):
        status, body, _ = page.ask("GET", path, headers=BEARER)
        assert status in (200, 404)
        assert "ASGI" not in str(body)


def test_a_body_that_is_too_large_is_refused(page: RunningPage) -> None:
    big = {"sql": "SELECT 1 --" + "x" * 2_000_000}
    assert page.ask("POST", "/api/query", big, BEARER)[0] == 413


def test_a_secret_of_the_profile_is_never_shown(page: RunningPage) -> None:
    status, settings, _ = page.ask("GET", "/api/settings", headers=BEARER)
    assert status == 200
    [lines] = [section["lines"] for section in settings["sections"] if section["title"] == "page"]
    assert [line["value"] for line in lines if line["key"].endswith("token")] == ["••••••"] * 2
    assert TOKEN not in json.dumps(settings) and PANELS_TOKEN not in json.dumps(settings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "without a token"),
        ({"host": "192.0.2.1", "token": Secret(TOKEN)}, "without TLS"),
        ({"host": "::", "token": Secret(TOKEN), "certificate": "c.pem"}, "go together"),
        ({"token": Secret("short")}, "16 characters"),
        ({"token": Secret(TOKEN), "panels_token": Secret("short")}, "panels_token has less than 16"),
        ({"token": Secret(TOKEN), "panels_token": Secret(TOKEN)}, "lets everything be done"),
        ({"panels_token": Secret(PANELS_TOKEN)}, "without page.token"),
    ],
)
def test_a_page_that_would_be_open_to_strangers_is_not_served(options: dict[str, object], words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        check_page(PageOptions(**options))  # type: ignore[arg-type]


def test_a_page_behind_a_proxy_or_off_is_the_operators_choice() -> None:
    assert check_page(PageOptions(host="192.0.2.1", token=Secret(TOKEN), plain_http="anywhere")) == TOKEN
    assert check_page(PageOptions(serve="off", host="192.0.2.1")) is None
    assert check_page(PageOptions(host="localhost")) is None


def test_the_page_speaks_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words.split(), *names, *files], check=True, capture_output=True)
    with running_page(
        tmp_path / "commerce", events_hours=0.01, certificate=str(certificate), certificate_key=str(key)
    ) as page:
        assert page.address.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(page.address + "/api/status", context=trusted) as answer:
            assert json.load(answer)["running"] is True


@pytest.mark.untraced
def test_random_requests_never_end_in_our_mistake(page: RunningPage) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    schema = schemathesis.openapi.from_dict(json.loads(description()))
    cases = [
        found.ok().as_strategy() for found in schema.get_all_operations() if found.ok().path != "/api/live"
    ]

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.one_of(cases))
    def asked(case: schemathesis.Case) -> None:
        if case.path.endswith("/redrive"):
            case.path = case.path.replace("redrive", "preview")  # nothing is given back by chance
        answer = case.call(base_url=page.address, headers=BEARER)
        assert answer.status_code < 500 or answer.status_code == 503, (case.method, case.path, answer.text)

    asked()
