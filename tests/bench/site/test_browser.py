"""The site in a real browser, with the network off: sorting, filters, addresses, keyboard, accessibility, hostile text, size."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.site import build
from bench.site.records import HEADERS, _all
from tests.bench.claims.toy_claims import both, paper
from tests.bench.leaderboard.records import WEIGHTS, golden_records, several
from tests.bench.site.test_build import HOSTILE
from tests.bench.suites.suites import row, suite

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[browser]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
BOARD = "boards/toy-v1-digits-mlp-desk.html"
MANY = 100_000
WITH_SUITE = "with_suite"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of the golden records and of one that wants to be markup; below it, one with a suite and a claim."""
    folder = tmp_path_factory.mktemp("site")
    hostile = several([80.0, 81.0, 82.0], densities=WEIGHTS, label=HOSTILE, method=HOSTILE)
    files = build.render([*golden_records(), *hostile])
    claimed = both([80.0, 81.0, 82.0], [70.0, 71.0, 72.0])
    ranked = [*row("gmp", [80.0, 70.0], [60.0, 50.0]), *row("set", [70.0, 60.0], [50.0, 40.0]), *claimed]
    files |= {f"{WITH_SUITE}/{address}": text for address, text in build.render(ranked, [paper()], suites=[suite()]).items()}
    for address, text in files.items():
        (folder / address).parent.mkdir(parents=True, exist_ok=True)
        (folder / address).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, site):
    """A page opened at an address; the test fails if anything is logged or fetched from outside the folder."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    said, asked = [], []
    opened = context.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))

    def at(address: str):
        opened.goto(f"{site.as_uri()}/{address}")
        opened.wait_for_selector("html[data-ready]")
        return opened

    yield at
    context.close()
    assert not said
    assert all(url.startswith((site.as_uri(), "data:", "file:")) for url in asked)


def names(page, table="t0"):
    return page.locator(f"#{table} tbody th").all_inner_texts()


def test_sorting_puts_numbers_first_and_stands_in_the_address(page):
    opened = page(BOARD)
    head = opened.locator("#t0 thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [
        float(v) for v in opened.locator("#t0 tbody td:nth-child(2)").evaluate_all("c => c.map(x => x.dataset.sort || 'nan')")
    ]
    numbers = [v for v in values if v == v]
    assert numbers == sorted(numbers)
    assert values[: len(numbers)] == numbers
    head.get_by_role("button").click()
    assert "sort=t0%3A1%3Adesc" in opened.url
    shown = names(opened)
    assert names(page(opened.url.rpartition("/site")[2].partition("/")[2].removeprefix("0/"))) == shown


def test_a_filter_hides_rows_and_lines_and_its_address_shows_the_same(page, site):
    opened = page(BOARD)
    everything = names(opened)
    opened.get_by_label("Filter rows").fill("imp")
    opened.get_by_label("Hide controls").check()
    assert names(opened) == ["imp"]
    assert 0 < len(names(opened)) < len(everything)
    visible = opened.locator(".plot g[data-row]:not([hidden])").evaluate_all("g => [...new Set(g.map(x => x.dataset.row))]")
    assert all(name.startswith("imp") and "↳" not in name for name in visible)
    address = opened.url.removeprefix(f"{site.as_uri()}/")
    assert names(page(address)) == ["imp"]
    opened.get_by_role("button", name="Clear").click()
    assert names(opened) == everything
    assert "#" not in opened.url


def test_a_pinned_method_comes_first_and_stays_whatever_is_filtered(page):
    opened = page(BOARD)
    opened.locator("#t0").get_by_role("button", name="Pin one_shot", exact=True).click()
    assert names(opened)[0] == "one_shot"
    opened.get_by_label("Filter rows").fill("snip")
    assert names(opened) == ["one_shot", "snip"]
    assert names(page(f"{BOARD}#pin=snip&q=nothing-of-this-name")) == ["snip"]


def test_the_keyboard_is_enough(page):
    opened = page(BOARD)
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the content"
    opened.keyboard.press("/")
    opened.keyboard.type("synflow")
    assert names(opened) == ["synflow"]
    opened.locator("#t0 thead button").first.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("#t0 thead th").first.get_attribute("aria-sort") == "ascending"


def test_without_javascript_the_tables_are_there(browser, site):
    context = browser.new_context(java_script_enabled=False, offline=True)
    opened = context.new_page()
    opened.goto(f"{site.as_uri()}/{BOARD}")
    assert "75.00" not in names(opened)
    assert "imp ↳ random" in [name.strip() for name in names(opened)]
    assert opened.locator("form").is_hidden()
    context.close()


def test_a_hostile_record_is_shown_as_text(page):
    for address in (BOARD, "methods.html", "records.html"):
        opened = page(address)
        assert opened.locator("img").count() == 0
        assert "owned" not in opened.title()
    assert opened.get_by_text(HOSTILE).count() > 0


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_no_page_is_wider_than_the_window_and_all_can_be_read(page, width, scheme):
    opened = page("index.html")
    opened.set_viewport_size({"width": width, "height": 900})
    opened.emulate_media(color_scheme=scheme)
    axe = _axe()
    below = ("index", "suites/toys", "methods/gmp", "claims", "records", "records/toy/digits-mlp-desk/gmp")
    for address in ("index.html", BOARD, "methods/imp.html", *(f"{WITH_SUITE}/{name}.html" for name in below)):
        opened = page(address)
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address
        assert opened.locator("h1").count() == 1
        if axe:
            opened.evaluate(axe)
            found = opened.evaluate("async () => (await axe.run({preload: false, resultTypes: ['violations']})).violations")
            serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
            assert not serious, address


def _axe(cache: list[str] = []) -> str:  # noqa: B006  # once for all tests
    """The accessibility checker, where npm has it."""
    if not cache:
        folder, npm = Path.home() / ".cache" / "ticket-bench-axe", shutil.which("npm")
        script = folder / "node_modules" / "axe-core" / "axe.min.js"
        if npm and not script.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([npm, "install", "--no-audit", "--no-fund", "axe-core@4"], cwd=folder, timeout=60, capture_output=True)
        cache.append(script.read_text(encoding="utf-8") if script.is_file() else "")
    return cache[0]


def test_a_hundred_thousand_rows_are_sorted_and_filtered_at_once(page, site):
    other = ["toy", "digits", "mlp", "desk", "imp ↳ random", "0.5", "0", "ok", "accuracy"]
    rows = [("records.html", f"{i:016x}", *other, f"{i % 977}", "90", "1", "self-reported") for i in range(MANY)]
    assert len(rows[0]) == 1 + len(HEADERS)
    (site / "many").mkdir()
    for address, text in _all(rows, {}):
        (site / "many" / address).write_text(text.replace('"site.', '"../site.'), encoding="utf-8")
    start = time.monotonic()
    opened = page("many/records.html")
    took = {"open": time.monotonic() - start}
    assert opened.locator("output").inner_text() == f"{MANY} of {MANY} rows"
    start = time.monotonic()
    opened.locator("#records thead button").nth(10).click()
    assert opened.locator("#records tbody tr").last.locator("td").nth(9).inner_text() in ("9", "10")
    took["sort"] = time.monotonic() - start
    start = time.monotonic()
    opened.get_by_label("Filter rows").fill("00000000000ffff")
    assert opened.locator("#records tbody tr").count() == 1
    took["filter"] = time.monotonic() - start
    print(took)
    assert all(seconds < 10 for seconds in took.values()), took  # 2 s on a quiet machine
