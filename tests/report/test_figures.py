import re

import pytest

from alignx.report.figures import loss_figure, mixture_figure, reliability_figure, training_figure, versus_figure

OF_METRICS = [loss_figure, reliability_figure, mixture_figure, versus_figure]


def ids(svg):
    return re.findall(r'\sid="([^"]+)"', svg)


@pytest.mark.parametrize("draw", OF_METRICS)
def test_pictures_of_two_evaluations_share_no_id_and_point_at_their_own(draw, metrics):
    first, second = draw(metrics, prefix="first"), draw(metrics, prefix="second")
    assert first.replace("first-", "second-") == second
    assert len(ids(first)) == len(set(ids(first)))
    assert not set(ids(first)) & set(ids(second))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first)
    assert targets and {one or other for one, other in targets} <= set(ids(first))


@pytest.mark.parametrize("draw", OF_METRICS)
@pytest.mark.parametrize("which", ["two_axes_metrics", "bad_metrics"])
def test_pictures_load_nothing_and_say_what_they_show(draw, which, request):
    svg = draw(request.getfixturevalue(which))
    assert "http" not in svg and "<style" not in svg and "<?xml" not in svg
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', svg)
    assert len(labels) == svg.count("<svg") and all(len(label) > 40 for label in labels)


def test_there_is_a_loss_panel_for_the_average_and_every_axis(metrics, two_axes_metrics):
    assert loss_figure(metrics).count("<svg") == 4
    assert loss_figure(two_axes_metrics).count("<svg") == 3


def test_what_lies_far_off_becomes_an_arrow_and_keeps_its_number(metrics):
    assert "−24.59% (−25.19% to −23.99%)" in versus_figure(metrics)
    assert "AlignX better" in versus_figure(metrics) and "AlignX worse" not in versus_figure(metrics)


def test_worse_results_are_drawn_as_worse(bad_metrics):
    assert "AlignX worse" in versus_figure(bad_metrics)


def test_one_axis_alone_can_be_drawn(metrics):
    metrics["n"] = {"helpful": 200, "average": 200}
    metrics["routing"] |= {"mean_pi": {"helpful": {"helpful": 1.0}}, "confusion": [[200]]}
    for draw in OF_METRICS:
        assert draw(metrics).startswith("<svg")


def test_training_panels_share_no_id_and_skip_adapters_without_losses():
    svg = training_figure({"shared": [2.0, 1.5, 1.0], "empty": [], "helpful": [1.0]})
    assert svg.count("<svg") == 2
    assert len(ids(svg)) == len(set(ids(svg)))
    assert "moving average of 1" in svg
    assert training_figure({}) == ""


def test_markup_in_names_stays_text():
    svg = training_figure({'<b onload="x">&': [2.0, 1.0]})
    assert "<b" not in svg and "&lt;b" in svg
