import pytest

from alignx.config import Stage2Config
from alignx.errors import ConfigError
from alignx.evaluate.ablation.variants import LAMBDA_VALUES, choose, variants

CONFIG = Stage2Config()


def by_name(widths=(256, 256), *, shared_expert=True, config=CONFIG):
    return {variant.name: variant for variant in variants(config, widths, shared_expert=shared_expert)}


def test_names_are_told_apart_and_every_changed_field_exists():
    found = variants(CONFIG, (256,), shared_expert=True)
    assert len({variant.name for variant in found}) == len(found)
    for variant in found:
        assert {field for field, _ in variant.changes} <= Stage2Config.model_fields.keys()
        Stage2Config.model_validate(variant.settings(CONFIG).model_dump())


def test_lambda_rows_set_the_learned_coefficients_to_one():
    rows = by_name()
    for field, values in LAMBDA_VALUES.items():
        for value in values:
            settings = rows[f"{field.replace('_', '-')}-{value:g}"].settings(CONFIG)
            assert getattr(settings, field) == value and not settings.learn_coefficients


@pytest.mark.parametrize(("widths", "sizes"), [((256, 256), [32, 64, 128]), ((8, 8), []), ((40, 64), [32])])
def test_only_latent_sizes_that_cut_something_are_rows(widths, sizes):
    assert [v.latent_size for v in by_name(widths).values() if v.latent_size is not None] == sizes


def test_without_a_shared_expert_it_has_no_row():
    assert "shared-only" not in by_name(shared_expert=False)


def test_the_neighbour_stays_within_those_of_the_dimension():
    rows = by_name(config=CONFIG.model_copy(update={"dimension_neighbours": (2, 4)}))
    assert [name for name in rows if name.startswith("q-")] == ["q-1", "q-2", "q-4"]


def test_rows_are_chosen_by_name_or_group_and_alignx_stays():
    found = variants(CONFIG, (256,), shared_expert=True)
    assert [v.name for v in choose(found, ["uniform"])] == ["uniform", "alignx"]
    assert {v.group for v in choose(found, ["epsilon"])} == {"epsilon", "parts"}
    assert choose(found, []) == found
    with pytest.raises(ConfigError, match="--only k-7: this run has no such row"):
        choose(found, ["k-7"])
