"""What `check` counts, explains and writes; nothing makes it crash."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcare.data.check import bad_file, check, language
from medcare.data.readers import FORMATS, conversations, items, open_data
from medcare.foundation.errors import DataError, StorageError
from medcare.text.chat_template import render_all
from tests.data.readers.samples import SAMPLES, write
from tests.text.tokenizers_by_family import tokenizer_of


def ask(prompt: str, answer: str) -> dict[str, str]:
    return {"instruction": prompt, "output": answer}


LONG = "The patient was admitted with fever and cough and was then"


def report_of(tmp_path: Path, rows, **options):
    return check(str(write(tmp_path / "data.jsonl", rows)), **options)


def test_a_clean_file(tmp_path: Path) -> None:
    report = report_of(tmp_path, [ask("q" * 10, "a" * 6), ask("x", "y")])
    assert (report.rows, report.good, report.bad, report.format) == (2, 2, {}, "alpaca")
    assert dict(report.lengths.bins) == {16: 1, 2: 1}
    assert (report.lengths.longest, report.lengths.total) == (16, 18)


def test_bad_rows_by_kind_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = ['{"instruction": "q", "output": "a"}', "no", '{"instruction": "q", "output": ""}', "[]"]
    path.write_text("\n".join(rows))
    report = check(str(path))
    assert (report.rows, report.good) == (4, 1)
    assert report.bad == {"not JSON": 1, "empty answer": 1, "not an object": 1}
    assert [number for number, _ in report.bad_examples] == [2, 3, 4]
    assert report.bad_examples[1] == (3, "empty answer: turn 2")


def test_duplicates_with_the_rows_they_repeat(tmp_path: Path) -> None:
    rows = [
        ask("What is asthma?", "A disease."),
        ask("p", "q"),
        ask("what is ASTHMA", "a disease"),
        ask("p", "q"),
    ]
    report = report_of(tmp_path, rows)
    assert (report.repeats.exact, report.repeats.normalised) == (1, 2)
    assert report.repeats.examples == [(3, 1), (4, 2)]


def test_the_same_words_split_elsewhere_are_no_exact_duplicate(tmp_path: Path) -> None:
    report = report_of(tmp_path, [ask("a b", "c"), ask("a", "b c")])
    assert (report.repeats.exact, report.repeats.normalised) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "cut_off"),
    [
        (LONG, 1),
        (LONG + ".", 0),
        (LONG + "。", 0),
        (LONG + " (see below)", 0),
        (f"{LONG}\nB. asthma", 0),  # the last line is not prose
        ("患者三天前无明显诱因出现发热咳嗽伴有胸痛和呼吸困难来我院就诊后诊断为肺炎并且给予抗生素治疗，", 1),
        ("B", 0),
    ],
)
def test_answers_that_look_cut_off(answer: str, cut_off: int, tmp_path: Path) -> None:
    assert report_of(tmp_path, [ask("q", answer)]).cut_off == cut_off


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is asthma?", "Latin script"),
        ("Qu'est-ce qu'une pneumopathie infiltrée?", "Latin script"),
        ("患者使用ACEI和β受体阻滞剂", "Chinese"),
        ("Что такое астма?", "other"),
        ("喘息とはどのような病気ですか、そしてどうやって治療しますか", "other"),
        ("喘息患者の気道過敏性検査と治療方針", "other"),
        ("12.5", "other"),
    ],
)
def test_the_language_is_guessed_from_the_letters(text: str, expected: str) -> None:
    assert language(text) == expected


def test_lengths_in_tokens_are_those_of_the_rendered_conversation(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("chatml")
    rows = [ask("What is asthma?", "A disease of the airways."), ask("x", "y")]
    path = str(write(tmp_path / "data.jsonl", rows))
    expected = [len(row.ids) for row in render_all(tokenizer, list(conversations(path)))]
    report = check(path, tokenizer=tokenizer, max_length=min(expected))
    assert (report.lengths.unit, report.lengths.total) == ("tokens", sum(expected))
    assert report.too_long == 1


def test_what_the_model_sees_is_shown_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    rows = [{"messages": turns}, {"messages": turns[2:]}, {"messages": turns[2:]}]
    path = str(write(tmp_path / "data.jsonl", rows))
    short = render_all(tokenizer_of("qwen3"), [list(conversations(path))[1]])[0]
    found = check(path, tokenizer=tokenizer_of("qwen3"), positions=len(short.ids)).rendering
    assert found is not None
    assert (found.rows, found.thoughts, found.too_long) == (
        4,
        1,
        1,
    )  # the first row gives one for each answer
    assert len(found.shown) == 3
    prompt, answer, rest = found.shown[0]
    assert prompt == ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False)
    assert answer == ("<think>\nhm\n</think>\n\nb<|im_end|>", True)
    assert rest == ("\n", False)
    assert check(path).rendering is None


def test_rows_that_the_chat_template_refuses_are_bad(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    refusal = "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    longer = {**ask("c", "d"), "history": [["a", "b"]]}
    report = report_of(tmp_path, [ask("yes", "a"), longer, ask("fine", "a")], tokenizer=tokenizer)
    assert report.bad == {"refused by the chat template": 1}
    assert report.bad_examples[0][0] == 2
    assert "one turn only" in report.bad_examples[0][1]


def test_good_and_bad_rows_are_written_apart(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    rows = [ask("q", "a"), ask("q", "a\u0000"), ask("r", "b")]
    report_of(tmp_path, rows, write_good=good)
    assert [talk.messages[0].content for talk in conversations(str(good))] == ["q", "r"]
    (bad,) = [json.loads(line) for line in bad_file(good).read_text().splitlines()]
    assert bad == {"number": 2, "reason": "control character: U+0000 in turn 2", "row": rows[1]}
    report_of(tmp_path, rows[:1], write_good=good)
    assert not bad_file(good).exists()  # what an earlier check wrote says nothing of this file


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Could not write"):
        report_of(tmp_path, [ask("q", "a")], write_good=tmp_path / "file" / "good.jsonl")


def test_undecoded_characters_are_counted(tmp_path: Path) -> None:
    assert report_of(tmp_path, [ask("q", "na\ufffdve"), ask("q", "b")]).undecoded == 1


def test_the_report_is_json(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(report_of(tmp_path, [ask("q", "a"), {"instruction": 3}]).to_dict()))
    assert (tree["rows"], tree["good"], tree["bad"]) == (2, 1, {"wrong type": 1})
    assert tree["lengths"]["bins"] == {"2": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
row_bytes = st.one_of(
    st.binary(max_size=60).map(lambda data: data.replace(b"\n", b" ")),
    st.fixed_dictionaries({"instruction": values, "output": values}).map(
        lambda row: json.dumps(row).encode()
    ),
    st.fixed_dictionaries(
        {"instruction": st.text(max_size=20), "output": st.text(max_size=60)}, optional={"system": st.text()}
    ).map(lambda row: json.dumps(row).encode()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(st.lists(row_bytes, min_size=1, max_size=8), st.booleans())
def test_no_row_makes_it_crash_and_every_row_is_accounted_for(tmp_path: Path, rows, measured: bool) -> None:
    path, good = tmp_path / "data.jsonl", tmp_path / "good.jsonl"
    path.write_bytes(b'{"instruction": "q", "output": "a"}\n' + b"\n".join(rows) + b"\n")
    tokenizer = tokenizer_of("chatml") if measured else None
    report = check(str(path), "alpaca", tokenizer=tokenizer, write_good=good)
    written = len(good.read_text(encoding="utf-8").splitlines())
    set_aside = len(bad_file(good).read_text().splitlines()) if bad_file(good).exists() else 0
    assert report.rows == report.good + report.bad.total()
    assert set_aside == report.bad.total()
    assert len(list(conversations(str(good)))) == report.good
    assert written >= report.good  # a message may hold other line separators


@pytest.mark.parametrize(
    ("name", "told"), [("x.jsonl", "also an input"), ("x", "x.bad.jsonl is"), (".", "a folder")]
)
def test_the_good_rows_are_not_written_over_what_is_read(tmp_path: Path, name: str, told: str) -> None:
    source = write(tmp_path / ("x.bad.jsonl" if name == "x" else "x.jsonl"), [ask("q", "a"), ask("q", "")])
    before = source.read_bytes()
    with pytest.raises(DataError, match=told):
        check(str(source), write_good=tmp_path / name)
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", [name for name in SAMPLES if not FORMATS[name].by_name])
def test_good_rows_keep_their_format_so_that_they_still_test_and_train(name: str, tmp_path: Path) -> None:
    file, rows, _ = SAMPLES[name]
    path, good = write(tmp_path / file, rows), tmp_path / "good.jsonl"
    check(str(path), name, write_good=good)
    before, after = open_data(str(path), name), open_data(str(good), name)
    assert [record.messages for _, record in after.conversations()] == [
        record.messages for _, record in before.conversations()
    ]
    if FORMATS[name].tests:
        assert [(item.prompt, item.answers, item.target) for item in items(str(good), name)] == [
            (item.prompt, item.answers, item.target) for item in items(str(path), name)
        ]


def test_good_rows_are_no_table(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"name a file good\.jsonl"):
        check(str(path), write_good=tmp_path / "good.csv")
