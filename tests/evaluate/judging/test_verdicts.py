"""The cache of verdicts: what is kept, what misses, what a damaged file does. Fault 23, first half."""

from pathlib import Path

import pytest

from alignx.errors import ArtifactError
from alignx.evaluate.judges.interface import SAFETY, Item, Judgement, Usage
from alignx.evaluate.judges.refusal import RefusalJudge
from alignx.evaluate.judging.verdicts import VerdictStore, verdict_key

ITEM = Item(SAFETY, "prompt", "answer")
VERDICT = Judgement("judged", 1.0, {"flagged": ["self_harm"]}, reply="said", usage=Usage(5, 2, 0.25))


class Named(RefusalJudge):
    """A judge with a template of one's own."""

    def __init__(self, name: str = "j", model: str = "m", template: str = "t") -> None:
        self.name, self.model, self.text = name, model, template

    def template(self, question: str) -> str:
        return self.text


def test_a_verdict_comes_back_whole_from_the_next_process(tmp_path: Path) -> None:
    key = verdict_key(Named(), ITEM)
    with VerdictStore(tmp_path / "v.sqlite") as store:
        store.put(key, VERDICT)
    with VerdictStore(tmp_path / "v.sqlite") as store:
        assert store.get(key) == VERDICT


def test_judge_model_template_and_each_text_are_in_the_key(tmp_path: Path) -> None:
    others = [
        verdict_key(Named("k"), ITEM),
        verdict_key(Named(model="n"), ITEM),
        verdict_key(Named(template="u"), ITEM),
        verdict_key(Named(), Item("truth", "prompt", "answer")),
        verdict_key(Named(), Item(SAFETY, "prompts", "answer")),
        verdict_key(Named(), Item(SAFETY, "prompt", "answers")),
        verdict_key(Named(), Item(SAFETY, "prompt", "answer", "other")),
        verdict_key(Named(), Item(SAFETY, "", "prompt", "answer")),
    ]
    with VerdictStore(tmp_path / "v.sqlite") as store:
        store.put(verdict_key(Named(), ITEM), VERDICT)
        assert [store.get(key) for key in others] == [None] * len(others)


@pytest.mark.parametrize("state", ["unparseable", "failed"])
def test_what_is_no_verdict_is_not_kept(tmp_path: Path, state: str) -> None:
    with VerdictStore(tmp_path / "v.sqlite") as store:
        store.put(verdict_key(Named(), ITEM), Judgement(state, reason="no"))  # type: ignore[arg-type]
        assert store.get(verdict_key(Named(), ITEM)) is None


@pytest.mark.parametrize("damage", ["words", "flipped", "emptied in the middle"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.sqlite"
    with VerdictStore(path) as store:
        for number in range(200):
            store.put(verdict_key(Named(), Item(SAFETY, str(number), "answer " * 20)), VERDICT)
    raw = path.read_bytes()
    if damage == "words":
        path.write_text("this is not a database, though it is long enough to be taken for one by its size alone" * 20)
    elif damage == "flipped":
        path.write_bytes(bytes(255 - byte for byte in raw))
    else:
        path.write_bytes(raw[:4096] + bytes(len(raw) - 8192) + raw[-4096:])
    with VerdictStore(path) as store:
        assert store.get(verdict_key(Named(), Item(SAFETY, "1", "answer " * 20))) is None
        store.put(verdict_key(Named(), ITEM), VERDICT)
    assert (tmp_path / "v.sqlite.damaged-1").is_file()
    assert "set aside as v.sqlite.damaged-1" in capsys.readouterr().err
    with VerdictStore(path) as store:
        assert store.get(verdict_key(Named(), ITEM)) == VERDICT


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "v.sqlite").mkdir()
    with pytest.raises(ArtifactError, match="cannot be opened"):
        VerdictStore(tmp_path / "v.sqlite")
