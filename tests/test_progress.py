import pytest

from alignx import progress as module


def test_without_a_terminal_a_note_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_NOTES", 0.0)
    with module.progress("judge openai", 3) as advance:
        advance(1, "$0.10 so far")
        advance(1)
        advance(1, "$0.30 so far")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "judge openai (3) ...",
        "judge openai: 1 of 3 ($0.10 so far)",
        "judge openai: 3 of 3 ($0.30 so far)",
    ]


def test_notes_that_come_fast_are_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    with module.progress("judge openai", 100) as advance:
        for _ in range(100):
            advance(1, "$0.10 so far")
    assert len(capsys.readouterr().err.splitlines()) == 2
