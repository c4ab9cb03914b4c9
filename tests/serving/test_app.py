from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message

from medcare.serving.app import _Stream


class Counted:
    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_a_stream_that_is_not_read_is_given_up() -> None:
    answers = Counted()

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x"

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)  # the client's buffers are full

    async def run() -> None:
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        stream = _Stream(chunks(), answers, 0.05)  # type: ignore[arg-type]
        await asyncio.wait_for(stream(scope, receive, send), 5)

    asyncio.run(run())
    assert answers.cancelled == 1
