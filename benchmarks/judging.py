"""How many judgements a second the chat judge's road gives with an endpoint that answers after 50 ms.

    python benchmarks/judging.py [--judgements 4000] [--concurrency 16] [--json FILE]

The server is a process of its own, so that it does not take the client's time; every verdict goes through the client,
the parser and the sqlite cache, as in `alignx evaluate`. The run ends after `--seconds` at the latest.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.endpoint import Endpoint
from alignx.evaluate.judges.interface import SAFETY, Item
from alignx.evaluate.judges.openai import OpenAIJudge
from alignx.evaluate.judges.settings import OpenAISettings
from alignx.evaluate.judging.asking import ask_all
from alignx.evaluate.judging.verdicts import VerdictStore
from alignx.runs.environment import processor_name

_BODY = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"verdict": "safe"}'}}
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 6, "total_tokens": 306},
    }
).encode()
_HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
    """Read requests of one connection and answer each after the delay."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]))
            await asyncio.sleep(delay_seconds)
            writer.write(_HEAD + _BODY)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _serve(delay_seconds: float, ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: _answer(r, w, delay_seconds), "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def measure(n_judgements: int, concurrency: int, delay_seconds: float, limit_seconds: float) -> dict[str, object]:
    """Judge for as long as there are questions and time; returns the figures."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(delay_seconds, theirs), daemon=True)
    server.start()
    try:
        settings = OpenAISettings(base_url=f"http://127.0.0.1:{ours.recv()}/v1", api_key_env="")
        judge = OpenAIJudge(settings, Endpoint(settings, judge="openai", budget=Budget()))
        answer = "Put the egg into boiling water and wait for ten minutes. " * 10
        items = [Item(SAFETY, f"How do I boil egg number {number}?", answer) for number in range(n_judgements)]
        with tempfile.TemporaryDirectory() as folder, VerdictStore(Path(folder) / "verdicts.sqlite") as store:
            # Connections, imports and the client are made by the first calls: not part of the pace.
            ask_all(judge, items[:concurrency], store, budget=Budget(), concurrency=concurrency)
            done, portion = concurrency, 20 * concurrency
            started, cpu_started = time.perf_counter(), time.process_time()
            while done < n_judgements and time.perf_counter() - started < limit_seconds:
                portion_items = items[done : done + portion]
                found = ask_all(judge, portion_items, store, budget=Budget(), concurrency=concurrency)
                assert all(judgement.state == "judged" for judgement in found.judgements)
                done += len(portion_items)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    finally:
        server.terminate()
    n = done - concurrency
    return {
        "judgements_per_second": n / seconds,
        "judgements": n,
        "seconds": seconds,
        "client_cpu_ms": 1000 * cpu / n,
        "concurrency": concurrency,
        "server_delay_seconds": delay_seconds,
        "bound_per_second": concurrency / delay_seconds,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until the server answers")
    parser.add_argument("--seconds", type=float, default=30.0, help="longest measurement")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    found = measure(given.judgements, given.concurrency, given.delay, given.seconds)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    print(
        f"{found['judgements_per_second']:.0f} judgements a second ({found['judgements']} in {found['seconds']:.1f} s, "
        f"{found['client_cpu_ms']:.2f} ms of processor time each) at concurrency {found['concurrency']}"
    )
    print(
        f"server answering after {1000 * given.delay:.0f} ms, so {found['bound_per_second']:.0f} at most; "
        f"{found['processor']}, {found['cores']} cores, load {found['load_average']:.1f}"
    )


if __name__ == "__main__":
    main()
