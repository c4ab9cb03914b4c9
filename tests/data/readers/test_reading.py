"""Every published format is recognised and read; bad rows are told, never lost; lossless round trips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from medcare.data.readers import FORMATS, Bad, conversations, items, open_data
from medcare.data.record_files import write_records
from medcare.foundation.errors import DataError
from medcare.text.records import Conversation, Item, Message, ToolCall
from tests.data.readers.samples import EXAM, LETTERED, OPTIONS, QUESTION, SAMPLES, TARGET, write

in_scratch = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
every_format = pytest.mark.parametrize("name", SAMPLES)
EXAMS = tuple(name for name in SAMPLES if FORMATS[name].tests)


def test_there_is_a_sample_of_every_format() -> None:
    assert set(SAMPLES) == set(FORMATS)


@every_format
def test_a_published_file_is_recognised_and_gives_its_conversation(name: str, tmp_path: Path) -> None:
    file, rows, expected = SAMPLES[name]
    path = str(write(tmp_path / file, rows))
    asked = name if FORMATS[name].by_name else None
    assert open_data(path, asked).format == name
    found = list(conversations(path, asked))
    assert len(found) == len(rows)
    assert found[0].messages == expected


@every_format
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_the_container_does_not_matter(name: str, ending: str, tmp_path: Path) -> None:
    _, rows, expected = SAMPLES[name]
    path = str(write(tmp_path / f"data{ending}", rows))
    assert next(conversations(path, name)).messages == expected


def test_turns_have_either_of_their_names_whatever_the_list_is_called(tmp_path: Path) -> None:
    roles, froms = (
        [{who: "user", what: "q"}, {who: "assistant", what: "a"}]
        for who, what in (("role", "content"), ("from", "value"))
    )
    path = write(tmp_path / "x.jsonl", [{"conversations": roles}, {"conversations": froms}])
    first, second = conversations(str(path))
    assert first.messages == second.messages == (Message("user", "q"), Message("assistant", "a"))


@pytest.mark.parametrize("name", EXAMS)
def test_exams_and_tasks_give_test_items(name: str, tmp_path: Path) -> None:
    file, rows, messages = SAMPLES[name]
    item = next(items(str(write(tmp_path / file, rows))))
    assert item.prompt == messages[0].content
    if name.startswith("pubmedqa"):
        assert item.options == ("yes", "no", "maybe")
    elif name not in ("promptcblue", "items"):
        assert item.task == Path(file).stem  # as the file is called
        assert (item.family, item.options, item.answers) == ("knowledge", OPTIONS, (0,))
        assert item.target == TARGET


def test_items_of_this_package_come_back_as_they_were(tmp_path: Path) -> None:
    file, rows, _ = SAMPLES["items"]
    item = next(items(str(write(tmp_path / file, rows))))
    assert item == Item(**{**rows[0], "options": tuple(rows[0]["options"]), "answers": (1,)})


def test_promptcblue_keeps_task_and_id(tmp_path: Path) -> None:
    path = str(write(tmp_path / "dev.json", SAMPLES["promptcblue"][1]))
    assert (next(conversations(path)).id, next(conversations(path)).source) == ("dev-1", "MedDG")
    assert (next(items(path)).task, next(items(path)).family) == ("MedDG", "alignment")


@pytest.mark.parametrize(
    ("name", "file", "subject"),
    [
        ("medmcqa", "x.parquet", "Physiology"),
        ("mmlu", "x.jsonl", "anatomy"),
        ("cmmlu", "college_medicine.csv", "college_medicine"),
        ("ceval", "physician_val.csv", "physician"),  # one file a subject
        ("cmexam", "train.csv", ""),
    ],
)
def test_subjects_are_kept(name: str, file: str, subject: str, tmp_path: Path) -> None:
    assert next(items(str(write(tmp_path / file, SAMPLES[name][1])))).subject == subject


def test_files_of_one_subject_each_are_one_exam(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "ceval-exam" / "val"
    folder.mkdir(parents=True)
    header = "id,question,A,B,C,D,answer\n"
    for subject in ("physician", "nurse"):
        (folder / f"{subject}_val.csv").write_text(f"{header}0,Q?,a,b,c,d,B\n1,R?,a,b,c,d,C\n")
    monkeypatch.chdir(tmp_path)
    for source in ("ceval-exam/val", "ceval-exam/val/*_val.csv", "ceval-exam/val/*"):
        found = list(items(source))
        assert {item.task for item in found} == {"ceval-exam_val"}
        assert [item.subject for item in found] == ["nurse"] * 2 + ["physician"] * 2
        assert len({item.id for item in found}) == 4
    assert {item.task for item in items("ceval-exam")} == {"ceval-exam"}
    assert {item.task for item in items("ceval-exam/val/nurse_val.csv")} == {"nurse_val"}
    monkeypatch.chdir(folder)
    assert {item.task for item in items("*.csv")} == {"ceval-exam_val"}
    # What is no exam of many subjects has a task for each file, as ever.
    for name in ("one", "two"):
        (tmp_path / "others").mkdir(exist_ok=True)
        row = {"question": "Which?", "options": ["x", "y"], "answer": "A"}
        (tmp_path / "others" / f"{name}.jsonl").write_text(json.dumps(row))
    assert {item.task for item in items(str(tmp_path / "others"))} == {"one", "two"}


@pytest.mark.parametrize(
    ("first", "second", "advice"),
    [
        ("mmlu/nurse_dev.csv", "mmlu/nurse_test.csv", "mmlu/*_test.csv"),
        ("cmmlu/dev/nurse.csv", "cmmlu/test/nurse.csv", "cmmlu/test"),
    ],
)
def test_splits_of_one_exam_are_not_tested_together(first, second, advice, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (first, second):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("Which?,a,b,c,d,B\n")
    with pytest.raises(DataError, match=f"of one subject, such as {first} and {second}") as told:
        list(items(Path(first).parts[0]))
    assert f"'{advice}'" in str(told.value)
    assert len(list(items(advice))) == 1
    assert len(list(conversations(Path(first).parts[0]))) == 2, "all of them train"


def test_mmlu_as_published_in_csv_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "anatomy_test.csv"
    path.write_text(f'{QUESTION},"皮肤",肝脏,小肠,肺,A\n另一题,1,2,3,4,C\n', encoding="utf-8")
    found = list(conversations(str(path)))
    assert found[0].messages == EXAM
    assert found[1].messages[1].content == "C. 3"
    item = next(items(str(path)))
    assert (item.task, item.subject, item.answers) == ("anatomy_test", "anatomy", (0,))


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        (["B", "C", "K", "E"], "B", (1,)),  # the letter, not the option that reads "B"
        (LETTERED, "ＢＤ", (1, 3)),
        (LETTERED, "A,C", (0, 2)),
        (LETTERED, ["c", "a"], (0, 2)),
        (LETTERED, "肺", (3,)),
        ([{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "B", (1,)),
        ({"A": "x", "B": None, "C": "z"}, "C", (1,)),
        ("(A) x\n(B) y\n还有\n(C) z", "C", (2,)),
        ([1.5, 2], "A", (0,)),
    ],
)
def test_answers_are_read_in_every_way_they_are_written(options, answer, expected, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"question": "q", "options": options, "answer_idx": answer}))
    assert next(items(str(path), "medqa")).answers == expected


def test_an_empty_option_keeps_the_letters_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        json.dumps({"question": "q", "options": {"A": "x", "B": "", "C": "z"}, "answer_idx": "C"})
    )
    assert next(items(str(path))).prompt == "q\nA. x\nC. z"


def with_turn(turn, **row):
    """A row whose answer has the given fields."""
    return {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **turn}],
        **row,
    }


CALL = {"type": "function", "id": "c1", "function": {"name": "look_up", "arguments": {"word": "发热"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def test_every_field_of_a_turn_is_read_and_comes_back(tmp_path: Path) -> None:
    turns = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        },
        {"role": "user", "content": "q", "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm", "weight": 0},
        {"role": "tool", "content": "heat", "name": "look_up", "tool_call_id": "c1"},
        {"role": "assistant", "content": "a", "train": True, "tool_calls": []},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"messages": turns, "tools": json.dumps([TOOL]), "label": True}))
    [talk] = conversations(str(path))
    call = ToolCall("look_up", '{"word": "发热"}', "c1")
    assert talk.messages == (
        Message("system", "Be brief."),
        Message("user", "q"),
        Message("assistant", "", reasoning_content="hm", tool_calls=(call,), trained=False),
        Message("tool", "heat", name="look_up", tool_call_id="c1"),
        Message("assistant", "a"),
    )
    assert json.loads(talk.tools) == [TOOL]
    write_records(tmp_path / "again.jsonl", [talk])
    again = next(conversations(str(tmp_path / "again.jsonl")))
    assert (again.messages, again.tools) == (talk.messages, talk.tools)
    assert next(conversations(str(tmp_path / "again.jsonl"))).messages == talk.messages


def test_the_tool_turns_of_sharegpt_are_read(tmp_path: Path) -> None:
    said = [
        ("human", "q"),
        ("function_call", json.dumps(CALL["function"])),
        ("observation", "heat"),
        ("gpt", "a"),
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"conversations": [{"from": who, "value": what} for who, what in said]}]))
    [talk] = conversations(str(path))
    assert [message.role for message in talk.messages] == ["user", "assistant", "tool", "assistant"]
    assert talk.messages[1].tool_calls == (ToolCall("look_up", '{"word": "发热"}'),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no assistant turn"),
        ({"messages": "hello"}, "wrong type: 'messages' must be a list, got str"),
        ({"messages": None}, "wrong type: 'messages' must be a list, got nothing"),
        ({"messages": ["hello"]}, "wrong type: turn 1 must be an object, got str"),
        ({"messages": [{"role": "user", "content": 3}]}, "wrong type: the content of turn 1 must be text"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "unknown role: 'judge' in turn 1"),
        (with_turn({"content": [{"type": "image_url", "image_url": "x"}]}), "not text: a part 'image_url'"),
        (with_turn({"content": [3]}), "not text: a part 'int' in turn 2"),
        (with_turn({"images": ["x.png"]}), "not text: 'images' in turn 2"),
        (with_turn({"content": None}), "wrong type: the content of turn 2 must be text, got nothing"),
        (with_turn({"weight": 0.5}), "unknown weight: 'weight' of turn 2 must be 0 or 1, got 0.5"),
        (with_turn({"loss_mask": [0, 1]}), "unknown weight: 'loss_mask' of turn 2"),
        (with_turn({"weight": 0}), "no turn to train on: the weight of every answer is 0"),
        (with_turn({"tool_calls": "x"}), "wrong type: 'tool_calls' of turn 2 must be a list"),
        (with_turn({"tool_calls": [{"function": {}}]}), "wrong type: a tool call of turn 2 needs a name"),
        (with_turn({}, tools=["x"]), "wrong type: the tools must be a list of objects"),
        (with_turn({}, tools=[{"name": "\ud800"}]), "half a surrogate pair: U+D800 in the tools"),
        (with_turn({}, system=["x"]), "wrong type: 'system' must be text, got list"),
        (with_turn({}, label=False), "a bad answer: the row's 'label' is false"),
        (with_turn({}, kto_tag=False), "a bad answer: the row's 'kto_tag' is false"),
        (with_turn({}, images=["x.png"]), "not text: 'images'"),
        ("user tool assistant", "roles out of order: turn 2 is the tool's, not the assistant's"),
        ("user", "no assistant turn"),
        ("assistant", "roles out of order: turn 1 is the assistant's"),
        ("user assistant user", "roles out of order: the last turn is the user's"),
        ("user user assistant", "roles out of order: turn 2 is the user's"),
        ("user system assistant", "roles out of order: turn 2 is the system's"),
    ],
)
def test_bad_conversations_say_what_is_wrong(row, reason: str, tmp_path: Path) -> None:
    if isinstance(row, str):
        row = {"messages": [{"role": role, "content": "x"} for role in row.split()]}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match="line 1") as raised:
        list(conversations(str(path), "messages"))
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer: turn 2"),
        ("  \n", "empty answer: turn 2"),
        ("a\x07b", "control character: U+0007 in turn 2"),
        ("a\ud83d", "half a surrogate pair: U+D83D in turn 2"),
    ],
)
def test_bad_texts_say_what_is_wrong(answer: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"instruction": "q", "output": answer}))
    ((_, bad),) = open_data(str(path)).conversations()
    assert isinstance(bad, Bad)
    assert bad.reason == reason
    assert bad.row == {"instruction": "q", "output": answer}


@pytest.mark.parametrize("answer", ["", None, "E", "AE", "maybe", True, 7, {}])
def test_an_exam_without_a_usable_answer_is_a_bad_row(answer, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"question": "q", "options": LETTERED, "answer_idx": answer}))
    ((_, bad),) = open_data(str(path), "medqa").items()
    assert isinstance(bad, Bad)
    assert bad.kind in ("no answer", "no such option")


@pytest.mark.parametrize(
    "options",
    [
        {"text": ["a", "b", "c"], "label": ["A", "B"]},
        {"A": "a", "a": "b"},
        [{"key": "A", "value": "a"}, {"key": "A", "value": "b"}],
        ["a"] * 27,
    ],
)
def test_no_option_is_lost_for_want_of_a_letter(options, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"question": "q", "options": options, "answer": "A"}))
    ((_, bad),) = open_data(str(path)).items()
    assert isinstance(bad, Bad)
    assert bad.kind == "unclear options"


@pytest.mark.parametrize("gold", [True, False])
def test_a_system_prompt_is_not_lost_where_items_have_none(gold: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"input": "q", "target": "a", "system": "Be brief."}])
    ((_, bad),) = open_data(str(path), "promptcblue").items(gold=gold)
    assert isinstance(bad, Bad)
    assert bad.kind == "a system prompt"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": " "}, "empty prompt"),
        ({"system": "s"}, "a system prompt: "),
        ({"prompt": "\ud800"}, "half a surrogate pair: U+D800 in the prompt"),
        ({"target": "a\x00"}, "control character: U+0000 in the target"),
        ({"tags": [["\ud800", []]]}, "half a surrogate pair: U+D800 in"),
        ({"tags": [["theme"]]}, "no test item: tags.0.1 can't be used: "),
        ({"family": "other"}, "no test item: family can't be used: "),
        ({"options": ["a"], "answers": [1]}, "no such option: 'answers'"),
    ],
)
def test_bad_items_of_this_package_say_what_is_wrong(change, reason: str, tmp_path: Path) -> None:
    item = Item("1", "task", "knowledge", "taught", "fact", "prompt", target="target")
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(item.to_dict()) + "\n" + json.dumps({**item.to_dict(), **change}))
    (_, good), (_, bad) = open_data(str(path)).items()
    assert good == item
    assert isinstance(bad, Bad)
    assert bad.reason.startswith(reason)


def test_medmcqa_is_told_apart_by_the_number_of_its_first_option(tmp_path: Path) -> None:
    row = SAMPLES["medmcqa"][1][0]
    hub = write(tmp_path / "hub.jsonl", [{**row, "cop": number} for number in (1, 2, 0, -1)])
    assert open_data(str(hub)).format == "medmcqa"
    unclear = write(tmp_path / "unclear.jsonl", [{**row, "cop": number} for number in (1, 2, 3)])
    with pytest.raises(DataError, match="medmcqa or medmcqa_original"):
        open_data(str(unclear))


def test_bad_rows_are_handed_over_in_order_and_the_others_read(tmp_path: Path) -> None:
    good = json.dumps({"instruction": "q", "output": "a"})
    path = tmp_path / "x.jsonl"
    path.write_bytes(f"{good}\nnot json\n\n[1]\n{good}\n".encode() + b'{"instruction": "\xff"}\n')
    bad: list[Bad] = []
    found = list(conversations(str(path), on_bad=bad.append))
    assert [conversation.id for conversation in found] == ["1", "5"]
    assert [(row.number, row.kind) for row in bad] == [
        (2, "not JSON"),
        (4, "not an object"),
        (6, "broken UTF-8"),
    ]
    assert bad[0].row == "not json"


@pytest.mark.parametrize("name", ["messages", "sharegpt", "alpaca", "text"])
def test_what_only_trains_gives_no_items(name: str, tmp_path: Path) -> None:
    file, rows, _ = SAMPLES[name]
    with pytest.raises(DataError, match="trains but does not test"):
        list(items(str(write(tmp_path / file, rows))))


@pytest.mark.parametrize(
    ("format", "message"), [("alpacca", "Did you mean 'alpaca'"), ("zzz", "Known: messages")]
)
def test_an_unknown_format_is_refused_with_advice(format: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match=message):
        open_data(str(path), format)


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns answer_text, question_text"):
        open_data(str(write(tmp_path / "x.jsonl", [{"question_text": "q", "answer_text": "a"}])))


# Hypothesis: what is lossless comes back.

texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"),
    min_size=1,
).filter(str.strip)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


def talk(turns, system="") -> tuple[Message, ...]:
    spoken = [m for prompt, answer in turns for m in (Message("user", prompt), Message("assistant", answer))]
    return (*([Message("system", system)] if system else []), *spoken)


def as_messages(turns, system):
    return {"messages": [{"role": m.role, "content": m.content} for m in talk(turns, system)]}


def as_sharegpt(turns, system):
    names = {"user": "human", "assistant": "gpt"}
    spoken = [{"from": names[m.role], "value": m.content} for m in talk(turns)]
    return {"conversations": spoken, **({"system": system} if system else {})}


def as_alpaca(turns, system):
    *history, (prompt, answer) = turns
    row = {"instruction": prompt, "input": "", "output": answer, "history": [list(pair) for pair in history]}
    return {**row, **({"system": system} if system else {})}


@pytest.mark.parametrize("writer", [as_messages, as_sharegpt, as_alpaca])
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@in_scratch
@given(turns=pairs, system=st.one_of(st.just(""), texts))
def test_conversations_come_back_from_every_format(writer, ending, tmp_path, turns, system) -> None:
    path = str(write(tmp_path / f"x.{ending}", [writer(turns, system)]))
    assert [c.messages for c in conversations(path)] == [talk(turns, system)]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@in_scratch
@given(prompt=texts, answer=texts)
def test_pairs_come_back_from_tables(ending, tmp_path, prompt, answer) -> None:
    assume(not {prompt, answer} & {"nan", "NaN", "NaT", "<NA>", "#N/A"})  # empty cells, as pandas writes them
    path = str(write(tmp_path / f"x.{ending}", [{"input": prompt, "target": answer, "sample_id": "s"}]))
    assert list(conversations(path)) == [Conversation("s", "x", talk([(prompt, answer)]))]


@in_scratch
@given(
    st.lists(texts.map(str.strip).filter(lambda t: "\n" not in t), min_size=2, max_size=6, unique=True),
    st.data(),
)
def test_exams_come_back(tmp_path, options, data) -> None:
    chosen = data.draw(st.sets(st.sampled_from(range(len(options))), min_size=1))
    letters = "ABCDEF"[: len(options)]
    answer = "".join(letters[index] for index in sorted(chosen))
    row = {"question": "q", "options": dict(zip(letters, options, strict=True)), "answer_idx": answer}
    item = next(items(str(write(tmp_path / "x.jsonl", [row]))))
    assert item.options == tuple(options)
    assert set(item.answers) == chosen
    assert item.target == "\n".join(f"{letters[index]}. {options[index]}" for index in sorted(chosen))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
columns = sorted(
    {column for form in FORMATS.values() for column in form.required} | {"history", "system", "E"}
)


@every_format
@in_scratch
@given(row=st.dictionaries(st.sampled_from(columns), json_values))
def test_no_row_makes_a_reader_crash(name, tmp_path, row) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n")
    for _, record in open_data(str(path), name).conversations():
        assert isinstance(record, Bad | Conversation)
    if name in EXAMS:
        for _, record in open_data(str(path), name).items():
            assert isinstance(record, Bad | Item)


@pytest.mark.parametrize(
    ("header", "columns", "name"),
    [
        ("Question ,OPTIONS,answer", {}, "cmexam"), ("Prompt,Completion", {}, "prompt_completion"),
        ("Frage,Antwort", {"question": "Frage", "answer": "Antwort"}, "question_answer"),
        ("QUESTION,Answer", {}, "question_answer"), ("Query,Response", {}, "query_response"),
        ("Frage,Auswahl,Lösung", {"question": "Frage", "options": "Auswahl", "answer": "Lösung"}, "exam"),
    ],
)  # fmt: skip
def test_tables_of_ones_own(header: str, columns: dict[str, str], name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cells = ["What is asthma?", "A a disease\nB a drug", "A"]
    row = cells if header.count(",") == 2 else [cells[0], cells[2]]
    path.write_text(header + "\n" + ",".join(f'"{cell}"' for cell in row) + "\n", encoding="utf-8")
    reading = open_data(str(path), columns=columns)
    assert reading.format == name
    (talk,) = conversations(str(path), columns=columns)
    assert talk.messages[0].content.startswith("What is asthma?")
    assert talk.messages[1].content.startswith("A")
    with pytest.raises(DataError, match=r"no column 'Nix'.*Its columns"):
        open_data(str(path), columns={"question": "Nix"})


@pytest.mark.parametrize(
    ("answers", "expected"), [([0, 2], [0, 2]), ([3, 1], [2, 0]), ([1.0, 3.0], [0, 2]), (["2", "0"], [2, 0])]
)
def test_whether_numbers_count_from_0_or_1_is_told_by_the_rows(answers, expected, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"question": "q", "options": ["x", "y", "z"], "answer": answer} for answer in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [item.answers for item in items(str(path))] == [(place,) for place in expected]
    path.write_text(json.dumps({**rows[0], "answer": 1}) + "\n")
    with pytest.raises(DataError, match="can't be told"):
        open_data(str(path))


def test_preferences_train_only_if_asked(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.jsonl", SAMPLES["chosen"][1]))
    with pytest.raises(DataError, match=r"preferences.*--format chosen"):
        open_data(path)


def test_plain_text_comes_back_also_among_conversations(tmp_path: Path) -> None:
    rows = [SAMPLES["messages"][1][0], {"id": "b", "source": "book", "text": "Asthma.\n\n<|im_end|> 哮喘"}]
    for some in (rows, rows[::-1], rows[1:]):
        path = str(write(tmp_path / "mix.jsonl", some))
        found = list(conversations(path))
        assert [talk.document for talk in found] == ["text" in row for row in some]
        assert [talk.to_dict() for talk in found if talk.document] == rows[1:]
        write(tmp_path / "again.jsonl", [talk.to_dict() for talk in found])
        assert list(conversations(str(tmp_path / "again.jsonl"))) == found


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": " \n"}, "empty text: 'text'"),
        ({"text": ["a"]}, "wrong type: 'text' must be text, got list"),
        ({"text": "a\u0000b"}, "control character: U+0000 in turn 1"),
    ],
)
def test_bad_plain_text_says_what_is_wrong(row, reason: str, tmp_path: Path) -> None:
    path = str(write(tmp_path / "x.jsonl", [{"text": "good"}, row]))
    assert [bad.reason for _, bad in open_data(path).conversations() if isinstance(bad, Bad)] == [reason]


@pytest.mark.parametrize("place", ["id", "subject_name", "opb"])
def test_half_a_character_in_a_name_or_an_option_is_a_bad_row(place: str, tmp_path: Path) -> None:
    """Nothing could be told of it: neither a terminal nor a browser takes it."""
    row = {
        "id": "1",
        "question": "q",
        "opa": "a",
        "opb": "b",
        "opc": "c",
        "opd": "d",
        "cop": 0,
        "subject_name": "s",
    }
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({**row, place: "x\ud800"}) + "\n" + json.dumps({**row, "id": "2"}))
    (_, bad), (_, good) = open_data(str(path)).items()
    assert isinstance(bad, Bad)
    assert bad.reason.startswith("half a surrogate pair: U+D800 in ")
    assert not isinstance(good, Bad)
    path.write_text(json.dumps({"id": "\ud800", "instruction": "q", "output": "a"}))
    ((_, bad),) = open_data(str(path)).conversations()
    assert isinstance(bad, Bad)
