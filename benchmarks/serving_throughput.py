"""Total tokens a second of `medcare serve` with one client and with many at once.

    python benchmarks/serving_throughput.py [MODEL] [--clients 16] [--tokens 64] [--rounds 3]

A real server, asked over its port. One client and many take turns, so that other work on the machine hits
both alike; the ratio is that of the medians. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

import httpx


async def measure(url: str, clients: int, tokens: int) -> dict[str, float]:
    """Have `clients` people ask at the same time, each one question."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        start = time.perf_counter()
        answers = await asyncio.gather(*(ask(client, number, tokens) for number in range(clients)))
        seconds = time.perf_counter() - start
    written = sum(count for count, _ in answers)
    return {
        "tokens": written,
        "tokens_per_second": written / seconds,
        "first_token_seconds": statistics.median(first for _, first in answers),
    }


async def ask(client: httpx.AsyncClient, number: int, tokens: int) -> tuple[int, float]:
    """Stream one answer; returns its tokens and the seconds until the first of them."""
    question = f"Case {number}: explain what may cause fever and cough, and how the causes are told apart."
    body = {
        "model": "model",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start, first, usage = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content") and not first:
                first = time.perf_counter() - start
            usage = (chunk.get("usage") or {}).get("completion_tokens", usage)
    return usage, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="embedded")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "medcare", "serve", f"model={arguments.model}", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--max-rows", str(arguments.clients)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        url = next(match[0] for line in server.stderr if (match := re.search(r"http://\S+", line)))
        asyncio.run(measure(url, 2, 4))  # the first requests pay for what is set up once
        one, many = [], []
        for _ in range(arguments.rounds):
            one.append(asyncio.run(measure(url, 1, arguments.tokens)))
            many.append(asyncio.run(measure(url, arguments.clients, arguments.tokens)))
    finally:
        server.terminate()
        server.communicate()
    print(json.dumps(summary(arguments, one, many), indent=2))


def summary(
    arguments: argparse.Namespace, one: list[dict[str, float]], many: list[dict[str, float]]
) -> dict[str, object]:
    import torch

    def median(rounds: list[dict[str, float]], key: str) -> float:
        return statistics.median(entry[key] for entry in rounds)

    rate = "tokens_per_second"
    return {
        "model": arguments.model,
        "clients": arguments.clients,
        "ratio": round(median(many, rate) / median(one, rate), 2),
        "one": {"tokens_per_second": round(median(one, rate), 1), "rounds": one},
        "many": {"tokens_per_second": round(median(many, rate), 1), "rounds": many},
        "machine": {
            "processors": os.cpu_count(),
            "load": os.getloadavg()[0],
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "torch": torch.__version__,
        },
    }


if __name__ == "__main__":
    main()
