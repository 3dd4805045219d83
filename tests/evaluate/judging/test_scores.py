"""Judged rows to figures: both orders, products, coverage, pairs and averages; fault 24's edges."""

import pytest

from alignx.evaluate.judging.figure import Certainty, figure
from alignx.evaluate.judging.rows import BASELINE_FIRST, IDENTICAL, OURS_FIRST, JudgedRow
from alignx.evaluate.judging.scores import judge_figures, measure

SURE = Certainty(coverage_floor=0.9, n_draws=200, seed=0)
GROUPS = {"helpful": "alpaca", "harmless": "beavertails", "honest": "truthfulqa"}


def row(question: str, value: float | None, prompt: str = "p", **changes: object) -> JudgedRow:
    fields = {
        "judge": "openai",
        "model": "m",
        "template": "t",
        "question": question,
        "method": "alignx",
        "baseline": "base" if question == "preference" else "",
        "group": "helpful",
        "dataset": GROUPS.get(str(changes.get("group", "helpful")), "overrefusal"),
        "prompt_hash": prompt,
        "answer_key": "k",
        "order": "",
        "length": 10,
        "other_length": 10,
        "state": "failed" if value is None else "judged",
        "value": value,
        "reason": "lost" if value is None else "",
    }
    return JudgedRow(**{**fields, **changes})  # type: ignore[arg-type]


def pair(first: float | None, second: float | None, prompt: str = "p", **changes: object) -> list[JudgedRow]:
    return [
        row("preference", first, prompt, order=OURS_FIRST, **changes),
        row("preference", second, prompt, order=BASELINE_FIRST, **changes),
    ]


@pytest.mark.parametrize(
    ("first", "second", "win", "flip"),
    [
        (1.0, 1.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 0.0, 0.5, 1.0),
        (0.5, 0.5, 0.5, 0.0),
        (1.0, 0.5, 0.75, 1.0),
        (1.0, None, None, None),
        (None, None, None, None),
    ],
)
def test_both_orders_make_one_preference(first, second, win, flip) -> None:
    found = measure(pair(first, second))
    assert found["win_rate"]["alignx"]["helpful"] == {"p": win}
    assert found["flip_rate"]["alignx"]["helpful"] == {"p": flip}


def test_identical_answers_tie_and_cannot_flip() -> None:
    found = measure([row("preference", 0.5, order=IDENTICAL)])
    assert found["win_rate"]["alignx"]["helpful"] == {"p": 0.5}
    assert "flip_rate" not in found


def test_ti_is_a_product_answer_by_answer_and_needs_both() -> None:
    rows = []
    for at, (true, told) in enumerate([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, None)]):
        rows += [row("truth", true, f"p{at}", judge="truth"), row("info", told, f"p{at}", judge="info")]
    found = judge_figures(rows, Certainty(0.5, 100, 0))["sections"]["gpt-judge"]
    ti = found["table"]["ti"]["alignx"]["helpful"]
    assert (ti["value"], ti["n"], ti["unscored"]) == (pytest.approx(100 / 3), 3, 1)
    assert found["table"]["truth"]["alignx"]["helpful"]["value"] == 75
    assert [judge["name"] for judge in found["judges"]] == ["truth", "info"]


def test_below_the_coverage_floor_there_is_no_value_but_n_and_unscored() -> None:
    scores = {f"p{at}": None if at < 2 else 1.0 for at in range(10)}
    found = figure(scores, SURE)
    assert (found["value"], found["interval"], found["n"], found["unscored"]) == (None, None, 8, 2)
    assert figure(scores, Certainty(0.8, 100, 0))["value"] == 100


@pytest.mark.parametrize("n", [0, 1])
def test_no_answer_and_one_answer_have_figures(n: int) -> None:
    found = figure({f"p{at}": 1.0 for at in range(n)}, SURE)
    assert (found["n"], found["unscored"]) == (n, 0)
    assert found["value"] == (100 if n else None)
    assert found["interval"] == ([100, 100] if n else None)


def test_judges_stay_in_sections_of_their_own() -> None:
    rows = [row("safety", 1.0), row("safety", 0.0, judge="moderation")]
    sections = judge_figures(rows, SURE)["sections"]
    assert sections["openai"]["table"]["safety_score"]["alignx"]["helpful"]["value"] == 100
    assert sections["moderation"]["table"]["safety_score"]["alignx"]["helpful"]["value"] == 0


def headline_rows(method: str = "alignx", unsafe: float | None = 0.0) -> list[JudgedRow]:
    rows = pair(1.0, 0.0, "a", method=method) + pair(1.0, 1.0, "b", method=method)
    rows += [row("safety", unsafe, f"c{at}", group="harmless", method=method) for at in range(4)]
    for at, true in enumerate([1.0, 0.0]):
        rows.append(row("truth", true, f"d{at}", group="honest", method=method))
        rows.append(row("info", 1.0, f"d{at}", group="honest", method=method))
    return rows


def test_the_average_is_the_designs_formula_with_an_interval() -> None:
    [average] = judge_figures(headline_rows(), SURE)["averages"]
    found = average["table"]["alignx"]
    assert [found[name]["value"] for name in ("win_rate", "safety_score", "ti")] == [75, 0, 50]
    assert found["average"]["value"] == pytest.approx((75 + 100 - 0 + 50) / 3)
    assert found["average_published"]["value"] == pytest.approx((75 + 50 - 0) / 3)
    low, high = found["average"]["interval"]
    assert low <= found["average"]["value"] <= high
    assert found["average"]["n"] == 8


def test_a_part_without_a_value_leaves_no_average() -> None:
    [average] = judge_figures(headline_rows(unsafe=None), SURE)["averages"]
    found = average["table"]["alignx"]
    assert found["safety_score"]["value"] is None
    assert found["average"]["value"] is None
    assert found["average"]["unscored"] == 4


def test_the_published_roles_make_a_second_average_that_names_them() -> None:
    rows = headline_rows()
    rows += [row("safety", 1.0, f"c{at}", group="harmless", judge="moderation", model="dam") for at in range(4)]
    rows += [
        row("truth", 1.0, "d0", group="honest", judge="truth"),
        row("info", 1.0, "d0", group="honest", judge="info"),
    ]
    own, published = judge_figures(rows, SURE)["averages"]
    assert own["judges"] == {"win_rate": "openai", "safety_score": "openai", "ti": "openai"}
    assert published["judges"] == {"win_rate": "openai", "safety_score": "moderation", "ti": "gpt-judge"}
    assert published["table"]["alignx"]["average"]["value"] == pytest.approx((75 + 0 + 100) / 3)


def trained_rows(method: str, unsafe: list[float], true: list[float]) -> list[JudgedRow]:
    rows = [
        row("safety", value, f"c{at}", group="harmless", judge="trained-moderation", method=method)
        for at, value in enumerate(unsafe)
    ]
    rows.append(row("safety", 0.0, "a", judge="trained-moderation", method=method))
    for at, value in enumerate(true):
        rows.append(row("truth", value, f"d{at}", group="honest", judge="trained-truth", method=method))
        rows.append(row("info", 1.0, f"d{at}", group="honest", judge="trained-info", method=method))
    return rows


def test_with_trained_judges_the_win_rate_is_the_likelihoods_and_says_so() -> None:
    rows = trained_rows("base", [1.0, 1.0, 0.0, 0.0], [1.0, 0.0] * 8)
    rows += trained_rows("alignx", [1.0, 0.0, 0.0, 0.0], [1.0] * 16)
    wins = {
        "base": {"helpful": {"a": 0.5, "b": 0.5}, "harmless": {"c0": 0.5}},
        "alignx": {"helpful": {"a": 1.0, "b": 0.5}, "harmless": {"c0": 0.0}},
    }
    [average] = judge_figures(rows, SURE, wins=wins)["averages"]
    assert average["judges"]["win_rate"] == "likelihood"
    found = average["table"]["alignx"]
    assert [found[role]["value"] for role in ("win_rate", "safety_score", "ti")] == [75, 25, 100]
    assert found["average"]["value"] == pytest.approx((75 + 75 + 100) / 3)
    change = found["versus_base"]
    assert (change["win_rate"]["value"], change["safety_score"]["value"]) == (pytest.approx(50), -25)
    assert change["ti"]["value"] == pytest.approx(100)
    assert change["safety_score"]["interval"][0] <= -25 <= change["safety_score"]["interval"][1]
    nothing = average["table"]["base"]["versus_base"]
    assert [nothing[role]["value"] for role in ("win_rate", "safety_score", "ti")] == [0, 0, 0]
    assert judge_figures(rows, SURE)["averages"] == []


def test_a_change_in_per_cent_of_nothing_has_no_value() -> None:
    rows = trained_rows("base", [1.0], [0.0, 0.0]) + trained_rows("alignx", [1.0], [1.0, 0.0])
    wins = {method: {"helpful": {"a": 0.5}} for method in ("base", "alignx")}
    [average] = judge_figures(rows, SURE, wins=wins)["averages"]
    change = average["table"]["alignx"]["versus_base"]["ti"]
    assert (change["value"], change["interval"], change["n"]) == (None, None, 2)


def test_without_all_three_data_sets_there_is_no_average() -> None:
    assert judge_figures(pair(1.0, 1.0), SURE)["averages"] == []


def test_pairs_are_of_prompts_that_both_have() -> None:
    rows = [row("safety", value, f"p{at}") for at, value in enumerate([0.0, 0.0, 1.0, None])]
    rows += [row("safety", value, f"p{at}", method="base") for at, value in enumerate([1.0, 1.0, 1.0, 1.0])]
    found = judge_figures(rows, Certainty(0.5, 200, 0))["sections"]["openai"]["paired"]["safety_score"]
    assert list(found) == ["base"]
    assert found["base"]["helpful"]["value"] == pytest.approx(-200 / 3)
    assert (found["base"]["helpful"]["n"], found["base"]["helpful"]["unscored"]) == (3, 1)


def test_all_ties_and_equal_lengths_are_a_half_everywhere() -> None:
    rows = [one for at in range(5) for one in pair(0.5, 0.5, f"p{at}")]
    table = judge_figures(rows, SURE)["sections"]["openai"]["table"]
    for name in ("win_rate", "win_rate_lc"):
        found = table[name]["alignx"]["helpful"]
        assert (found["value"], found["interval"]) == (50, [50, 50])
    assert table["win_rate"]["alignx"]["helpful"]["draws"] == 5


def test_categories_are_shares_of_a_methods_answers() -> None:
    detail = {"flagged": ["self_harm"], "categories": {"self_harm": 0.9, "hate": 0.1}, "cut_tokens": 3}
    clean = {"flagged": [], "categories": {"self_harm": 0.1, "hate": 0.1}, "cut_tokens": 0}
    rows = [
        row("safety", 1.0, "p0", judge="moderation", detail=detail),
        row("safety", 0.0, "p1", judge="moderation", detail=clean),
    ]
    section = judge_figures(rows, SURE)["sections"]["moderation"]
    assert section["categories"] == {"alignx": {"n": 2, "self_harm": 50.0, "hate": 0.0}}
    assert section["cut"] == 1


def test_why_there_is_no_verdict_is_counted() -> None:
    section = judge_figures([row("safety", None), row("safety", None, "q"), row("safety", 1.0, "r")], SURE)
    assert section["sections"]["openai"]["reasons"] == {"lost": 2}
    assert section["sections"]["openai"]["n"] == {"questions": 3, "judged": 1, "unparseable": 0, "failed": 2}
