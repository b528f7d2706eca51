"""Units of work on a Ray cluster of two nodes, in processes of this machine."""

import os
import random
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from dataset_builder import cli
from dataset_builder.building.build import build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.engines import ray_engine
from dataset_builder.engines.choice import engine_named
from dataset_builder.engines.ray_engine import RayEngine
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import GenerationSettings
from tests.dataset_builder.building.test_cli_build import contents

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

# Nodes that are lost are missed within seconds, not after half a minute.
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture
def cluster():
    """Two nodes; the test connects by the address alone, as the command does."""
    nodes = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "_system_config": QUICK, "include_dashboard": False},
    )
    nodes.add_node(num_cpus=1)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def workers() -> list[psutil.Process]:
    """The processes of actors."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("ray::_Worker" in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def test_a_build_that_loses_an_actor_and_a_node_has_the_bytes_of_a_local_one(cluster, recipe_file, tmp_path, capsys):
    settings = BuildSettings(recipe_file, recipes_per_shard=1, generation=GenerationSettings(size=64, batch_size=1))
    build(settings, tmp_path / "local", processes=1)
    out, lost = tmp_path / "ray", []

    def disturb() -> None:
        draw = random.Random(7)
        data = out / ".unfinished" / "data"
        wait_for(lambda: len(list(data.glob("*.parquet"))) >= 2)
        time.sleep(draw.random() * 0.3)
        for worker in workers()[:1]:
            lost.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: len(list(data.glob("*.parquet"))) >= 4)
        time.sleep(draw.random() * 0.3)
        cluster.remove_node(next(node for node in cluster.list_all_nodes() if node is not cluster.head_node), False)
        lost.append("node")

    trouble = threading.Thread(target=disturb)
    trouble.start()
    manifest = build(settings, out, engine="ray", address=cluster.address)
    trouble.join()
    assert manifest["rows"] == 18
    assert len(lost) == 2
    assert contents(out) == contents(tmp_path / "local")


def wait_for(condition, seconds: float = 180) -> None:  # new nodes load the libraries first
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *map(str, arguments)])
    return int(ended.value.code or 0)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_server_that_is_no_ray_is_one_line_too(recipe_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ray_engine, "_ANSWERS", 0.5)
    started = time.monotonic()
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web, socket.socket() as silent:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (web.server_port, silent.getsockname()[1]):
            for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
                words = ("--out", tmp_path / "out", "--size", 64, "--engine", "ray", "--address", address)
                assert run(recipe_file, *words) == 2
                assert f"no Ray cluster answers at {address}; start one" in capsys.readouterr().err
        web.shutdown()
    assert time.monotonic() - started < 30
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_address_where_no_ray_answers_is_one_line(recipe_file, tmp_path, capsys):
    places = [f"127.0.0.1:{closed_port()}", f"ray://127.0.0.1:{closed_port()}", "nowhere", "127.0.0.1:99999"]
    for address in places:
        assert run(recipe_file, "--out", tmp_path / "out", "--size", 64, "--engine", "ray", "--address", address) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert f"no Ray cluster answers at {address}; start one with `ray start --head`" in error


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BadInputError, match=r"pip install 'flavour-fusion\[ray\]'"):
        RayEngine()


def test_an_unknown_engine_is_named():
    with pytest.raises(BadInputError, match="--engine is 'dask'; allowed are local, ray"):
        engine_named("dask")


@pytest.mark.slow
def test_label_and_audit_run_on_a_cluster_and_bad_input_on_a_node_is_one_line_here(
    cluster, recipe_file, tmp_path, capsys
):
    on_ray = ("--engine", "ray", "--address", cluster.address)
    assert run(recipe_file, "--out", tmp_path / "out", "--size", 63, *on_ray) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "PlatingPipeline does not draw with these settings" in error
    assert "Traceback" not in error
    for verb, here in (("label", ()), ("audit", ("--processes", 2))):
        results = []
        for name, engine in (("local", here), ("ray", on_ray)):
            out = tmp_path / f"{verb}-{name}"
            what = recipe_file if verb == "label" else tmp_path / "built"
            if verb == "audit" and name == "local":
                build(BuildSettings(recipe_file, generation=GenerationSettings(size=64)), what, processes=1)
            with pytest.raises(SystemExit) as ended:
                cli.main([verb, str(what), "--out", str(out), *map(str, engine)])
            assert not ended.value.code
            results.append(out.read_bytes() if verb == "label" else (out / "audit.json").read_bytes())
        assert results[0] == results[1]
