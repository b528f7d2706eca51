"""Many visitors at once: every click is answered, and memory stays flat."""

import gc
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest
from PIL import Image


def tasting(app) -> int:
    """The number under which the page calls what its button Taste does."""
    with urllib.request.urlopen(f"{app}config") as answer:
        config = json.load(answer)
    button = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "taste-go")
    return next(one["id"] for one in config["dependencies"] if [button, "click"] in one["targets"])


def click(app: str, number: int, title: str, picture: dict | None = None) -> str:
    """Press the button as a page does, and return the HTML that comes back."""
    session = uuid.uuid4().hex
    body = {"data": [picture, title, "fusion"], "fn_index": number, "session_hash": session, "trigger_id": None}
    request = urllib.request.Request(
        f"{app}gradio_api/queue/join?", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{app}gradio_api/queue/data?session_hash={session}", timeout=120) as stream:
        for line in stream:
            event = json.loads(line[5:]) if line.startswith(b"data:") else {}
            if event.get("msg") == "process_completed":
                assert event["success"], event
                return event["output"]["data"][0]
    raise AssertionError("the stream ended without an answer")


@pytest.mark.parametrize(
    ("clients", "seconds"), [(4, 2), pytest.param(50, 120, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
)
def test_concurrent_clicks_are_answered_and_memory_is_flat(app, clients, seconds):
    number, answered, sizes = tasting(app), [], []
    process, ended = psutil.Process(), threading.Event()
    click(app, number, "lemon tart")

    def visitor(one: int) -> None:
        while not ended.is_set():
            html = click(app, number, f"lemon tart {one}")
            assert 'class="card answer"' in html
            answered.append(one)

    with ThreadPoolExecutor(clients) as pool:
        work = [pool.submit(visitor, one) for one in range(clients)]
        for _ in range(10):
            time.sleep(seconds / 10)
            gc.collect()
            sizes.append(process.memory_info().rss)
        ended.set()
        for one in work:
            one.result()
    assert set(answered) == set(range(clients)), "every visitor got an answer"
    # What the first clicks load stays; after that nothing grows with their number.
    grown = (sizes[-1] - sizes[len(sizes) // 2]) / 1e6
    assert grown < 30, f"{grown:.0f} MB more in the second half, after {len(answered)} answers"


@pytest.mark.parametrize("place", ["of this machine", "of another server"])
def test_a_picture_that_was_not_uploaded_is_not_read(app, app_data, tmp_path, place):
    path = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(path)
    asked = []

    class Watched(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    with HTTPServer(("127.0.0.1", 0), Watched) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        name = str(path) if place == "of this machine" else f"http://127.0.0.1:{other.server_port}/a.png"
        with pytest.raises((AssertionError, urllib.error.HTTPError)):
            click(app, tasting(app), "", {"path": name, "meta": {"_type": "gradio.FileData"}})
        other.shutdown()
    assert asked == [], "the server asked another one for a visitor"
