import torch

from alignx.stage2.targets import axis_targets, soft_targets, tied_experts

LOSSES = torch.tensor([[1.0, 1.005, 2.0], [3.0, 1.0, 1.02], [2.0, 2.0, 2.0]])


def test_experts_within_the_tolerance_of_the_best_tie():
    assert tied_experts(LOSSES, 0.01).tolist() == [[True, True, False], [False, True, False], [True, True, True]]


def test_without_tolerance_only_equals_tie():
    assert tied_experts(LOSSES, 0.0).sum(dim=1).tolist() == [1, 1, 3]


def test_soft_targets_share_evenly_among_the_tied():
    expected = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(soft_targets(LOSSES, 0.01), expected)


def test_axis_targets_are_one_hot():
    assert axis_targets(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
