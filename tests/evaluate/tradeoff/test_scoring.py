import json
from pathlib import Path

from alignx.evaluate.tradeoff.scoring import PromptScore, mean_scores, read_scores, write_scores

SCORES = {"a": PromptScore(1.5, 1.0, 0.25), "b": PromptScore(2.0, mc1=0.0, mc2=1 / 3)}


def test_scores_are_read_back_to_the_bit(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.jsonl", SCORES)
    assert read_scores(tmp_path / "scores.jsonl") == SCORES
    assert read_scores(tmp_path / "none.jsonl") == {}


def test_rows_that_were_changed_are_dropped_and_the_others_kept(tmp_path: Path, capsys) -> None:
    path = tmp_path / "scores.jsonl"
    write_scores(path, SCORES)
    first, second = path.read_text(encoding="utf-8").splitlines()
    changed = json.loads(first)
    changed["loss"] += 0.5
    path.write_text("\n".join([json.dumps(changed), "[]", '{"key": 3}', second]) + "\n", encoding="utf-8")
    assert read_scores(path) == {"b": SCORES["b"]}
    assert "scores.jsonl: 3 rows are not what was written; scoring those again" in capsys.readouterr().err
    path.write_text("not json\n", encoding="utf-8")
    assert read_scores(path) == {}
    assert "scoring again" in capsys.readouterr().err


def test_repeats_are_averaged_prompt_by_prompt() -> None:
    one, other = [PromptScore(1.0, mc2=0.5), PromptScore(2.0)], [PromptScore(3.0, mc2=0.7), PromptScore(4.0)]
    assert mean_scores([one, other]) == [PromptScore(2.0, mc2=0.6), PromptScore(3.0)]
    assert mean_scores([one]) == one
