import pytest
import torch

from alignx.stage1 import state_file
from alignx.stage1.state_file import StateFile


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_what_was_written_is_read_again_in_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(state_file, "_CHUNK_ROWS", chunk)
    states = torch.randn(7, 2, 5)
    written = StateFile.write(tmp_path / "axis", [([4, 6], states[[4, 6]]), ([0, 1, 2, 3, 5], states[[0, 1, 2, 3, 5]])])
    for _ in range(2):
        found = torch.zeros(7, 2, 5)
        for rows, part in written.batches():
            assert len(rows) <= chunk
            found[rows] = part
        assert torch.equal(found, states)
    assert torch.equal(torch.cat(list(written.states())), states[written.rows])


def test_a_file_of_no_states_has_no_chunks(tmp_path):
    assert list(StateFile.write(tmp_path / "axis", []).batches()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError) as told:
        StateFile.write(tmp_path / "missing" / "axis", [])
    assert told.value.filename == str(tmp_path / "missing" / "axis")
