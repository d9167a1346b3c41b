"""The side of the speed benchmark that needs no simulator."""

from benchmarks.speed import imagined_rate, made_up


def test_imagination_of_made_up_episodes_has_a_rate():
    assert imagined_rate(([made_up(), made_up()], 2)) > 0
