# SPDX-License-Identifier: BSD-2-Clause
"""A real WebSocket client (python3-websockets): echoes, then waits for a JSON heartbeat. usage: echo.py URL"""
import asyncio
import json
import sys

import websockets


async def main(url):
    async with websockets.connect(url) as ws:
        for text in ("hello", "x" * 70000, "\u20ac"):
            await ws.send(text)
            while True:
                answer = await asyncio.wait_for(ws.recv(), 10)
                if answer == text:
                    break
                assert json.loads(answer)["type"] == "heartbeat", answer[:80]
        beat = json.loads(await asyncio.wait_for(ws.recv(), 10))
        assert beat["type"] == "heartbeat" and beat["client_id"] == url.rsplit("/", 1)[1], beat
        assert beat["timestamp"].endswith("Z")
    print("echo ok, heartbeat ok")


asyncio.run(main(sys.argv[1]))
