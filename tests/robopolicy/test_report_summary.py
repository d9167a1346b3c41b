"""The picture for a README: small, repeatable, with every number that was judged, or refused by name."""

from __future__ import annotations

import json

import pytest
from PIL import Image, ImageDraw

from robopolicy.errors import BadInput
from robopolicy.report.summary import summary_png
from robopolicy.stats import wilson

PAIRS = {
    "base": {"real": wilson(80, 150).to_dict(), "imagined": wilson(240, 512).to_dict()},
    "steered": {"real": wilson(118, 150).to_dict(), "imagined": wilson(420, 512).to_dict()},
}


@pytest.fixture
def written(monkeypatch):
    """Every text in the picture."""
    texts = []
    draw = ImageDraw.ImageDraw.text

    def spy(self, xy, text, *args, **kwargs):
        texts.append(text)
        return draw(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    return texts


def rates(texts: list[str]) -> list[str]:
    return [t for t in texts if " of " in t]


def save(folder, result: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))


def test_picture_is_small_and_tells_the_numbers(tmp_path, written):
    save(tmp_path, {"task": "lift", **PAIRS})
    out = summary_png(tmp_path, tmp_path / "docs" / "summary.png")
    assert out.stat().st_size < 150_000
    with Image.open(out) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 600
    assert rates(written) == ["53.3% of 150", "78.7% of 150", "46.9% of 512", "82.0% of 512"]


def test_same_run_gives_the_same_picture(tmp_path):
    save(tmp_path, PAIRS)
    first = summary_png(tmp_path, tmp_path / "a.png").read_bytes()
    assert summary_png(tmp_path, tmp_path / "b.png").read_bytes() == first


def test_run_without_imagination_is_drawn(tmp_path, written):
    rows = [{"label": "policy", **wilson(50, 50).to_dict()}]
    save(tmp_path, {"verb": "evaluate", "policies": rows, "differences": []})
    summary_png(tmp_path, tmp_path / "summary.png")
    assert rates(written) == ["100% of 50"]


def test_unusable_value_is_refused_by_name_and_writes_nothing(tmp_path):
    save(tmp_path, {**PAIRS, "base": {"real": {**PAIRS["base"]["real"], "high": 2}}})
    with pytest.raises(BadInput) as refused:
        summary_png(tmp_path, tmp_path / "summary.png")
    assert "base.real.high" in refused.value.field
    assert not (tmp_path / "summary.png").exists()


def test_folder_is_no_place_for_a_picture(tmp_path):
    save(tmp_path, PAIRS)
    with pytest.raises(BadInput, match="out: wanted a file"):
        summary_png(tmp_path, tmp_path)
