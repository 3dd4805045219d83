"""`alignx judge train`: labelled answers -> a judge with its own held-out figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignx.data.example import hash_prompt
from alignx.errors import ArtifactError, ConfigError, DataError
from alignx.evaluate.judges.interface import SAFETY
from alignx.evaluate.prompts import overrefusal_examples
from alignx.evaluate.trained.artifact import RECORD, TrainedArtifact, base_digest, read_trained, write_trained
from alignx.evaluate.trained.features import Reading, answer_features, reading_layers
from alignx.evaluate.trained.head import fit_head
from alignx.evaluate.trained.labelled import LabelledAnswer, check_kind, read_assumed_safe, read_labelled
from alignx.evaluate.trained.quality import judge_quality
from alignx.models.load import load_base
from alignx.models.precision import resolved_precision
from alignx.progress import notice
from alignx.runs.checksums import file_checksum
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json
from alignx.runs.schema_version import SchemaVersionError

_SPLIT_RULE = "test prompts of the named runs not trained on"


@dataclass(frozen=True)
class TrainingOptions:
    """How a judge is trained.

    Attributes:
        model: whose hidden states it reads: preset, hub id, local folder or GGUF file.
        held_out: share of the prompts that it is measured on and never trained on.
        limit: most labelled answers, whole prompts at a time; none: all.
        seed: of the split, the folds and the intervals.
        depths: shares of the layers that are read.
        prompt_tokens: most tokens of a prompt.
        answer_tokens: most tokens of an answer.
        threshold: probability from which the verdict is yes.
        batch_size: rows a forward pass.
        assume_safe: instruction data whose answers are taken as safe, for the moderation judge; as many of them as
            there are labelled answers, at most.
    """

    model: str = "smollm2-135m"
    held_out: float = 0.25
    limit: int | None = None
    seed: int = 0
    depths: Sequence[float] = (0.27, 0.4, 0.53, 0.67)
    prompt_tokens: int = 96
    answer_tokens: int = 64
    threshold: float = 0.5
    batch_size: int = 16
    assume_safe: Sequence[Path] = ()


def train_judge(
    kind: str, data: Sequence[Path], out: Path, options: TrainingOptions, *, runs: Sequence[Path] = ()
) -> TrainedArtifact:
    """Train a judge, measure it on held-out prompts, and keep it.

    Args:
        kind: `moderation`, `truth` or `info`.
        data: labelled answers.
        out: its folder; a judge that lies there is replaced, unless it was made from the same inputs.
        options: how.
        runs: runs whose answers it will judge: their test prompts are never trained on.

    Raises:
        ConfigError: unknown kind, a folder that holds something else, or `assume_safe` for a kind but moderation.
        DataError: a file is missing; see `read_labelled`; one label only, or too few prompts.
        ModelError: the model cannot be loaded.
    """
    question = check_kind(kind)
    if options.assume_safe and question != SAFETY:
        raise ConfigError(f"--assume-safe is for judges of kind moderation, not `{kind}`; leave it out")
    _check_place(out)
    kept_out = prompts_to_judge(runs)
    for option, paths in (("--data", data), ("--assume-safe", options.assume_safe)):
        for path in paths:
            if not path.is_file():
                raise DataError(f"{option} {path}: no such file; give a file with answers")
    inputs = _inputs(kind, data, options, kept_out)
    current = _current(out, kind, inputs)
    if current is not None:
        notice(f"judge {kind}: up to date in {out}")
        return current
    found = _divided(question, data, options, kept_out)
    tests = [*found.labelled_tests, *found.assumed_tests]
    n = len(found.training)
    notice(f"judge {kind}: {n} answers to train on, {len(tests)} held out; loading {options.model}")
    base = load_base(options.model)
    reading = Reading(
        layers=reading_layers(base, options.depths),
        prompt_tokens=options.prompt_tokens,
        answer_tokens=options.answer_tokens,
        precision=resolved_precision("auto"),
    )
    pairs = [(answer.prompt, answer.answer) for answer in (*found.training, *tests)]
    features = answer_features(base, pairs, reading, batch_size=options.batch_size, description="read answers")
    fitted = fit_head(
        features[:n],
        [answer.positive for answer in found.training],
        [answer.prompt_hash for answer in found.training],
        seed=options.seed,
    )
    probabilities = fitted.head.probabilities(features[n:])
    n_labelled = len(found.labelled_tests)
    quality = _quality(question, found.labelled_tests, probabilities[:n_labelled], options)
    if found.assumed_tests:
        quality["assumed"] = _quality(question, found.assumed_tests, probabilities[n_labelled:], options)
    about = {
        "kind": kind,
        "inputs": inputs,
        "base": {"model": options.model, "identity": base.source.identity, "fingerprint": base_digest(base)},
        "reading": {**vars(reading), "layers": list(reading.layers)},
        "training": {
            **found.notes,
            "split": f"by prompt: ordered by sha256(judge-{options.seed} + prompt), {options.held_out:g} held out, "
            + _SPLIT_RULE,
            "seed": options.seed,
            "penalty": fitted.penalty,
            "temperature": fitted.temperature,
        },
        "environment": describe_environment(),
        "held_out": quality,
        "trained_on": sorted(set().union(*(answer.known_hashes for answer in found.training))),
    }
    write_trained(out, fitted.head, about)
    return read_trained(out, kind=kind)


@dataclass(frozen=True)
class _Divided:
    """Answers to train on, held-out ones that are labelled or taken as safe, and what `judge.json` says of them."""

    training: Sequence[LabelledAnswer]
    labelled_tests: Sequence[LabelledAnswer]
    assumed_tests: Sequence[LabelledAnswer]
    notes: dict[str, Any]


def _divided(question: str, data: Sequence[Path], options: TrainingOptions, kept_out: frozenset[str]) -> _Divided:
    found = read_labelled(data, question=question)
    labelled = limited(found.answers, options.limit, options.seed)
    assumed = limited(read_assumed_safe(options.assume_safe), len(labelled), options.seed)
    held = frozenset().union(*(held_out_prompts(of, options.held_out, options.seed) for of in (labelled, assumed)))
    never = held | kept_out
    training = [answer for answer in (*labelled, *assumed) if not answer.known_hashes & never]
    labelled_tests, assumed_tests = (
        [answer for answer in answers if answer.known_hashes & held] for answers in (labelled, assumed)
    )
    if not training or not labelled_tests:
        raise DataError(
            f"{len(training)} answers to train on and {len(labelled_tests)} held out; give data of more prompts"
        )
    notes = {
        "data": [path.name for path in data],
        "rows": found.n_rows,
        "repeated": found.n_repeated,
        "both_labels": found.n_both,
        "assume_safe": [path.name for path in options.assume_safe],
        "assumed_safe": sum(not answer.known_hashes & never for answer in assumed),
        "answers": len(training),
        "prompts": len({answer.prompt_hash for answer in training}),
        "test_prompts_not_trained_on": len(kept_out & {answer.prompt_hash for answer in (*labelled, *assumed)}),
    }
    return _Divided(training, labelled_tests, assumed_tests, notes)


def _quality(
    question: str, answers: Sequence[LabelledAnswer], probabilities: Sequence[float], options: TrainingOptions
) -> dict[str, Any]:
    return judge_quality(
        question,
        positive=[answer.positive for answer in answers],
        verdicts=[float(probability >= options.threshold) for probability in probabilities],
        probabilities=probabilities,
        prompts=[answer.prompt_hash for answer in answers],
        seed=options.seed,
    ).document()


def prompts_to_judge(runs: Sequence[Path]) -> frozenset[str]:
    """Hashes of the prompts that runs are judged on: their test splits, and the over-refusal set of every run.

    Raises:
        ArtifactError: not a run directory, or its splits are missing.
    """
    found = {hash_prompt(example.instruction) for example in overrefusal_examples()}
    for root in runs:
        run = RunDirectory(root)
        run.read_config()
        for record in read_json(run.splits_path)["axes"].values():
            found |= set(record["splits"]["test"])
    return frozenset(found)


def held_out_prompts(answers: Sequence[LabelledAnswer], share: float, seed: int) -> frozenset[str]:
    """Hashes of the prompts that a judge is measured on, and so never trained on: a random share of all.

    A run's test prompts are no such sample: BeaverTails' test split has prompts with a safe answer only.

    Args:
        answers: all answers.
        share: of the prompts, in (0, 1).
        seed: of the order.
    """
    order = sorted({(hash_prompt(answer.prompt, salt=f"judge-{seed}"), answer.prompt_hash) for answer in answers})
    return frozenset(prompt for _, prompt in order[: math.ceil(share * len(order))])


def limited(answers: Sequence[LabelledAnswer], limit: int | None, seed: int) -> list[LabelledAnswer]:
    """At most so many answers: those of whole prompts, drawn by hash."""
    if limit is None or len(answers) <= limit:
        return list(answers)
    by_prompt: dict[str, list[LabelledAnswer]] = {}
    for answer in answers:
        by_prompt.setdefault(hash_prompt(answer.prompt, salt=f"limit-{seed}"), []).append(answer)
    kept: list[LabelledAnswer] = []
    for _, of_prompt in sorted(by_prompt.items()):
        if len(kept) + len(of_prompt) > limit:
            break
        kept += of_prompt
    return kept


def _check_place(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file()):
        raise ConfigError(f"--out {out}: holds something else than a judge; give another folder")


def _inputs(kind: str, data: Sequence[Path], options: TrainingOptions, kept_out: frozenset[str]) -> str:
    files, assumed = ([file_checksum(path)["sha256"] for path in paths] for paths in (data, options.assume_safe))
    return fingerprint([kind, files, vars(options) | {"assume_safe": assumed}, sorted(kept_out), _SPLIT_RULE])


def _current(out: Path, kind: str, inputs: str) -> TrainedArtifact | None:
    """The judge that lies there, if it was made from these inputs and is whole."""
    try:
        artifact = read_trained(out, kind=kind)
        artifact.check_weights()
        return artifact if artifact.record.get("inputs") == inputs else None
    except SchemaVersionError:  # not damaged, so not to be written over
        raise
    except (ConfigError, ArtifactError) as error:
        if (out / RECORD).is_file():
            notice(f"{str(error).partition('; ')[0]}; training again")
        return None
