# SPDX-License-Identifier: BSD-2-Clause
"""A WebSocket backend (python3-websockets) for tests. usage: echo_server.py PORT
It echoes; "bye" makes it close with 4001, "die" drops the connection, "headers" answers with X-Forwarded-For."""
import asyncio
import sys

import websockets


async def serve(ws):
    try:
        await answer(ws)
    except websockets.ConnectionClosed:
        pass


async def answer(ws):
    async for message in ws:
        if message == "bye":
            await ws.close(4001, "as asked")
        elif message == "die":
            ws.transport.abort()
        elif message == "headers":
            await ws.send(ws.request_headers.get("X-Forwarded-For", "none"))
        elif isinstance(message, str) and message.startswith("flood "):
            for i in range(int(message[6:])):
                await ws.send(f"{i} " + "x" * 1000)
        else:
            await ws.send(message)


async def main(port):
    async with websockets.serve(serve, "127.0.0.1", port, ping_interval=None, max_size=2**24, compression=None, subprotocols=["chat"]):
        await asyncio.Future()


asyncio.run(main(int(sys.argv[1])))
