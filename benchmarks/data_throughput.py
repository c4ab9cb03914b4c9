"""How fast data is read, checked, rendered, tokenised and packed, and in how much memory.

    python benchmarks/data_throughput.py                            100,000 short examples
    python benchmarks/data_throughput.py --rows 100000 --rows 1000000

Prints JSON: for each size and task the rows a minute and the peak memory of a process that does nothing else,
and how much the peak grows from the smallest to the largest size. One pool of examples is held at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKENS_PER_ROW = 2048
POOL = 2048
WORDS = """
acute chronic severe mild fever cough pain dyspnea nausea fatigue rash edema anemia asthma pneumonia diabetes
hypertension stroke seizure arrhythmia hepatitis nephritis arthritis the a of with and in is for was patient
history treatment diagnosis therapy dose daily oral intravenous laboratory imaging biopsy elevated normal
""".split()  # noqa: SIM905


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, action="append", help="examples; may be given several times")
    options.add_argument("--tokenizer", default="embedded", help="base name, folder or hub id")
    options.add_argument("--measure", choices=TASKS, help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.file, asked.tokenizer)))
        return
    sizes = sorted(asked.rows or [100_000])
    with tempfile.TemporaryDirectory() as folder:
        results = [
            {"rows": size, "task": task, **in_a_process(task, file, asked.tokenizer)}
            for size in sizes
            for file in [write_examples(Path(folder) / f"{size}.jsonl", size)]
            for task in TASKS
        ]
    growth = {
        task: round(peaks[-1] / peaks[0], 3)
        for task in TASKS
        for peaks in [[row["peak_mib"] for row in results if row["task"] == task]]
    }
    print(json.dumps({"cores": os.cpu_count(), "results": results, "peak_growth": growth}, indent=2))


def write_examples(path: Path, rows: int) -> Path:
    draw = random.Random(0)
    with path.open("w") as stream:
        for number in range(rows):
            question = " ".join(draw.choices(WORDS, k=draw.randint(8, 30)))
            answer = " ".join(draw.choices(WORDS, k=draw.randint(4, 20)))
            turns = [
                {"role": "user", "content": f"Case {number}: {question}?"},
                {"role": "assistant", "content": f"{answer}."},
            ]
            stream.write(json.dumps({"id": str(number), "messages": turns}) + "\n")
    return path


def in_a_process(task: str, file: Path, tokenizer: str) -> dict[str, Any]:
    """Measured in a process of its own, so that the peak is this task's."""
    command = [sys.executable, __file__, "--measure", task, "--file", str(file), "--tokenizer", tokenizer]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def measure(task: str, file: Path, tokenizer: str) -> dict[str, Any]:
    loaded = None
    if task == "pack":
        from medcare.models.base_model import load_tokenizer

        loaded = load_tokenizer(tokenizer)
    start, busy = time.perf_counter(), time.process_time()
    facts = TASKS[task](file, loaded)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **facts,
        "seconds": round(seconds, 2),
        "processor_seconds": round(time.process_time() - busy, 2),
        "rows_a_minute": round(facts["read"] / seconds * 60),
        "peak_mib": round(peak, 1),
    }


def read_and_check(file: Path, _: Any) -> dict[str, Any]:
    from medcare.data.check import check

    report = check(str(file))
    assert report.good == report.rows
    return {"read": report.rows}


def read_render_tokenise_pack(file: Path, tokenizer: Any) -> dict[str, Any]:
    from medcare.data.readers import conversations
    from medcare.text.batches import collate, plan
    from medcare.text.chat_template import render_all

    read = tokens = places = batches = 0
    for pool in pools(conversations(str(file))):
        rendered = render_all(tokenizer, pool)
        lengths = [len(example.ids) for example in rendered]
        for chosen in plan(lengths, tokens_per_batch=TOKENS_PER_ROW, epoch=0, seed=0, layout="packed"):
            batch = collate([rendered[index] for index in chosen], pad_id=0, layout="packed")
            batches += 1
            tokens += batch.tokens
            places += TOKENS_PER_ROW
        read += len(pool)
    return {"read": read, "tokens": tokens, "batches": batches, "filled": round(tokens / places, 4)}


def pools(examples: Iterator[Any]) -> Iterator[list[Any]]:
    while pool := list(itertools.islice(examples, POOL)):
        yield pool


TASKS = {"check": read_and_check, "pack": read_render_tokenise_pack}

if __name__ == "__main__":
    main()
