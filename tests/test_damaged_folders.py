"""Every file of every kind of folder, damaged in every way: whoever reads the folder says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcare import api
from medcare.adapters.loading import load_model
from medcare.evaluation.sides import read_side
from medcare.export.conversion import convert
from medcare.export.lora import export_lora
from medcare.export.merged import merge
from medcare.foundation.contents import MANIFEST
from medcare.foundation.errors import MedCareError
from medcare.pipeline import predict_file, run_pipeline
from medcare.reports import write_report
from medcare.settings.files import load_config
from medcare.settings.run_folder import check
from tests.foundation.damage import damaged, damages

SETTINGS = (
    "model.device=cpu", "model.dtype=float32", "adapters.rank=2", "adapters.experts=2", "align.epochs=1",
    "evaluation.max_new_tokens=2", "align.log_every=1", "aggregate.log_every=1",
    "aggregate.tokens_per_batch=64", "align.tokens_per_batch=64",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory) -> dict[str, Path]:
    """A finished folder of every kind, by what it is."""
    here = tmp_path_factory.mktemp("kinds")
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    (here / "talks.jsonl").write_text((json.dumps(talk) + "\n") * 6)
    question = {"question": "Which?", "opa": "A", "opb": "B", "opc": "C", "opd": "D", "cop": 0}
    (here / "exam.jsonl").write_text(
        "".join(json.dumps({**question, "id": f"q{n}"}) + "\n" for n in range(3))
    )
    named = [f"{stage}.data={here / 'talks.jsonl'}" for stage in ("aggregate", "align")]
    named += [f"evaluation.items={here / 'exam.jsonl'}", f"model.base={tiny_base}"]
    config, run = load_config(settings=[*SETTINGS, *named]), here / "run"
    run_pipeline(config, run)
    export_lora(run, here / "lora")
    convert(run / "align" / "knowledge", str(tiny_base), here / "converted")
    api.evaluate(tiny_base, here / "evaluation", config=config)
    predict_file(str(tiny_base), str(here / "exam.jsonl"), config, here / "predictions")
    kinds = {"stage 1": run / "aggregate", "stage 2": run / "align", "merged": run / "model", "run": run}
    return kinds | {name: here / name for name in ("lora", "converted", "evaluation", "predictions")}


KINDS = ("stage 1", "stage 2", "merged", "run", "lora", "converted", "evaluation", "predictions")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_is_never_found_right(folders: dict[str, Path], kind: str) -> None:
    folder, count = folders[kind], 0
    assert check(folder, anew=True) > 1
    for damage in damages(folder):
        with damaged(damage):
            assert refuses(lambda: check(folder, anew=True)), damage
        count += 1
    check(folder, anew=True)
    assert count > 8 * check(folder)


# Who reads the folder, without asking for everything to be read anew.
READERS = {
    "stage 1": load_model,
    "stage 2": lambda folder: merge(folder, folder.parent / "never"),
    "merged": load_model,
    "run": write_report,
    "lora": load_model,
    "converted": load_model,
    "evaluation": lambda folder: read_side(str(folder)),
}


@pytest.mark.parametrize("kind", READERS)
def test_readers_of_a_damaged_folder_say_so(folders: dict[str, Path], kind: str) -> None:
    folder, read = folders[kind], READERS[kind]
    read(folder)
    seen = set()
    for damage in damages(folder, places=1):
        if damage.path in seen or damage.path.name == MANIFEST:
            continue
        seen.add(damage.path)
        with damaged(damage):
            assert refuses(lambda: read(folder)), damage
    assert len(seen) > 1


@pytest.mark.parametrize("kind", ["stage 1", "stage 2", "merged"])
def test_a_model_folder_without_its_manifest_is_not_loaded(folders: dict[str, Path], kind: str) -> None:
    path = folders[kind] / MANIFEST
    whole = path.read_bytes()
    path.unlink()
    assert refuses(lambda: load_model(folders[kind]))
    path.write_bytes(whole)


def refuses(read) -> bool:
    """Whether it is told, in a sentence."""
    try:
        read()
    except MedCareError:
        return True
    return False
