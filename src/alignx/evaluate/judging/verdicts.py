"""Verdicts kept across runs and evaluations of one run directory, so that none is paid for twice.

One sqlite file in write-ahead mode: a verdict is committed before the next is counted, and a kill loses none of them.
The key is judge, model, hash of the prompt template with its settings, and hash of the texts: a change of any of these
misses. Only verdicts are kept: what failed or could not be read is asked again.
"""

import hashlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from alignx.errors import ArtifactError
from alignx.evaluate.judges.interface import Item, Judge, Judgement, Usage
from alignx.progress import notice

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    judge TEXT NOT NULL, model TEXT NOT NULL, template TEXT NOT NULL, content TEXT NOT NULL,
    value REAL NOT NULL, detail TEXT NOT NULL, reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL, made TEXT NOT NULL,
    PRIMARY KEY (judge, model, template, content)
) WITHOUT ROWID
"""
_BUSY_SECONDS = 30.0

Key = tuple[str, str, str, str]


def verdict_key(judge: Judge, item: Item) -> Key:
    """(judge, model, template hash, content hash) of one question."""
    texts = json.dumps([item.question, item.prompt, item.answer, item.other], ensure_ascii=False)
    return judge.name, judge.model, template_hash(judge, item.question), _sha256(texts)


def template_hash(judge: Judge, question: str) -> str:
    """Hash of everything a verdict depends on beside the texts; 16 hex digits."""
    return _sha256(judge.template(question))[:16]


class VerdictStore:
    """The cache; used from one thread.

    Args:
        path: of the sqlite file, made when there is none. A damaged one is set aside and named in a notice.

    Raises:
        ArtifactError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise ArtifactError(
                    f"{path}: cannot be opened ({error}); check its permissions, the free space, and that no other "
                    "command judges this run"
                ) from error
            aside = _set_aside(path)
            notice(f"{path}: damaged ({error}); set aside as {aside.name}, its verdicts are asked again")
            self._connection = _open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, key: Key) -> Judgement | None:
        """The verdict kept under a key; none when there is none."""
        row = self._connection.execute(
            "SELECT value, detail, reply, prompt_tokens, completion_tokens, cost FROM verdicts "
            "WHERE judge = ? AND model = ? AND template = ? AND content = ?",
            key,
        ).fetchone()
        if row is None:
            return None
        value, detail, reply, prompt_tokens, completion_tokens, cost = row
        usage = Usage(prompt_tokens, completion_tokens, cost)
        return Judgement("judged", value, detail=json.loads(detail), reply=reply, usage=usage)

    def put(self, key: Key, judgement: Judgement) -> None:
        """Keep a verdict, committed when this returns; anything that is not one is not kept."""
        if judgement.state != "judged":
            return
        usage = judgement.usage
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *key,
                    judgement.value,
                    json.dumps(judgement.detail),
                    judgement.reply,
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    usage.cost,
                    datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        found = connection.execute("PRAGMA quick_check").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(str(found[0] if found else "quick_check said nothing"))
        connection.execute(_SCHEMA)
        connection.execute("SELECT judge, model, template, content, value, detail, reply, cost FROM verdicts LIMIT 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path) -> Path:
    """Rename a damaged file, and what sqlite keeps beside it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    return aside


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
