"""Gated and folded runs: chosen by themselves, the same answers, the base as it was, threads apart."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import StoppingCriteria

from alignx import AlignX, Dial
from alignx.config import RunConfig
from alignx.errors import ConfigError
from alignx.mixture import engine
from alignx.mixture.compiled import missing_compiler
from alignx.models.fingerprint import model_sha256
from alignx.runs import RunDirectory

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]
PROMPTS = ["Write a line about the apple.", "Why?", "How can I steal the door?"]
ONE_HOT = Dial({"helpful": 0, "harmless": 0})


@pytest.fixture(scope="module")
def model(finished_run: Finished) -> AlignX:
    return AlignX.from_pretrained(finished_run("llama")[1].root, folding="never")


@pytest.fixture(scope="module")
def folding(finished_run: Finished) -> AlignX:
    return AlignX.from_pretrained(finished_run("llama")[1].root, folding="always")


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts folds."""
    counted: list[int] = []
    plain = engine.adapters_folded

    def counting(*arguments, **options):
        counted.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(engine, "adapters_folded", counting)
    return counted


class Breaks(StoppingCriteria):
    """Raises after some tokens."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, input_ids, scores, **kwargs):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("in mid-generation")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


@pytest.mark.parametrize("dial", [Dial(), Dial({"harmless": 9}), Dial(strength=-1), ONE_HOT, Dial(strength=0)])
def test_folded_answers_are_the_gated_ones(model: AlignX, folding: AlignX, dial: Dial) -> None:
    for prompt in PROMPTS:
        gated, folded = (each.generate(prompt, dial, max_new_tokens=12)[0] for each in (model, folding))
        assert gated.text == folded.text and gated.n_tokens == folded.n_tokens


def test_one_mixture_is_folded_when_the_answer_may_be_long(model: AlignX, folds: list[int], monkeypatch) -> None:
    monkeypatch.setattr(model.engine, "_folding", "auto")
    monkeypatch.setattr(engine, "FOLD_FROM_TOKENS", 6)
    model.generate("Why?", max_new_tokens=5, min_new_tokens=3)
    model.generate(PROMPTS, [Dial(), Dial({"honest": 2}), Dial()], max_new_tokens=9, min_new_tokens=3)
    model.generate("Why?", Dial(strength=0), max_new_tokens=9, min_new_tokens=3)
    assert not folds
    model.generate("Why?", max_new_tokens=6, min_new_tokens=3)
    assert len(folds) == 1
    model.generate(PROMPTS, ONE_HOT, max_new_tokens=9, min_new_tokens=3)  # all rows have the one expert
    assert len(folds) == 2


def test_the_base_is_as_it_was_after_answers_and_errors(folding: AlignX, folds: list[int]) -> None:
    before = model_sha256(folding.base.model)
    answer = folding.generate("Why?", max_new_tokens=8, min_new_tokens=8)[0]
    assert model_sha256(folding.base.model) == before
    for after in (0, 1, 4):
        with pytest.raises(RuntimeError, match="mid-generation"):
            folding.generate("Why?", max_new_tokens=8, min_new_tokens=8, stopping_criteria=[Breaks(after)])
        assert model_sha256(folding.base.model) == before
    assert len(folds) >= 3
    assert folding.generate("Why?", max_new_tokens=8, min_new_tokens=8)[0] == answer
    assert folding.engine.originals.copied_bytes == 0


def test_a_mixture_is_the_same_after_another(folding: AlignX, model: AlignX) -> None:
    first = folding.generate("Why?", Dial({"honest": 9}), max_new_tokens=8)[0]
    folding.generate("Why?", Dial({"harmless": 9}, strength=2), max_new_tokens=8)
    assert folding.generate("Why?", Dial({"honest": 9}), max_new_tokens=8)[0] == first
    logits = model.next_token_logits([[5, 9, 40]], Dial({"honest": 9}))
    model.next_token_logits([[5, 9, 40]], Dial({"harmless": 9}))
    assert torch.equal(model.next_token_logits([[5, 9, 40]], Dial({"honest": 9})), logits)


@pytest.mark.parametrize("name", ["model", "folding"])
def test_threads_get_what_they_get_alone(name: str, request: pytest.FixtureRequest) -> None:
    shared: AlignX = request.getfixturevalue(name)
    dials = [Dial({axis: 30.0}, strength=2) for axis in shared.axes] + [Dial(strength=0)]
    asked = [(PROMPTS[number % 3], dials[number % 4]) for number in range(16)]
    alone = [shared.generate(*ask, max_new_tokens=5)[0] for ask in asked]
    logits = shared.next_token_logits([[5, 9, 40]])
    with ThreadPoolExecutor(5) as pool:
        answers = pool.map(lambda ask: shared.generate(*ask, max_new_tokens=5)[0], asked)
        between = pool.map(lambda _: shared.next_token_logits([[5, 9, 40]]), range(8))
        assert list(answers) == alone
        assert all(torch.equal(found, logits) for found in between)


def test_parts_of_a_dial_are_a_dial(model: AlignX) -> None:
    dials = [Dial({"honest": 3}, {"harmless": 0.2}, 0.5), Dial({"helpful": 2}, {}, 0.5)]
    parts = {"axis_weights": [{"honest": 3}, {"helpful": 2}], "floors": [{"harmless": 0.2}, {}], "strength": 0.5}
    assert model.generate(PROMPTS[:2], max_new_tokens=4, **parts) == model.generate(
        PROMPTS[:2], dials, max_new_tokens=4
    )
    assert model.route("Why?", axis_weights={"honest": 3}) == model.route("Why?", Dial({"honest": 3}))
    with pytest.raises(ConfigError, match="dial and strength are both given"):
        model.generate("Why?", Dial(), strength=1.0)
    with pytest.raises(ConfigError, match="2 floors for 1 prompts"):
        model.route("Why?", floors=[{}, {}])


def test_another_folding_is_refused(finished_run: Finished) -> None:
    with pytest.raises(ConfigError, match="folding `sometimes`: must be auto, always or never"):
        AlignX.from_pretrained(finished_run("llama")[1].root, folding="sometimes")  # type: ignore[arg-type]


def test_without_a_compiler_it_says_so_and_answers(finished_run: Finished, model: AlignX, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    compiled = AlignX.from_pretrained(finished_run("llama")[1].root, folding="always", compile=True)
    assert "no C++ compiler" in capsys.readouterr().err
    assert compiled.generate("Why?", max_new_tokens=4)[0].text == model.generate("Why?", max_new_tokens=4)[0].text


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(missing_compiler("cpu")), reason="needs a C++ compiler")
def test_compiled_answers_are_the_same(finished_run: Finished, model: AlignX) -> None:
    compiled = AlignX.from_pretrained(finished_run("llama")[1].root, folding="always", compile=True)
    before = model_sha256(compiled.base.model)
    for prompt in PROMPTS[:2]:
        found = compiled.generate(prompt, max_new_tokens=8, min_new_tokens=8)[0]
        assert found.text == model.generate(prompt, max_new_tokens=8, min_new_tokens=8)[0].text
    assert model_sha256(compiled.base.model) == before
    assert "forward" not in vars(compiled.base.model)
