"""A Space: its files, its one commit, its refusals; and that the folder runs as it is."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from dataset_builder import cli
from dataset_builder.errors import BadInputError
from dataset_builder.publishing.publish import publish
from dataset_builder.publishing.release import publish_model
from dataset_builder.publishing.space import publish_space, requirements
from model_cards.cards import split_card
from tests.dataset_builder.tiny_build import make_rows, write_build
from tests.model_cards.tiny_run import make_run

pytest.importorskip("gradio", reason="a Space needs gradio, whose version it pins")

SPACE, MODEL, DATA = "org/flavour-demo", "org/flavour-fusion", "org/flavour-sd"


@pytest.fixture
def published(connected_hub, tmp_path):
    publish_model(make_run(tmp_path / "run"), MODEL, "1.0.0")
    publish(write_build(tmp_path / "build", make_rows()), DATA, "1.0.0", "cc0-1.0")
    return connected_hub


def test_one_commit_that_is_repeatable_without_weights_and_with_pinned_revisions(published):
    said = publish_space(SPACE, [MODEL], DATA)
    assert said.startswith(f"published {SPACE}: commit ")
    api = HfApi()
    names = set(api.list_repo_files(SPACE, repo_type="space"))
    assert {"README.md", "app.py", "requirements.txt", "examples/titles.json", "trainer_scripts/app.py"} <= names
    assert not [name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pyc"))]
    card = split_card(Path(api.hf_hub_download(SPACE, "README.md", repo_type="space")).read_text())
    assert (card[0]["sdk"], card[0]["app_file"], card[0]["models"]) == ("gradio", "app.py", [MODEL])
    app = Path(api.hf_hub_download(SPACE, "app.py", repo_type="space")).read_text()
    assert f'["{MODEL}@v1.0.0", "--dataset", "{DATA}@v1.0.0"]' in app, "the newest version, by its tag"
    commits = len(api.list_repo_commits(SPACE, repo_type="space"))
    assert "nothing changed" in publish_space(SPACE, [MODEL], DATA)
    assert "published" in publish_space(SPACE, [f"{MODEL}@v1.0.0"])
    assert len(api.list_repo_commits(SPACE, repo_type="space")) == commits + 1


def test_a_space_of_another_use_is_left_alone(published):
    api = HfApi()
    api.create_repo(SPACE, repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=b"print(1)", path_in_repo="mine.py", repo_id=SPACE, repo_type="space")
    with pytest.raises(BadInputError, match=r"org/flavour-demo holds mine\.py, which no release"):
        publish_space(SPACE, [MODEL])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((SPACE, []), "a Space shows models or data; give --model"),
        (("demo", [MODEL]), "'demo' names no namespace; give --space namespace/name"),
        ((SPACE, ["org/a/b"]), "'org/a/b' is no repository name .*; give --model namespace/name"),
        ((SPACE, [MODEL], "nothing"), "'nothing' names no namespace; give --dataset namespace/name"),
        ((SPACE, ["org/nothing"]), "cannot find the model 'org/nothing'"),
        ((SPACE, [f"{MODEL}@v9.0.0"]), "cannot find the model 'org/flavour-fusion@v9.0.0'"),
    ],
)
def test_what_cannot_be_shown_is_refused(published, given, message):
    with pytest.raises(BadInputError, match=message):
        publish_space(*given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", SPACE, "--license", "mit"], "a Space is published by a command of its own; leave --license out"),
        (["build", "--repo", DATA], "publish needs --version, --license; for a Space give --space"),
        (["build", "--model", MODEL], "--model is for a Space; give --space too"),
    ],
)
def test_options_of_the_other_kind_are_refused(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(["publish", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_requirements_are_exact_where_gradio_allows_it():
    lines = requirements().splitlines()
    assert all("==" in line or line.startswith("pillow") for line in lines)
    assert any(line.startswith("transformers==") for line in lines)
    assert not any(line.startswith("gradio") for line in lines), "the Hub brings it, by sdk_version"


def test_the_folder_runs_as_it_is(published, tmp_path):
    """By plain `python app.py`, with models and data of the Hub at their revisions."""
    folder = tmp_path / "space"
    words = ["--space", SPACE, "--model", MODEL, "--dataset", DATA, "--dry-run", str(folder)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["publish", *words])
    assert ended.value.code == 0
    assert yaml.safe_load((folder / "README.md").read_text().split("---")[1])["title"] == "Flavour demo"
    assert set(json.loads((folder / "examples" / "titles.json").read_text())) <= set(os.listdir(folder / "examples"))
    given = {**os.environ, "HF_ENDPOINT": published.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    given.pop("PYTHONPATH", None)
    # The folder of a script comes first among the places of modules, so that its own packages run.
    server = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=given, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("serving on http://"), line
        address = line.split()[2]
        for _ in range(50):
            try:
                with urllib.request.urlopen(address, timeout=10) as page:
                    text = page.read().decode()
                break
            except OSError:
                time.sleep(0.2)
        assert "flavour-fusion@v1.0.0" in text
    finally:
        server.terminate()
        server.wait(20)
