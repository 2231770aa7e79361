# SPDX-License-Identifier: BSD-2-Clause
"""The demo backend: a FastAPI application with the endpoints Polder is shown in front of.

It counts every call that it really answers (GET /api/calls), so that what Polder
kept away from it can be seen from outside.
"""
import asyncio
import collections
import itertools
import secrets
import time

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

app = FastAPI(title="Polder demo backend")
calls: collections.Counter = collections.Counter()
versions: dict = collections.defaultdict(lambda: 1)
started = time.time()
quota_reads = itertools.count(1)
sessions: dict = {}  # cookie -> user


@app.middleware("http")
async def count(request: Request, call_next):
    path = request.url.path
    if path not in ("/healthz", "/api/calls"):
        calls[f"{request.method} {path}"] += 1
    return await call_next(request)


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}


@app.get("/api/calls")
async def api_calls(response: Response):
    response.headers["Cache-Control"] = "no-store"
    return {"total": sum(calls.values()), "byPath": dict(calls), "uptime": round(time.time() - started, 1),
            "cpu": round(time.process_time(), 3)}


@app.get("/api/quota/{kind}")
async def quota(kind: str, response: Response):
    if kind not in ("status", "notifications", "usage", "check"):
        response.status_code = 404
        return {"detail": "unknown quota endpoint"}
    response.headers["Cache-Control"] = "no-store"
    return {"quota": kind, "used": next(quota_reads), "limit": 1000}


@app.get("/api/goals/preview")
async def goals_preview():
    """Slow and recomputed on every read: what dashboards poll every three seconds."""
    await asyncio.sleep(0.2)
    window = int(time.time()) // 120  # its content changes every two minutes
    return {"goals": [{"id": n, "progress": (window * 7 + n * 13) % 100} for n in range(1, 6)]}


@app.get("/api/items/{item}")
async def get_item(item: int, response: Response):
    version = versions[item]
    response.headers["Cache-Groups"] = f'"items", "item-{item}"'
    response.headers["ETag"] = f'"{item}-{version}"'
    return {"id": item, "version": version, "name": f"item {item}", "text": "x" * 900}


@app.post("/api/items/{item}")
async def post_item(item: int, response: Response):
    """An unsafe method cleans up after itself: RFC 9875 group invalidation."""
    versions[item] += 1
    response.headers["Cache-Group-Invalidation"] = f'"item-{item}"'
    return {"id": item, "version": versions[item]}


@app.post("/api/login/{user}")
async def login(user: str, response: Response):
    """No password: it is a demo. The cookie says from now on who asks."""
    session = secrets.token_urlsafe(24)
    sessions[session] = user[:64]
    response.set_cookie("session", session, httponly=True, samesite="lax")
    response.headers["Cache-Control"] = "no-store"
    return {"user": sessions[session]}


@app.post("/api/logout")
async def logout(request: Request, response: Response):
    user = sessions.pop(request.cookies.get("session"), None)
    response.delete_cookie("session")
    if user:
        response.headers["Cache-Group-Invalidation"] = f'"user-{user}"'
    return {"user": user}


@app.get("/api/me")
async def me(request: Request, response: Response):
    """Another one for each user, and says nothing of that: what most applications do."""
    user = sessions.get(request.cookies.get("session"))
    if not user:
        response.status_code = 401
        return {"detail": "not logged in"}
    response.headers["Cache-Groups"] = f'"user-{user}"'
    return {"user": user, "at": round(time.time() - started, 1)}


@app.websocket("/ws/{client_id}")
async def echo(websocket: WebSocket, client_id: str):
    """Echoes; "bye" makes it close with 4001."""
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") == "bye":
                await websocket.close(4001, "as asked")
                break
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            elif message.get("bytes") is not None:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass
