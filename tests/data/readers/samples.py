"""One tiny file for each published format, and what is read from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from medcare.text.records import Message

QUESTION = "人体最大的器官是"
OPTIONS = ("皮肤", "肝脏", "小肠", "肺")
LETTERED = dict(zip("ABCD", OPTIONS, strict=True))
PROMPT = f"{QUESTION}\nA. 皮肤\nB. 肝脏\nC. 小肠\nD. 肺"
TARGET = "A. 皮肤"

ASKED = (Message("user", "What is asthma?"), Message("assistant", "A disease of the airways."))
EXAM = (Message("user", PROMPT), Message("assistant", TARGET))
EXPLAINED = (EXAM[0], Message("assistant", f"{TARGET}\n\n皮肤的面积约为两平方米。"))

# Format, file, rows, the conversation of the first row.
# fmt: off
SAMPLES: dict[str, tuple[str, list[dict[str, Any]], tuple[Message, ...]]] = {
    "messages": (
        "chat.jsonl",
        [{"messages": [{"role": m.role, "content": m.content} for m in ASKED]}],
        ASKED,
    ),
    "sharegpt": (
        "chat.json",
        [
            {
                "id": 7,
                "conversations": [
                    {"from": "human", "value": ASKED[0].content},
                    {"from": "gpt", "value": ASKED[1].content},
                ],
            }
        ],
        ASKED,
    ),
    "conversation": (
        "chat.jsonl",
        [{"conversation": [{"human": ASKED[0].content, "assistant": ASKED[1].content}]}],
        ASKED,
    ),
    "alpaca": (
        "alpaca.json",
        [{"instruction": ASKED[0].content, "input": "", "output": ASKED[1].content}],
        ASKED,
    ),
    "promptcblue": (
        "dev.json",
        [
            {
                "input": ASKED[0].content,
                "target": ASKED[1].content,
                "answer_choices": None,
                "task_type": "response_generation",
                "task_dataset": "MedDG",
                "sample_id": "dev-1",
            }
        ],
        ASKED,
    ),
    "items": (
        "items.jsonl",
        [
            {
                "id": "i",
                "task": "t",
                "family": "knowledge",
                "split": "taught",
                "fact": "f",
                "prompt": ASKED[0].content,
                "options": ["no", ASKED[1].content],
                "answers": [1],
                "target": ASKED[1].content,
            }
        ],
        ASKED,
    ),
    "cmexam": (
        "train.csv",
        [
            {
                "Question": QUESTION,
                "Options": "\n".join(f"{letter} {text}" for letter, text in LETTERED.items()),
                "Answer": "A",
                "Explanation": "皮肤的面积约为两平方米。",
            }
        ],
        EXPLAINED,
    ),
    "cmmlu": (
        "college_medicine.csv",
        [{"": "0", "Question": QUESTION, **LETTERED, "Answer": "A"}],
        EXAM,
    ),
    "lettered": (
        "exam.csv",
        [{"question": QUESTION, **LETTERED, "E": "", "answer": "A"}],
        EXAM,
    ),
    "ceval": (
        "physician_dev.csv",
        [
            {
                "id": "0",
                "question": QUESTION,
                **LETTERED,
                "answer": "A",
                "explanation": "皮肤的面积约为两平方米。",
            }
        ],
        EXPLAINED,
    ),
    "cmb": (
        "CMB-train.json",
        [
            {
                "exam_type": "医师考试",
                "exam_class": "执业医师",
                "exam_subject": "临床执业医师",
                "question": QUESTION,
                "answer": "A",
                "question_type": "单项选择题",
                "option": {**LETTERED, "E": ""},
            }
        ],
        (Message("user", f"[单项选择题] {PROMPT}"), EXAM[1]),
    ),
    "medqa": (
        "US_test.jsonl",
        [
            {
                "question": QUESTION,
                "answer": OPTIONS[0],
                "options": LETTERED,
                "meta_info": "step1",
                "answer_idx": "A",
            }
        ],
        EXAM,
    ),
    "medqa_hf": (
        "test.json",
        [
            {
                "id": "test-1",
                "sent1": QUESTION,
                "sent2": "",
                **{f"ending{place}": text for place, text in enumerate(OPTIONS)},
                "label": 0,
            }
        ],
        EXAM,
    ),
    "mmedbench": (
        "Chinese.jsonl",
        [
            {
                "question": QUESTION,
                "options": LETTERED,
                "answer_idx": "A",
                "rationale": "皮肤的面积约为两平方米。",
                "human_checked": False,
            }
        ],
        EXPLAINED,
    ),
    "medmcqa": (
        "validation.parquet",
        [
            {
                "id": "m",
                "question": QUESTION,
                **dict(zip(("opa", "opb", "opc", "opd"), OPTIONS, strict=True)),
                "cop": 0,
                "exp": None,
                "subject_name": "Physiology",
            }
        ],
        EXAM,
    ),
    "medmcqa_original": (
        "dev.jsonl",
        [
            {
                "id": name,
                "question": QUESTION,
                **dict(zip(("opa", "opb", "opc", "opd"), OPTIONS, strict=True)),
                "cop": number,
                "exp": "皮肤的面积约为两平方米。",
            }
            for name, number in (("m", 1), ("n", 4))
        ],
        EXPLAINED,
    ),
    "mmlu": (
        "anatomy.parquet",
        [{"question": QUESTION, "subject": "anatomy", "choices": list(OPTIONS), "answer": 0}],
        EXAM,
    ),
    "arc": (
        "test.jsonl",
        [{"id": "1", "question": QUESTION, "choices": {"text": list(OPTIONS), "label": list("ABCD")},
          "answerKey": "A"}],
        EXAM,
    ),
    "headqa": (
        "test.jsonl",
        [{"qid": "1", "category": "medicine", "qtext": QUESTION, "ra": "1",
          "answers": [{"aid": str(n), "atext": text} for n, text in enumerate(OPTIONS, start=1)]}],
        EXAM,
    ),
    "frenchmedmcqa": (
        "train.json",
        [{"id": "1", "question": QUESTION, "answers": {k.lower(): v for k, v in LETTERED.items()},
          "correct_answers": ["a"], "subject_name": "pharmacie", "nbr_correct_answers": 1}],
        EXAM,
    ),
    "frenchmedmcqa_hf": (
        "train.jsonl",
        [{"id": "1", "question": QUESTION, **{f"answer_{k.lower()}": v for k, v in LETTERED.items()},
          "answer_e": "", "correct_answers": [0], "number_correct_answers": 0}],
        EXAM,
    ),
    "medxpertqa": (
        "test.jsonl",
        [{"id": "1", "question": QUESTION, "options": LETTERED, "label": "A",
          "medical_task": "Basic Science"}],
        EXAM,
    ),
    "pubmedqa": (
        "test.jsonl",
        [{"QUESTION": QUESTION, "CONTEXTS": ["一", "二"], "final_decision": "yes", "LONG_ANSWER": "因为。"}],
        (Message("user", f"一\n二\n{QUESTION}\nA. yes\nB. no\nC. maybe"),
         Message("assistant", "A. yes\n\n因为。")),
    ),
    "pubmedqa_hf": (
        "test.jsonl",
        [{"pubid": 7, "question": QUESTION, "context": {"contexts": ["一", "二"]}, "final_decision": "no",
          "long_answer": ""}],
        (Message("user", f"一\n二\n{QUESTION}\nA. yes\nB. no\nC. maybe"), Message("assistant", "B. no")),
    ),
    "exam": (
        "mine.json",
        [{"question": QUESTION, "options": list(OPTIONS), "answer": n} for n in (0, 3)],
        EXAM,
    ),
    "prompt_completion": ("a.jsonl", [{"prompt": ASKED[0].content, "completion": ASKED[1].content}], ASKED),
    "prompt_response": ("a.csv", [{"prompt": ASKED[0].content, "response": ASKED[1].content}], ASKED),
    "query_response": ("a.jsonl", [{"query": ASKED[0].content, "response": ASKED[1].content}], ASKED),
    "instruction_response": (
        "a.jsonl", [{"instruction": ASKED[0].content, "context": "", "response": ASKED[1].content}], ASKED,
    ),
    "medical_o1": (
        "medical_o1_sft.json",
        [{"Question": ASKED[0].content, "Complex_CoT": "Airways.", "Response": ASKED[1].content}],
        (ASKED[0], Message("assistant", ASKED[1].content, reasoning_content="Airways.")),
    ),
    "question_answer": ("a.csv", [{"question": ASKED[0].content, "answer": ASKED[1].content}], ASKED),
    "text": (
        "a.jsonl",
        [{"text": ASKED[1].content}],
        ASKED[1:],
    ),
    "chosen": (
        "a.jsonl",
        [{"prompt": ASKED[0].content, "chosen": ASKED[1].content, "rejected": "No."}],
        ASKED,
    ),
}
# fmt: on


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the ending of `path` says; `dev.json` is JSON lines, as PromptCBLUE has it."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json" and path.name != "dev.json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8")
    else:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
    return path
