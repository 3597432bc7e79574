"""The page in a real browser: Debian's Chromium without a window, driven by Playwright.

With ``SCREENSHOTS=folder`` it also writes pictures to look at: the page on a desktop and on a phone, light
and dark.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scaledown import ScaleDownModel
from scaledown.demo.samples import LONG_ANSWER, LONG_QUESTION, samples_for
from scaledown.serve.start_checks import bound_socket

pytest.importorskip("gradio", reason="needs Gradio: pip install -e '.[demo]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
from scaledown.demo import page as page_module  # noqa: E402 - it imports Gradio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium")]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE_MS = 240_000
"""Tests may run beside other work."""
ENDED = ".sd-no_documents.sd-ended"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The page of the demo's checkpoint, served by this process."""
    import uvicorn

    from scaledown.demo.page_server import page_app
    model = ScaleDownModel.from_pretrained("embedded", device="cpu")
    server = uvicorn.Server(uvicorn.Config(page_app(model, "embedded"), log_level="critical", access_log=False,
                                           timeout_graceful_shutdown=2))
    with bound_socket("127.0.0.1", 0) as place:
        thread = threading.Thread(target=server.run, args=([place],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which root in a container cannot have; it opens this page alone.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that is open, with all that went wrong on it, and all hosts that it asked."""

    def __init__(self, browser, url: str, size: dict[str, int], scheme: str) -> None:
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=size is PHONE,
                                      device_scale_factor=2 if size is PHONE else 1)
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda told: self.faults.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        self.page.on("response", lambda reply: self.faults.append(reply.url) if reply.status >= 400 else None)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(url)
        self.page.wait_for_selector("#ask")

    def ask(self, question: str | None = None, box: str | None = None) -> None:
        """Ask, and wait for all answers."""
        if question is not None:
            self.page.fill("#question textarea", question)
        if box is not None:
            self.page.fill("#documents textarea", box)
        self.page.click("#ask")
        self.page.wait_for_selector(ENDED)
        self.page.wait_for_selector(".sd-costs .sd-no_documents")

    @property
    def answer(self) -> str:
        return self.page.inner_text(".sd-scaledown .sd-text")


@pytest.fixture
def visit(browser, url):
    """Open the page; at the end nothing may have gone wrong, and no other host been asked."""
    visits: list[Visit] = []

    def open_page(size: dict[str, int] = DESKTOP, scheme: str = "light") -> Visit:
        visits.append(Visit(browser, url, size, scheme))
        return visits[-1]

    yield open_page
    for each in visits:
        assert not each.faults
        # Data in the page itself has no host.
        assert each.hosts - {""} == {urlsplit(url).netloc}
        each.page.context.close()


def test_a_question_is_answered_and_everything_is_shown(visit):
    page = (opened := visit()).page
    sample = samples_for("embedded")[0]
    opened.ask()
    assert opened.answer == sample.answer
    assert page.inner_text(".sd-full_text .sd-text") == sample.answer

    # Costs with bars, scores with bars, and what was kept, of which the best is open.
    assert page.locator(".sd-costs .sd-bar").count() == 15
    assert page.locator(".sd-track .sd-fill").count() == 5
    assert page.locator(".sd-kept").all_inner_texts() == ["kept"]
    strip = page.locator("details[open] .sd-strip")
    assert strip.count() == 1 and sample.answer in strip.inner_text()

    # The answer's token is hot, and choosing an embedding shows its own heat.
    hot = page.locator("details[open] .sd-token", has_text=sample.answer).first
    as_painted = "element => getComputedStyle(element).backgroundColor"
    before = hot.evaluate(as_painted)
    assert before.startswith("rgba(230, 159, 0, 0.")
    page.locator("details[open] label", has=page.locator('input[value="4"]')).click()
    assert hot.evaluate(as_painted) != before
    assert page.locator("details[open] label .sd-near").count() == 9


def test_another_sample_with_a_long_document_keeps_the_right_passage(visit):
    page = (opened := visit()).page
    page.click('input[aria-label="Sample"]')
    page.get_by_role("option", name=LONG_QUESTION).click()
    page.wait_for_function("question => document.querySelector('#question textarea').value == question",
                           arg=LONG_QUESTION)
    opened.ask()
    assert opened.answer == LONG_ANSWER
    assert LONG_ANSWER in page.inner_text("details[open]") and "passage" in page.inner_text("details[open] .sd-name")


def test_html_in_a_document_is_text_and_templates_stay_as_they_are(visit):
    page = (opened := visit()).page
    bad = ("<script>document.title = 'taken'</script> <img src=x onerror=\"document.title='taken'\"> {{value}} "
           "{{#each}} ${1+1} @children `x` Gartonby elected Sarik Ulmer as mayor.")
    opened.ask("Who is the mayor of Gartonby? <b>{{value}}</b>", bad)
    assert page.inner_text("details[open] .sd-strip") == bad
    assert page.locator(".sd script, .sd img").count() == 0 and page.title() == "ScaleDown"


def test_a_file_is_opened_and_a_bad_one_is_told(visit, tmp_path):
    page = (opened := visit()).page
    (tmp_path / "good.jsonl").write_text('"Fenoni Works sells clocks."\n'
                                         '{"title": "Gartonby", "text": "Gartonby elected Sarik Ulmer as mayor."}\n')
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    for name, shown in (("bad.txt", ".sd-notice"), ("good.jsonl", None)):
        with page.expect_file_chooser() as chooser:
            page.click("#open-file")
        chooser.value.set_files(tmp_path / name)
        if shown:
            page.wait_for_selector(shown)
            assert page.inner_text(shown) == "bad.txt: not UTF-8 text (byte 1); save it as UTF-8"
    page.wait_for_function("() => document.querySelector('#documents textarea').value.startsWith('Fenoni')")
    page.wait_for_selector(".sd-welcome")
    assert page.locator(".sd-notice").count() == 0
    opened.ask("Who is the mayor of Gartonby?")
    assert opened.answer == "Sarik Ulmer" and "Gartonby" in page.inner_text("details[open] .sd-name")


def test_an_empty_question_is_told_on_the_page(visit):
    page = visit().page
    page.fill("#question textarea", " ")
    page.click("#ask")
    page.wait_for_selector(".sd-notice")
    assert page.inner_text(".sd-notice").startswith("Question: type one")


def test_two_readers_are_answered_one_after_the_other(visit, monkeypatch):
    """Each question takes half a second at least, so that two that are computed at once would meet."""
    computed, most = [], []
    whole = page_module.ask

    def counting(*arguments):
        computed.append(arguments)
        most.append(len(computed))
        time.sleep(0.5)
        yield from whole(*arguments)
        computed.pop()

    monkeypatch.setattr(page_module, "ask", counting)
    visits = [visit(), visit()]
    for each in visits:
        each.page.click("#ask")
    for each in visits:
        each.page.wait_for_selector(ENDED)
        assert each.answer == samples_for("embedded")[0].answer
    assert most == [1, 1]


@pytest.mark.parametrize(("name", "size", "scheme"), [
    ("desktop", DESKTOP, "light"), ("desktop_dark", DESKTOP, "dark"),
    ("phone", PHONE, "light"), ("phone_dark", PHONE, "dark")])
def test_nothing_is_wider_than_the_screen_or_above_one_another(visit, name, size, scheme):
    page = (opened := visit(size, scheme)).page
    write_screenshot(page, f"{name}_start")
    opened.ask()
    # Open all documents, so that all there is is measured.
    page.evaluate("() => document.querySelectorAll('.sd-documents details').forEach(each => each.open = true)")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]

    outside = page.evaluate("""() => [...document.querySelectorAll('.sd *')].filter(element => {
        const box = element.getBoundingClientRect();
        return box.width > 0 && (box.left < -1 || box.right > window.innerWidth + 1);
    }).map(element => element.className || element.tagName)""")
    assert outside == []
    overlaps = page.evaluate("""() => {
        const kinds = ['.sd-head', '.sd-card', '.sd-costs', '.sd-documents details', '#question', '#documents', '#ask'];
        const boxes = [...document.querySelectorAll(kinds.join(','))].map(each => [each, each.getBoundingClientRect()]);
        const found = [];
        for (const [one, a] of boxes) for (const [other, b] of boxes)
            if (one !== other && a.left < b.right - 1 && b.left < a.right - 1
                && a.top < b.bottom - 1 && b.top < a.bottom - 1)
                found.push([one.className, other.className]);
        return found;
    }""")
    assert overlaps == []
    # Text in a cell of the table that is wider than its cell would run into the next one.
    wide = page.evaluate("""() => [...document.querySelectorAll('.sd-costs th, .sd-costs td')].filter(
        cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.innerText)""")
    assert wide == []

    background = page.evaluate("() => getComputedStyle(document.querySelector('.sd-card')).backgroundColor")
    is_dark = sum(int(channel) for channel in background[4:-1].split(",")[:3]) < 3 * 128
    assert is_dark == (scheme == "dark"), background
    page.evaluate("() => document.querySelectorAll('.sd-documents details').forEach((each, place) => "
                  "each.open = place == 0)")
    write_screenshot(page, name)


def write_screenshot(page, name: str) -> None:
    """Write the whole page as a picture, if a folder for it was named."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Scrolling on a phone takes its time.
        page.wait_for_timeout(1_000)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
