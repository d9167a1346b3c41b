"""The report: one file, nothing fetched, missing pieces left out, unusable ones refused by name."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
from PIL import Image

from robopolicy.errors import BadInput
from robopolicy.report.page import make_report
from robopolicy.report.svg import Axis, Plot
from robopolicy.seeding import stream
from robopolicy.stats import wilson
from sim.tasks import LIFT

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def drawings(self) -> list[str]:
        return [str(a["aria-label"]).split(".")[0] for a in self.all("svg")]


def png(side: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 150)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def lifting(rng: np.random.Generator, success: bool) -> list[list[float]]:
    """States of a gripper that comes down on a cube and takes it up, or not."""
    states = np.zeros((49, LIFT.state_dim))
    way = np.linspace(0, 1, 49)
    tip = np.stack([0.1 * (1 - way), 0.02 * np.sin(6 * way), 0.83 + 0.2 * np.abs(2 * way - 1)], 1)
    states[:, LIFT.slice_of("eef_pos")] = tip + rng.normal(0, 0.002, tip.shape)
    cube = np.tile([0.0, 0.0, 0.83], (49, 1))
    cube[24:, 2] += np.maximum(0, tip[24:, 2] - 0.84) if success else 0
    states[:, LIFT.slice_of("cube_pos")] = cube
    return states.tolist()


def demo_result() -> dict:
    def rate(successes: int, episodes: int) -> dict:
        return wilson(successes, episodes).to_dict()

    return {
        "schema": 1,
        "verb": "demo",
        "task": "lift",
        "preset": "quick",
        "master_seed": 3,
        "base": {"real": rate(80, 150), "imagined": rate(240, 512)},
        "steered": {"real": rate(118, 150), "imagined": rate(420, 512)},
        "paired_difference": {
            "mean": 0.253,
            "low": 0.17,
            "high": 0.34,
            "fixed": 45,
            "broken": 7,
            "p_value": 8e-8,
        },
        "gap": {"base": 0.06, "steered": -0.03},
        "real_steps_between_world_and_evaluation": 0,
        "hashes": {"policy": {"before": "ab" * 32, "after": "ab" * 32}},
        "wall_clock_s": {"setup": 60.0, "collect": 131.0, "train": 45.2, "steer": 200.4, "total": 436.6},
        "speed": {"imagined_steps_per_s": 21000.0, "real_steps_per_s": 133.3, "processes": 2},
        "peak_memory_mb": 2100.5,
        "config": {"args": {"out": "runs/<b>demo</b>"}, "train": {"lr": 0.001}},
        "versions": {"python": "3.12.1", "robopolicy": "0.1.0", "mujoco": None},
        "hardware": {"cpu": "toy & sons", "cores": 2, "gpu": None},
    }


def write(folder, name: str, data: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(data))


@pytest.fixture
def run(tmp_path):
    """Everything a demo leaves behind."""
    rng = stream(0, "report")
    folder = tmp_path / "run"
    write(folder, "result.json", demo_result())

    def loss(scale: float) -> list[dict]:
        return [{"step": i, "loss": scale / (1 + i / 30) + float(rng.uniform(0, 0.05))} for i in range(400)]

    steer = [{"step": 500 * i, **wilson(230 + 20 * i, 512).to_dict()} for i in range(1, 10)]
    write(folder, "curves.json", {"policy": loss(1.0), "world": [loss(1.5), loss(1.2)], "steer": steer})
    doubt = rng.uniform(0.1, 1.4, 8).tolist()
    shown = {
        "base": {"seed": 7, "success": False, "states": lifting(rng, False), "doubt": [0.0] * 8},
        "steered": {"seed": 7, "success": True, "states": lifting(rng, True), "doubt": [0.0] * 8},
        "imagined": {"seed": 7, "success": True, "states": lifting(rng, True), "doubt": doubt},
    }
    shown["base"]["frames"] = shown["steered"]["frames"] = [png()] * 8
    write(folder, "episodes.json", {"spec": LIFT.to_dict(), **shown})
    return folder


def page_of(folder) -> Page:
    out = make_report(folder, folder / "report.html")
    page = Page(out.read_text())
    assert page.open == []
    return page


def changed(path, *keys: str | int, to: object) -> None:
    """Sets one value deep in a JSON file."""
    data = json.loads(path.read_text())
    at = data
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = to
    path.write_text(json.dumps(data))


def test_page_of_a_whole_demo_shows_every_figure(run):
    page = page_of(run)
    assert page.drawings == [
        "Success",
        "Real and imagined success",
        "base, seen from the side",
        "steered, seen from the side",
        "imagined, seen from the side",
        "Steering",
        "Doubt along an episode",
        "Policy",
        "World model",
    ]
    assert len(page.all("img")) == 16
    assert "Left out" not in page.text


def test_page_tells_the_numbers_of_the_result(run):
    text = " ".join(page_of(run).text.split())
    assert "53.3% [45.4%, 61.1%] 80/150" in text
    assert "Steered succeeds more often than base in the real simulator" in text
    assert "from 53.3% to 78.7% on the same 150 held-out seeds: +25.3 points" in text
    assert "45 seeds fixed, 7 broken; exact McNemar p = 8e-08" in text
    assert "final evaluation: 0." in text
    assert "3 min 20 s" in text
    assert "ab" * 32 in text
    assert '"lr": 0.001' in text


def test_page_fetches_nothing_and_escapes_what_it_is_given(run):
    changed(run / "result.json", "task", to="<script>alert(1)</script>")
    html = make_report(run, run / "report.html").read_text()
    page = Page(html)
    assert not page.all("script")
    assert not page.all("link")
    assert all(str(a["src"]).startswith("data:image/png;base64,") for a in page.all("img"))
    assert not re.search(r"https?://|url\((?!#)|@import", html)
    assert "toy &amp; sons" in html
    assert "&lt;b&gt;demo" in html


def test_every_picture_has_words(run):
    page = page_of(run)
    assert all(a["alt"] for a in page.all("img"))
    assert all(a["role"] == "img" and len(str(a["aria-label"])) > 20 for a in page.all("svg"))


def test_same_run_gives_the_same_page(run):
    first = make_report(run, run / "a.html").read_bytes()
    assert make_report(run, run / "b.html").read_bytes() == first


@pytest.mark.parametrize(
    ("missing", "note"),
    [
        ("curves.json", "the learning curve of steering"),
        ("episodes.json", "an episode of each policy to look at"),
    ],
)
def test_missing_file_is_noted_and_left_out(run, missing, note):
    before = len(page_of(run).drawings)
    (run / missing).unlink()
    page = page_of(run)
    assert note in page.text
    assert len(page.drawings) < before


def test_missing_pictures_are_noted_and_paths_drawn(run):
    for name in ("base", "steered"):
        changed(run / "episodes.json", name, "frames", to=[])
    page = page_of(run)
    assert not page.all("img")
    assert "nothing could render here" in page.text
    assert "steered, seen from the side" in page.drawings


def test_result_alone_makes_a_page(tmp_path):
    result = demo_result()
    keep = ("schema", "verb", "task", "base", "steered")
    write(tmp_path / "run", "result.json", {k: result[k] for k in keep})
    assert page_of(tmp_path / "run").drawings == ["Success", "Real and imagined success"]


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((0.1, 0.02, 0.2), "succeeds more often"),
        ((-0.1, -0.2, -0.02), "succeeds less often"),
        ((0.1, -0.02, 0.2), "no difference"),
    ],
)
def test_verdict_claims_no_more_than_the_interval(run, ends, words):
    for key, value in zip(("mean", "low", "high"), ends, strict=True):
        changed(run / "result.json", "paired_difference", key, to=value)
    assert words in page_of(run).text.lower()


def test_folder_of_stages_makes_the_same_figures(tmp_path):
    rows = [
        {"label": "policy", **wilson(50, 100).to_dict()},
        {"label": "steerer", **wilson(80, 100).to_dict()},
    ]
    d = {"first": "policy", "second": "steerer", "mean": 0.3, "low": 0.2, "high": 0.4}
    judged = {"task": "lift", "policies": rows, "differences": [d], "real_minus_imagined": {}}
    losses = [{"step": i, "loss": 1 / (i + 1)} for i in range(5)]
    write(tmp_path / "real", "result.json", {"verb": "evaluate", **judged})
    write(tmp_path / "dream", "result.json", {"verb": "imagine", **judged})
    for name in ("demos", "more-demos"):
        write(tmp_path / name, "result.json", {"verb": "collect", "wall_clock_s": 40, "peak_memory_mb": 900})
    write(tmp_path / "policy", "result.json", {"verb": "train", "curve": losses, "config": {"lr": 0.5}})
    write(tmp_path / "world", "result.json", {"verb": "train-world", "curves": {"members": [losses] * 2}})
    steer = [{"step": 10, **wilson(5, 10).to_dict()}]
    write(tmp_path / "steerer", "result.json", {"verb": "steer", "curve": steer})
    page = page_of(tmp_path)
    wanted = ["Success", "Real and imagined success", "Steering", "Policy", "World model"]
    assert page.drawings == wanted
    assert "Steerer succeeds more often than policy" in page.text
    assert "1 min 20 s" in page.text
    assert "900 MB" in page.text
    assert '"lr": 0.5' in page.text


def test_verdicts_are_on_the_first_policy_and_the_table_has_every_pair(tmp_path):
    names, ends = "abc", {"mean": 0.1, "low": 0.05, "high": 0.2}
    rows = [{"label": n, **wilson(50 + 10 * i, 100).to_dict()} for i, n in enumerate(names)]
    pairs = [{"first": a, "second": b, **ends} for a, b in ("ab", "ac", "bc")]
    write(tmp_path, "result.json", {"verb": "evaluate", "policies": rows, "differences": pairs})
    text = page_of(tmp_path).text
    assert text.count("succeeds more often than a") == text.count("succeeds more often") == 2
    assert text.count("paired by seed") == 3


def test_curves_of_one_row_are_drawn(run):
    write(run, "curves.json", {"policy": [{"step": 0, "loss": 0.0}], "steer": [{"step": 0, "rate": 0.5}]})
    assert {"Steering", "Policy"} <= set(page_of(run).drawings)


def test_extras_of_other_shapes_are_not_shown(run):
    for name in ("wall_clock_s", "speed", "hashes", "versions", "hardware", "peak_memory_mb"):
        changed(run / "result.json", name, to=["?"])
    assert "Cost" not in page_of(run).text


def test_changed_hash_is_told(run):
    changed(run / "result.json", "hashes", "policy", "after", to="cd" * 32)
    assert "CHANGED by steering" in page_of(run).text


def test_one_evaluation_makes_a_page(tmp_path):
    rows = [{"label": "policy", **wilson(50, 100).to_dict()}]
    write(tmp_path, "result.json", {"verb": "evaluate", "policies": rows, "differences": []})
    page = page_of(tmp_path)
    assert page.drawings == ["Success"]
    assert "Imagined" not in page.text
    assert "success in imagination" in page.text


REFUSED = [
    ("result.json", ("base", "real", "rate"), 1.5, "base.real.rate"),
    ("result.json", ("base", "real", "low"), "much", "base.real.low"),
    ("result.json", ("steered", "imagined"), [], "steered.imagined"),
    ("result.json", ("paired_difference", "mean"), 3, "paired_difference.mean"),
    ("curves.json", ("policy", 5, "loss"), None, "curves.json.policy"),
    ("curves.json", ("steer",), {"step": 1}, "curves.json.steer"),
    ("curves.json", ("steer", 2, "low"), "?", "low"),
    ("curves.json", ("steer", 2), {"step": 3, "rate": 0.5}, "curves.json.steer"),
    ("episodes.json", ("base", "seed"), "x", "base.seed"),
    ("episodes.json", ("base", "states", 3), [1.0], "base.states"),
    ("episodes.json", ("base", "doubt"), [[1.0]], "base"),
    ("episodes.json", ("steered", "frames"), ['x" onerror="y'], "steered.frames.0"),
    ("episodes.json", ("steered", "frames"), ["aGVsbG8="], "steered.frames.0"),
    ("episodes.json", ("spec", "fps"), -1, "spec.fps"),
]


@pytest.mark.parametrize(("file", "keys", "value", "field"), REFUSED)
def test_unusable_value_is_refused_by_name_and_writes_nothing(run, file, keys, value, field):
    changed(run / file, *keys, to=value)
    with pytest.raises(BadInput) as refused:
        make_report(run, run / "report.html")
    assert field in refused.value.field
    assert not (run / "report.html").exists()


def test_folder_without_a_judgement_is_refused(tmp_path):
    write(tmp_path / "policy", "result.json", {"verb": "train", "curve": []})
    with pytest.raises(BadInput, match="run: wanted a folder with a demo"):
        make_report(tmp_path, tmp_path / "report.html")


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        make_report(tmp_path / "none", tmp_path / "report.html")


@pytest.mark.parametrize(
    ("axis", "marks"),
    [
        (Axis(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis(-3, 17), [0, 5, 10, 15]),
        (Axis(0.02, 3, log=True), [0.1, 1]),
        (Axis(0.2, 1, log=True), [0.2, 0.5, 1]),
        (Axis(0, 1, ticks=()), []),
    ],
)
def test_axis_marks_are_round_numbers_inside(axis, marks):
    assert axis.marks() == pytest.approx(marks)


def test_log_axis_puts_equal_ratios_at_equal_distances():
    axis = Axis(0.01, 100, log=True)
    assert [axis.share(v) for v in (0.01, 1, 100)] == pytest.approx([0, 0.5, 1])


def test_plot_keeps_points_inside_its_axes():
    plot = Plot("t", "a", Axis(0, 10), Axis(0, 1))
    for x, y in ((0, 0), (10, 1), (1e9, -1e9), (5, math.pi)):
        px, py = plot.at(x, y)
        assert plot.left - 8 <= px <= plot.right + 8
        assert plot.top - 8 <= py <= plot.bottom + 8


@pytest.mark.skipif(not browser.CHROMIUM, reason="no browser here")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser_fits_a_telephone_and_a_desktop_and_is_legible(width, run, tmp_path):
    make_report(run, tmp_path / "report.html")
    seen = browser.seen(tmp_path / "report.html", width, tmp_path)
    assert seen["window"] > 0.9 * width
    assert seen["width"] <= seen["window"], seen["sticking_out"]
    assert not seen["sticking_out"]
    assert seen["smallest"] >= 10
    assert seen["unreachable"] == 0
