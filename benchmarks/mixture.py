"""The mixture runtime beside the bare base, PEFT and a dense mixture: speed, time to first token, memory, bytes.

    python benchmarks/mixture.py [--json FILE] [--run DIR] [--shared] [--quick] [--only memory]

SmolLM2-135M with three LoRA experts of rank 16 (random factors under a fitted mixture; `--run` takes a finished run),
prompts of 128 tokens, 128 new ones, greedy, no early stop. All models live in one process and take turns, in an order
that alternates; a ratio is made within a turn, and a figure is the median of its turns. Tokens a second count from the
first token to the return of the call, folding and putting the base back included; time to first token includes the
template and routing. Batch 8 has eight different prompts under eight different dials. Peaks of memory are measured in
processes of their own, above one that has only imported PyTorch and Transformers.

X-LoRA turns the key-value cache off, so it makes fewer tokens (its first, which are its quickest: a token's time grows
with the length). AlignX multiplies float32 matrices by oneDNN where PyTorch takes MKL; `against_same_products` is the
same ratio against a bare base that is given oneDNN too.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from mixture_models import (  # noqa: E402
    AXES,
    MODEL,
    build_alignx,
    build_dense_mixture,
    build_peft,
    model_bytes,
    our_products,
)

PROMPT_TOKENS, NEW_TOKENS, XLORA_TOKENS = 128, 128, 8
TARGETS = {
    "batch1_tokens_per_second": (">=", 0.96),
    "batch8_tokens_per_second": (">=", 0.87),
    "time_to_first_token": ("<=", 1.6),
    "peak_memory": ("<=", 1.25),
    "weight_bytes": ("<=", 1.12),
    "speed_vs_xlora": (">=", 3.0),
    "speed_vs_peft_three_adapters": (">=", 1.2),
    "time_per_token_vs_dense_moe": ("<=", 0.52),
    "weight_bytes_vs_dense_moe": ("<=", 0.55),
}
MEMORY_JOBS = ("nothing", "base", "alignx")
WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they".split()
)


class Stamps:
    """Times the first token of a `generate` call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.first: float | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """(b,) all False: it never stops anything."""
        if self.first is None:
            self.first = self.clock()
        return input_ids.new_zeros(input_ids.shape[0], dtype=bool)


def main() -> None:
    """Run every part, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--run", type=Path, help="a finished run on the same base; none: random experts")
    parser.add_argument("--shared", action="store_true", help="random experts: a shared one beside the three")
    parser.add_argument("--repeats", type=int, default=5, help="turns (at least 5 for a figure to be quoted)")
    parser.add_argument("--quick", action="store_true", help="one short turn, to see that it works")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for trials on a busy machine")
    parser.add_argument("--only", help="only the speed of these models, e.g. base,alignx; `memory`: only peaks")
    parser.add_argument("--memory-job", choices=MEMORY_JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--mixture", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_job:
        print(json.dumps(memory_job(options.memory_job, options)))
        return
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: at least one turn is needed, e.g. --repeats 5")
    started = time.monotonic()
    repeats = 1 if options.quick else options.repeats
    figures: dict[str, Any] = {}
    if not options.only or options.only == "memory":
        # First, while this process is small: Linux counts the size of the parent at its start to a child's peak.
        with tempfile.TemporaryDirectory() as folder:
            options.mixture = Path(folder)
            _in_a_process("alignx", options)  # fits the mixture that the measured processes read
            peaks = [{job: _in_a_process(job, options) for job in MEMORY_JOBS} for _ in range(repeats)]
            options.mixture = None
        print(f"peaks: {peaks}", file=sys.stderr, flush=True)
        figures["peak_memory"] = [
            (turn["alignx"] - turn["nothing"]) / (turn["base"] - turn["nothing"]) for turn in peaks
        ]
    if options.only != "memory":
        figures |= measure_speed(repeats, options)
    document = {
        key: {"value": median(figures[key]), "repeats": figures[key], "target": f"{sign} {target:g}"}
        for key, (sign, target) in TARGETS.items()
        if key in figures
    }
    for key, extra in figures.pop("against_same_products", {}).items():
        if extra:
            document[key]["against_same_products"] = median(extra)
    show(document, figures)
    print(f"benchmark_seconds = {time.monotonic() - started:.0f}")
    if options.json:
        # A part measured alone leaves the other figures in the file as they are.
        before = json.loads(options.json.read_text()) if options.only and options.json.is_file() else {}
        options.json.write_text(json.dumps(before | document, indent=2) + "\n")


def measure_speed(repeats: int, options: argparse.Namespace) -> dict[str, Any]:
    """All ratios of times and bytes; lists with one number a turn."""
    import torch

    from alignx.models.load import load_base

    alignx = build_alignx(options.run, shared=options.shared)
    base = load_base(MODEL)
    chosen = set(options.only.split(",")) if options.only else {"base", "alignx", "peft", "xlora", "dense"}
    peft = build_peft(AXES, xlora=False) if "peft" in chosen else None
    xlora = build_peft(("0", "1", "2"), xlora=True) if "xlora" in chosen else None
    dense = build_dense_mixture() if "dense" in chosen else None
    new_tokens = 16 if options.quick else NEW_TOKENS
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    prompts = _prompts(base, 8)
    ids = torch.tensor([base.template.encode_prompt(prompt) for prompt in prompts])
    weights = [{axis: 2.0 ** (number % 3 + 1) for axis in (AXES[number % 3],)} for number in range(8)]
    if options.run:
        weights = [{alignx.axes[number % len(alignx.axes)]: float(number + 1)} for number in range(8)]

    def plain(model: Any, rows: int, tokens: int) -> tuple[float, float]:
        stamps = Stamps(clock)
        started = clock()
        with torch.no_grad():
            model.generate(
                input_ids=ids[:rows],
                attention_mask=torch.ones_like(ids[:rows]),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                stopping_criteria=[stamps],
                pad_token_id=base.pad_token_id,
                **({"use_cache": False} if model is xlora else {}),
            )
        return stamps.first - started, (clock() - stamps.first) / (tokens - 1)

    def same_products(rows: int, tokens: int) -> tuple[float, float]:
        with our_products(base.model):
            return plain(base.model, rows, tokens)

    def ours(rows: int, tokens: int) -> tuple[float, float]:
        stamps = Stamps(clock)
        started = clock()
        answers = alignx.generate(
            prompts[:rows],
            axis_weights=weights[:rows],
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            stopping_criteria=[stamps],
        )
        seconds = stamps.first - started, (clock() - stamps.first) / (tokens - 1)
        if any(answer.prompt_cut or answer.n_tokens < tokens for answer in answers):
            raise SystemExit("an answer stopped early")
        return seconds

    jobs: dict[str, Callable[[int], tuple[float, float]]] = {}
    for rows in (1, 8):
        jobs[f"base {rows}"] = lambda tokens, rows=rows: plain(base.model, rows, tokens)
        jobs[f"alignx {rows}"] = lambda tokens, rows=rows: ours(rows, tokens)
        jobs[f"products {rows}"] = lambda tokens, rows=rows: same_products(rows, tokens)
        if dense is not None:
            jobs[f"dense {rows}"] = lambda tokens, rows=rows: plain(dense, rows, tokens)
    if peft is not None:
        jobs["peft 8"] = lambda tokens: plain(peft, 8, tokens)
    if xlora is not None:
        jobs["xlora 1"] = lambda tokens: plain(xlora, 1, min(tokens, XLORA_TOKENS))
    for job in jobs.values():  # every path once: kernels are made, files are in memory
        job(2)
    alignx.generate(prompts[0], max_new_tokens=new_tokens)
    turns = []
    for repeat in range(repeats):
        order = list(jobs) if repeat % 2 == 0 else list(jobs)[::-1]
        turns.append({name: jobs[name](new_tokens) for name in order})
        print(f"turn {repeat + 1}: {_told(turns[-1])}", file=sys.stderr, flush=True)
    return _ratios(turns) | _bytes(alignx, base.model, dense, len(turns))


def _ratios(turns: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    """Speeds are inverse times a token, so a ratio of speeds is the other's time over ours."""
    first, token = 0, 1

    def over(one: str, other: str, which: int) -> list[float]:
        return [turn[one][which] / turn[other][which] for turn in turns if one in turn and other in turn]

    found = {
        "batch1_tokens_per_second": over("base 1", "alignx 1", token),
        "batch8_tokens_per_second": over("base 8", "alignx 8", token),
        "time_to_first_token": over("alignx 1", "base 1", first),
        "speed_vs_xlora": over("xlora 1", "alignx 1", token),
        "speed_vs_peft_three_adapters": over("peft 8", "alignx 8", token),
        "time_per_token_vs_dense_moe": over("alignx 1", "dense 1", token),
        "time_per_token_vs_dense_moe_batch8": over("alignx 8", "dense 8", token),
        "time_to_first_token_batch8": over("alignx 8", "base 8", first),
        "peft_three_adapters_vs_base_batch8": over("base 8", "peft 8", token),
    }
    same = {
        "batch1_tokens_per_second": over("products 1", "alignx 1", token),
        "batch8_tokens_per_second": over("products 8", "alignx 8", token),
        "time_to_first_token": over("alignx 1", "products 1", first),
    }
    return {key: values for key, values in found.items() if values} | {"against_same_products": same}


def _bytes(alignx: Any, base: Any, dense: Any, repeats: int) -> dict[str, list[float]]:
    ours = model_bytes(alignx.base.model)
    found = {"weight_bytes": [ours / model_bytes(base)] * repeats}
    if dense is not None:
        found["weight_bytes_vs_dense_moe"] = [ours / model_bytes(dense)] * repeats
    return found


def _prompts(base: Any, count: int) -> list[str]:
    """Different prompts of exactly `PROMPT_TOKENS` tokens, template included."""
    prompts = []
    for number in range(count):
        words = [WORDS[(number * 5 + at * (number + 3)) % len(WORDS)] for at in range(PROMPT_TOKENS)]
        while len(base.template.encode_prompt(" ".join(words))) > PROMPT_TOKENS:
            words.pop()
        prompts.append(" ".join(words))
        if len(base.template.encode_prompt(prompts[-1])) != PROMPT_TOKENS:
            raise SystemExit(f"prompt {number} has no {PROMPT_TOKENS} tokens")
    return prompts


def memory_job(job: str, options: argparse.Namespace) -> dict[str, float]:
    """This process's peak after one model has answered at batch 1 and 8; of `nothing`, after the imports."""
    import torch
    import transformers

    tokens = 16 if options.quick else NEW_TOKENS
    if job == "base":
        from alignx.models.load import load_base

        base = load_base(MODEL)
        ids = torch.tensor([base.template.encode_prompt(prompt) for prompt in _prompts(base, 8)])
        for rows in (1, 8):
            base.model.generate(
                input_ids=ids[:rows],
                attention_mask=torch.ones_like(ids[:rows]),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
            )
    elif job == "alignx":
        alignx = build_alignx(options.run, shared=options.shared, mixture=options.mixture)
        prompts = _prompts(alignx.base, 8)
        for rows in (1, 8):
            dials = [{alignx.axes[row % len(alignx.axes)]: row + 1.0} for row in range(rows)]
            alignx.generate(prompts[:rows], axis_weights=dials, max_new_tokens=tokens, min_new_tokens=tokens)
    else:
        assert transformers.AutoModelForCausalLM
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak": peak}


def _in_a_process(job: str, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory-job", job]
    command += [*(["--run", str(options.run)] if options.run else []), *(["--shared"] if options.shared else [])]
    command += ["--quick"] if options.quick else []
    command += ["--mixture", str(options.mixture)] if options.mixture else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"memory of {job} failed:\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak"])


def _told(turn: dict[str, tuple[float, float]]) -> str:
    return ", ".join(
        f"{name}: first {first:.3f} s, {1e3 * token:.1f} ms a token" for name, (first, token) in turn.items()
    )


def show(document: dict[str, Any], figures: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'figure':<38} {'value':>7} {'target':>9} {'same products':>14}")
    for key, entry in document.items():
        same = f"{entry['against_same_products']:>14.3f}" if "against_same_products" in entry else ""
        print(f"{key:<38} {entry['value']:>7.3f} {entry['target']:>9} {same}")
    for key in figures.keys() - document.keys():
        print(f"{key:<38} {median(figures[key]):>7.3f}")


if __name__ == "__main__":
    main()
