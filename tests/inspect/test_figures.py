import random

import pytest
from matplotlib import pyplot

from alignx.inspect.figures import write_pictures


def _found(n_vectors, *, sides=("input", "output", "prompts"), k=16):
    draw = random.Random(0)
    names = [f"axis number {at}" for at in range(n_vectors)]
    curve = [5.0 * (1 + at) for at in range(k)]
    pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
    angles = [
        {
            "pair": list(pair),
            **{side: {"curve": curve} if side in sides else None for side in ("input", "output", "prompts")},
        }
        for pair in pairs
    ]
    return {
        "vectors": {
            "names": names,
            "cosines": [[1.0 if one == other else draw.uniform(-1, 1) for other in names] for one in names],
            "norms_by_layer": {str(layer): [draw.random() for _ in names] for layer in range(4)},
        },
        "angles": angles,
        "latent": {"layers": [1, 2], "widths": [2, 2]},
        "signatures": {
            name: [[draw.gauss(at, 1), draw.gauss(0, 1)] for _ in range(20)] for at, name in enumerate(names)
        },
    }


@pytest.mark.parametrize("n_vectors", [1, 2, 5, 9])
def test_any_number_of_axes_can_be_drawn(tmp_path, n_vectors):
    written = write_pictures(_found(n_vectors), tmp_path)
    expected = (
        ["layer_norms", "signatures"]
        if n_vectors == 1
        else ["cosines", "layer_norms", "principal_angles", "signatures"]
    )
    assert [path.stem for path in written] == expected
    assert all(
        f"axis number {n_vectors - 1}" in path.read_text() for path in written if path.stem != "principal_angles"
    )
    assert pyplot.get_fignums() == []


def test_equal_findings_give_equal_bytes(tmp_path):
    one, again = (write_pictures(_found(3), tmp_path / name) for name in ("one", "again"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]


def test_panels_of_what_was_not_measured_are_left_out(tmp_path):
    def panels(sides):
        return (write_pictures(_found(3, sides=sides), tmp_path)[2]).read_text().count("angle, smallest first")

    assert panels(("input", "output", "prompts")) == 3
    assert panels(("prompts",)) == 1


def test_one_latent_direction_alone_makes_no_plane(tmp_path):
    found = _found(2)
    found["signatures"] = {name: [[1.0]] for name in found["signatures"]}
    assert "signatures" not in [path.stem for path in write_pictures(found, tmp_path)]


def test_markup_and_dollars_in_names_stay_text(tmp_path):
    found = _found(2)
    found["vectors"]["names"] = ["<b>&$x", "other"]
    assert "&lt;b&gt;&amp;$x" in write_pictures(found, tmp_path)[0].read_text()
