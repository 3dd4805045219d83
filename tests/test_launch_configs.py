"""The configs for `accelerate launch` that ship with the project, read by Accelerate itself."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "accelerate"
KINDS = {
    "two-cpu": "MULTI_GPU",
    "multi-gpu": "MULTI_GPU",
    "fsdp": "FSDP",
    "deepspeed-zero2": "DEEPSPEED",
    "deepspeed-zero3": "DEEPSPEED",
}


def launched_with(name):
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), "-m", "alignx", "run", "config.yaml"]
    return _validate_launch_command(launch_command_parser().parse_args(words))[0]


def test_every_config_is_listed_here():
    assert {path.stem for path in FOLDER.iterdir()} == KINDS.keys()


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_accelerate_reads_it_and_would_start_several_processes(name, kind):
    assert load_config_from_file(str(FOLDER / f"{name}.yaml")).distributed_type.value == kind
    arguments = launched_with(name)
    assert arguments.num_processes > 1 and arguments.mixed_precision == "no"
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (kind == "FSDP", kind == "DEEPSPEED")


def test_fsdp_is_version_2_and_gathers_a_layer_at_a_time():
    environment = prepare_multi_gpu_env(launched_with("fsdp"))
    told = {name: environment[name] for name in ("FSDP_VERSION", "FSDP_RESHARD_AFTER_FORWARD", "FSDP_AUTO_WRAP_POLICY")}
    assert told == {
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    }


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_of_its_stage(stage):
    assert launched_with(f"deepspeed-zero{stage}").zero_stage == stage
