# SPDX-License-Identifier: BSD-2-Clause
"""A real WebSocket client (python3-websockets), with permessage-deflate and without: echoes of texts,
bytes and fragments in order, a JSON heartbeat, a ping, closes from both ends. usage: echo.py URL"""
import asyncio
import json
import random
import sys

import websockets

PATIENCE = 60


def is_heartbeat(message):
    return isinstance(message, str) and message.startswith('{"type":"heartbeat"')


async def echo_of(ws):
    while is_heartbeat(message := await asyncio.wait_for(ws.recv(), PATIENCE)):
        pass
    return message


async def story(url, compression):
    connect = lambda: websockets.connect(url, compression=compression, ping_interval=None, open_timeout=PATIENCE)
    async with connect() as ws:
        for message in ("hello", "", "\u20ac" * 349525 + ".", random.Random(7).randbytes(1000000)):
            await ws.send(message)  # the third is a mebibyte, max_message to the byte
            assert await echo_of(ws) == message, len(message)
        for parts in (["one ", "", "\u20ac" * 30000, " three"], [b"a" * 70000, b"", b"c"]):
            await ws.send(parts)
            assert await echo_of(ws) == parts[0][:0].join(parts)
        for i in range(500):
            await ws.send(f"number {i}")
        for i in range(500):
            assert await echo_of(ws) == f"number {i}", i
        await asyncio.wait_for(await ws.ping(b"are you there"), PATIENCE)
        text = await asyncio.wait_for(ws.recv(), PATIENCE)
        assert is_heartbeat(text), f"nobody asked for {text[:80]}"
        beat = json.loads(text)
        assert beat["client_id"] == url.rsplit("/", 1)[1] and beat["timestamp"].endswith("Z"), beat
        names = ", ".join(extension.name for extension in ws.extensions) or "none"
        await ws.close(4321, "until then")
        assert (ws.close_code, ws.close_reason) == (4321, "until then"), (ws.close_code, ws.close_reason)
    async with connect() as ws:
        await ws.send("bye")
        await asyncio.wait_for(ws.wait_closed(), PATIENCE)
        assert (ws.close_code, ws.close_reason) == (4001, "as asked"), (ws.close_code, ws.close_reason)
    print(f"echo ok, order ok, heartbeat ok, ping ok, close ok, extensions {names}")


for how in ("deflate", None):
    asyncio.run(story(sys.argv[1], how))
