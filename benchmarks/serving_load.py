"""Clients that ask `medcare serve` and leave as they like, for as long as wanted: what is lost, mixed, slow.

    python benchmarks/serving_load.py [MODEL] [--clients 64] [--seconds 600] [--tokens 16] [--leave 0.3]

A real server, asked over its port. Each client asks one of a few questions again and again, greedily; three
in ten leave before the answer's end. An answer is *lost* if it neither ends nor is refused with a reason,
*mixed* if it is another question's, and *other* if it is nobody's, which rounding in another batch can make
of it. Prints one JSON object; exits with 1 if an answer was lost or mixed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

QUESTIONS = [
    f"Case {number}: name {what}."
    for number in range(4)
    for what in ("a fever", "a cause", "a sign", "a drug")
]
PATIENCE = 300.0


@dataclass
class Load:
    """What became of requests.

    Attributes:
        outcomes: how many were the same as alone, other, mixed, left, refused or lost.
        seconds: of whole answers.
        first: seconds to their first text.
        lost: what happened to the first few that were lost.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def answer(
    client: httpx.AsyncClient, question: str, tokens: int, leave_after: float | None = None
) -> tuple[str, float]:
    """Stream one answer; returns its text and the seconds to the first of it.

    Args:
        client: of the server.
        question: the question.
        tokens: of the answer, at most.
        leave_after: seconds after which the client leaves.

    Raises:
        TimeoutError: the client has left.
        httpx.HTTPStatusError: it was refused.
        ValueError: the answer broke off.
    """
    asked = [{"role": "user", "content": question}]
    body = {"model": "model", "messages": asked, "max_tokens": tokens, "temperature": 0, "stream": True}
    start, first, text, ended = time.perf_counter(), 0.0, "", False
    async with (
        asyncio.timeout(leave_after),
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise ValueError(chunk["error"]["message"])
                piece = chunk["choices"][0]["delta"].get("content") or ""
                first = first or (time.perf_counter() - start if piece else 0.0)
                text += piece
            ended = ended or line == "data: [DONE]"
    if not ended:
        raise ValueError("it broke off")
    return text, first


async def load(url: str, *, clients: int, seconds: float, tokens: int, leave: float, seed: int = 1) -> Load:
    """Have clients ask for a while; returns what became of it."""
    counted = Load()
    limits = httpx.Limits(max_connections=clients + 8, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        alone = {question: (await answer(client, question, tokens))[0] for question in QUESTIONS}
        end = time.monotonic() + seconds

        async def person(number: int) -> None:
            draw = random.Random(seed * 1000 + number)
            typical = 1.0
            while time.monotonic() < end:
                question, leaves = draw.choice(QUESTIONS), draw.random() < leave
                start = time.perf_counter()
                try:
                    text, first = await answer(
                        client, question, tokens, draw.random() * typical if leaves else None
                    )
                except TimeoutError:
                    counted.outcomes["left"] += 1
                    continue
                except httpx.HTTPStatusError as error:
                    counted.outcomes[f"refused with {error.response.status_code}"] += 1
                    await asyncio.sleep(draw.random())
                    continue
                except (httpx.HTTPError, ValueError) as error:
                    counted.outcomes["lost"] += 1
                    counted.lost = [*counted.lost, repr(error)][:5]
                    continue
                typical = time.perf_counter() - start
                counted.seconds.append(typical)
                counted.first.append(first)
                others = {alone[other] for other in QUESTIONS if other != question}
                same = text == alone[question]
                counted.outcomes["same" if same else "mixed" if text in others else "other"] += 1

        await asyncio.gather(*(person(number) for number in range(clients)))
    return counted


async def recovery(url: str) -> float:
    """Seconds until the server has nothing to do and answers one more question."""
    start = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        while True:
            text = (await client.get("/metrics")).text
            found = re.findall(r"^medcare_(?:running|waiting)_answers\{.*\} ([\d.]+)$", text, re.MULTILINE)
            if found and not any(map(float, found)):
                break
            await asyncio.sleep(0.05)
        await answer(client, QUESTIONS[0], 2)
    return time.perf_counter() - start


class Memory(threading.Thread):
    """Looks once a second at how much memory a process holds."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{process}/status")
        self._stopped = threading.Event()
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        """Look until it is stopped."""
        while not self._stopped.wait(1.0):
            resident = re.search(r"VmRSS:\s+(\d+)", self._status.read_text())
            if resident:
                self.samples.append((time.monotonic(), int(resident[1]) / 1024))

    def stop(self) -> dict[str, float]:
        """MiB at the end, and MiB a minute of a straight line through the second half."""
        self._stopped.set()
        self.join()
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 2:
            return {}
        middle = sum(when for when, _ in half) / len(half), sum(size for _, size in half) / len(half)
        spread = sum((when - middle[0]) ** 2 for when, _ in half)
        slope = sum((when - middle[0]) * (size - middle[1]) for when, size in half) / spread
        return {"MiB": round(half[-1][1]), "MiB_a_minute": round(60 * slope, 2)}


def percentiles(values: list[float]) -> dict[str, float]:
    """The 50th, 95th and 99th."""
    ordered = sorted(values)
    return {
        f"p{share}": round(ordered[min(len(ordered) * share // 100, len(ordered) - 1)], 2)
        for share in (50, 95, 99)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="embedded")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--leave", type=float, default=0.3)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "medcare", "serve", f"model={arguments.model}", "--port", "0"]
    server = subprocess.Popen([*command, "--max-waiting", "128"], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = next(match[0] for line in server.stderr if (match := re.search(r"http://\S+", line)))
        memory = Memory(server.pid)
        memory.start()
        counted = asyncio.run(
            load(
                url,
                clients=arguments.clients,
                seconds=arguments.seconds,
                tokens=arguments.tokens,
                leave=arguments.leave,
            )
        )
        seconds = asyncio.run(recovery(url))
        found = {
            **vars(arguments),
            "outcomes": dict(counted.outcomes),
            "lost": counted.lost,
            "answer_seconds": percentiles(counted.seconds),
            "first_text_seconds": percentiles(counted.first),
            "memory": memory.stop(),
            "recovery_seconds": round(seconds, 2),
            "load_of_the_machine": os.getloadavg()[0],
        }
    finally:
        server.terminate()
        server.communicate()
    print(json.dumps(found, indent=2))
    sys.exit(1 if counted.outcomes["lost"] or counted.outcomes["mixed"] else 0)


if __name__ == "__main__":
    main()
