"""A law over all commands: one that fails before any work leaves nothing that refuses the corrected one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
import typer

from medcare.cli import app
from medcare.foundation.errors import MedCareError

SMALL = (
    "model.device=cpu", "model.dtype=float32", "adapters.rank=2", "adapters.experts=2", "aggregate.epochs=1",
    "align.epochs=1", "align.tokens_per_batch=256", "aggregate.tokens_per_batch=256",
    "evaluation.max_new_tokens=2", "align.log_every=1", "aggregate.log_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tiny_base: Path, tmp_path_factory) -> Path:
    """A base, data, and a folder of every kind that commands read."""
    here = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_base, here / "base")
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    (here / "talks.jsonl").write_text((json.dumps(talk) + "\n") * 3)
    question = {"question": "Which?", "opa": "A", "opb": "B", "opc": "C", "opd": "D", "cop": 0, "id": "q1"}
    (here / "exam.jsonl").write_text(json.dumps(question) + "\n")
    (here / "empty.jsonl").write_text("")
    (here / "mix.yaml").write_text("sources: [{name: talks, data: talks.jsonl}]\n")
    command(here, "train --stage aggregate --out one --data talks.jsonl")
    command(here, "train --stage align --out two --from one --data talks.jsonl")
    command(here, "merge two --out plain")
    return here


def command(here: Path, line: str, settings: Sequence[str] = (*SMALL, "model.base=base")) -> None:
    """Run a command in a folder, as the command line does, with some settings where it takes any."""
    words = line.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("HF_HUB_OFFLINE", "1")
        if words[0] in ("run", "train", "evaluate", "predict"):
            words[1:1] = [word for setting in settings for word in ("--set", setting)]
        app(words, standalone_mode=False)


# What each command is to be, and what is wrong with it at first: words in the place of others, or more words.
MISTAKES = {
    "run --out OUT --set aggregate.data=talks.jsonl --set align.data=talks.jsonl "
    "--set evaluation.items=exam.jsonl": (
        ("exam.jsonl", "none.jsonl"),
        ("align.data=talks.jsonl", "align.data=none.jsonl"),
        ("aggregate.data=talks.jsonl", "aggregate.data=empty.jsonl"),
        "--set tracking.trackers=[mlflow]",
        "--set adapters.feed_forward=[fc]",
        "--set model.quantization=int8",
        "--set model.base=none",
    ),
    "train --stage aggregate --out OUT --data talks.jsonl": (
        ("talks.jsonl", "none.jsonl"),
        "--set model.base=./none",
        "--set adapters.feed_forward=[fc]",
        "--set tracking.trackers=[mlflow]",
        "--set aggregate.max_length=1",
        "--chat-template none.jinja",
        "--set model.quantization=int8",
        "--from two",
    ),
    "train --stage align --out OUT --from one --data talks.jsonl": (
        ("--from one", ""),
        ("--from one", "--from none"),
        ("talks.jsonl", "empty.jsonl"),
        "--set adapters.rank=4",
    ),
    "train --stage align --out OUT --knowledge two/knowledge --data talks.jsonl --set adapters.rank=2": (
        ("two/knowledge", "none"),
        ("two/knowledge", "one/attention"),
        ("two/knowledge", "two/alignment --set align.max_length=1"),
        ("talks.jsonl", "empty.jsonl"),
    ),
    "merge two --out OUT": (("two", "one"), ("two", "none"), "--dtype float31", "--base none"),
    "evaluate plain --out OUT --items exam.jsonl": (
        ("plain", "none"),
        ("plain", "base/tokenizer.json"),
        ("exam.jsonl", "none.jsonl"),
        ("exam.jsonl", "talks.jsonl"),
        "--chat-template none.jinja",
        "--set evaluation.shots=1",
        "--set model.device=none",
    ),
    "predict plain exam.jsonl --out OUT": (("plain", "none"), ("exam.jsonl", "talks.jsonl")),
    "export two --out OUT --format lora": (("two", "plain"), "--parts half", "--dtype float32"),
    "convert two/knowledge --base base --out OUT": (
        ("two/knowledge", "none"),
        ("--base base", "--base none"),
        ("two/knowledge", "one/attention"),
    ),
    "data build mix.yaml --out OUT": (("mix.yaml", "none.yaml"), ("mix.yaml", "exam.jsonl")),
    "init talks.jsonl --base base --out OUT": (("talks.jsonl", "none.jsonl"), ("--base base", "--base none")),
    "harness exam.jsonl --out OUT": (("exam.jsonl", "none.jsonl"), ("exam.jsonl", "empty.jsonl")),
}


@pytest.mark.parametrize("right", MISTAKES, ids=[right.split(" OUT")[0] for right in MISTAKES])
def test_what_failed_first_is_no_obstacle(world: Path, tmp_path: Path, right: str) -> None:
    line = right.replace("OUT", str(tmp_path / "out"))
    for mistake in MISTAKES[right]:
        wrong = f"{line} {mistake}" if isinstance(mistake, str) else line.replace(*mistake)
        assert wrong != line
        with pytest.MonkeyPatch.context() as patch:
            for module in ("training.tracking", "models.quantized"):  # as if no extra was installed
                patch.setattr(f"medcare.{module}.find_spec", lambda name: None)
            try:
                command(world, wrong)
            except MedCareError:
                continue
        raise AssertionError(f"{wrong} did not fail")
    command(world, line)
    assert (tmp_path / "out").exists()


# They claim no folder: each cell of a study or sweep is one, a judge's verdicts lie in a cache by their
# question, and a known set is got over the network (tests/data/test_getting.py).
WITHOUT_CLAIM = {"study", "sweep", "judge", "data get"}


def test_every_command_that_writes_a_folder_is_among_them() -> None:
    tried = {re.split(r" (?=\S*(?:-|\.|two|plain))", right)[0] for right in MISTAKES}
    assert set(writing(typer.main.get_command(app))) == tried | WITHOUT_CLAIM


def writing(command: click.Command, name: str = "") -> Iterator[str]:
    """The names of all commands with --out."""
    for word, inner in getattr(command, "commands", {}).items():
        yield from writing(inner, f"{name} {word}".strip())
    if any("--out" in option.opts for option in command.params):
        yield name
