"""A sweep makes what its runs make singly; what fails leaves the others; nonsense is refused at once."""

import pytest

from robopolicy.checkpoint import folder_hash, read_json
from robopolicy.cli import BAD_INPUT, DONE, FAILED, main


def swept(out, vary, verb):
    return main(f"sweep --out {out} --vary {vary} -- {verb}".split())


def test_runs_of_a_sweep_are_those_of_the_verb_alone(here, tmp_path, capsys):
    verb = "train --dataset data --preset tiny"
    assert swept(tmp_path, "seed=3,4 steps=5", verb) == DONE
    assert main(f"{verb} --seed 4 --steps 5 --out {tmp_path / 'alone'}".split()) == 0
    assert folder_hash(tmp_path / "seed-4_steps-5") == folder_hash(tmp_path / "alone")
    rows = read_json(tmp_path / "result.json")["runs"]
    assert [row["settings"] for row in rows] == [{"seed": s, "steps": "5"} for s in "34"]
    assert all(row["verb"] == "train" and row["hash"] for row in rows)
    assert rows[0]["hash"] != rows[1]["hash"]
    assert "seed-3_steps-5" in capsys.readouterr().out


def test_runs_that_fail_are_named_and_the_others_kept_and_not_done_again(here, tmp_path, capsys):
    verb = "train --preset tiny --steps 5"
    assert swept(tmp_path, "dataset=data,lost", verb) == FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 runs failed" in said
    assert "dataset-lost: error: dataset" in said
    before = (tmp_path / "dataset-data" / "result.json").stat().st_mtime_ns
    assert swept(tmp_path, "dataset=data,lost", verb) == FAILED
    assert (tmp_path / "dataset-data" / "result.json").stat().st_mtime_ns == before
    assert "nothing to do" in (tmp_path / "logs" / "dataset-data.txt").read_text()


REFUSED = {
    "nothing to run": ("seed=1", "", "verb"),
    "not a verb that is swept": ("seed=1", "deploy --real", "verb"),
    "no values": ("seed", "train --dataset data", "vary"),
    "a value twice": ("seed=1,1", "train --dataset data", "vary"),
    "a flag twice": ("seed=1 seed=2", "train --dataset data", "vary"),
    "the folder": ("out=a,b", "train --dataset data", "vary"),
    "a flag that is given": ("seed=1,2", "train --dataset data --seed 3", "--seed"),
    "a flag that the verb does not know": ("sede=1,2", "train --dataset data", "--sede"),
    "a value that makes no sense": ("steps=1,few", "train --dataset data", "few"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sweep_that_makes_no_sense_is_refused_before_anything_is_written(case, here, tmp_path, capsys):
    vary, verb, named = REFUSED[case]
    assert swept(tmp_path / "new", vary, verb) == BAD_INPUT
    assert named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
