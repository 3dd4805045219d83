import re
from html.parser import HTMLParser

import pytest

from alignx.errors import ArtifactError
from alignx.report.page import write_report
from alignx.report.training import gather_training
from alignx.runs.files import write_json, write_text

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


class Checker(HTMLParser):
    """Balance of tags, ids, what is loaded, and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.loads, self.tags, self.text = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.note(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.note(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, data):
        self.text.append(data)

    def note(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                self.loads.append(value)
            assert not name.startswith("on"), f"<{tag}> has {name}"


def test_a_run_that_was_not_evaluated_has_no_report(make_run, metrics):
    run = make_run(metrics)
    (run.evaluation_folder("test") / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match="not evaluated yet"):
        write_report(run)
    assert not (run.root / "report.html").exists() and not (run.root / "report.md").exists()


def test_figures_of_an_older_version_are_named_as_such(make_run, metrics):
    del metrics["regret"]
    run = make_run(metrics)
    with pytest.raises(ArtifactError, match="`regret` is missing; run `alignx evaluate"):
        write_report(run)


def test_damaged_answers_are_named(make_run, metrics, answers):
    del answers[1]["pi"]
    with pytest.raises(ArtifactError, match="answers.jsonl: row 2 is damaged"):
        write_report(make_run(metrics, answers=answers))


def test_the_files_lie_at_the_runs_root(make_run, two_axes_metrics):
    run = make_run(two_axes_metrics)
    assert write_report(run) == (run.root / "report.html", run.root / "report.md")


def test_the_page_is_balanced_self_contained_and_free_of_scripts(written):
    checker = Checker(written[0])
    assert "script" not in checker.tags and "link" not in checker.tags and "img" not in checker.tags
    assert all(target.startswith("#") for target in checker.loads)
    assert len(checker.ids) == len(set(checker.ids))
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:)?//|@import|url\(\s*[\"']?(?!#)", written[0])


def test_the_page_can_be_read_without_seeing_it(written):
    page = written[0]
    assert '<html lang="en">' in page
    assert page.count("<table>") == page.count("<caption>") > 8
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page)
    assert page.count("<svg") == page.count('role="img" aria-label=')


def test_answers_are_shown_as_text(written):
    page, _ = written
    assert "<script>" not in page and "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "depression &lt;b&gt;without&lt;/b&gt;" in page
    for word in ("lean to helpful", "cautious | harmless=4", "(empty answer)", "experts off", "cut off"):
        assert word in page


def test_answers_cannot_break_out_of_markdown(written):
    _, text = written
    assert "`````text\nPlease see a doctor first.\n\n```\n# not a heading\n````\n| a | b |\n`````" in text
    assert "### cautious \\| harmless=4" in text
    fence, outside = "", []
    for line in text.splitlines():
        found = re.fullmatch(r"(`{3,})\w*", line)
        if fence:
            fence = "" if line == fence else fence
        elif found:
            fence = found[1]
        else:
            outside.append(line)
    assert fence == ""
    assert "<script" not in "\n".join(outside) and "# not a heading" not in outside


def test_markdown_tables_are_whole(written):
    tables = re.findall(r"(?:^\|.*\|\n)+", written[1], flags=re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_page_and_markdown_say_the_same(written):
    page, text = written
    for word in ("What to take away", "1.690 to 1.799", "What this does not show", "CC BY-NC 4.0", "abc123", "chosen"):
        assert word in page and word in text
    assert "joint-rate-0.001-passes-2 (= joint)" in page
    assert "svg" not in text


def test_the_report_is_the_same_every_time(make_run, metrics, answers, written):
    again = [path.read_text(encoding="utf-8") for path in write_report(make_run(metrics, answers=answers))]
    assert again == list(written)


def test_other_evaluations_have_sections_of_their_own(make_run, metrics, bad_metrics):
    run = make_run(metrics)
    bad_metrics["left_out_because_trained"] = {"helpful": 3, "harmless": 0, "honest": 0}
    write_json(run.evaluation_folder("mine-a1b2c3") / "metrics.json", bad_metrics)
    page, markdown = (path.read_text(encoding="utf-8") for path in write_report(run))
    checker = Checker(page)
    assert len(checker.ids) == len(set(checker.ids))
    for text in (page, markdown):
        assert "Evaluation on other data: mine-a1b2c3" in text
        assert "AlignX is worse than one joint LoRA" in text
        assert "Left out because this run trained on them: helpful 3" in text


def test_a_run_without_answers_training_or_joint_lora_has_a_report(make_run, two_axes_metrics):
    run = make_run(two_axes_metrics)
    for path in run.root.glob("stage1/*/*.json"):
        path.unlink()
    for part in ("loss", "loss_interval", "alignx_versus", "likelihood"):
        del two_axes_metrics[part]["joint"]
    write_json(run.evaluation_folder("test") / "metrics.json", two_axes_metrics)
    page, markdown = (path.read_text(encoding="utf-8") for path in write_report(run))
    Checker(page)
    for text in (page, markdown):
        assert "Answers side by side" not in text and "How the joint" not in text
        assert "no comparison with the joint LoRA" in text


def test_a_damaged_config_is_an_artifact_error(make_run, metrics):
    run = make_run(metrics)
    write_text(run.config_path, "config: {nonsense: 1}\n")
    with pytest.raises(ArtifactError, match="run.yaml"):
        write_report(run)


def test_a_shared_expert_that_is_the_joint_lora_stays_first(make_run, metrics):
    run = make_run(metrics)
    shared = run.root / "stage1" / "shared" / "training.json"
    write_text(run.root / "stage1" / "joint" / "training.json", shared.read_text(encoding="utf-8"))
    found = gather_training(run, ["helpful", "harmless", "honest"])
    assert list(found.losses)[:2] == ["shared (= joint)", "helpful"] and "joint" not in found.losses
