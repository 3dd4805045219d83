"""Count, mean and second moment of rows that are seen a batch at a time and never kept.

Batches are merged by the pairwise update of Chan, Golub and LeVeque 1983 ("Algorithms for computing the sample
variance"), around the running mean: sums of squares around zero would lose the digits that a large mean takes up.
"""

import torch
from torch import Tensor


class Moments:
    """Moments of (n, width) rows in float64; memory is (width, width), whatever n is.

    Args:
        width: numbers a row.
    """

    def __init__(self, width: int) -> None:
        self.n = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in a batch, (b, width); an empty one changes nothing."""
        n_new = rows.shape[0]
        if n_new == 0:
            return
        rows = rows.double()
        mean = rows.mean(dim=0)
        centred = rows - mean
        step = mean - self.mean
        total = self.n + n_new
        self._scatter.addmm_(centred.T, centred)
        self._scatter.addr_(step, step, alpha=self.n * n_new / total)
        self.mean = self.mean + step * (n_new / total)
        self.n = total

    def covariance(self) -> Tensor:
        """Mean of the outer products around the mean, (width, width).

        Raises:
            ValueError: no row was added.
        """
        if self.n == 0:
            raise ValueError("the moments of no rows are not defined; add at least one row")
        return self._scatter / self.n


class EqualMoments:
    """Moments of several groups of rows, every group weighing the same whatever its size.

    With c the mean of the groups' means, the second moment around c of group i is Cov_i + (mu_i - c)(mu_i - c)^T. So a
    finished group leaves its mean and its share of one sum of covariances, and c may come last: two (width, width)
    matrices in all, whatever the number of groups.
    """

    def __init__(self) -> None:
        self.n = 0
        self._covariances: Tensor | None = None
        self._means: list[Tensor] = []

    def add(self, group: Moments) -> None:
        """Take in a finished group."""
        covariance = group.covariance()
        self._covariances = covariance if self._covariances is None else self._covariances.add_(covariance)
        self._means.append(group.mean)
        self.n += group.n

    def mean_and_second(self) -> tuple[Tensor, Tensor]:
        """Mean of the groups' means (width,), and the second moment around it (width, width).

        Raises:
            ValueError: no group was added.
        """
        if self._covariances is None:
            raise ValueError("the moments of no groups are not defined; add at least one group")
        means = torch.stack(self._means)
        mean = means.mean(dim=0)
        offsets = means - mean
        return mean, (self._covariances + offsets.T @ offsets) / len(self._means)
