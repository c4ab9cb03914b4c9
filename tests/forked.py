"""Processes that tests start, forked off one that has imported everything: importing torch takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TextIO

_CONTEXT = multiprocessing.get_context("forkserver")
# With what only some import, and late: a model's module, and PEFT, which comes with the rates of optimizers.
_PRELOADED = ("transformers.models.llama.modeling_llama", "transformers.optimization")
_CONTEXT.set_forkserver_preload(["medcare.cli", "medcare.pipeline", *_PRELOADED])
_LONGEST = 300  # seconds, after which one that hangs ends


@contextmanager
def started(
    function: Callable[..., object], *arguments: Any, **environment: str
) -> Iterator[tuple[BaseProcess, TextIO]]:
    """A process that calls a function, and what it writes to standard error; it does not outlive the block.

    Args:
        function: of a module.
        arguments: what it is called with.
        environment: variables that it has besides those of this process.
    """
    reader, writer = _CONTEXT.Pipe(duplex=False)
    variables = {**os.environ, **environment}
    process = _CONTEXT.Process(target=_call, args=(writer, variables, function, arguments))
    process.start()
    writer.close()
    with reader, os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as told:
        try:
            yield process, told
        finally:
            process.kill()
            process.join()


def command_line(*arguments: str) -> None:
    """As `python -m medcare` with these arguments."""
    from medcare.__main__ import main

    sys.argv = ["medcare", *arguments]
    main()


def in_two_processes(function: Callable[..., object], *arguments: Any, **environment: str) -> None:
    """Call a function in two processes that find each other as those of `torchrun` do; both must succeed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    job = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with started(_as_both, function, *arguments, **job, **environment) as (process, told):
        said = told.read()
        process.join()
        assert process.exitcode == 0, said[-12000:]


def _call(
    writer: Connection, variables: dict[str, str], function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    os.dup2(writer.fileno(), 2)
    os.environ.clear()
    os.environ.update(variables)
    signal.alarm(_LONGEST)
    sys.modules["torch"].set_num_threads(1)  # as the tests themselves: sums are those of one thread
    function(*arguments)


def _as_both(function: Callable[..., object], *arguments: Any) -> None:
    second = os.fork()
    signal.alarm(_LONGEST)
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if second else "1"
    try:
        function(*arguments)
    except BaseException:
        if second:
            os.kill(second, signal.SIGKILL)
        raise
    if second and os.waitpid(second, 0)[1]:
        sys.exit("The second process failed.")
