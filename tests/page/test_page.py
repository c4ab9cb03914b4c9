"""The page in a real browser: type, stream, compare, exam, reports; with keys alone, and on a phone."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from medcare.data.record_files import write_records
from medcare.generation import generate
from medcare.page.folders import RunFolders
from medcare.page.questions import FinishedRuns, score
from medcare.serving.served_model import ServedModel
from medcare.text.records import Item, Message
from tests.generation.chain_model import chain_model
from tests.page.conftest import needs_browser, said, settle
from tests.serving.conftest import Running, running, served, slow_down
from tests.text.tokenizers_by_family import tokenizer_of

ITEMS = [
    Item(
        f"definition/{number}", "definition_to_finding", "knowledge", split, f"HP:{number}",
        f"Which finding is described as number {number}: long, slender fingers?",
        ("Arachnodactyly", "Brachydactyly", "Syndactyly", "Clinodactyly"), (number,), subject="Skeleton",
    )
    for number, split in enumerate(("taught", "held_out", "taught"))
]  # fmt: skip
FREE = Item("free/1", "entities", "alignment", "taught", "x", "Name the findings.", target="fever")
REPORT = "<!doctype html><title>Report of demo</title><style>h1{color:red}</style><h1>Scores</h1>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "demo" / "data").mkdir(parents=True)
    (folder / "demo" / "report.html").write_text(REPORT + "<script>document.title += '!'</script>")
    write_records(folder / "demo" / "data" / "items.jsonl", [*ITEMS, FREE])
    (folder / "unfinished").mkdir()
    (folder / "secret.html").write_text("confidential")
    return folder


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Running]:
    models = [served("base"), served("stage1", seed=1), served("stage2", seed=2), served("other", seed=3)]
    for model in models:
        slow_down(model, 0.005)
    with running(*models, reports=runs) as server:
        yield server


def test_runs_and_questions(server: Running) -> None:
    assert httpx.get(f"{server.url}/api/page").json()["runs"] == ["demo"]
    assert httpx.get(f"{server.url}/api/runs/demo/tasks").json() == {"definition_to_finding": 3}
    question = httpx.get(f"{server.url}/api/runs/demo/questions/definition_to_finding/1").json()
    assert question["options"] == list(ITEMS[1].options)
    assert question["answers"] == [1]
    assert question["split"] == "held_out"
    body = {"model": "stage1", "run": "demo", "task": "definition_to_finding", "number": 1}
    result = server.post("/api/exam", json=body).json()
    assert result == score(server.service.models["stage1"], ITEMS[1], by_length=False), (
        "one set of options for all"
    )
    weights = [math.exp(option["log_likelihood"]) for option in result["options"]]
    assert [option["share"] for option in result["options"]] == pytest.approx(
        [weight / sum(weights) for weight in weights]
    )


def test_of_an_exam_of_ones_own_nobody_knows_what_was_taught(tmp_path: Path) -> None:
    write_records(
        tmp_path / "run" / "data" / "items.jsonl", [replace(item, split="held_out") for item in ITEMS]
    )
    (tmp_path / "run" / "report.html").write_text(REPORT)
    assert "split" not in FinishedRuns(RunFolders(tmp_path)).shown("run", "definition_to_finding", 0)


def test_readers_of_several_runs_at_once_get_each_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_records(
            tmp_path / name / "data" / "items.jsonl", [replace(ITEMS[0], task=name, options=("a", "b"))]
        )
        (tmp_path / name / "report.html").write_text(REPORT)
    runs, former = FinishedRuns(RunFolders(tmp_path)), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as readers:
            asked = ["one", "two"] * 300
            found = list(readers.map(lambda name: list(runs.questions(name)), asked))
    finally:
        sys.setswitchinterval(former)
    assert found == [[name] for name in asked]


def test_options_that_differ_are_ranked_by_length(server: Running, tmp_path: Path) -> None:
    others = [
        replace(item, options=(f"{item.options[0]} {n}", *item.options[1:])) for n, item in enumerate(ITEMS)
    ]
    write_records(tmp_path / "run" / "data" / "items.jsonl", others)
    (tmp_path / "run" / "report.html").write_text(REPORT)
    assert FinishedRuns(RunFolders(tmp_path)).by_length("run", "definition_to_finding")
    model = server.service.models["stage1"]
    found = score(model, ITEMS[1], by_length=True)
    values = [
        option["log_likelihood"] / len(text.encode())
        for option, text in zip(found["options"], ITEMS[1].options, strict=True)
    ]
    assert found["chosen"] == values.index(max(values))


@pytest.mark.parametrize(
    "path",
    ["/reports/unfinished", "/reports/none", "/reports/%2e%2e", "/reports/..%2fsecret.html",
     "/reports/secret.html", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/api/runs/none/tasks",
     "/api/runs/demo/questions/definition_to_finding/3", "/api/runs/demo/questions/entities/0"],
)  # fmt: skip
def test_what_is_not_there_or_not_for_readers(server: Running, path: str) -> None:
    response = httpx.get(f"{server.url}{path}")
    assert response.status_code == 404
    assert "confidential" not in response.text


def test_a_report_is_shut_in(server: Running) -> None:
    policy = httpx.get(f"{server.url}/reports/demo").headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")


def expected(server: Running, name: str, turns: list[Message], limit: int) -> str:
    model = server.service.models[name]
    prompt = model.chat_prompt(turns)
    tokens = generate(model.model, None, [prompt], max_new_tokens=limit, stop_ids=model.stop_ids)[0]
    text = str(model.tokenizer.decode(tokens, skip_special_tokens=True))
    return text.rstrip("\ufffd").strip()  # half a character, where the answer is cut, is no text


@needs_browser
def test_a_question_is_typed_streamed_and_compared(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    assert "For research only" in page.inner_text("header")
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.locator("#ask-models input:checked").count() == 3
    assert page.locator("#ask-models input[value=other]").is_disabled(), "at most three"
    page.click("#settings summary")
    page.fill("#max_tokens", "30")
    page.keyboard.press("Escape")
    page.fill("#question", "What is fever?")
    page.keyboard.press("Enter")
    # It streams: there is text while the answer is still being written.
    page.wait_for_function(
        "() => document.querySelector('.answer[aria-busy=true] .text')?.textContent.length > 3"
    )
    assert page.inner_text("#send") == "Stop"
    settle(page, 3)
    turns = [Message("user", "What is fever?")]
    for name in ("base", "stage1", "stage2"):
        assert said(page, 0, name) == expected(server, name, turns, 30)
    assert re.search(r"30 tokens in [\d.]+ s, [\d.]+ tokens/s", page.inner_text(".answer >> nth=0"))
    assert "cut at the longest answer" in page.inner_text(".answer >> nth=0")
    boxes = [card.bounding_box() for card in page.query_selector_all(".answer")]
    assert len({round(box["y"]) for box in boxes}) == 1, "side by side"
    # The second question comes with what each model said itself.
    page.click("#ask-models label:has([value=stage1])")
    page.click("#ask-models label:has([value=stage2])")
    page.keyboard.press("Tab")
    page.fill("#question", "And pain?")
    page.click("#send")
    settle(page, 4)
    turns += [Message("assistant", expected(server, "base", turns, 30)), Message("user", "And pain?")]
    assert said(page, 1, "base") == expected(server, "base", turns, 30)
    with page.expect_download() as download:
        page.click("#save")
    assert "What is fever?" in Path(download.value.path()).read_text()
    page.click("#reset")
    assert page.locator(".turn").count() == 0
    assert page.is_visible("#welcome")


@needs_browser
def test_a_thought_is_folded_beside_its_answer(page) -> None:  # type: ignore[no-untyped-def]
    tokenizer = tokenizer_of("qwen3")
    chain = {"Ċ": ["<think>"], "<think>": ["a"], "a": ["</think>"], "</think>": ["B"]}
    model = chain_model(tokenizer, chain, otherwise="<|im_end|>")
    with running(ServedModel("thinker", model, tokenizer)) as server:
        page.goto(server.url)
        page.fill("#question", "Which?")
        page.keyboard.press("Enter")
        settle(page, 1)
        assert page.text_content(".answer .text") == "B"
        assert page.is_visible(".thought summary")
        assert not page.is_visible(".thought .said")
        page.click(".thought summary")
        assert page.inner_text(".thought .said") == "a"


@needs_browser
def test_escape_stops_and_frees_the_rows(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    page.fill("#question", "One line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("<img src=x onerror=alert(1)>")
    page.click("#settings summary")
    page.fill("#max_tokens", "180")
    page.focus("#question")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.answer .text').textContent.length > 5")
    page.keyboard.press("Escape")
    settle(page, 3)
    assert page.inner_text(".answer .note >> nth=0") == "Stopped"
    assert page.inner_text(".question") == "One line\n<img src=x onerror=alert(1)>"
    page.wait_for_timeout(300)
    assert not any(model.engine.busy for model in server.service.models.values())


@needs_browser
def test_the_servers_errors_are_shown(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    page.fill("#question", "fever and pain " * 100)
    page.click("#send")
    settle(page, 3)
    assert "context is 256 tokens" in page.inner_text(".answer footer >> nth=0")
    # Browsers report every failed request in the console; that is the only thing there.
    assert all("400 (Bad Request)" in text for text in page.wrong)
    page.wrong.clear()


@needs_browser
def test_an_exam(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(server.url)
    page.click("nav >> text=Exam")
    page.wait_for_selector("#options li")
    assert page.inner_text("#position") == "1 of 3"
    assert "number 0" in page.inner_text("#prompt")
    assert "Skeleton" in page.inner_text("#facts")
    assert page.locator(".truth").count() == 0, "the truth is not shown before the models are asked"
    page.focus("#view")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#position').textContent === '2 of 3'")
    page.click("#score")
    page.wait_for_selector(".truth")
    assert page.inner_text(".truth .head").startswith("B")
    result = score(server.service.models["stage2"], ITEMS[1], by_length=False)
    shown = page.locator("#options li >> nth=2").locator(".share.c2 .value").inner_text()
    assert shown == f"{100 * result['options'][2]['share']:.1f} %"
    chosen = page.locator(f"#options li >> nth={result['chosen']}").locator(".share.c2")
    assert "chosen" in chosen.get_attribute("class")
    page.click("#next")
    page.wait_for_function("() => document.querySelector('#position').textContent === '3 of 3'")
    assert page.locator(".share").count() == 0
    assert page.is_disabled("#next")


@needs_browser
def test_a_report_opens(page, server: Running) -> None:  # type: ignore[no-untyped-def]
    page.goto(f"{server.url}/#runs")
    with page.context.expect_page() as opened:
        page.click("#runs-rows a")
    assert opened.value.inner_text("h1") == "Scores"
    assert opened.value.title() == "Report of demo!", "its own script runs"


@needs_browser
def test_a_phone(browser, server: Running) -> None:  # type: ignore[no-untyped-def]
    context = browser.new_context(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.url)
    page.fill("#question", "Fever?")
    page.tap("#send")
    settle(page, 3)
    boxes = [card.bounding_box() for card in page.query_selector_all(".answer")]
    assert len({round(box["x"]) for box in boxes}) == 1, "one below the other"
    for view in ("ask", "exam", "runs", "compare"):
        page.goto(f"{server.url}/#{view}")
        page.wait_for_selector(f"#{view}")
        assert page.evaluate("document.documentElement.scrollWidth") == 360, f"{view} scrolls sideways"
    assert page.is_visible("header .notice")
    page.goto(f"{server.url}/#ask")
    page.tap("#settings summary")
    panel = page.query_selector("#settings .panel").bounding_box()
    assert panel["x"] >= 0
    assert panel["x"] + panel["width"] <= 360
    assert panel["y"] >= 0
    context.close()


@needs_browser
def test_a_page_that_needs_a_key(browser) -> None:  # type: ignore[no-untyped-def]
    with running(served(), api_key="schlüssel") as server:
        page = browser.new_page()
        page.goto(server.url)
        page.fill("#key-value", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_function("() => /valid API key/.test(document.querySelector('#key-error').textContent)")
        page.fill("#key-value", "schlüssel")
        page.keyboard.press("Enter")
        page.wait_for_selector("#welcome")
        page.fill("#question", "Fever?")
        page.keyboard.press("Enter")
        settle(page, 1)
        assert re.search(r"\d+ tokens", page.inner_text(".answer footer"))
        page.close()


def test_links_out_of_the_reports_are_not_followed(server: Running, tmp_path: Path) -> None:
    """A run that is a link to elsewhere, a report that is one, and questions that are."""
    elsewhere, reports = tmp_path / "elsewhere", tmp_path / "reports"
    for folder in (elsewhere / "data", reports / "linked", reports / "inside" / "data"):
        folder.mkdir(parents=True)
    (elsewhere / "report.html").write_text("secret")
    (elsewhere / "data" / "items.jsonl").write_text("{}")
    (reports / "out").symlink_to(elsewhere)
    (reports / "linked" / "report.html").symlink_to(elsewhere / "report.html")
    (reports / "inside" / "report.html").write_text("shown")
    (reports / "inside" / "data" / "items.jsonl").symlink_to(elsewhere / "data" / "items.jsonl")
    found = FinishedRuns(RunFolders(reports))
    assert set(found.folders()) == {"inside"}
    assert found.questions("inside") == {}
