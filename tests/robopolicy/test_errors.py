"""Errors say the same wherever they were raised."""

import pickle

from robopolicy.errors import BadInput


def test_bad_input_from_another_process_says_the_same():
    sent = BadInput("obs", "finite numbers", lambda: None)  # what came need not be picklable
    got = pickle.loads(pickle.dumps(sent))
    assert str(got) == str(sent)
    assert (got.field, got.wanted) == ("obs", "finite numbers")
