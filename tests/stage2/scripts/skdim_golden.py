"""Prints the scikit-dimension numbers that test_dimension.py holds as literals.

Run in a throw-away environment, never in the project's own (scikit-dimension needs numba):

    python3 -m venv /tmp/skdim && /tmp/skdim/bin/pip install scikit-dimension==0.5.0
    /tmp/skdim/bin/python tests/stage2/scripts/skdim_golden.py

Made with scikit-dimension 0.5.0.
"""

import sys

import numpy as np


def ball(n: int, d: int, space: int) -> np.ndarray:
    """A uniform d-ball, put flat into a larger space (RandomState is the same in every numpy)."""
    random = np.random.RandomState(0)
    direction = random.normal(size=(n, d))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = direction * random.uniform(size=(n, 1)) ** (1 / d)
    basis = np.linalg.qr(random.normal(size=(space, space)))[0][:d]
    return points @ basis


def swiss_roll(n: int) -> np.ndarray:
    random = np.random.RandomState(1)
    t = 1.5 * np.pi * (1 + 2 * random.uniform(size=n))
    return np.stack([t * np.cos(t), 21 * random.uniform(size=n), t * np.sin(t)], axis=1)


if __name__ == "__main__":
    import skdim  # here, so that the test can take the two sets from this file without it

    for name, points in {"ball": ball(3000, 3, 8), "swiss_roll": swiss_roll(3000)}.items():
        correlation = skdim.id.CorrInt(k1=10, k2=20).fit(points).dimension_
        local = skdim.id.MLE().fit(points, n_neighbors=40)
        two_nn = skdim.id.TwoNN().fit(points).dimension_
        sys.stdout.write(
            f"{name}: CorrInt {correlation:.4f}, TwoNN {two_nn:.4f}, "
            f"MLE(40 neighbours) pointwise median {np.median(local.dimension_pw_):.4f}\n"
        )
