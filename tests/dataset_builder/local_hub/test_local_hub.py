"""The Hub on loopback serves the unmodified clients of the Hugging Face Hub."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dataset_builder.local_hub.server import LocalHub

WRITER = "hf_writer"


def test_commits_tags_and_downloads(local_hub):
    out = local_hub.run_python(
        """
import os, pathlib, pytest
from huggingface_hub import HfApi, CommitOperationAdd, CommitOperationDelete, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
api = HfApi()
assert api.whoami()["name"] == "org"
api.create_repo("org/thing")
api.create_repo("org/thing", exist_ok=True)
with pytest.raises(HfHubHTTPError, match="409"):
    api.create_repo("org/thing")
pathlib.Path("up/deep/er").mkdir(parents=True)
pathlib.Path("up/small.txt").write_text("small")
pathlib.Path("up/deep/er/large.bin").write_bytes(os.urandom(3_000_000))
first = api.upload_folder(repo_id="org/thing", folder_path="up").oid
again = api.upload_folder(repo_id="org/thing", folder_path="up").oid
assert first == again, "an unchanged folder makes no commit"
api.create_tag("org/thing", tag="v1/0", tag_message="first", revision=first)
with pytest.raises(HfHubHTTPError, match="409"):
    api.create_tag("org/thing", tag="v1/0")
second = api.create_commit("org/thing", [
    CommitOperationAdd("small.txt", b"changed"), CommitOperationDelete("deep/")], commit_message="second").oid
with pytest.raises(HfHubHTTPError, match="412"):
    api.create_commit("org/thing", [CommitOperationAdd("a", b"a")], commit_message="late", parent_commit=first)
assert sorted(api.list_repo_files("org/thing")) == [".gitattributes", "small.txt"]
assert [one.commit_id for one in api.list_repo_commits("org/thing")][:2] == [second, first]
refs = api.list_repo_refs("org/thing")
assert (refs.branches[0].target_commit, refs.tags[0].name, refs.tags[0].target_commit) == (second, "v1/0", first)
folder = pathlib.Path(snapshot_download("org/thing", revision="v1/0"))
assert (folder / "deep/er/large.bin").read_bytes() == pathlib.Path("up/deep/er/large.bin").read_bytes()
assert (folder / "small.txt").read_text() == "small"
assert pathlib.Path(hf_hub_download("org/thing", "small.txt")).read_text() == "changed"
tree = {one.path: one for one in api.list_repo_tree("org/thing", revision=first, recursive=True)}
assert set(tree) == {".gitattributes", "deep", "deep/er", "deep/er/large.bin", "small.txt"}
assert tree["deep/er/large.bin"].lfs.size == 3_000_000
assert [one.path for one in api.list_repo_tree("org/thing", "deep", revision=first)] == ["deep/er"]
assert [one.path for one in api.get_paths_info("org/thing", ["small.txt", "none"])] == ["small.txt"]
with pytest.raises(EntryNotFoundError):
    hf_hub_download("org/thing", "none.txt")
with pytest.raises(RevisionNotFoundError):
    hf_hub_download("org/thing", "small.txt", revision="v9")
with pytest.raises(RepositoryNotFoundError):
    api.model_info("org/other")
api.create_branch("org/thing", branch="dev", revision=first)
api.upload_file(repo_id="org/thing", path_or_fileobj=b"x", path_in_repo="x", revision="dev")
assert api.file_exists("org/thing", "x", revision="dev") and not api.file_exists("org/thing", "x")
api.delete_tag("org/thing", tag="v1/0")
assert [one.id for one in api.list_models(author="org")] == ["org/thing"]
api.delete_repo("org/thing")
assert not api.repo_exists("org/thing")
print("well")
""",
        token=WRITER,
    )
    assert out.strip() == "well"


def test_data_sets_load_by_revision_streaming_and_by_columns(local_hub):
    out = local_hub.run_python(
        """
import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import HfApi
rows = {"id": [str(n) for n in range(50)], "noise": [np.random.default_rng(n).bytes(250_000).hex() for n in range(50)]}
made = Dataset.from_dict(rows)
DatasetDict({"train": made, "test": made.select(range(5))}).push_to_hub("org/rows")
HfApi().create_tag("org/rows", tag="v1.0.0", repo_type="dataset")
DatasetDict({"train": made.select(range(7))}).push_to_hub("org/rows")
old, new = load_dataset("org/rows", revision="v1.0.0"), load_dataset("org/rows")
assert (len(old["train"]), len(old["test"]), len(new["train"])) == (50, 5, 7)
print("well")
""",
        token=WRITER,
    )
    assert out.strip() == "well"
    before = len(local_hub.requests)
    out = local_hub.run_python(
        """
from datasets import load_dataset
rows = load_dataset("org/rows", revision="v1.0.0", streaming=True, split="train", columns=["id"])
print([row for row in rows][-1])
"""
    )
    assert out.strip() == "{'id': '49'}"
    sent = sum(request.sent for request in local_hub.requests[before:])
    assert sent < 12_000_000, "one narrow column of 25 MB was asked for"


def test_the_hf_command(local_hub, tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "README.md").write_text("---\nlicense: mit\n---\n# Thing\n")
    hf = str(Path(sys.executable).with_name("hf"))
    environment = local_hub.environment(token=WRITER)

    def run(*arguments):
        done = subprocess.run([hf, *arguments], env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "org" in run("auth", "whoami")
    run("upload", "org/thing", "up", ".", "--repo-type", "dataset")
    run("download", "org/thing", "--repo-type", "dataset", "--local-dir", "down")
    assert (tmp_path / "down" / "README.md").read_text().endswith("# Thing\n")


def call(hub, path, token=None, data=None, method="GET", **headers):
    """Return status and body of a bare request."""
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(hub.url + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def create(hub, token, **more):
    return call(hub, "/api/repos/create", token, json.dumps({"name": "n", "type": "dataset", **more}).encode(), "POST")[
        0
    ]


def test_tokens_are_checked(tmp_path):
    with LocalHub(tmp_path, tokens={"hf_a": "alice", "hf_b": "bob"}) as hub:
        assert create(hub, None) == 401
        assert create(hub, "hf_wrong") == 401
        assert create(hub, "hf_b", organization="alice") == 403
        assert create(hub, "hf_a", visibility="private") == 200
        assert create(hub, "hf_a") == 409
        assert create(hub, "hf_b") == 200
        assert call(hub, "/api/datasets/bob/n")[0] == 200, "who sends no token may read what is public"
        assert call(hub, "/api/datasets/bob/n", token="hf_wrong")[0] == 401
        assert call(hub, "/api/datasets/alice/n")[0] == 401
        assert call(hub, "/api/datasets/alice/n", token="hf_a")[0] == 200
        assert call(hub, "/datasets/bob/n/resolve/main/..%2F..%2Frepos")[0] == 404


def test_ranges(tmp_path):
    with LocalHub(tmp_path, tokens={"hf_a": "alice"}) as hub:
        create(hub, "hf_a")
        path = "/datasets/alice/n/resolve/main/.gitattributes"
        whole = call(hub, path)[1]
        assert call(hub, path, Range="bytes=2-5") == (206, whole[2:6])
        assert call(hub, path, Range="bytes=10-") == (206, whole[10:])
        assert call(hub, path, Range="bytes=-4") == (206, whole[-4:])
        assert call(hub, path, Range=f"bytes={len(whole)}-")[0] == 416


def test_a_hub_opened_again_serves_the_same_commits(tmp_path):
    with LocalHub(tmp_path, tokens={"hf_a": "alice"}) as hub:
        create(hub, "hf_a")
        first = json.loads(call(hub, "/api/datasets/alice/n")[1])["sha"]
    with LocalHub(tmp_path, tokens={"hf_a": "alice"}) as hub:
        assert json.loads(call(hub, "/api/datasets/alice/n/revision/" + first)[1])["sha"] == first


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("---\nlicense: [\n---\n", "not YAML"),
        ("---\nlicense: Apache 2\n---\n", "licence identifier"),
        ("---\ntags: food\n---\n", '"tags" must be a list'),
        ("---\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n---\n", "task.type"),
    ],
)
def test_bad_card_metadata_is_refused(tmp_path, text, complaint):
    with LocalHub(tmp_path, tokens={}) as hub:
        body = json.dumps({"content": text, "repoType": "dataset"}).encode()
        status, answer = call(hub, "/api/validate-yaml", data=body, method="POST")
        assert status == 400
        assert complaint in json.loads(answer)["errors"][0]["message"]


def test_faults_hit_only_the_requests_named(tmp_path):
    with LocalHub(tmp_path, tokens={"hf_a": "alice"}) as hub:
        create(hub, "hf_a")
        hub.inject("info", "error", skip=1, times=1)
        hub.inject("refs", "drop")
        statuses = [call(hub, "/api/datasets/alice/n")[0] for _ in range(3)]
        assert statuses == [200, 500, 200]
        with pytest.raises(OSError, match=r"closed|reset|refused|Remote end"):
            call(hub, "/api/datasets/alice/n/refs")
        hub.inject("delete", "lose")
        with pytest.raises(OSError, match=r"closed|reset|Remote end"):
            call(hub, "/api/repos/delete", "hf_a", b'{"name": "n", "type": "dataset"}', "DELETE")
        assert call(hub, "/api/datasets/alice/n")[0] == 404, "the answer was lost, not the deed"
        with pytest.raises(ValueError, match="no fault"):
            hub.inject("nothing", "drop")


def test_a_taken_port_is_one_line_and_status_2(tmp_path):
    with LocalHub(tmp_path, tokens={}) as hub:
        with (
            pytest.raises(OSError, match=f"port {hub.port} of 127.0.0.1 cannot be served"),
            LocalHub(tmp_path, {}, hub.port),
        ):
            pass
        command = [
            sys.executable,
            "-m",
            "dataset_builder.local_hub.server",
            "--folder",
            str(tmp_path / "x"),
            "--port",
            str(hub.port),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "name another one" in done.stderr
