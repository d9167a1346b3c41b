"""Several runs on one page: paired where the seeds are the same, and no further than that."""

import re

import browser
import numpy as np
import pytest

from robopolicy.checkpoint import write_json
from robopolicy.cli import main
from robopolicy.errors import BadInput
from robopolicy.report.compare import compare_runs
from robopolicy.results import RESULT
from robopolicy.stats import paired, wilson


def evaluated(folder, won, first=0, **settings):
    """An evaluation in which the policy succeeded as `won` says, seed by seed."""
    outcomes = {str(first + i): bool(w) for i, w in enumerate(won)}
    row = {"label": "policy", **wilson(sum(won), len(won)).to_dict(), "outcomes": outcomes}
    config = {"args": {"task": "lift", **settings}}
    folder.mkdir(parents=True)
    result = {"verb": "evaluate", "policies": [row], "differences": [], "config": config}
    write_json(folder / RESULT, result)
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        evaluated(tmp_path / "a" / "real", [1, 0] * 20, preset="tiny"),
        evaluated(tmp_path / "b" / "real", [1, 1] * 20, preset="quick"),
        evaluated(tmp_path / "c" / "real", [1, 0] * 20, first=500, preset="tiny"),
    ]


def text_of(page):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page.read_text(), flags=re.DOTALL).split())


def test_runs_on_the_same_seeds_are_paired_and_others_are_not(runs, tmp_path):
    text = text_of(compare_runs(runs, tmp_path / "page.html"))
    assert "b/real: policy \N{MINUS SIGN} a/real: policy, paired by seed: +50.0 points" in text
    assert "20 seeds fixed, 0 broken" in text
    assert "c/real: policy \N{MINUS SIGN}" not in text
    assert text.count("c/real: policy, real simulator") == 1
    expected = paired([True, False] * 20, [True] * 40, np.random.default_rng(0))
    assert f"p = {expected.p_value:.2g}" in text


def test_only_settings_that_differ_are_told(runs, tmp_path):
    text = text_of(compare_runs(runs, tmp_path / "page.html"))
    assert "args.preset tiny quick tiny" in text
    assert "args.task" not in text
    same = text_of(compare_runs([runs[0], runs[2]], tmp_path / "same.html"))
    assert "they have the same settings" in same
    assert "No two of these were judged on the same seeds" in same


def test_verb_compares_several_runs_and_shows_one(runs, capsys):
    pair = [str(r) for r in runs[:2]]
    assert main(["report", "--run", *pair]) == 0
    assert (runs[0] / "compared.html").is_file()
    assert main(["report", "--run", pair[0]]) == 0
    assert (runs[0] / "report.html").is_file()


def test_run_given_twice_is_refused_and_nothing_written(runs, tmp_path):
    with pytest.raises(BadInput, match="different folders"):
        compare_runs([runs[0], runs[0]], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.skipif(not browser.CHROMIUM, reason="no browser here")
@pytest.mark.parametrize("width", [390, 1280])
def test_comparison_in_a_browser_fits_a_telephone_and_a_desktop(width, runs, tmp_path):
    seen = browser.seen(compare_runs(runs, tmp_path / "page.html"), width, tmp_path)
    assert seen["width"] <= seen["window"], seen["sticking_out"]
    assert not seen["sticking_out"]
    assert seen["smallest"] >= 10
