"""Judges by the names that `--judges` knows."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from alignx.errors import ConfigError
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.endpoint import Endpoint
from alignx.evaluate.judges.interface import INFO, TRUTH, Judge
from alignx.evaluate.judges.settings import JudgeSettings

LIKELIHOOD = "likelihood"
TRAINED = "trained"
TRAINED_NAMES = tuple(f"{TRAINED}-{kind}" for kind in ("moderation", TRUTH, INFO))
JUDGE_NAMES = ("openai", "moderation", TRUTH, INFO, *TRAINED_NAMES, "refusal")


def parse_judges(text: str, *, option: str = "--judges") -> list[str]:
    """Read `openai,moderation`; each once, in the order given. `trained` stands for all three trained judges.

    Raises:
        ConfigError: an unknown name, or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [LIKELIHOOD, *JUDGE_NAMES, TRAINED]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{option} {text}: unknown judge `{name}`; {hint}")
    if not names:
        raise ConfigError(f"{option} {text!r}: names no judge; known: {', '.join(known)}")
    return list(dict.fromkeys(one for name in names for one in (TRAINED_NAMES if name == TRAINED else (name,))))


def make_judges(names: Sequence[str], settings: JudgeSettings, budget: Budget) -> list[Judge]:
    """The judges, none of them loaded or connected yet; the refusal judge joins a classifier of safety.

    Args:
        names: of `JUDGE_NAMES`.
        settings: of all judges.
        budget: shared by those that make requests.

    Raises:
        ConfigError: no trained judge at its place.
        ArtifactError: a damaged one.
    """
    asked = [
        name
        for name in JUDGE_NAMES
        if name in names or (name == "refusal" and {"moderation", "trained-moderation"} & set(names))
    ]
    return [_MAKERS[name](settings, budget) for name in asked]


def _openai(settings: JudgeSettings, budget: Budget) -> Judge:
    from alignx.evaluate.judges.openai import NAME, OpenAIJudge

    return OpenAIJudge(settings.openai, Endpoint(settings.openai, judge=NAME, budget=budget))


def _moderation(settings: JudgeSettings, budget: Budget) -> Judge:
    from alignx.evaluate.judges.moderation import ModerationJudge

    return ModerationJudge(settings.moderation)


def _yes_no(question: str) -> Callable[[JudgeSettings, Budget], Judge]:
    def make(settings: JudgeSettings, budget: Budget) -> Judge:
        from alignx.evaluate.judges.truth import EndpointYesNoJudge, LocalYesNoJudge

        own = settings.truth if question == TRUTH else settings.info
        if own.base_url:
            return EndpointYesNoJudge(question, own, Endpoint(own, judge=question, budget=budget))
        return LocalYesNoJudge(question, own)

    return make


def _trained(kind: str) -> Callable[[JudgeSettings, Budget], Judge]:
    def make(settings: JudgeSettings, budget: Budget) -> Judge:
        from alignx.evaluate.judges.trained import TrainedJudge

        return TrainedJudge(kind, settings.trained)

    return make


def _refusal(settings: JudgeSettings, budget: Budget) -> Judge:
    from alignx.evaluate.judges.refusal import RefusalJudge

    return RefusalJudge()


_MAKERS: dict[str, Callable[[JudgeSettings, Budget], Judge]] = {
    "openai": _openai,
    "moderation": _moderation,
    TRUTH: _yes_no(TRUTH),
    INFO: _yes_no(INFO),
    **{name: _trained(name.removeprefix(f"{TRAINED}-")) for name in TRAINED_NAMES},
    "refusal": _refusal,
}
