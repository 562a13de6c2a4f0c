"""What rave app serves: no file but its own, to this machine alone."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from browser import app_server

pytest.importorskip("gradio", reason="the extra [app] is not installed")

from diffwave.app import server


@pytest.fixture(scope="module")
def address(instrument, tmp_path_factory):
    """The page's address; its folder is `rave-app` in the working directory."""
    with app_server(tmp_path_factory.mktemp("app"), instrument) as address:
        yield address


def status_of(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def test_no_file_outside_the_folder_is_served(address, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    own = Path("rave-app").resolve()
    climbing = f"{own}/../../{secret.relative_to(tmp_path.parents[0])}"
    for path in (secret, "/etc/passwd", Path(server.__file__), climbing):
        assert status_of(f"{address}gradio_api/file={path}")[0] in (403, 404)


def test_a_path_that_a_browser_makes_up_is_not_opened(address, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    with urllib.request.urlopen(f"{address}config", timeout=10) as answer:
        functions = json.load(answer)["dependencies"]
    number = next(each["id"] for each in functions if each["api_name"] == "_take")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    content = {"data": [given], "fn_index": number, "session_hash": "made-up"}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(
        f"{address}gradio_api/queue/join", json.dumps(content).encode(), headers
    )
    before = sorted(Path("rave-app").iterdir())
    urllib.request.urlopen(request, timeout=10).close()
    with urllib.request.urlopen(
        f"{address}gradio_api/queue/data?session_hash=made-up", timeout=10
    ) as answer:
        ended = time.monotonic() + 10
        while time.monotonic() < ended:
            line = answer.readline().decode()
            if "process_completed" in line:
                break
    assert '"success":false' in line.replace(" ", "")
    assert sorted(Path("rave-app").iterdir()) == before


def test_other_names_of_this_machine_are_not_answered_and_other_hosts_not_asked(address):
    status, headers = status_of(address)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert status_of(address, Host="elsewhere.example")[0] == 403
    assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
