"""Score the golden items with lm-evaluation-harness and keep its numbers in qa6.json.

In an environment of its own (the harness is no dependency of this project):

    python -m venv harness && harness/bin/pip install torch lm-eval==0.4.13
    harness/bin/python tests/evaluate/likelihood/golden/make_qa6.py

The tasks are the harness's own `truthfulqa_mc1` and `truthfulqa_mc2`, read from its package; only the data set is
replaced by a local json file.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))
from qa6_golden import GOLDEN, golden_items, save_golden_model

# The smaller rounding leaves the arithmetic alone to be compared.
DTYPE = "float64"
TASKS = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa"


def write_tasks(folder: Path) -> None:
    """The harness's task files over local data."""
    rows = folder / "items.json"
    rows.write_text(json.dumps(golden_items()))
    loader = yaml.SafeLoader
    loader.add_constructor("!function", lambda _, node: Function(node.value))
    yaml.SafeDumper.add_representer(Function, lambda dumper, it: dumper.represent_scalar("!function", it.name))
    mc1 = yaml.safe_load((TASKS / "truthfulqa_mc1.yaml").read_text())
    mc2 = {**mc1, **yaml.safe_load((TASKS / "truthfulqa_mc2.yaml").read_text())}
    for name, task in (("golden_mc1", mc1), ("golden_mc2", mc2)):
        for key in ("include", "tag", "dataset_name"):
            task.pop(key, None)
        task |= {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(rows)}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    (folder / "utils.py").write_text((TASKS / "utils.py").read_text())


class Function:
    """A `!function` of a task file, carried through."""

    def __init__(self, name: str) -> None:
        self.name = name


def score(model: Path, tasks: Path) -> dict[str, Any]:
    """Of both tasks: accuracy of every item, and log-likelihood (nats) of every choice."""
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(model), dtype=DTYPE, device="cpu", batch_size=1),
        tasks=["golden_mc1", "golden_mc2"],
        task_manager=TaskManager(include_path=str(tasks)),
        bootstrap_iters=0,
        log_samples=True,
    )
    return {
        name.removeprefix("golden_"): {
            "acc": found["results"][name]["acc,none"],
            "items": [
                {
                    "acc": float(sample["acc"]),
                    "log_likelihoods": [float(response[0]) for response in sample["filtered_resps"]],
                }
                for sample in sorted(samples, key=lambda sample: sample["doc_id"])
            ],
        }
        for name, samples in found["samples"].items()
    }


def main() -> None:
    """Score with both tokenizers and write."""
    document: dict[str, Any] = {"harness": f"lm-eval {version('lm-eval')}", "dtype": DTYPE, "items": golden_items()}
    with tempfile.TemporaryDirectory() as root:
        tasks = Path(root) / "tasks"
        tasks.mkdir()
        write_tasks(tasks)
        for name, begins in (("with_bos", True), ("without_bos", False)):
            model = save_golden_model(Path(root) / name, begins_with_bos=begins)
            document[name] = score(model, tasks)
    GOLDEN.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{GOLDEN}: {document['harness']}\n")


if __name__ == "__main__":
    main()
