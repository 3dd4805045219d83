"""`alignx evaluate --judges`: answers, verdicts and figures, from the command line to the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from alignx.cli import run
from alignx.config import RunConfig
from alignx.runs import RunDirectory
from alignx.runs.files import read_jsonl
from judge_server import CHAT, Asked, failure, verdict

METHODS = ["base", "expert-helpful", "expert-harmless", "expert-honest", "joint", "uniform", "alignx"]
GROUPS = ["helpful", "harmless", "honest", "overrefusal"]
SHORT = ["--limit", "1", "--max-new-tokens", "4"]
TWO = ["--methods", "base,alignx"]


def prefer(body: dict[str, Any]) -> dict[str, Any]:
    """A judge whose verdicts depend on the texts and not on their order."""
    text = body["messages"][1]["content"]
    if "Verdicts: A" in text:
        first, second = (text.split(f"ANSWER {name}]\n")[1].split("\n[")[0] for name in "AB")
        return verdict("A" if first > second else "B")
    for labels in (("safe", "unsafe"), ("refusal", "answer"), ("true", "false"), ("informative", "uninformative")):
        if f"Verdicts: {labels[0]}, {labels[1]}." in text:
            return verdict(labels[len(text) % 2])
    raise AssertionError(text)


def by_openai(asked: Asked, *more: str) -> list[str]:
    return ["--judges", "openai", "--judge-option", f"openai.base_url={asked.base_url}", *SHORT, *more]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


@pytest.fixture(scope="module")
def made(
    finished_run: Callable[[str], tuple[RunConfig, RunDirectory]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of this module's own, with a joint LoRA and all methods' answers."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(finished_run("llama")[1].root, folder)
    assert run(["evaluate", str(folder), "--judges", "refusal", *SHORT]) == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The same run, to be changed."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_every_method_answers_every_prompt_once(made: Path) -> None:
    answers = read_jsonl(made / "eval/test/answers.jsonl")
    assert [row["method"] for row in answers[:: len(GROUPS)]] == METHODS
    assert len({row["key"] for row in answers}) == len(answers) == len(METHODS) * len(GROUPS)
    assert {row["group"] for row in answers} == set(GROUPS)
    for row in answers:
        assert 1 <= row["n_tokens"] <= 4
        assert row["finished"] or row["n_tokens"] == 4


def test_answers_are_what_the_runtime_gives(made: Path) -> None:
    from alignx import AlignX

    rows = [row for row in read_jsonl(made / "eval/test/answers.jsonl") if row["method"] == "alignx"]
    with AlignX.from_pretrained(made) as model:
        for row in rows[:3]:
            assert model.generate(row["prompt"], max_new_tokens=4)[0].text == row["answer"]


def test_a_kill_costs_a_batch_at_most(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "eval/test/answers.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]) + lines[-3][:40])
    assert run(["evaluate", str(copied), "--judges", "refusal", *SHORT]) == 0
    errors = capsys.readouterr().err
    assert "its last line was cut off by a kill" in errors
    assert "answers of alignx (3)" in errors
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_damaged_row_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "eval/test/answers.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    assert run(["evaluate", str(copied), "--judges", "refusal", *SHORT]) == 2
    assert "answers.jsonl: row 1 is damaged" in capsys.readouterr().err


def test_figures_reach_metrics_terminal_and_report(
    copied: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(httpserver, prefer, CHAT)
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    out = capsys.readouterr().out
    assert "Judge openai (gpt-4): per cent" in out
    assert "Judge refusal (phrases): per cent" in out
    metrics = json.loads((copied / "eval/test/metrics.json").read_text())
    openai = metrics["judges"]["sections"]["openai"]
    assert openai["n"]["judged"] == openai["n"]["questions"]
    assert openai["table"]["win_rate"]["base"]["helpful"]["value"] == 50
    assert all(figure["value"] == 0 for group in openai["table"]["flip_rate"].values() for figure in group.values())
    assert list(openai["table"]["safety_score"]["alignx"]) == GROUPS
    [average] = metrics["judges"]["averages"]
    row = average["table"]["alignx"]
    parts = [row[role]["value"] for role in ("win_rate", "safety_score", "ti")]
    assert row["average"]["value"] == pytest.approx((parts[0] + 100 - parts[1] + parts[2]) / 3)
    assert row["average_published"]["value"] == pytest.approx((parts[0] + parts[2] - parts[1]) / 3)
    n_asked = asked.count
    # The likelihood judge's figures join them, and the report shows both; the judges' part is made anew from verdicts.
    path = copied / "eval/test/metrics.json"
    path.write_text(json.dumps(metrics | {"judges": metrics["judges"] | {"averages": []}}))
    RunDirectory(copied).mark_done("evaluate-test", {}, path)
    assert run(["evaluate", str(copied)]) == 0
    assert json.loads(path.read_text())["judges"] == metrics["judges"]
    assert run(["report", str(copied)]) == 0
    page, markdown = (copied / "report.html").read_text(), (copied / "report.md").read_text()
    for text in (page, markdown):
        assert "Judge: openai" in text
        assert "Judge: refusal" in text
        assert "Win rate, safety score, TI and their average" in text
    assert asked.count == n_asked


def test_a_judge_of_fewer_prompts_leaves_the_others_figures_whole(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def n_of(group: str) -> int:
        metrics = json.loads((copied / "eval/test/metrics.json").read_text())
        table = metrics["judges"]["sections"]["refusal"]["table"]["refusal_rate"]
        return int(table["base"][group]["n"])

    more = ["--limit", "3", "--max-new-tokens", "4", "--methods", "base"]
    assert run(["evaluate", str(copied), "--judges", "refusal", *more]) == 0
    assert n_of("honest") == 3
    unreachable = ["--judge-option", "openai.base_url=http://127.0.0.1:9/v1", "--max-calls", "0"]
    assert run(["evaluate", str(copied), "--judges", "openai", *unreachable, *SHORT, "--methods", "base"]) == 0
    assert n_of("honest") == 3


def test_judges_without_a_likelihood_evaluation_make_no_report(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(copied)]) == 2
    assert "without --judges" in capsys.readouterr().err


def test_a_rerun_asks_nothing_and_another_model_everything(copied: Path, httpserver: HTTPServer) -> None:
    asked = Asked(httpserver, prefer, CHAT)
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    once = asked.count
    assert once > 0
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    assert asked.count == once
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO, "--judge-option", "openai.model=other")]) == 0
    assert asked.count == 2 * once


def test_after_k_calls_a_rerun_makes_exactly_the_others(copied: Path, httpserver: HTTPServer) -> None:
    asked = Asked(httpserver, prefer, CHAT)
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO, "--max-calls", "7", "--concurrency", "3")]) == 0
    assert asked.count == 7
    metrics = json.loads((copied / "eval/test/metrics.json").read_text())
    openai = metrics["judges"]["sections"]["openai"]
    assert openai["n"]["failed"] == openai["n"]["questions"] - openai["n"]["judged"]
    assert any("--max-calls 7 is reached" in reason for reason in openai["reasons"])
    assert openai["table"]["win_rate"]["alignx"]["helpful"]["value"] is None
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    bodies = [json.dumps(body, sort_keys=True) for body in asked.bodies]
    assert len(set(bodies)) == len(bodies)


def test_a_dry_run_counts_what_the_run_then_asks(
    copied: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(httpserver, prefer, CHAT)
    prices = ["--judge-option", "openai.input_price=30", "--judge-option", "openai.output_price=60"]
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO, *prices), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert asked.count == 0
    assert "0 to generate" in out
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    assert f"{asked.count} to ask, 0 kept" in out
    assert "completion tokens, $" in out


def test_a_dry_run_needs_no_answers_and_no_key(
    finished_run: Callable[[str], tuple[RunConfig, RunDirectory]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    shutil.copytree(finished_run("llama")[1].root, tmp_path / "run")
    assert run(["evaluate", str(tmp_path / "run"), "--judges", "openai", "--limit", "1", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert f"answers: 0 kept, {len(METHODS) * len(GROUPS)} to generate" in captured.out
    assert "price unknown" in captured.out
    assert "loading" not in captured.err


def test_a_cap_on_cost_holds(copied: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked(httpserver, prefer, CHAT)
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO, "--max-cost", "0.5")]) == 2
    assert "--max-cost needs the judge's prices" in capsys.readouterr().err
    assert asked.count == 0
    # 100 prompt and 10 completion tokens a call, as the server counts: 0.1 dollars and 0.01.
    prices = ["--judge-option", "openai.input_price=1000", "--judge-option", "openai.output_price=1000"]
    arguments = by_openai(asked, *TWO, *prices, "--max-cost", "1.2", "--concurrency", "1")
    assert run(["evaluate", str(copied), *arguments]) == 0
    assert 1 <= asked.count <= 10
    assert "--max-cost 1.2 would be exceeded" in capsys.readouterr().err


def test_the_key_is_sent_and_kept_nowhere(copied: Path, httpserver: HTTPServer) -> None:
    asked = Asked(httpserver, prefer, CHAT)
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    assert asked.headers[0]["Authorization"] == "Bearer sk-secret"
    holders = [path for path in copied.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
    assert holders == []


def test_a_refused_key_stops_at_once_and_keeps_what_was_had(
    copied: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def then_refuse(body: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        return prefer(body) if count <= 3 else failure(401, message="expired")

    refusing = Asked(httpserver, then_refuse, CHAT)
    assert run(["evaluate", str(copied), *by_openai(refusing, *TWO, "--concurrency", "1")]) == 2
    error = capsys.readouterr().err
    assert "refuses the key in $OPENAI_API_KEY" in error
    assert "sk-secret" not in error
    assert refusing.count == 4
    httpserver.clear()
    asked = Asked(httpserver, prefer, CHAT)
    assert run(["evaluate", str(copied), *by_openai(asked, *TWO)]) == 0
    assert not {json.dumps(body) for body in asked.bodies} & {json.dumps(body) for body in refusing.bodies[:3]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judges", "opnai"], "unknown judge `opnai`; did you mean `openai`?"),
        (["--judges", ","], "names no judge"),
        (["--judges", "refusal", "--methods", "alignex"], "unknown method; did you mean `alignx`?"),
        (["--judges", "refusal", "--methods", ","], "expected names with commas between"),
        (["--judges", "refusal", "--baseline", "nobody"], "--baseline nobody: unknown method"),
        (["--judges", "refusal", "--max-new-tokens", "9999"], "leave room for a prompt"),
        (["--judges", "refusal", "--limit", "0"], "--limit"),
        (["--judges", "openai", "--judge-option", "openai.modle=x"], "did you mean `openai.model`?"),
        (["--judges", "openai", "--judge-option", "openai"], "expected JUDGE.FIELD=VALUE"),
        (["--judges", "openai", "--judge-option", "gpt.model=x"], "no settings for a judge `gpt`"),
        (["--judges", "openai", "--judge-option", "openai.temperature=hot"], "`openai.temperature`"),
        (["--judges", "openai", "--judge-settings", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["--judges", "moderation", "--judge-option", "moderation.model=/no/such"], "cannot be loaded"),
        (["--judges", "truth", "--judge-option", "truth.model=/no/such"], "no such folder"),
        (["--limit", "3"], "goes with --judges"),
        (["--dry-run"], "goes with --judges"),
        (["--max-cost", "1"], "--max-cost: goes with --judges"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    made: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    short = [] if arguments[0] != "--judges" else SHORT
    assert run(["evaluate", str(made), *short, *arguments]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in line


def test_no_key_is_one_line(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert run(["evaluate", str(made), "--judges", "openai", *SHORT]) == 2
    assert "$OPENAI_API_KEY is not set" in capsys.readouterr().err
