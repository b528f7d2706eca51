"""The fuzzer outlives an input that ends the process, and names it."""

import os
from multiprocessing.connection import Connection

from tests.fuzz.watching import watched


def end_at_the_second(to: Connection, name: str) -> None:
    to.send((7, name))
    to.send((7, name, None))
    to.send((8, name))
    os.abort()


def test_an_input_that_ends_the_process_is_a_fault_of_that_input():
    assert list(watched(end_at_the_second, "parquet")) == [
        ((7, "parquet"), None),
        ((8, "parquet"), "the process ended with -6"),
    ]
