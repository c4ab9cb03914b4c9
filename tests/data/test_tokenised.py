from __future__ import annotations

import ast
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

import medcare
from medcare.data import tokenised as module
from medcare.data.in_memory import source_of
from medcare.data.tokenised import TrainingData, tokenised
from medcare.foundation.errors import ConfigError, DataError
from medcare.models.base_model import load_tokenizer
from medcare.text.batches import collate
from medcare.text.corpus import Corpus
from tests.data.batch_digests import digest_of_batches, write_rows

# A template that writes earlier answers otherwise than the last one, so that each answer is a row of its own.
APART = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '' if loop.last or m.role != 'assistant' else 'before: ' }}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Made when all rows were lists of Python integers, before there was a corpus.
DIGESTS = {
    "own": {
        "grouped": "9f2f620900971097292073e0610e62b81eb8f5305754de42b2e31a09a40854d0",
        "packed": "9697b0b235039c91b732dbeda5d67956b07f96d247652535b55bdbcdd4117dbb",
    },
    "apart": {
        "grouped": "54edf8fd8271f14511962b6f4bdbab15adb9fe35641d55563a951fc12ff96082",
        "packed": "97f069fc59f1669d7cfe1e7f5509e63a2af765d86aa5710b707740fc3fc8b34f",
    },
}


@pytest.fixture(scope="module")
def embedded() -> PreTrainedTokenizerBase:
    return load_tokenizer("embedded")


@pytest.fixture(autouse=True)
def corpora(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora"


def many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_TOGETHER", 16), ("_ALONE", 1), ("free_cores", lambda: 2)):
        monkeypatch.setattr(module, name, value)


def refuse_to_render(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_rendered", lambda *_: pytest.fail("tokenised again"))


def same(one: Corpus, other: Corpus) -> bool:
    return one.digest == other.digest and list(one) == list(other)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("template", ["own", "apart"])
def test_batches_are_bit_for_bit_those_made_of_lists(processes, template, tmp_path, monkeypatch, embedded):
    if processes > 1:
        many_processes(monkeypatch)
    if template == "apart":
        monkeypatch.setattr(embedded, "chat_template", APART)
    files = write_rows(tmp_path / "own.jsonl", 150), write_rows(tmp_path / "former.jsonl", 60, seed=1)
    own, former = (tokenised(embedded, TrainingData.named(str(path))).within(300) for path in files)
    rows = own + former

    def found(layout):
        def batch(numbers):
            return collate([rows[number] for number in numbers], pad_id=2, layout=layout)

        return digest_of_batches(rows.lengths, len(own), layout, batch)

    assert {layout: found(layout) for layout in ("grouped", "packed")} == DIGESTS[template]


def test_a_restart_reads_what_was_tokenised_and_other_data_settings_or_templates_do_not(
    tmp_path, monkeypatch, embedded
):
    path = write_rows(tmp_path / "rows.jsonl", 40)
    first = tokenised(embedded, TrainingData.named(str(path)))
    (tmp_path / "elsewhere").mkdir()
    renamed = path.rename(tmp_path / "elsewhere" / "rows.jsonl")
    data = TrainingData.named(str(renamed))
    with monkeypatch.context() as again:
        refuse_to_render(again)
        assert same(tokenised(embedded, data), first)
        for other in (
            TrainingData.named(str(write_rows(tmp_path / "rows.jsonl", 41))),
            TrainingData.named(str(shutil.copy(renamed, tmp_path / "other.jsonl"))),  # named as their source
            TrainingData.named(str(renamed), thoughts="drop"),
            TrainingData.named(str(renamed), {"messages": "messages"}),
        ):
            with pytest.raises(pytest.fail.Exception, match="tokenised again"):
                tokenised(embedded, other)
    monkeypatch.setattr(embedded, "chat_template", APART)
    assert tokenised(embedded, data).digest != first.digest


def imported_by(module: Path) -> set[Path]:
    """The files of this package that a file imports, and those that they import."""
    root, found, waiting = Path(medcare.__file__).parent.parent, set(), [module]
    while waiting:
        path = waiting.pop()
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                stem = root / name.replace(".", "/")
                for file in (stem.with_suffix(".py"), stem / "__init__.py"):
                    if file.is_file() and file not in found:
                        found.add(file)
                        waiting.append(file)
    return found


def test_what_makes_the_tokens_decides_about_the_corpus(tmp_path, monkeypatch, embedded):
    """Every module that tokenising reaches, but for settings and foundation, which make none."""
    package = Path(medcare.__file__).parent
    reached = {path.relative_to(package) for path in imported_by(Path(module.__file__))}
    made_of = {path.relative_to(package) for path in module._sources()}
    assert Path("data/thoughts.py") in reached & made_of
    others = {str(path) for path in reached - made_of if path.parts[0] not in ("settings", "foundation")}
    assert others <= {"__init__.py"}
    data = TrainingData.named(str(write_rows(tmp_path / "rows.jsonl", 5)))
    former = module._key(embedded, data)
    changed = tmp_path / "thoughts.py"
    changed.write_text("# another way")
    monkeypatch.setattr(module, "_sources", lambda: [changed])
    module._code.cache_clear()
    try:
        assert module._key(embedded, data) != former
    finally:
        module._code.cache_clear()


def test_shards_give_the_rows_of_one_file(tmp_path, embedded):
    import gzip

    import pyarrow as pa
    from pyarrow import parquet

    whole = write_rows(tmp_path / "rows.jsonl", 90)
    lines = whole.read_bytes().splitlines(keepends=True)
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[:30])))
    with pa.CompressedOutputStream(str(folder / "b.jsonl.zst"), "zstd") as stream:
        stream.write(b"".join(lines[30:60]))
    parquet.write_table(pa.Table.from_pylist([json.loads(line) for line in lines[60:]]), folder / "c.parquet")
    expected = tokenised(embedded, TrainingData.named(str(whole)))
    for name in (folder, folder / "*"):
        assert same(tokenised(embedded, TrainingData.named(str(name))), expected)
    assert same(tokenised(embedded, TrainingData.named(source_of(map(json.loads, lines)))), expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_row_is_named_and_nothing_is_left(processes, tmp_path, monkeypatch, embedded, corpora):
    if processes > 1:
        many_processes(monkeypatch)
    path = write_rows(tmp_path / "rows.jsonl", 100)
    with path.open("a") as stream:
        stream.write('{"messages": []}\n')
    with pytest.raises(DataError, match="line 101: no assistant turn"):
        tokenised(embedded, TrainingData.named(str(path)))
    assert not [file for file in corpora.iterdir() if file.suffix != ".lock"]


def _build(embedded: PreTrainedTokenizerBase, path: Path, log: Path) -> None:
    rendered = module._rendered

    def counted(*arguments):
        with log.open("a") as stream:
            stream.write("built\n")
        time.sleep(0.2)
        return rendered(*arguments)

    module._rendered = counted
    assert len(tokenised(embedded, TrainingData.named(str(path)))) == 40


def test_several_processes_build_a_corpus_once(tmp_path, embedded):
    path, log = write_rows(tmp_path / "rows.jsonl", 40), tmp_path / "log"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_build, args=(embedded, path, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_a_damaged_corpus_is_made_again_and_a_half_written_one_goes(tmp_path, embedded, corpora):
    data = TrainingData.named(str(write_rows(tmp_path / "rows.jsonl", 40)))
    whole = list(tokenised(embedded, data))
    [path] = corpora.glob("*.arrow")
    half = path.with_name(f".{path.name}.0123abcd.part")
    half.write_bytes(path.read_bytes()[:1000])
    path.write_bytes(half.read_bytes())
    assert list(tokenised(embedded, data)) == whole
    assert not half.exists()


def test_corpora_that_nobody_uses_go_when_another_is_made(tmp_path, embedded, corpora):
    for number in range(3):
        tokenised(embedded, TrainingData.named(str(write_rows(tmp_path / f"{number}.jsonl", 5, number))))
    former = set(corpora.glob("*.arrow"))
    old, used, _ = sorted(former)
    for path in (old, used):
        os.utime(path, (0, 0))
    with used.open("rb") as stream:
        os.utime(stream.fileno())
    tokenised(embedded, TrainingData.named(str(write_rows(tmp_path / "new.jsonl", 6))))
    assert former - set(corpora.glob("*.arrow")) == {old}


def test_a_recipe_is_data_and_follows_its_files(tmp_path, corpora, embedded, monkeypatch):
    for name in ("one", "two"):
        write_rows(tmp_path / f"{name}.jsonl", 9)
    recipe = tmp_path / "mix.yaml"
    recipe.write_text("sources:\n- {name: a, data: one.jsonl, cap: 5}\n- {name: b, data: two.jsonl}\n")
    first = TrainingData.named(str(recipe))
    assert len(tokenised(embedded, first)) == 5 + 9
    assert len(list(corpora.glob("mix-*[0-9a-f].jsonl"))) == 1
    refuse_to_render(monkeypatch)
    tokenised(embedded, TrainingData.named(str(recipe)))
    write_rows(tmp_path / "two.jsonl", 10)
    assert TrainingData.named(str(recipe)).digest != first.digest
    recipe.write_text("aggregate: {epochs: 2}\n")
    with pytest.raises(ConfigError, match="aggregate"):
        TrainingData.named(str(recipe))
