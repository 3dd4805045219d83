from alignx.report.summary import key_figures, limitations, takeaways


def summary(metrics):
    return " ".join(takeaways(metrics))


def test_good_results_are_said_with_their_intervals(metrics):
    text = summary(metrics)
    assert "540 test prompts (helpful 200, harmless 200, honest 140)" in text
    assert "not distinguishable from the expert of the axis each prompt comes from" in text
    assert "AlignX is better than one joint LoRA: its loss is 1.30% lower (95% interval −1.90% to −0.70%)." in text
    assert "no miscalibration shows" in text  # axis_probs
    assert "above 0.041" in text and "on average too sure (stated 90.0%, right 85.1% of the time)" in text  # best_probs


def test_bad_results_are_said_as_plainly(bad_metrics):
    text = summary(bad_metrics)
    assert "is better than" not in text and "no miscalibration" not in text
    assert "AlignX is worse than the expert of the axis each prompt comes from: its loss is 5.10% higher" in text
    assert "AlignX is worse than one joint LoRA: its loss is 3.00% higher" in text
    assert "AlignX is worse than the base model" in text
    assert text.count("they are miscalibrated") == 2
    assert {one.tone for one in key_figures(bad_metrics)} == {"worse"}


def test_too_little_confidence_and_mixed_errors_are_told_apart(metrics):
    found = metrics["calibration"]["best_expert"]["alignx"]
    found |= {"confidence": 0.7, "accuracy": 0.8}
    assert "on average not sure enough" in summary(metrics)
    found |= {"confidence": 0.801}
    assert "too sure in some places and not sure enough in others" in summary(metrics)


def test_what_was_not_scored_is_not_compared(two_axes_metrics):
    del two_axes_metrics["alignx_versus"]["joint"]
    text = summary(two_axes_metrics)
    assert "There is no comparison with the joint LoRA" in text
    assert not any("joint" in one.name for one in key_figures(two_axes_metrics))


def test_an_interval_of_no_width_allows_no_verdict(metrics):
    metrics["alignx_versus"]["joint"] |= {"average": -0.2, "interval": [-0.2, -0.2]}
    assert "20.00% lower than that of one joint LoRA, but there are too few prompts" in summary(metrics)


def test_limitations_name_seed_size_licences_and_what_is_left_out(metrics):
    metrics["left_out_because_trained"] = {"helpful": 3, "honest": 0}
    metrics["n"]["honest"] = 40
    text = " ".join(limitations(metrics, {"helpful": "CC BY-NC 4.0", "honest": "Apache-2.0"}))
    assert "Likelihood is not answer quality" in text
    assert "One seed (0)" in text
    assert "interval reaches 0.60% to either side" in text
    assert "only 40 prompts" in text
    assert "3 of helpful" in text and "honest." not in text.split("left out")[1].split(":")[1][:20]
    assert "helpful (CC BY-NC 4.0)" in text and "Apache" not in text


def test_limitations_do_not_warn_of_licences_that_allow_everything(metrics):
    text = " ".join(limitations(metrics, {"helpful": "Apache-2.0", "honest": "MIT"}))
    assert "licence" not in text
