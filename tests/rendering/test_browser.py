"""The page in a real browser: quiet, alone, and doing what its controls say. Needs the system's Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import NETWORKS, make_environment, make_record, make_rows, make_run, make_suite

from archbench.model.suite import Axes
from archbench.rendering.content import Paragraph, Report, Section, Table
from archbench.rendering.html import FIRST_ROWS, render_html
from archbench.rendering.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium in PATH (Debian: apt-get install chromium)"),
]

# As root in a container, with no GPU; the others keep Chromium's own services from looking for the network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<script>document.title='broken'</script>"
LATENCY = "#accuracy-over-latency"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two phases, three batch sizes and four settings, with one network whose name is a script."""
    suite = make_suite(rounds=1, twin=None, axes=Axes(batch_size=(1, 8, 32), phase=("inference", "training")))
    environment = make_environment("cuda:0")
    hostile = make_record(
        architecture=HOSTILE,
        variant=HOSTILE,
        family=HOSTILE,
        cell_id="x",
        device="cuda",
        hardware_class="NVIDIA H200",
        top1=90.0,
        accuracy_dataset="ImageNet",
    )
    rows = [*make_rows(suite, environment), hostile]
    run = make_run(tmp_path_factory.mktemp("browser"), rows, suite=suite, environment=environment, timings=False)
    return write_report(run, "html")


class Opened:
    """A page with what it has complained of and asked for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.stopped: dict[str, str] = {}
        self.page.on("requestfailed", lambda request: self.stopped.update({request.url: request.failure}))
        self.page.goto(path.as_uri())

    def drawn(self, plot: str = LATENCY) -> Any:
        """The plot, brought to the screen and waited for."""
        self.page.locator(plot).scroll_into_view_if_needed()
        self.page.wait_for_selector(f"{plot} .canvas.drawn")
        return self.page.locator(plot)

    def has_points(self, count: int) -> None:
        """The plot over latency comes to have so many: the marks of the layer that stands for the figures."""
        sync_api.expect(self.drawn().locator(".mark-symbol.role-mark path")).to_have_count(count)

    def choose(self, column: str, option: str) -> None:
        menu = self.page.locator(f"#filter details[data-column={column}]")
        menu.locator("summary").click()
        menu.get_by_label(option, exact=True).check()
        self.page.keyboard.press("Escape")

    def column(self, table: str, place: int) -> list[str]:
        return list(self.page.locator(f"{table} >> tbody tr td:nth-child({place})").all_inner_texts())


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    opened = Opened(browser, report)
    yield opened
    opened.context.close()


def rows_shown(opened: Opened, section: str) -> int:
    return int(opened.page.locator(f"#{section} tbody tr").count())


def test_it_is_quiet_and_asks_for_nothing(opened: Opened, report: Path) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    plots = opened.page.locator("figure.plot")
    assert plots.count() == 9
    for place in range(plots.count()):
        opened.drawn(f"#{plots.nth(place).get_attribute('id')}")
    opened.has_points(4 * len(NETWORKS) + 1)
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert opened.page.title() != "broken"
    assert opened.page.get_by_text(HOSTILE).count() > 0


def test_the_policy_stops_what_is_not_the_pages_own(opened: Opened) -> None:
    opened.page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.foreign = 1';"
        " document.body.append(script); const image = new Image(); image.src = 'https://example.org/x.png';"
        " document.body.append(image); }"
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.foreign") is None
    assert sum("Content Security Policy" in complaint for complaint in opened.complaints) >= 2
    assert opened.stopped == {"https://example.org/x.png": "csp"}


def test_the_filter_changes_plots_and_tables(opened: Opened) -> None:
    every, rows = 4 * len(NETWORKS) + 1, rows_shown(opened, "inference")
    opened.has_points(every)
    opened.choose("family", "resnet")
    # resnet18 and resnet50, each at three batch sizes under four settings, of which training has three
    assert opened.page.locator("#filter output").inner_text().startswith("42 of ")
    opened.has_points(8)
    assert 0 < rows_shown(opened, "inference") < rows
    assert {name.split(" ")[0] for name in opened.column("#inference table", 1)} == {"resnet18", "resnet50"}

    opened.choose("setting", "amp")
    opened.has_points(2)
    # A table whose rows are all of one setting has no column of it, and follows the filter all the same.
    assert opened.page.locator("#inference-fp32 tbody").inner_text() == "No row matches the filter."
    assert rows_shown(opened, "inference-amp") == 2 * 3

    opened.choose("phase", "training")
    inference = opened.page.locator("#inference tbody").all_inner_texts()
    assert set(inference) == {"No row matches the filter."}
    assert rows_shown(opened, "training") > 0

    opened.page.get_by_role("button", name="Show everything").click()
    opened.has_points(every)
    assert rows_shown(opened, "inference") == rows
    assert opened.complaints == []


def test_a_name_can_be_searched_for(opened: Opened) -> None:
    opened.drawn()
    opened.page.get_by_role("searchbox").fill("DENSE")
    opened.has_points(4)
    assert set(opened.column("#inference table", 1)) == {"densenet121"}


def test_tables_sort_by_mouse_and_by_keyboard(opened: Opened) -> None:
    table = "#networks table"
    headings = opened.page.locator(f"{table} thead th").all_inner_texts()
    place = next(place for place, text in enumerate(headings) if text.startswith("Params"))
    heading = opened.page.locator(f"{table} thead th").nth(place)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    values = [float(text.replace(",", "")) for text in opened.column(table, place + 1) if text != "-"]
    assert values == sorted(values)
    assert len(values) > 3
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text.replace(",", "")) for text in opened.column(table, place + 1) if text != "-"] == values[::-1]
    opened.page.locator(f"{table} thead th").first.get_by_role("button").press("Space")
    assert heading.get_attribute("aria-sort") == "none"
    names = opened.column(table, 1)
    assert names == sorted(names)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_the_page_is_as_wide_as_the_screen(browser: Any, report: Path, width: int) -> None:
    opened = Opened(browser, report, viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True)
    opened.page.evaluate(
        "document.querySelectorAll('section details, #filter details').forEach((one) => { one.open = true; })"
    )
    opened.drawn()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.locator(f"{LATENCY} svg.marks").bounding_box()["width"] <= width
    wide = opened.page.evaluate(
        "[...document.querySelectorAll('.scroll')].some((one) => one.scrollWidth > one.clientWidth)"
    )
    assert wide, "no table is wide enough for this test"
    moved = opened.page.evaluate(
        "(() => { const scroll = document.querySelector('#inference .scroll'); scroll.scrollLeft = 80;"
        " const name = scroll.querySelector('tbody tr').firstElementChild;"
        " return [scroll.scrollLeft, name.getBoundingClientRect().left - scroll.getBoundingClientRect().left]; })()"
    )
    assert moved[0] > 0
    assert 0 <= moved[1] <= 2, "a network's name stays while its figures move"
    assert opened.complaints == []
    opened.context.close()


def test_dark_follows_the_system_and_the_button(browser: Any, report: Path) -> None:
    def ground(opened: Opened) -> tuple[str, str]:
        return (
            opened.page.evaluate("getComputedStyle(document.body).backgroundColor"),
            opened.drawn().locator(".role-axis-label text").first.get_attribute("fill"),
        )

    light, dark = Opened(browser, report), Opened(browser, report, color_scheme="dark")
    assert ground(light)[0] == "rgb(255, 255, 255)"
    assert ground(dark)[0] == "rgb(18, 22, 28)"
    assert ground(light)[1] != ground(dark)[1]
    light.page.locator("#theme").click()
    sync_api.expect(light.drawn().locator(".role-axis-label text").first).to_have_attribute("fill", ground(dark)[1])
    assert ground(light) == ground(dark)
    assert light.complaints + dark.complaints == []
    light.context.close()
    dark.context.close()


def test_it_can_be_used_without_eyes_or_a_mouse(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "report"
    assert {page.get_by_role(role).count() for role in ("main", "banner", "navigation", "search")} == {1}
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, [role=region], [role=img]')].filter((one) =>"
        " !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).length"
    )
    assert unnamed == 0
    plot = opened.drawn()
    plot.get_by_text("The figures as a table").click()
    sync_api.expect(plot.locator("tbody tr")).to_have_count(4 * len(NETWORKS) + 1)  # filled once it is open
    assert HOSTILE in plot.locator("tbody").inner_text()


def test_long_tables_show_more_when_asked(browser: Any, tmp_path: Path) -> None:
    count = 3 * FIRST_ROWS
    rows = tuple((f"n`{number}`", str((number * 7) % count)) for number in range(count))
    table = Table(headings=("Network", "ms"), rows=rows, numeric=frozenset({1}))
    path = tmp_path / "page.html"
    section = Section(title="Long", blocks=(Paragraph("all"), table))
    path.write_text(render_html(Report(title="T", parts=(section,))))
    opened = Opened(browser, path)
    assert rows_shown(opened, "long") == FIRST_ROWS
    opened.page.get_by_role("button", name=f"{FIRST_ROWS} more").click()
    assert rows_shown(opened, "long") == 2 * FIRST_ROWS
    opened.page.get_by_role("button", name="All").click()
    assert rows_shown(opened, "long") == count
    opened.page.locator("thead th").nth(1).get_by_role("button").click()
    assert opened.column("#long table", 2) == [str(number) for number in range(count)]
    assert opened.page.locator("tbody code").count() == count
    assert opened.complaints == []
    opened.context.close()


def test_without_scripts_the_tables_are_there(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, java_script_enabled=False)
    assert opened.page.locator("#inference tbody tr").count() > 10
    assert opened.page.locator("noscript p").is_visible()
    opened.context.close()
