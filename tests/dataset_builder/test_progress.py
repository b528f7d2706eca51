import sys

import pytest

from dataset_builder import progress as module
from dataset_builder.progress import Progress, duration, progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_without_a_terminal_there_is_a_line_every_tenth_with_rate_and_time_left(clock, capsys):
    for _ in progress(range(200), "image features", "pictures"):
        clock.now += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "image features: 10 %, 20 of 200 pictures, 2 pictures/s, 1 min 30 s left"
    assert lines[-1] == "image features: 100 %, 200 of 200 pictures, 2 pictures/s, done"


def test_what_is_done_at_once_says_nothing(clock, capsys):
    assert list(progress(range(1000), "tokens")) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_batches_count_their_rows_and_the_last_one_has_fewer(clock, capsys):
    for _ in progress([1, 2, 3], "scoring", total=70, each=32):
        clock.now += 10
    assert capsys.readouterr().err.splitlines()[-1].startswith("scoring: 100 %, 70 of 70 rows")


def test_work_of_unknown_size_shows_its_rate(clock, capsys):
    with Progress("reading") as shows:
        for _ in range(100):
            clock.now += 1
            shows.update(50)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "reading: 1,500 rows, 50 rows/s"


def test_on_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    made = []
    monkeypatch.setattr(module, "tqdm", lambda **settings: made.append(settings) or Bar())
    assert list(progress([1, 2], "scoring")) == [1, 2]
    assert made[0]["total"] == 2
    assert made[0]["desc"] == "scoring"


class Bar:
    def update(self, number):
        assert number == 1

    def close(self):
        pass


def test_an_empty_name_shows_nothing(clock, capsys):
    for _ in progress(range(10), ""):
        clock.now += 5
    assert capsys.readouterr().err == ""


def test_durations_are_readable():
    assert duration(59.6) == "1 min 0 s"
