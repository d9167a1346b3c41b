"""Numbers in the documents are those of the results files."""

import pytest

from benchmarks.readme import DOCUMENTS, ROOT, refreshed


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_quotes_what_the_results_files_say(document):
    text = (ROOT / document).read_text()
    assert refreshed(document, text) == text


def test_document_without_its_block_is_refused():
    with pytest.raises(ValueError, match="truth"):
        refreshed("README.md", "no block here")
