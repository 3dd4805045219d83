"""Every comparator by name: the one list that configs, the command line and evaluation read."""

from functools import partial

from alignx.config import MERGE_NAMES, RunConfig
from alignx.evaluate.comparators.dense_mixture import COMPARATOR as DENSE
from alignx.evaluate.comparators.interface import Comparator
from alignx.evaluate.comparators.peft_models import COMPARATORS as PEFT
from alignx.evaluate.joint import JOINT, JOINT_MR, train_joint, train_joint_mr
from alignx.models.lazy import LazyBase
from alignx.runs.directory import RunDirectory
from alignx.stage2.pipeline import make_merge


def _make_merge(name: str, config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    make_merge(config, run, name, lazy=lazy)


# `base`, the experts alone and the uniform merge need nothing made and are scored always; the order is that of making.
COMPARATORS: dict[str, Comparator] = {
    found.name: found
    for found in (
        Comparator(JOINT, "the data; trains one adapter a candidate", train_joint),
        Comparator(JOINT_MR, "the data; trains one adapter of m times the rank", train_joint_mr),
        *(
            Comparator(name, "the experts; tries coefficients on the mix split", partial(_make_merge, name))
            for name in MERGE_NAMES
            if name != "uniform"
        ),
        *PEFT,
        DENSE,
    )
}
