"""Helpers end with the process that started them."""

import subprocess
import sys
import time

import psutil

START = """
import multiprocessing, time
from dataset_builder.processes import end_with_parent

def work():
    end_with_parent()
    time.sleep(600)

if __name__ == "__main__":
    helper = multiprocessing.get_context("spawn").Process(target=work)
    helper.start()
    print(helper.pid, flush=True)
    time.sleep(600)
"""


def test_a_helper_of_a_killed_process_ends_too(tmp_path):
    (tmp_path / "main.py").write_text(START)
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py")], stdout=subprocess.PIPE) as main:
        helper = psutil.Process(int(main.stdout.readline()))
        assert helper.is_running()
        main.kill()
    deadline = time.monotonic() + 30
    while helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
