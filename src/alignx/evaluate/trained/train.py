"""`alignx judge train`: labelled answers -> a judge with its own held-out figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignx.data.example import hash_prompt
from alignx.errors import ArtifactError, ConfigError, DataError
from alignx.evaluate.prompts import overrefusal_examples
from alignx.evaluate.trained.artifact import RECORD, TrainedArtifact, base_digest, read_trained, write_trained
from alignx.evaluate.trained.features import Reading, answer_features, reading_layers
from alignx.evaluate.trained.head import fit_head
from alignx.evaluate.trained.labelled import LabelledAnswer, check_kind, read_labelled
from alignx.evaluate.trained.quality import judge_quality
from alignx.models.load import load_base
from alignx.models.precision import resolved_precision
from alignx.progress import notice
from alignx.runs.checksums import file_checksum
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json
from alignx.runs.schema_version import SchemaVersionError


@dataclass(frozen=True)
class TrainingOptions:
    """How a judge is trained.

    Attributes:
        model: whose hidden states it reads: preset, hub id, local folder or GGUF file.
        held_out: share of the prompts that it is measured on and never trained on.
        limit: most answers, whole prompts at a time; none: all.
        seed: of the split, the folds and the intervals.
        depths: shares of the layers that are read.
        prompt_tokens: most tokens of a prompt.
        answer_tokens: most tokens of an answer.
        threshold: probability from which the verdict is yes.
        batch_size: rows a forward pass.
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


def train_judge(
    kind: str, data: Sequence[Path], out: Path, options: TrainingOptions, *, runs: Sequence[Path] = ()
) -> TrainedArtifact:
    """Train a judge, measure it on held-out prompts, and keep it.

    Args:
        kind: `moderation`, `truth` or `info`.
        data: labelled answers.
        out: its folder; a judge that lies there is replaced, unless it was made from the same inputs.
        options: how.
        runs: runs whose answers it will judge: their test prompts are held out.

    Raises:
        ConfigError: unknown kind, or a folder that holds something else.
        DataError: see `read_labelled`; one label only, or too few prompts.
        ModelError: the model cannot be loaded.
    """
    question = check_kind(kind)
    _check_place(out)
    kept_out = prompts_to_judge(runs)
    for path in data:
        if not path.is_file():
            raise DataError(f"--data {path}: no such file; give a file with labelled answers")
    inputs = _inputs(kind, data, options, kept_out)
    current = _current(out, kind, inputs)
    if current is not None:
        notice(f"judge {kind}: up to date in {out}")
        return current
    found = read_labelled(data, question=question)
    answers = limited(found.answers, options.limit, options.seed)
    held = held_out_prompts(answers, options.held_out, options.seed, first=kept_out)
    training = [answer for answer in answers if answer.prompt_hash not in held]
    testing = [answer for answer in answers if answer.prompt_hash in held]
    if not training or not testing:
        raise DataError(f"{len(training)} answers to train on and {len(testing)} held out; give data of more prompts")
    notice(f"judge {kind}: {len(training)} answers to train on, {len(testing)} held out; loading {options.model}")
    base = load_base(options.model)
    reading = Reading(
        layers=reading_layers(base, options.depths),
        prompt_tokens=options.prompt_tokens,
        answer_tokens=options.answer_tokens,
        precision=resolved_precision("auto"),
    )
    pairs = [(answer.prompt, answer.answer) for answer in (*training, *testing)]
    features = answer_features(base, pairs, reading, batch_size=options.batch_size, description="read answers")
    fitted = fit_head(
        features[: len(training)],
        [answer.positive for answer in training],
        [answer.prompt_hash for answer in training],
        seed=options.seed,
    )
    probabilities = fitted.head.probabilities(features[len(training) :])
    quality = judge_quality(
        question,
        positive=[answer.positive for answer in testing],
        verdicts=[float(probability >= options.threshold) for probability in probabilities],
        probabilities=probabilities,
        prompts=[answer.prompt_hash for answer in testing],
        seed=options.seed,
    )
    about = {
        "kind": kind,
        "inputs": inputs,
        "base": {"model": options.model, "identity": base.source.identity, "fingerprint": base_digest(base)},
        "reading": {**vars(reading), "layers": list(reading.layers)},
        "training": {
            "data": [path.name for path in data],
            "rows": found.n_rows,
            "repeated": found.n_repeated,
            "both_labels": found.n_both,
            "answers": len(training),
            "prompts": len({answer.prompt_hash for answer in training}),
            "split": f"by prompt: ordered by sha256(judge-{options.seed} + prompt), {options.held_out:g} held out, "
            "test prompts of the named runs first",
            "test_prompts_held_out": len(kept_out & {answer.prompt_hash for answer in answers}),
            "seed": options.seed,
            "penalty": fitted.penalty,
            "temperature": fitted.temperature,
        },
        "environment": describe_environment(),
        "held_out": quality.document(),
        "trained_on": sorted({answer.prompt_hash for answer in training}),
    }
    write_trained(out, fitted.head, about)
    return read_trained(out, kind=kind)


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


def held_out_prompts(
    answers: Sequence[LabelledAnswer], share: float, seed: int, *, first: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Hashes of the prompts that are never trained on.

    Args:
        answers: all answers.
        share: of the prompts, in (0, 1).
        seed: of the order.
        first: hashes that are held out whatever the order.
    """
    order = sorted({(hash_prompt(answer.prompt, salt=f"judge-{seed}"), answer.prompt_hash) for answer in answers})
    chosen = {prompt for _, prompt in order if prompt in first}
    for _, prompt in order:
        if len(chosen) >= share * len(order):
            break
        chosen.add(prompt)
    return frozenset(chosen)


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
    files = [file_checksum(path)["sha256"] for path in data]
    return fingerprint([kind, files, vars(options), sorted(kept_out)])


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
