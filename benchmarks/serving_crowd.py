"""`medcare serve` with 128 open files at most, and hundreds of connections that wait: is health still there?

    PYTHONPATH=src:. python benchmarks/serving_crowd.py [--seconds 60] [--clients 400]

Prints one JSON object; exits with 1 if the health page failed once, or if the log got more than ten lines and
five a second. In the end the model is asked something.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import httpx

from tests.serving.crowd import CLIENTS, FILES, crowd, few_files
from tests.small_run import small_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base, log = small_base(Path(name) / "base"), Path(name) / "log"
        command = [sys.executable, "-m", "medcare", "serve", f"model={base}", "--port", "0"]
        with log.open("w") as stream:
            server = subprocess.Popen(command, stderr=stream, preexec_fn=few_files)  # one thread
        try:
            while not (found := re.search(r"http://127.0.0.1:(\d+)", log.read_text())):
                time.sleep(0.1)
            before = len(log.read_text().splitlines())
            seen = crowd(int(found[1]), seconds=arguments.seconds, clients=arguments.clients)
            asked = {"model": "model", "messages": [{"role": "user", "content": "Fever?"}], "max_tokens": 2}
            answer = httpx.post(f"{found[0]}/v1/chat/completions", json=asked, timeout=60)
        finally:
            server.terminate()
            server.wait()
        lines = len(log.read_text().splitlines()) - before
        size = log.stat().st_size
    told = {"files": FILES, **vars(arguments), **asdict(seen), "log_lines": lines, "log_bytes": size}
    print(json.dumps({**told, "asked_afterwards": answer.status_code}))
    good = not seen.failed and answer.status_code == 200 and lines <= 10 + 5 * arguments.seconds
    sys.exit(not good)


if __name__ == "__main__":
    main()
