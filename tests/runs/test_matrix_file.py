import pytest
import torch

from alignx.runs.files import read_tensors, write_tensors
from alignx.runs.matrix_file import write_matrix


@pytest.mark.parametrize(("n", "width", "name"), [(5, 3, "signature"), (1, 1, "x"), (4, 7, "task_matrix")])
def test_rows_in_any_order_make_the_very_bytes_of_a_whole_matrix(tmp_path, n, width, name):
    matrix = torch.randn(n, width)
    order = torch.randperm(n).tolist()
    batches = [(order[start : start + 2], matrix[order[start : start + 2]]) for start in range(0, n, 2)]
    write_matrix(tmp_path / "rows", name, (n, width), batches)
    write_tensors(tmp_path / "whole", {name: matrix})
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "whole").read_bytes()
    assert torch.equal(read_tensors(tmp_path / "rows")[name], matrix)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([([0], torch.zeros(1, 2))], "row 1 of 2 was never given"),
        ([([0, 0], torch.zeros(2, 2))], "row 0 of 2 came twice"),
        ([([2], torch.zeros(1, 2))], "row 2 of 2 came twice or does not exist"),
        ([([0, 1], torch.zeros(2, 3))], "2 rows of 2 expected"),
    ],
)
def test_a_matrix_that_is_not_whole_leaves_no_file(tmp_path, batches, message):
    with pytest.raises(ValueError, match=message):
        write_matrix(tmp_path / "rows", "x", (2, 2), batches)
    assert list(tmp_path.iterdir()) == []
