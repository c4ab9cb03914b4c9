r"""Seconds that an evaluation takes here and in the reference's way: same model, same items, same answers.

    python benchmarks/evaluation_speed.py [MODEL] [--items ITEMS.jsonl] [--tasks 2] [--shots 4] \
        [--rounds 3] [--out benchmarks/results/evaluation_speed.json]

The reference's way: rows in the order of the file, padded in batches of eight (its number for 7B models); for
each option the whole prompt is encoded again, with all logits; a batch is decoded until its last row ends.
Both ways take turns in one process, and the ratio is that of the medians: of seconds on a GPU, of processor
seconds without one, because other work on the machine doesn't add to those. In float32 they must agree on
each option's log-likelihood to 1e-3 nats and on each text. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from medcare.data.readers import conversations
from medcare.data.record_files import read_items
from medcare.evaluation.engines import LocalEngine
from medcare.evaluation.examples import Examples
from medcare.evaluation.prompts import Prompt, build_prompts
from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import write_json
from medcare.models.base_model import choose_device, choose_dtype, load_base, load_tokenizer
from medcare.pipeline import prepare_data
from medcare.settings.config import EvaluationConfig, RunConfig
from medcare.text.chat_template import render_answer, render_prompt, stop_ids
from medcare.text.records import Item

BATCH = 8
NEW_TOKENS = 32


class Reference:
    """The plain way."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    @torch.inference_mode()
    def rank(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """The log-likelihood of each option: one padded row for each, with the prompt."""
        pairs = [
            render_answer(self.tokenizer, prompt.messages, option)
            for prompt in prompts
            for option in prompt.options
        ]
        values: list[float] = []
        for start in range(0, len(pairs), BATCH):
            rows = pairs[start : start + BATCH]
            width = max(len(prompt) + len(option) for prompt, option in rows)
            padding = [width - len(prompt) - len(option) for prompt, option in rows]
            ids = [p + o + [self.pad] * more for (p, o), more in zip(rows, padding, strict=True)]
            mask = [[1] * (width - more) + [0] * more for more in padding]
            device = self.model.device
            logits = self.model(
                input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(mask, device=device)
            ).logits
            scores = logits.float().log_softmax(-1)
            for row, (prompt, option) in enumerate(rows):
                steps = torch.arange(len(prompt) - 1, len(prompt) + len(option) - 1, device=device)
                chosen = torch.tensor(option, device=device)
                values.append(float(scores[row, steps, chosen].double().sum()))
        taken = iter(values)
        return [[next(taken) for _ in prompt.options] for prompt in prompts]

    @torch.inference_mode()
    def write(self, prompts: Sequence[Prompt]) -> list[str]:
        """The greedy answers, decoded by the model's own `generate`."""
        rows = [render_prompt(self.tokenizer, prompt.messages) for prompt in prompts]
        stops = stop_ids(self.tokenizer)
        texts = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(map(len, batch))
            ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in batch])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
            output = self.model.generate(
                ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=self.pad,
            )
            for tokens in output[:, width:].tolist():
                end = next((n for n, token in enumerate(tokens) if token in stops), len(tokens))
                texts.append(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip())
        return texts


def in_order(batches: Any, count: int) -> list[Any]:
    found = {index: value for batch in batches for index, value in batch}
    return [found[index] for index in range(count)]


def texts_of(batches: Any, count: int) -> list[str]:
    return [answer.text for (answer,) in in_order(batches, count)]


def compare(
    name: str, plain: Callable[[], list[Any]], ours: Callable[[], list[Any]], rounds: int, tolerance: float
) -> dict[str, Any]:
    """Time both in turns, and require the same answers."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    seconds: dict[str, list[float]] = {"reference": [], "medcare": []}
    results: dict[str, list[Any]] = {}
    for _ in range(rounds):
        for way, run in (("reference", plain), ("medcare", ours)):
            start = clock()
            results[way] = run()
            seconds[way].append(clock() - start)
    pairs = list(zip(results["reference"], results["medcare"], strict=True))
    report: dict[str, Any] = {"items": len(pairs)}
    if isinstance(pairs[0][0], str):
        report["equal_texts"] = sum(a == b for a, b in pairs)
        assert tolerance > 1 or report["equal_texts"] == len(pairs), f"{name}: texts differ"
    else:
        worst = max(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True))
        assert worst < tolerance, f"{name}: log-likelihoods differ by {worst}"
        report["largest_difference_nats"] = worst
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    report["ratio"] = round(medians["reference"] / medians["medcare"], 2)
    report["seconds"] = {way: [round(value, 2) for value in values] for way, values in seconds.items()}
    print(f"{name}: {report}", flush=True)
    return report


def whole_tasks(items: Sequence[Item], examples: Examples, count: int, shots: int) -> list[Item]:
    """All items of the first `count` tasks that have examples to show, in the order of the file."""
    names = [name for name in dict.fromkeys(item.task for item in items) if can_show(examples, name, shots)]
    return [item for item in items if item.task in names[:count]]


def cases(arguments: argparse.Namespace) -> dict[str, list[Prompt]]:
    """The prompts of each case."""
    if arguments.items is None:
        folder = prepare_data(RunConfig(), Path(tempfile.mkdtemp()))
    else:
        folder = arguments.items.parent
    items = read_items(folder / "items.jsonl")
    pool = [
        entry for stage in ("aggregate", "align") for entry in conversations(str(folder / f"{stage}.jsonl"))
    ]
    examples = Examples(pool, items, seed=0)
    questions = [item for item in items if item.options]
    texts = [item for item in items if not item.options]
    found = {}
    for name, chosen in (("options", questions), ("texts", texts)):
        kept = whole_tasks(chosen, examples, arguments.tasks, arguments.shots)
        for shots in (0, arguments.shots):
            config = EvaluationConfig(shots=shots)
            found[f"{name}, {shots} examples"] = list(build_prompts(kept, config, examples=examples).all)
    return found


def can_show(examples: Examples, task: str, shots: int) -> bool:
    """Whether a task has examples; one that tests every fact that it taught has none."""
    try:
        examples.draw(task, shots, generate=False)
    except EvaluationError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="embedded")
    parser.add_argument("--items", type=Path, help="items.jsonl of a run; default: a new embedded benchmark")
    parser.add_argument("--tasks", type=int, default=2, help="of each kind, with all their items")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = choose_device("auto")
    dtype = choose_dtype(arguments.dtype, device)
    model = load_base(arguments.model, device=device, dtype=dtype).eval()
    tokenizer = load_tokenizer(arguments.model)
    reference = Reference(model, tokenizer)
    ours = LocalEngine(model, tokenizer, EvaluationConfig(max_new_tokens=NEW_TOKENS))
    tolerance = 1e-3 if dtype == torch.float32 else float("inf")
    report: dict[str, Any] = {"model": arguments.model, "rounds": arguments.rounds, "cases": {}}
    for name, prompts in cases(arguments).items():
        count = len(prompts)
        if prompts[0].options:
            ways = (lambda: reference.rank(prompts), lambda: in_order(ours.rank(prompts), count))  # noqa: B023
        else:
            ways = (lambda: reference.write(prompts), lambda: texts_of(ours.write(prompts), count))  # noqa: B023
        report["cases"][name] = compare(name, *ways, arguments.rounds, tolerance)
    every = [case["seconds"] for case in report["cases"].values()]
    total = {way: sum(statistics.median(case[way]) for case in every) for way in ("reference", "medcare")}
    report["ratio"] = round(total["reference"] / total["medcare"], 2)
    report["machine"] = {
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2))
    if arguments.out:
        write_json(arguments.out, report)


if __name__ == "__main__":
    main()
