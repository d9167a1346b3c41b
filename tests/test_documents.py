"""Numbers in the documents are those of the results files."""

import re
import shlex
import subprocess

import pytest
import yaml

from benchmarks.deploy import summary as deploy
from benchmarks.policies import summary as policies
from benchmarks.readme import DOCUMENTS, FIGURES, ROOT, refreshed
from robopolicy.checkpoint import read_json
from robopolicy.cli import parse
from robopolicy.report.svg import standalone


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_quotes_what_the_results_files_say(document):
    text = (ROOT / document).read_text()
    assert refreshed(document, text) == text


@pytest.mark.parametrize(("name", "summed"), [("policies", policies.summed), ("deploy", deploy.summed)])
def test_sum_of_results_is_that_of_its_parts(name, summed):
    assert read_json(ROOT / "benchmarks" / "results" / f"{name}.json") == summed()


def test_document_without_its_block_is_refused():
    with pytest.raises(ValueError, match="truth"):
        refreshed("README.md", "no block here")


@pytest.mark.parametrize(
    "name", ["architecture.svg", "scale.svg", "imagined.svg", "at-rest.svg", "horizon.svg", "delays.svg"]
)
def test_figure_shows_what_the_code_and_the_results_files_say(name):
    drawn = standalone(FIGURES[name]())
    assert (ROOT / "docs" / "figures" / name).read_bytes() == drawn


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def commands(page):
    """Command lines of `robopolicy` in the code of a page, comments left out."""
    blocks = re.findall(r"^```(?:bash|console)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (re.fullmatch(r"\s*(?:\S+=\S+ )*robopolicy (.*?)(?: #.*)?", line) for line in lines)
    return [m[1] for m in found if m]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_a_page_are_understood(page, capsys):
    for line in commands(page):
        try:
            parse(shlex.split(line))
        except SystemExit:
            pytest.fail(f"{line}: {capsys.readouterr().err}")


def test_commands_are_found_in_the_pages():
    assert sum(len(commands(page)) for page in PAGES) > 30


def test_what_a_cluster_is_told_is_well_formed(tmp_path):
    text = (ROOT / "docs" / "scale.md").read_text()
    (manifest,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    job = yaml.safe_load(manifest)
    assert job["kind"] == "RayJob"
    groups = [
        job["spec"]["rayClusterSpec"]["headGroupSpec"],
        *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]
    assert all(group["template"]["spec"]["containers"][0]["volumeMounts"] for group in groups)
    parse(shlex.split(job["spec"]["entrypoint"])[1:])
    for script in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
