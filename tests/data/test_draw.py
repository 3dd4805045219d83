from collections import Counter

from hypothesis import given
from hypothesis.strategies import integers

from alignx.data.draw import draw_rows


def _rows(count):
    return ({"n": number} for number in range(1, count + 1))


@given(count=integers(0, 60), limit=integers(1, 70), seed=integers(0, 2**16))
def test_a_draw_keeps_as_many_rows_as_asked_in_their_order_and_with_their_numbers(count, limit, seed):
    drawn, n_rows = draw_rows(_rows(count), limit, seed=seed)
    numbers = [number for number, _ in drawn]
    assert n_rows == count and len(drawn) == min(count, limit)
    assert numbers == sorted(set(numbers))
    assert all(row == {"n": number} for number, row in drawn)


def test_the_same_seed_draws_the_same_rows_and_another_seed_others():
    one, again, other = (draw_rows(_rows(1000), 10, seed=seed) for seed in (0, 0, 1))
    assert one == again != other


def test_every_row_is_as_likely():
    counts = Counter(number for seed in range(2000) for number, _ in draw_rows(_rows(10), 3, seed=seed)[0])
    # 600 times each; a standard deviation is 20.5.
    assert all(abs(counts[number] - 600) < 82 for number in range(1, 11))
