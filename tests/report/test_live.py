"""The report while a search runs, in a real browser: it grows, keeps what the reader does, and outlives an interruption."""

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
import warnings

import keras
import numpy as np
import pytest

import regularity as rg
from regularity.report import _live

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 6)).astype("float32")
Y = (X[:, 0] + RANDOM.normal(size=90) > 0).astype("int64")


def classifier():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((6,)), *layers], name="network")
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def searched(file, **options):
    quick = {"trials": 10, "folds": 4, "epochs": 4, "verbose": 0}
    return rg.search(classifier(), X, Y, ["l2", "dropout"], storage=file, name="<live>", **{**quick, **options})


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(autouse=True)
def drawn_at_once(monkeypatch):
    """A page that is drawn whenever it is asked for."""
    monkeypatch.setattr(_live, "_SHARE", 1e9)


class Search(threading.Thread):
    """A search in a thread of its own, which waits at some trials until it is let on."""

    def __init__(self, file, waits, **options):
        super().__init__(daemon=True)
        self.reached = {number: threading.Event() for number in waits}
        self.on = {number: threading.Event() for number in waits}
        self.study, self._error, self._raise = None, None, None
        self._run = lambda: searched(file, trial_callbacks=[self._told], **options)

    def _told(self, study, trial):
        if trial.number in self.reached:
            self.reached[trial.number].set()
            assert self.on[trial.number].wait(120)
        if self._raise is not None:
            raise self._raise

    def run(self):
        try:
            self.study = self._run()
        except BaseException as error:
            self._error = error

    def at(self, number):
        assert self.reached[number].wait(120), f"it ended before: {self._error!r}"

    def let(self, number, stop=None):
        self._raise = stop
        self.on[number].set()

    def ended(self):
        self.join(120)
        return self._error


def test_page_grows_and_goes_on_after_an_interruption(tmp_path, port):
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium; on Debian: apt install chromium")
    search = Search(tmp_path / "study.db", [5], live=port)
    search.start()
    search.at(5)
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = opened.new_page()
        heard = []
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        sections = "[...document.querySelectorAll('main > section')].map(e => e.id)"
        assert page.evaluate(sections) == ["answer", "strengths", "trials", "recipe"]
        assert page.title() == "<live>: searching"
        assert page.locator("#answer .verdict").text_content() == "Searching"
        assert "the first candidates" in page.locator("#live").text_content()
        assert [a.is_visible() for a in page.locator("nav a").all()] == [True, False, False, True, False, True]
        shown = page.locator("#table tbody tr")
        assert shown.count() == 6
        # what the reader does stays while trials come
        page.get_by_role("button", name="trial", exact=True).click()
        page.get_by_label("Pick trial 3").click()
        page.get_by_label("With").select_option("l2")
        before = page.locator("#table tbody tr:visible").count()
        page.get_by_label("Find").focus()
        focused = "document.activeElement.id || document.activeElement.tagName"
        latecomer = opened.new_page()
        latecomer.goto(f"http://127.0.0.1:{port}/")

        search.let(5, KeyboardInterrupt())
        assert isinstance(search.ended(), KeyboardInterrupt)
        page.wait_for_function("document.getElementById('live').textContent.includes('stopped')")

        again = Search(tmp_path / "study.db", [8], live=port)
        again.start()
        again.at(8)
        page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 9", timeout=120_000)
        assert page.evaluate(focused) == "words"
        assert page.locator("#table tbody tr.picked").get_attribute("data-trial") == "3"
        numbers = [int(text) for text in page.locator("#table tbody .pick").all_text_contents()]
        assert numbers == sorted(numbers, reverse=True)
        assert page.get_by_label("With").input_value() == "l2"
        assert before <= page.locator("#table tbody tr:visible").count() < len(numbers)

        page.locator("[data-of=text-Recipe]").focus()  # the reader stands in a section that changes in the end
        again.let(8)
        for each in (page, latecomer):  # both have what is final before the server goes
            each.wait_for_function("document.getElementById('live').dataset.over === 'true'", timeout=120_000)
        assert again.ended() is None
        assert page.locator("#text-Recipe").text_content() == latecomer.locator("#text-Recipe").text_content()
        assert page.locator("#text-Keras").text_content().strip() == again.study.code().strip()
        assert page.evaluate(focused) == "BUTTON"
        everything = ["answer", "strengths", "curves", "worth", "trials", "inside", "recipe"]
        assert page.evaluate(sections) == everything
        assert page.title() == f"<live>: {again.study.verdict}"
        assert page.locator(".lead").text_content() == str(again.study)
        assert all(a.is_visible() for a in page.locator("nav a").all())
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function("!document.querySelector('.chart:not([data-drawn])')")
        assert page.locator("[data-chart=ablation] svg").count() == 1
        own = (f"http://127.0.0.1:{port}/", "data:")
        assert [each for each in heard if not each.startswith(own)] == []
    assert len(again.study._ablations) == 1  # the page is the whole report
    with pytest.raises(urllib.error.URLError):  # and the server is gone with the search
        urllib.request.urlopen(f"http://127.0.0.1:{port}/")


def asked(port, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("storage", ["study.db", "sqlite://"])
def test_server_answers_this_machine_alone_and_nothing_else(storage, tmp_path, port, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search = Search(storage, [0], live=port)
    search.start()
    search.at(0)
    try:
        others = socket.gethostbyname_ex(socket.gethostname())[2]
        for address in {*others} - {"127.0.0.1"}:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), timeout=5)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            asked(port, "/", Host=f"somebody.example:{port}")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            asked(port, "/../study.db")
        news = json.loads(asked(port, "/news?since=nothing"))
        assert news["over"] is False
        assert "&lt;live&gt;" in news["main"]
        assert "main" not in json.loads(asked(port, f"/news?since={news['version']}"))
    finally:
        search.let(0)
    assert search.ended() is None


def test_what_cannot_be_served_is_said_before_any_work(tmp_path, port, monkeypatch):
    monkeypatch.setattr("regularity.study._search._Search", None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(ValueError, match=rf"`live`.*a port.*Received: live={port} \(Address already in use\)"):
            searched(tmp_path / "study.db", live=port)
    with pytest.raises(ValueError, match=r"`live`.*Received: live=70000"):
        searched(tmp_path / "study.db", live=70000)
    with monkeypatch.context() as patched:
        patched.setattr(keras.backend, "backend", lambda: "torch")
        with pytest.raises(ValueError, match=r"`storage` that can be read.*such as a file.*runs on torch"):
            searched("sqlite://", live=True)
    with pytest.raises(TypeError, match=r"Expected True, False or a port. Received: live='yes'"):
        searched(tmp_path / "study.db", live="yes")


def test_usual_port_or_another(tmp_path, monkeypatch, port, capsys):
    monkeypatch.setattr(_live, "PORT", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        searched(tmp_path / "study.db", live=True, trials=2, epochs=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Live at" in line]
    assert line.startswith("Live at http://127.0.0.1:")
    assert str(port) not in line


def test_a_report_that_cannot_be_drawn_does_not_cost_the_search(tmp_path, port, monkeypatch):
    def broken(study):
        raise RuntimeError("a fault in a chart")

    search = Search(tmp_path / "study.db", [3], live=port)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        monkeypatch.setattr(_live._page, "drawn", broken)
        search.start()
        search.at(3)
        assert "main" in json.loads(asked(port, "/news?since=0&page=one"))
        search.let(3)
        assert search.ended() is None
    assert len(search.study.table) == 10
    assert any("fell behind: RuntimeError: a fault in a chart" in str(each.message) for each in heard)
    with pytest.raises(urllib.error.URLError):
        asked(port, "/")
