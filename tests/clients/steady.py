# SPDX-License-Identifier: BSD-2-Clause
"""Clients (python3-websockets) that talk on and on, whatever happens to what is between: with
permessage-deflate, whose context stays or begins anew with each message, and without. Each message
has to come back once and in order. Ends when its standard input does. usage: steady.py URL"""
import asyncio
import random
import sys

import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

PATIENCE = 60
UNDER_WAY = 4
KINDS = {
    "context": [ClientPerMessageDeflateFactory()],
    "no-context": [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)],
    "plain": None,
}
stop = asyncio.Event()


def message(name, i):
    """Half of it is in the window of the messages before, half is not."""
    r = random.Random(f"{name} {i}")
    words = [r.choice(("the same words as ever, ", f"{r.getrandbits(40):x}")) for _ in range(1500 if i % 50 == 49 else r.randrange(1, 120))]
    return f"{name} {i} " + "".join(words)


async def talk(name, extensions):
    async with websockets.connect(sys.argv[1], compression=None, extensions=extensions, ping_interval=None, open_timeout=PATIENCE) as ws:
        sent = got = 0
        while got < sent or not stop.is_set():
            while sent < got + UNDER_WAY and not stop.is_set():
                await ws.send(message(name, sent))
                sent += 1
            if got < sent:
                answer = await asyncio.wait_for(ws.recv(), PATIENCE)
                assert answer == message(name, got), f"{name}: message {got} is another one"
                got += 1
            await asyncio.sleep(0.002)
        names = ", ".join(f"{e.name}{' no context' * e.local_no_context_takeover}" for e in ws.extensions) or "none"
        await ws.close(4321, "until then")
        assert ws.close_code == 4321, f"{name}: closed with {ws.close_code}"
    print(f"{name.split('/')[0]}: {'too few' if got < 10 else 'all'} came back, extensions {names}")


async def main():
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stop.set())
    await asyncio.gather(*(talk(f"{kind}/{n}", extensions) for kind, extensions in KINDS.items() for n in (1, 2)))


asyncio.run(main())
