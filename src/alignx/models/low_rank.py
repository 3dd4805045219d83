"""A low-rank update of one linear layer."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LowRankUpdate:
    """One module's update scale * B A.

    Attributes:
        a: (r, in).
        b: (out, r).
        scale: alpha / r.
    """

    a: Tensor
    b: Tensor
    scale: float

    def dense(self) -> Tensor:
        """The update itself, (out, in), float32."""
        return self.scale * (self.b.float() @ self.a.float())

    def inner(self, other: "LowRankUpdate") -> float:
        """Frobenius inner product of two updates, from the factors: <B1 A1, B2 A2> = <B1^T B2, A1 A2^T>."""
        left = self.b.double().T @ other.b.double()
        right = self.a.double() @ other.a.double().T
        return float(self.scale * other.scale * (left * right).sum())
