"""Shards appear whole or not at all, on a full disk too."""

import subprocess
import sys

from dataset_builder.building.shards import BuildFolder

SCRIPT = """
import os, resource, sys
from pathlib import Path
import pyarrow as pa
from dataset_builder.errors import exit_on_bad_input
from dataset_builder.building.shards import write_table

resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
pictures = [os.urandom(2**16) for _ in range(64)]
with exit_on_bad_input("build"):
    write_table(Path(sys.argv[1]), pa.table({"image": pa.array(pictures)}))
"""


def test_a_disk_that_is_full_within_large_pictures_is_one_line_and_does_not_abort_the_process(tmp_path):
    shard = tmp_path / "train-00000-of-00001.parquet"
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(shard)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert str(shard) in ended.stderr
    assert "make room" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_what_a_lost_worker_was_writing_is_no_part_of_the_finished_build(tmp_path):
    folder = BuildFolder(tmp_path)
    folder.open({})
    (folder.data / "train-00000-of-00001.parquet").write_bytes(b"whole")
    (folder.data / "train-00000-of-00001.parquet.b0a3.here.7.tmp").write_bytes(b"half")
    folder.finish({"shards": {}})
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000-of-00001.parquet"]
