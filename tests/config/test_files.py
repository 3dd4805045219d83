from pathlib import Path

import pytest

from alignx.config import RunConfig, load_config
from alignx.config.presets import PRESETS
from alignx.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
AXES = "axes:\n  helpful: {dataset: alpaca, source: sample}\n"


def _load(folder: Path, text: str) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_the_smallest_config_needs_only_an_axis(tmp_path):
    config = _load(tmp_path, AXES)
    assert config.axes["helpful"].dataset == "alpaca"


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        (AXES + "modle: x\n", "modle", "model"),
        (AXES + "presett: paper\n", "presett", "preset"),
        (AXES + "stage1: {learning_rat: 0.1}\n", "stage1.learning_rat", "learning_rate"),
        (AXES + "stage2: {end_to_end: {epoch: 1}}\n", "stage2.end_to_end.epoch", "epochs"),
        ("axes:\n  helpful: {dataset: alpaca, sorce: x}\n", "axes.helpful.sorce", "source"),
        ("axes:\n  helpful: {dataset: alpaca, splits: {trian: 3}}\n", "axes.helpful.splits.trian", "train"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path, text, key, nearest):
    with pytest.raises(ConfigError, match=f"unknown key `{key}`; did you mean `{nearest}`"):
        _load(tmp_path, text)


def test_an_unknown_key_that_is_near_nothing_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="known keys: alpha, batch_size"):
        _load(tmp_path, AXES + "stage1: {xyzzy: 1}\n")


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, AXES + "modle: x\nseed: -1\nstage1: {rank: 0}\n")
    assert all(part in str(caught.value) for part in ("run.yaml", "`modle`", "`seed`", "`stage1.rank`"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["shared", "joint", "latent", "a b", "a/b", "..", ""])
def test_reserved_and_unwritable_axis_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="axis name"):
        _load(tmp_path, f'axes:\n  "{name}": {{dataset: alpaca, source: sample}}\n')


@pytest.mark.parametrize("name", ["helpful", "self-harm", "axis_2"])
def test_letters_digits_and_dashes_make_an_axis_name(tmp_path, name):
    assert list(_load(tmp_path, AXES.replace("helpful", name)).axes) == [name]


@pytest.mark.parametrize("text", ["axes: [unclosed", "a: b: c", "\tkey: 1"])
def test_bad_yaml_is_a_config_error_of_one_line(tmp_path, text):
    with pytest.raises(ConfigError, match="run.yaml: not YAML") as caught:
        _load(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "", "3\n"])
def test_anything_but_a_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="expected `key: value` lines"):
        _load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent.yaml: no such config file"):
        load_config(tmp_path / "absent.yaml")


def test_a_file_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("model: mod\xe8le".encode("latin-1"))
    with pytest.raises(ConfigError, match="latin.yaml: cannot be read"):
        load_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "seed: -1",
        "template: jinja",
        "dtype: float16",
        "stage1: {rank: 0}",
        "stage1: {learning_rate: 0}",
        "stage1: {dropout: 1}",
        "stage1: {injection_rate: 1.5}",
        "stage1: {depths: [0.5, 0.25]}",
        "stage1: {depths: [0, 0.5]}",
        "stage1: {micro_batch_tokens: 0}",
        "stage1: {checkpoint_steps: 0}",
        "stage2: {epsilon: 0}",
        "stage2: {lambda_fractal: -0.1}",
        "stage2: {foreign_p_values: [0.05, 0.01]}",
        "stage2: {dimension_neighbours: [1, 8]}",
        "stage2: {merges: [average]}",
        "evaluate: {bootstrap_draws: 99}",
        "evaluate: {judges: [gpt-4]}",
    ],
)
def test_a_value_out_of_range_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="run.yaml"):
        _load(tmp_path, f"{AXES}{text}\n")


def test_a_run_without_axes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="axes"):
        _load(tmp_path, "axes: {}\n")


def test_an_unknown_preset_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="unknown preset `papr`; known presets: paper, paper-lora"):
        _load(tmp_path, "preset: papr\n")


@pytest.mark.parametrize("name", PRESETS)
def test_the_paper_presets_hold_the_published_settings(tmp_path, name):
    config = _load(tmp_path, f"preset: {name}\n")
    stage1, stage2 = config.stage1, config.stage2
    assert {axis: item.dataset for axis, item in config.axes.items()} == {
        "helpful": "alpaca",
        "harmless": "beavertails",
        "honest": "truthfulqa",
    }
    assert config.axes["helpful"].max_examples == 20_000
    assert config.axes["harmless"].max_examples == 30_000
    assert (stage1.latent_size, len(config.axes), len(stage1.depths) * stage1.latent_size) == (256, 3, 1024)
    assert (stage1.batch_size, stage1.weight_decay, stage1.epochs) == (64, 0.01, 3)
    assert (stage2.lambda_fractal, stage2.lambda_natural, stage2.epsilon) == (0.6, 0.4, 0.05)
    assert not stage2.fit_temperature and not stage2.learn_coefficients
    assert not stage1.shared_expert
    assert config.template == "alpaca"


def test_the_published_rate_is_for_full_fine_tuning_and_lora_names_its_own(tmp_path):
    full, lora = (_load(tmp_path, f"preset: {name}\n").stage1 for name in ("paper", "paper-lora"))
    assert (full.method, full.learning_rate) == ("full", 2e-5)
    assert lora.method == "lora" and lora.learning_rate != full.learning_rate


def test_a_files_own_keys_win_over_its_preset(tmp_path):
    config = _load(tmp_path, "preset: paper\nstage1: {epochs: 1}\naxes:\n  honest: {source: q.csv}\n")
    assert config.stage1.epochs == 1 and config.stage1.batch_size == 64
    assert config.axes["honest"].source == "q.csv" and config.axes["honest"].splits.train == 470
    assert _load(tmp_path, "preset: paper\n").stage1.epochs == 3


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_every_config_in_the_repository_loads(path):
    assert load_config(path).axes


def test_each_seed_has_its_own_splits_unless_a_salt_is_given(tmp_path):
    assert _load(tmp_path, AXES + "seed: 1\n").split_salt != _load(tmp_path, AXES + "seed: 2\n").split_salt
    assert _load(tmp_path, AXES + "seed: 1\nsalt: x\n").split_salt == "x"


def test_a_config_is_frozen(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        _load(tmp_path, AXES).seed = 3
