"""Generation, routing and their errors on a tiny trained run."""

from collections.abc import Callable

import pytest

from alignx import AlignX, Dial
from alignx.config import RunConfig
from alignx.errors import AlignXError, ArtifactError, ConfigError, DialError
from alignx.mixture.showcase import run_showcase
from alignx.models.lazy import LazyBase
from alignx.runs import RunDirectory

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]


@pytest.fixture(scope="module")
def model(finished_run: Finished) -> AlignX:
    return AlignX.from_pretrained(finished_run("llama")[1].root)


def test_answers_in_a_batch_are_those_given_alone(model: AlignX) -> None:
    prompts = ["Write a line about the apple.", "Why?", ""]
    dials = [Dial(), Dial({"harmless": 9}), Dial(strength=0)]
    together = model.generate(prompts, dials, max_new_tokens=8)
    alone = [model.generate(prompt, dial, max_new_tokens=8)[0] for prompt, dial in zip(prompts, dials, strict=True)]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert together[1].weights.pi == pytest.approx(alone[1].weights.pi, rel=1e-4)


def test_the_dial_changes_the_answer(model: AlignX) -> None:
    prompts = ["Write a line about the apple."] * 2
    given, leaning = model.generate(prompts, [Dial(strength=0), Dial(strength=3)], max_new_tokens=16)
    assert given.text != leaning.text


def test_sampling_follows_the_seed(model: AlignX) -> None:
    import torch

    def sample() -> str:
        torch.manual_seed(3)
        return model.generate("Why?", max_new_tokens=12, do_sample=True, temperature=1.5)[0].text

    assert sample() == sample()


def test_a_long_prompt_leaves_room_for_the_answer(model: AlignX) -> None:
    answer = model.generate("word " * 400, max_new_tokens=10)[0]
    assert answer.prompt_cut > 0
    assert answer.n_tokens <= 10


@pytest.mark.parametrize("beside_the_limit", [-1, 0, 1])
def test_prompts_at_and_past_the_limit_are_answered_alone_and_in_a_batch(model: AlignX, beside_the_limit: int) -> None:
    room, words = 6, ["a"]
    limit = model.base.context_tokens - room + beside_the_limit
    while len(model.base.template.encode_prompt(" ".join(words))) < limit:
        words.append("a")
    prompts = [" ".join(words), "Why?"]
    length = len(model.base.template.encode_prompt(prompts[0]))
    together = model.generate(prompts, max_new_tokens=room)
    assert together[0].prompt_cut == max(0, length + room - model.base.context_tokens)
    assert [answer.text for answer in together] == [model.generate(one, max_new_tokens=room)[0].text for one in prompts]


@pytest.mark.parametrize(
    ("dial", "says"),
    [
        (Dial({"harmles": 2}), "did you mean `harmless`"),
        (Dial({"harmless": -1}), "must be a finite number, 0 or more"),
        (Dial({"harmless": float("nan")}), "must be a finite number"),
        (Dial({"helpful": 0, "harmless": 0, "honest": 0}), "all axis weights are 0"),
        (Dial(floors={"helpful": 0.7, "honest": 0.7}), "floors add up to 1.4"),
        (Dial({"helpful": 0}, {"helpful": 0.1}), "contradicts weight helpful=0"),
        (Dial(strength=float("inf")), "strength inf must be a finite number"),
        (Dial({"harmless": "2"}), "weight harmless=2: must be a finite number"),  # type: ignore[dict-item]
    ],
)
def test_a_wrong_dial_says_what_is_wrong(model: AlignX, dial: Dial, says: str) -> None:
    with pytest.raises(DialError, match=says.replace("(", r"\(")):
        model.generate("Why?", dial)


@pytest.mark.parametrize("tokens", [0, -3, 10_000])
def test_an_impossible_length_is_refused(model: AlignX, tokens: int) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens"):
        model.generate("Why?", max_new_tokens=tokens)


def test_counts_of_prompts_and_dials_must_agree(model: AlignX) -> None:
    with pytest.raises(ConfigError, match="2 dials for 1 prompts"):
        model.route("Why?", [Dial(), Dial()])
    with pytest.raises(ConfigError, match="no prompt given"):
        model.route([])


def test_closing_gives_the_base_back(finished_run: Finished) -> None:
    config, run = finished_run("mistral")
    lazy = LazyBase(config, run)
    before = [name for name, _ in lazy.base.model.named_modules()]
    with AlignX.from_run(config, run, lazy) as model:
        model.route("Why?")
    assert [name for name, _ in lazy.base.model.named_modules()] == before


def test_the_showcase_is_kept_and_not_made_twice(finished_run: Finished) -> None:
    config, run = finished_run("deepseek")
    config = config.model_copy(
        update={"showcase": config.showcase.model_copy(update={"prompt": "Why?", "max_new_tokens": 4})}
    )
    rows = run_showcase(config, run, LazyBase(config, run))
    assert [row["setting"] for row in rows] == ["lean to helpful", "lean to harmless", "lean to honest"]
    assert run_showcase(config, run, LazyBase(config, run)) == rows


def test_not_a_run_says_so(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="not a run directory"):
        AlignX.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["remove", "truncate", "other"])
def test_a_damaged_mixture_is_refused(finished_run: Finished, tmp_path, damage: str) -> None:
    import shutil

    shutil.copytree(finished_run("llama")[1].root, tmp_path / "run")
    path = tmp_path / "run" / "stage2" / "mocae.json"
    if damage == "remove":
        path.unlink()
    else:
        path.write_text(path.read_text()[:100] if damage == "truncate" else "{}")
    with pytest.raises(AlignXError, match="mocae.json"):
        AlignX.from_pretrained(tmp_path / "run")


def test_a_mixture_fitted_on_other_prompts_is_refused(finished_run: Finished, tmp_path) -> None:
    """Another salt moves prompts between the splits: what the mixture learned from may be test data now."""
    import shutil

    from alignx.data.prepare import prepare_axes, write_axes

    config, run = finished_run("llama")
    shutil.copytree(run.root, tmp_path / "run")
    other = config.model_copy(update={"seed": 7})
    again = RunDirectory(tmp_path / "run")
    write_axes(again, prepare_axes(other, data_dir=None), salt=other.split_salt)
    with pytest.raises(ArtifactError, match="have changed since the mixture was fitted"):
        AlignX.from_pretrained(again.root)


def test_routing_in_one_thread_leaves_another_alone(model: AlignX) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = ["Why?", "Write a line about the apple.", "How can I steal the door?"] * 10
    alone = [model.route(prompt)[0].pi for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        routed = list(pool.map(lambda prompt: model.route(prompt)[0].pi, prompts))
        answers = list(pool.map(lambda prompt: model.generate(prompt, max_new_tokens=3)[0].text, prompts))
    assert routed == alone
    assert answers == [model.generate(prompt, max_new_tokens=3)[0].text for prompt in prompts]


def test_several_answers_to_one_prompt_are_asked_for_by_repeating_it(model: AlignX) -> None:
    with pytest.raises(ConfigError, match="repeat the prompt"):
        model.generate("Why?", num_return_sequences=2)
