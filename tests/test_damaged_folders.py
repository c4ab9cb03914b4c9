"""Every file of every kind of folder, damaged in every way: whoever reads the folder says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcare.adapters.loading import load_model
from medcare.evaluation.evaluated_model import read_evaluated_model
from medcare.export.merged import merge
from medcare.foundation.contents import MANIFEST
from medcare.foundation.errors import MedCareError
from medcare.reports import write_report
from medcare.settings.run_folder import check
from tests.foundation.damage import damaged, damages
from tests.small_run import finished_folders


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory) -> dict[str, Path]:
    return finished_folders(tmp_path_factory.mktemp("kinds"), tiny_base)


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
    "evaluation": lambda folder: read_evaluated_model(str(folder)),
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
