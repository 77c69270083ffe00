"""A RIS for the tests: a real MLLP server (the one of the `hl7` library) on a free loopback port."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

Behaviour = Callable[[hl7.Message, HL7StreamWriter], Awaitable[None]]


def acknowledge(code: str, text: str = "", control_id: str = "", error: str = "") -> Behaviour:
    """Answer every message with this code."""

    async def answer(message: hl7.Message, writer: HL7StreamWriter) -> None:
        ack = message.create_ack(code)
        if control_id:
            ack.assign_field(control_id, "MSA", 1, 2)
        if text:
            ack.assign_field(text, "MSA", 1, 3)
        content = str(ack) + error
        writer.writeblock(content.encode())
        await writer.drain()

    return answer


def reply(content: bytes, close: bool = False) -> Behaviour:
    """Answer with these bytes, and hang up or wait for ever."""

    async def answer(_message: hl7.Message, writer: HL7StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        if close:
            writer.close()
        else:
            await asyncio.sleep(60)

    return answer


async def crawl(message: hl7.Message, writer: HL7StreamWriter) -> None:
    """Begin a block, and send a byte of it now and then."""
    writer.write(b"\x0b")
    for _ in range(600):
        writer.write(b"M")
        await writer.drain()
        await asyncio.sleep(0.05)


class Ris:
    """What a RIS has received, and how it answers."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.messages: list[hl7.Message] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                self.messages.append(message)
                await self.behave(message, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    @property
    def accessions(self) -> list[str]:
        return [message.extract_field("OBR", 1, 18) for message in self.messages]


@contextmanager
def ris(behave: Behaviour | None = None, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Ris]:
    """Run a RIS until the block ends; by default it accepts everything."""
    served = Ris(behave or acknowledge("AA"))
    loop = asyncio.new_event_loop()
    started = threading.Event()
    servers: list[Any] = []

    async def start() -> None:
        server = await start_hl7_server(
            served.serve, "127.0.0.1", port, encoding="utf-8", limit=1 << 22, ssl=tls, reuse_address=True
        )
        served.port = server.sockets[0].getsockname()[1]
        servers.append(server)
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        servers[0].close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
