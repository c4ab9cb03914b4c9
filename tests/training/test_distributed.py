"""Two processes train as one does: the same losses, the same folders, and each continues the other's run."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medcare.evaluation.predictions import unanswered
from medcare.foundation.locks import LOCK
from medcare.foundation.storage import read_jsonl
from medcare.text.records import Item
from tests.forked import in_two_processes, started
from tests.training.two_processes import (
    CASES,
    STOP,
    answers,
    both_stages,
    ddp_and_fsdp2_cases,
    finish,
    launch,
    make,
    stop_early,
    zero3_cases,
)

ROOT = Path(__file__).parents[2]


def environment(name: str) -> dict[str, str]:
    """What `accelerate launch --config_file configs/NAME.yaml` tells its processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(["--config_file", str(ROOT / f"configs/{name}.yaml"), "x"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        made = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        made = prepare_multi_gpu_env(arguments)
    return {key: value for key, value in made.items() if key.startswith(("ACCELERATE_", "FSDP_"))}


@pytest.fixture(scope="module")
def one(tiny_base, tmp_path_factory):
    """Every case on this process alone."""
    folder = tmp_path_factory.mktemp("one")
    for case in CASES:
        finish(make(case, folder / case, processes=1))
    both_stages(folder / "stages", tiny_base, processes=1)
    answers(folder, tiny_base)
    return folder


def run_both(folder, base, modes, program, told, **variables):
    """Every case on two processes; runs begun here and ended there, and the reverse."""
    resumed = [(mode, case) for mode in modes for case in ("aggregate", "l1")]
    for mode, case in resumed:
        stop_early(make(case, folder / mode / f"{case}_from_one", processes=1), signalled=True)
    in_two_processes(program, folder, base, told, **variables)
    for mode, case in resumed:
        finish(make(case, folder / mode / f"{case}_from_two", processes=1))
    return folder


@pytest.fixture(scope="module")
def ddp_and_fsdp2(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    modes, told = ("ddp", "fsdp2"), environment("fsdp2")
    return run_both(folder, tiny_base, modes, ddp_and_fsdp2_cases, told, ACCELERATE_USE_CPU="true")


@pytest.fixture(scope="module")
def zero3(tiny_base, tmp_path_factory):
    pytest.importorskip("deepspeed", reason="needs deepspeed")
    folder, told = tmp_path_factory.mktemp("zero"), environment("zero3")
    return run_both(folder, tiny_base, ("zero3",), zero3_cases, told, DS_ACCELERATOR="cpu")


@pytest.fixture(params=["ddp", "fsdp2", "zero3"])
def two(request):
    """The folder of everything that two processes did, under each way of sharing the work."""
    if request.param == "zero3":
        return request.getfixturevalue("zero3") / "zero3"
    return request.getfixturevalue("ddp_and_fsdp2") / request.param


def assert_same_run(first: Path, second: Path) -> None:
    ours, theirs = (list(read_jsonl(folder / "metrics.jsonl")) for folder in (first, second))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, len(ours) + 1))
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() - {"gradient_noise"} == other.keys() - {"gradient_noise"}  # ZeRO-3 tells none
        for key in ("loss", "grad_norm", "orthogonality", "cosine", "validation_loss"):
            if key in one:
                assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), (one["step"], key)
        if "gradient_noise" in one and "gradient_noise" in other:
            assert one["gradient_noise"] == pytest.approx(other["gradient_noise"], rel=0.02), one["step"]
        assert one.get("router_load") == other.get("router_load")
        assert one["supervised_tokens"] == other["supervised_tokens"]
    whole, other = (load_file(folder / "result.safetensors") for folder in (first, second))
    assert whole.keys() == other.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=2e-4)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(one, two, case):
    if two.name == "zero3" and case == "aggregate_drop":
        assert "noise_drop must be 0 under DeepSpeed" in (two / case / "refused").read_text()
        return
    if two.name == "zero3" and case == "nf4":
        return  # not tried; the stages refuse it
    assert_same_run(one / case, two / case)


@pytest.mark.parametrize("case", ["aggregate", "l1"])
@pytest.mark.parametrize("begun", ["one", "two"])
def test_a_run_goes_on_with_another_number_of_processes(one, two, case, begun):
    rows = list(read_jsonl(two / f"{case}_from_{begun}" / "metrics.jsonl"))
    assert len(rows) > STOP + 1
    assert_same_run(one / case, two / f"{case}_from_{begun}")


@pytest.mark.parametrize("stage", ["one", "two"])
def test_stage_folders_hold_the_same_complete_tensors(one, two, stage):
    ours, theirs = one / "stages" / stage, two / "stages" / stage
    names, those = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != LOCK}
        for folder in (ours, theirs)
    )
    assert names == those
    assert {"manifest.json", "config.yaml", "metrics.jsonl"} <= {str(name) for name in names}
    assert not (theirs / "checkpoints").exists()
    for name in names:
        if name.suffix == ".safetensors":
            whole, other = load_file(ours / name), load_file(theirs / name)
            assert whole.keys() == other.keys()
            for key, tensor in whole.items():
                torch.testing.assert_close(_moment(key, whole), _moment(key, other), rtol=0, atol=2e-4)
                assert tensor.shape == other[key].shape


def _moment(key, tensors):
    """Eigenvectors of like energy may turn within their plane: what they describe is compared."""
    if not key.endswith(".basis"):
        return tensors[key]
    energy = tensors[f"{key.removesuffix('.basis')}.energy"]
    return tensors[key].T @ (energy[:, None] * tensors[key])


def test_answers_shared_out_are_those_of_one_process(one, two):
    assert_same_answers(one, two)


def test_answers_of_a_model_cut_in_two_are_those_of_the_whole_one(one, ddp_and_fsdp2):
    assert_same_answers(one, ddp_and_fsdp2 / "split")


def assert_same_answers(one: Path, two: Path) -> None:
    ours, theirs = ({row["id"]: row for row in read_jsonl(f / "predictions.jsonl")} for f in (one, two))
    assert len(theirs) == 9
    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        assert row.get("text") == theirs[name].get("text")
        assert row.get("log_likelihoods", []) == pytest.approx(
            theirs[name].get("log_likelihoods", []), abs=1e-4
        )
    assert [path.name for path in two.glob("predictions*")] == ["predictions.jsonl"]


def test_answers_of_killed_processes_are_kept(tmp_path):
    path = tmp_path / "predictions.jsonl"
    items = [Item(name, "t", "knowledge", "taught", "f", "Q?") for name in "abcd"]
    path.write_text('{"id": "a", "text": "1"}\n{"id": "a", "te')
    (tmp_path / "predictions.0.jsonl").write_text('{"id": "b", "text": "2"}\n')
    (tmp_path / "predictions.1.jsonl").write_text('{"id": "c", "text": "3"}\n{"id": "d"')
    assert [item.id for item in unanswered(items, path)] == ["d"]
    assert [row["text"] for row in read_jsonl(path)] == ["1", "2", "3"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_line_on_two_machines(tiny_base, tmp_path):
    """One `accelerate launch` a machine, as several nodes are started; here both are this one."""
    talk = '{"messages": [{"role": "user", "content": "Q%d?"}, {"role": "assistant", "content": "A%d."}]}\n'
    (tmp_path / "talks.jsonl").write_text("".join(talk % (number, number) for number in range(6)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["--config_file", str(ROOT / "configs/ddp.yaml"), "--num_machines", "2", "--num_processes", "2"]
    command += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    settings = {
        "model.base": tiny_base,
        "model.dtype": "float32",
        "adapters.rank": 2,
        "aggregate.data": tmp_path / "talks.jsonl",
        "aggregate.tokens_per_batch": 40,
        "aggregate.log_every": 1,
    }
    train = ["-m", "medcare", "train", "--stage", "aggregate", "--out", str(tmp_path / "one")]
    train += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    machines = [[*command, "--machine_rank", rank, *train] for rank in ("0", "1")]
    with ExitStack() as stack:
        nodes = [stack.enter_context(started(launch, *words, OMP_NUM_THREADS="1")) for words in machines]
        said = [told.read() for _, told in nodes]
        for process, _ in nodes:
            process.join()
        assert [process.exitcode for process, _ in nodes] == [0, 0], said
    assert [text.count("aggregate: 6 examples") for text in said] == [1, 0]  # the main process speaks
    rows = list(read_jsonl(tmp_path / "one" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert (tmp_path / "one" / "noise.safetensors").is_file()
