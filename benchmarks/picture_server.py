"""Web servers that only answer, for what is measured against them: pictures from memory, in a process of their own.

The *lean* one reads no path and no header: a blank line is a request, and the next picture of a fixed row is its
answer. *aiohttp* is that library's server, as its documentation shows it.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal, NamedTuple

import numpy as np
import psutil
from aiohttp import web
from PIL import Image

Kind = Literal["lean", "aiohttp"]

DIFFERENT = 64
"""Pictures in a row; then they begin again."""


class Answer(NamedTuple):
    """What a request is given."""

    body: bytes
    content_type: str = "image/jpeg"
    status: int = 200


class Served(NamedTuple):
    """A running server."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


def jpegs(side_px: int, count: int = DIFFERENT, quality: int = 75) -> list[bytes]:
    """Pictures with the detail of photographs: a spectrum that falls with the frequency, and less colour than light.

    At the quality that encoders take where nobody asks for another.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side_px), np.fft.rfftfreq(side_px), indexing="ij"))
    frequency[0, 0] = 1
    pictures = []
    for _ in range(count):
        noise = rng.standard_normal((3, side_px, side_px))
        smooth = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.2, s=(side_px, side_px))
        pixels = 128 + smooth / smooth.std(axis=(1, 2), keepdims=True) * np.array([50, 12, 12])[:, None, None]
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy(), "YCbCr")
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        pictures.append(out.getvalue())
    return pictures


@contextmanager
def serving(answers: Sequence[Answer], kind: Kind = "lean") -> Iterator[Served]:
    """Give these answers, in turn, on 127.0.0.1."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process: BaseProcess = context.Process(target=_serve, args=[answers, kind, there], daemon=True)
    process.start()
    try:
        yield Served(here.recv(), psutil.Process(process.pid))
    finally:
        process.kill()
        process.join()


def _serve(answers: Sequence[Answer], kind: Kind, tell: Connection) -> None:
    asyncio.run(_serve_lean(answers, tell) if kind == "lean" else _serve_aiohttp(answers, tell))


async def _serve_aiohttp(answers: Sequence[Answer], tell: Connection) -> None:
    following = itertools.cycle(answers)

    async def give(_: web.Request) -> web.Response:
        return web.Response(**next(following)._asdict())

    app = web.Application()
    app.router.add_get("/{path:.*}", give)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    tell.send(runner.addresses[0][1])
    await asyncio.Event().wait()


async def _serve_lean(answers: Sequence[Answer], tell: Connection) -> None:
    head = "HTTP/1.1 {} Told\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    whole = [head.format(each.status, each.content_type, len(each.body)).encode() + each.body for each in answers]
    following = itertools.cycle(whole)

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            for _ in range(data.count(b"\r\n\r\n")):
                self.transport.write(next(following))

    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
    tell.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()
