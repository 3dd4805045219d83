"""`alignx tradeoff`, from a finished run to its page, on a tiny model."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alignx.cli import run
from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.pipeline import run_evaluate
from alignx.evaluate.tradeoff.pipeline import read_tradeoff, run_tradeoff
from alignx.evaluate.tradeoff.pooled import pool_tradeoffs
from alignx.runs import RunDirectory
from alignx.runs.files import read_jsonl, write_json
from alignx.stage1.pipeline import run_stage1
from alignx.stage2.pipeline import make_merge, run_stage2
from refusals import refused

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]
AXES = ["helpful", "harmless", "honest"]
OWN = {"clinic": {"weights": {"honest": 2.0}, "floors": {"harmless": 0.4}}}


@pytest.fixture(scope="module")
def swept(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated and swept, four prompts an axis."""
    config, finished = finished_run("llama")
    root = tmp_path_factory.mktemp("tradeoff") / "run"
    shutil.copytree(finished.root, root)
    directory = RunDirectory(root)
    directory.write_config(
        RunConfig.model_validate(config.model_dump() | {"presets": OWN}), directory.read_environment()
    )
    config = directory.read_config()
    make_merge(config, directory, "ties")
    run_evaluate(config, directory)
    assert run(["tradeoff", str(root), "--limit", "4", "--resolution", "3"]) == 0
    return root


def figures(root: Path) -> dict:
    return json.loads((root / "eval/tradeoff/metrics.json").read_text(encoding="utf-8"))


def without_report(swept: Path, to: Path) -> Path:
    """A copy that counts as not evaluated, so that no report is drawn again."""
    shutil.copytree(swept, to)
    (to / "eval/test/metrics.json").unlink()
    return to


def test_every_setting_has_every_axiss_measures(swept: Path) -> None:
    found = figures(swept)
    assert found["n"] == dict.fromkeys(AXES, 4)
    assert found["measure"] == {"helpful": "minus_loss", "harmless": "safe_margin", "honest": "mc2"}
    kinds: dict[str, int] = {}
    for setting in found["settings"].values():
        assert list(setting["axes"]) == AXES
        assert all(one["headline"] is not None for one in setting["axes"].values())
        kinds[setting["kind"]] = kinds.get(setting["kind"], 0) + 1
    # 3 x 9 + the rest; the grid of resolution 3; presets, three leans and the run's own among them; base, experts, ...
    assert kinds == {"dial": 28, "grid": 10, "static": 10, "preset": 7, "method": 7}
    names = [row["setting"] for row in read_jsonl(swept / "eval/tradeoff/settings.jsonl")]
    assert names == list(found["settings"])
    assert "ties" in names and "joint" in names and "preset-clinic" in names


def test_settings_that_come_to_the_same_mixture_agree(swept: Path) -> None:
    settings = figures(swept)["settings"]
    same = {
        "grid-3-0-0": "expert-helpful",
        "static-0-3-0": "expert-harmless",
        "static-0-0-3": "expert-honest",
        "rest": "grid-1-1-1",
    }
    for one, other in same.items():
        assert settings[one]["axes"] == settings[other]["axes"]


def test_the_share_of_an_expert_rises_along_its_dial(swept: Path) -> None:
    found = figures(swept)
    for axis, dial in found["dials"].items():
        shares = [found["settings"][name]["mean_pi"][axis][axis] for name in dial["settings"]]
        assert shares == dial["shares"] == sorted(shares)
        # The weights are found on calibration prompts.
        assert shares == pytest.approx([n / 10 for n in range(1, 10)], abs=0.3)
        weights = [found["settings"][name]["weights"][axis] for name in dial["settings"]]
        assert weights == sorted(weights) and len(weights) == 9
        assert -1 <= dial["spearman"] <= 1
        assert dial["gain"] == pytest.approx(dial["highest"] - dial["lowest"])
        assert set(dial["cost"]) == set(AXES) - {axis}


def test_normalised_values_run_from_worst_to_best_and_experts_are_within_reach(swept: Path) -> None:
    found = figures(swept)
    for axis in AXES:
        values = [
            one["axes"][axis]["normalised"]
            for one in found["settings"].values()
            if one["kind"] not in ("method", "preset")
        ]
        assert (min(values), max(values)) == (pytest.approx(0), pytest.approx(1))
        # A corner of the simplex is the expert itself.
        assert found["rivals"][f"expert-{axis}"]["gap"] >= 0
    assert any(one["front"] for one in found["settings"].values())
    assert 0 <= found["volume"]["swept"] <= 1 and 0 <= found["volume"]["fixed"] <= 1
    assert set(found["rivals"]) >= {"base", "joint", "uniform", "ties", "static-1-1-1"}
    for rival in found["rivals"].values():
        low, high = rival["interval"]
        assert low <= high and rival["matched_by"] in found["settings"]


def test_a_rerun_scores_nothing_and_a_larger_one_only_what_is_new(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = without_report(swept, tmp_path / "run")
    capsys.readouterr()
    assert run(["tradeoff", str(again), "--limit", "4", "--resolution", "3"]) == 0
    captured = capsys.readouterr()
    assert "score " not in captured.err
    for words in ("Each axis's own measure along its dial", "expert: honest", "preset clinic", "Is anything beyond"):
        assert words in captured.out
    before, now = figures(swept), figures(again)
    assert {key: value for key, value in before.items() if key != "environment"} == {
        key: value for key, value in now.items() if key != "environment"
    }
    assert run(["tradeoff", str(again), "--limit", "5", "--resolution", "3"]) == 0
    assert set(re.findall(r"score \S+ \((\d+)\)", capsys.readouterr().err)) == {"3"}


def test_scores_that_have_changed_since_are_made_anew_and_only_those(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = without_report(swept, tmp_path / "run")
    path = root / "eval/tradeoff/scores.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines()
    changed = json.loads(rows[0])
    changed["loss"] += 0.5
    path.write_text("\n".join([json.dumps(changed), "[]", *rows[2:]]) + "\n", encoding="utf-8")
    capsys.readouterr()
    assert run(["tradeoff", str(root), "--limit", "4", "--resolution", "3"]) == 0
    printed = capsys.readouterr().err
    assert "scores.jsonl: 2 rows are not what was written; scoring those again" in printed
    assert re.findall(r"score (\S+) \((\d+)\)", printed) == [("base", "2")]
    again, before = (figures(one)["settings"]["base"]["axes"]["helpful"]["loss"] for one in (root, swept))
    assert again == pytest.approx(before, rel=1e-5)
    path.write_text("not json\n", encoding="utf-8")
    assert run(["tradeoff", str(root), "--limit", "1", "--resolution", "1"]) == 0
    assert "scoring again" in capsys.readouterr().err


def test_the_report_has_a_section_with_pictures(swept: Path) -> None:
    page, text = ((swept / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for words in ("The dial", "Each axis's own measure along its dial", "Is anything beyond the dial's reach?"):
        assert words in page.replace("&#39;", "'") and words in text
    assert page.count('id="sweep-triangle-') and page.count('id="sweep-pair-2-') and "preset clinic" in page
    assert "Evaluation on other data" not in page and "<image" not in page


def test_a_sweep_of_another_mixture_is_left_out_of_the_report(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    shutil.copytree(swept, root)
    assert read_tradeoff(RunDirectory(root)) is not None
    path = root / "eval/tradeoff/metrics.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [root / "eval/tradeoff" / name for name in ("settings.jsonl", "prompts.jsonl")]
    write_json(path, {**found, "dial_shares": [0.5]})
    RunDirectory(root).mark_done("tradeoff", {}, *rows, path)
    assert read_tradeoff(RunDirectory(root)) is None  # along other dials
    write_json(path, found)
    RunDirectory(root).mark_done("tradeoff", {}, *rows, path)
    record = root / "steps/mocae.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"inputs": "', '"inputs": "0', 1), encoding="utf-8")
    assert read_tradeoff(RunDirectory(root)) is None
    assert "left out until `alignx tradeoff` is run again" in capsys.readouterr().err
    assert run(["report", str(root)]) == 0
    assert "These scores are of other experts or another mixture" in (root / "report.md").read_text(encoding="utf-8")
    assert "These scores are of other experts" not in (swept / "report.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run(["inspect", str(root), "--json"]) == 0
    artifacts = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)["artifacts"]}
    assert artifacts["trade-off"] == "stale"


@pytest.mark.timeout(300)
def test_seeds_are_pooled(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = without_report(swept, tmp_path / "one"), tmp_path / "two"
    config, directory = RunDirectory(one).read_config().model_copy(update={"seed": 1}), RunDirectory(two)
    run_stage1(config, directory)
    assert "no mixture yet; run `alignx stage2" in refused(capsys, "tradeoff", str(one), str(two))
    run_stage2(config, directory)
    run_evaluate(config, directory)
    shutil.rmtree(one / "eval/tradeoff")
    assert run(["tradeoff", str(one), str(two), "--limit", "4", "--resolution", "3"]) == 0
    captured = capsys.readouterr()
    assert "seeds 0 and 1 together" in captured.out and "pooled.json" in captured.out
    assert "ties left out: not all the runs have it" in captured.err
    pooled = json.loads((one / "eval/tradeoff/pooled.json").read_text(encoding="utf-8"))
    alone = [figures(root) for root in (one, two)]
    assert pooled["seeds"] == [0, 1] and pooled["n"] == dict.fromkeys(AXES, 8)
    assert all(4 <= n <= 8 for n in pooled["n_prompts"].values()) and "ties" not in pooled["settings"]
    for axis, dial in pooled["dials"].items():
        name = dial["settings"][0]
        weights = [found["settings"][name]["weights"][axis] for found in (pooled, *alone)]
        assert weights[0] == pytest.approx((weights[1] * weights[2]) ** 0.5) and weights[1] != weights[2]
        assert dial["spearman_by_seed"] == [found["dials"][axis]["spearman"] for found in alone]
        ends = [found["dials"][axis]["highest"] for found in alone]
        assert dial["highest"] == pytest.approx(sum(ends) / 2) and ends[0] != ends[1]
    assert "give runs of different seeds" in refused(capsys, "tradeoff", str(one), str(one))
    assert run(["tradeoff", str(one), "--limit", "4", "--resolution", "3"]) == 0
    assert not (one / "eval/tradeoff/pooled.json").exists()  # it spoke of another sweep
    assert run(["tradeoff", str(one), "--limit", "3", "--resolution", "3"]) == 0
    with pytest.raises(ArtifactError, match="was swept with limit 4"):
        pool_tradeoffs([RunDirectory(one), directory])


def test_one_axis_has_nothing_to_trade(
    tmp_path: Path, tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig], capsys
) -> None:
    document = tiny_config(tiny_models["llama"]).model_dump(mode="json")
    document["axes"] = {"helpful": document["axes"]["helpful"]}
    RunDirectory(tmp_path / "one").write_config(RunConfig.model_validate(document), {})
    assert run(["tradeoff", str(tmp_path / "one")]) == 0
    assert "has one axis, so there is nothing to trade" in capsys.readouterr().out
    assert not (tmp_path / "one" / "eval").exists()


@pytest.mark.parametrize(("option", "value"), [("--limit", "0"), ("--resolution", "0"), ("--resolution", "13")])
def test_sizes_that_make_no_sense(capsys, swept: Path, option: str, value: str) -> None:
    assert option in refused(capsys, "tradeoff", str(swept), option, value)


def test_a_run_without_a_mixture_says_what_to_do(capsys, tmp_path: Path, finished_run: Finished) -> None:
    assert "not a run directory" in refused(capsys, "tradeoff", str(tmp_path))
    shutil.copytree(finished_run("llama")[1].root, tmp_path / "run")
    (tmp_path / "run/stage2/mocae.safetensors").unlink()
    assert "no mixture yet; run `alignx stage2" in refused(capsys, "tradeoff", str(tmp_path / "run"))
    assert not (tmp_path / "run/eval").exists()


def test_presets_steer_generate(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shares(*options: str) -> dict[str, float]:
        capsys.readouterr()
        assert run(["generate", str(swept), "Why?", "--max-new-tokens", "2", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["pi"]

    rest = shares()
    assert shares("--preset", "balanced") == rest
    assert shares("--preset", "clinic")["harmless"] >= 0.4
    assert shares("--preset", "cautious")["harmless"] >= max(0.2, rest["harmless"])
    assert shares("--preset", "lean-honest") == shares("--weight", "honest=16")
    assert shares("--preset", "frank", "--weight", "honest=1") == rest


def test_two_axes_one_of_them_judged_by_loss(
    tmp_path: Path, tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig]
) -> None:
    document = tiny_config(tiny_models["mistral"]).model_dump(mode="json")
    del document["axes"]["harmless"]
    document["axes"]["helpful"]["metric"] = "loss"
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    root = tmp_path / "run"
    assert run(["run", str(path), "--out", str(root)]) == 0
    config = RunDirectory(root).read_config()
    found = run_tradeoff(config, RunDirectory(root), limit=3, resolution=2)
    assert found is not None and found["axes"] == ["helpful", "honest"]
    helpful = found["settings"]["rest"]["axes"]["helpful"]
    assert helpful["headline"] == helpful["loss"] == -helpful["measure"]
    assert run(["report", str(root)]) == 0
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "sweep-pair-0" in page and "sweep-triangle" not in page
