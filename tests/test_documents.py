"""Numbers in the documents are those of the results files."""

import pytest

from benchmarks.readme import DOCUMENTS, FIGURES, ROOT, refreshed
from robopolicy.report.svg import standalone


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_quotes_what_the_results_files_say(document):
    text = (ROOT / document).read_text()
    assert refreshed(document, text) == text


def test_document_without_its_block_is_refused():
    with pytest.raises(ValueError, match="truth"):
        refreshed("README.md", "no block here")


@pytest.mark.parametrize("name", ["architecture.svg", "scale.svg"])
def test_figure_shows_what_the_code_and_the_results_files_say(name):
    drawn = standalone(FIGURES[name]())
    assert (ROOT / "docs" / "figures" / name).read_bytes() == drawn
