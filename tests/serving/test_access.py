"""Who may ask, and from where."""

from __future__ import annotations

import httpx
import openai
import pytest

from medcare.foundation.errors import ConfigError
from medcare.serving.server import _is_loopback, serve
from medcare.serving.service import Limits, Service
from tests.serving.conftest import Running, running, served


@pytest.fixture(scope="module")
def locked():  # type: ignore[no-untyped-def]
    with running(api_key="geheim-ä") as server:
        yield server


CLOSED = [
    "/v1/models",
    "/v1/models/tiny",
    "/metrics",
    "/api/page",
    "/reports/x",
    "/api/runs/x/tasks",
    "/api/runs",
    "/api/runs/events",
    "/api/comparison?side=a/b&side=c/d",
    "/api/comparison/0/html",
    "/api/own-exams/x",
]


@pytest.mark.parametrize("path", CLOSED)
def test_a_key_is_required(locked: Running, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "geheim"},
        {"Cookie": "medcare_session=x"},
    ):
        response = httpx.get(f"{locked.url}{path}", headers=headers)
        assert response.status_code == 401, headers
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_key_opens(locked: Running) -> None:
    headers = {"Authorization": "Bearer geheim-ä".encode()}
    assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == 200
    assert httpx.get(f"{locked.url}/health").status_code == 200
    assert httpx.get(f"{locked.url}/").status_code == 200
    with pytest.raises(openai.AuthenticationError):
        locked.client("wrong").models.list()


def test_a_session_opens_links(locked: Running) -> None:
    assert httpx.post(f"{locked.url}/api/session").status_code == 401
    headers = {"Authorization": "Bearer geheim-ä".encode()}
    with httpx.Client(base_url=locked.url) as browser:
        response = browser.post("/api/session", headers=headers)
        assert "HttpOnly" in response.headers["Set-Cookie"]
        assert "SameSite=strict" in response.headers["Set-Cookie"]
        assert "geheim" not in response.headers["Set-Cookie"]
        assert browser.get("/api/page").json()["models"] == ["tiny"]


def test_a_foreign_name_for_this_machine_is_refused(tiny: Running) -> None:
    port = tiny.url.rsplit(":", 1)[1]
    for name, status in (("evil.example", 400), (f"localhost:{port}", 200), (f"127.0.0.1:{port}", 200)):
        response = httpx.get(f"{tiny.url}/health", headers={"Host": name})
        assert response.status_code == status
        if status == 400:
            assert response.json()["error"]["code"] == "invalid_host"


def test_every_response_protects_the_reader(tiny: Running) -> None:
    for path in ("/", "/health", "/v1/models", "/nowhere"):
        headers = httpx.get(f"{tiny.url}{path}").headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.5", False), ("example.org", False)],
)  # fmt: skip
def test_what_is_a_loopback_address(host: str, loopback: bool) -> None:
    assert _is_loopback(host) == loopback


def test_an_open_address_without_key_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcare.serving.server._Server.run", lambda self, sockets: sockets[0].close())
    service = Service([served()], Limits())
    options = {"port": 0, "drain_seconds": 1}
    serve(service, host="0.0.0.0", api_key=None, **options)
    assert "Warning: 0.0.0.0 can be reached from other machines" in capsys.readouterr().err
    serve(service, host="0.0.0.0", api_key="x", **options)
    serve(service, host="127.0.0.1", api_key=None, **options)
    assert "Warning" not in capsys.readouterr().err


def test_a_port_in_use_is_one_sentence(tiny: Running) -> None:
    port = int(tiny.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 can't be used"):
        serve(
            Service([served()], Limits()),
            host="127.0.0.1",
            port=port,
            api_key=None,
            drain_seconds=1,
        )


def test_health_names_no_models_without_a_key(locked: Running, tiny: Running) -> None:
    assert httpx.get(f"{locked.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{tiny.url}/health").json()["models"] == ["tiny"]


def test_pages_elsewhere_may_ask_only_if_they_are_named(tiny: Running) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "fever?"}], "max_tokens": 1}
    asks = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type"}  # fmt: skip
    allowed = "access-control-allow-origin"
    assert allowed not in httpx.options(f"{tiny.url}/v1/chat/completions", headers=asks).headers
    with running(origins=["https://example.org"]) as server:
        url = f"{server.url}/v1/chat/completions"
        assert httpx.options(url, headers=asks).headers[allowed] == "https://example.org"
        answer = httpx.post(url, json=body, headers={"Origin": "https://example.org"})
        assert answer.status_code == 200
        assert answer.headers[allowed] == "https://example.org"
        assert allowed not in httpx.options(url, headers={**asks, "Origin": "https://evil.example"}).headers
