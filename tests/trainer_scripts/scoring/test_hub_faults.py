"""Reading a model or a data set from a Hub that fails in every way: the right rows and weights, or one line."""

import shutil
import time

import pytest
from huggingface_hub import HfApi

from dataset_builder import boundaries
from dataset_builder.errors import BadInputError
from dataset_builder.local_hub.server import FAULTS
from tests.conftest import connect
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.scoring.saved_model import load_model

STATUSES = ("403", "404", "429", "500", "503")
# Request of the client -> how many of its requests come before, so that the fault meets the file that matters too.
REQUESTS = [("resolve", 0), ("resolve", 3), ("info", 0), ("tree", 0), ("paths", 0), ("refs", 0)]

QUICK = {("resolve", 0, 99)}


@pytest.fixture(scope="module")
def trained(small_dataset, tmp_path_factory):
    return run(
        tmp_path_factory.mktemp("trained") / "model", small_dataset, "--num_train_epochs", "1", "--modality", "text"
    )


@pytest.fixture
def hub(local_hub, trained, small_dataset, monkeypatch, tmp_path):
    """The Hub with a model and a data set, read through an empty cache, without waiting between tries."""
    connect(local_hub, monkeypatch, tmp_path / "cache")
    api = HfApi()
    for kind, folder in (("model", trained), ("dataset", small_dataset)):
        api.create_repo(f"org/{kind}", repo_type=kind, exist_ok=True)
        api.upload_folder(repo_id=f"org/{kind}", repo_type=kind, folder_path=folder)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    monkeypatch.setattr(boundaries, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    yield local_hub
    local_hub.mend()


def told(read) -> str | None:
    """Return the message of refused input, None where the reading succeeds."""
    try:
        read()
    except BadInputError as error:
        return str(error)
    return None


# A few always, all of the table among the slow tests.
SCENARIOS = [
    pytest.param(kind, skip, how, times, marks=() if (kind, skip, times) in QUICK else pytest.mark.slow)
    for kind, skip in REQUESTS
    for how in (*FAULTS, *STATUSES)
    for times in (1, 99)
]


@pytest.mark.parametrize(("kind", "skip", "how", "times"), SCENARIOS)
def test_a_model_is_read_whole_or_refused_in_one_line(hub, trained, kind, skip, how, times):
    hub.inject(kind, how, times, skip)
    started = time.monotonic()
    found = []
    message = told(lambda: found.append(load_model("org/model")))
    assert time.monotonic() - started < 60
    assert message is None or (message.isprintable() and len(message) < 1400)
    if message is None:
        ours, right = found[0].model.state_dict(), load_model(str(trained)).model.state_dict()
        assert all(bool((ours[name] == value).all()) for name, value in right.items())
        assert found[0].names == load_model(str(trained)).names


@pytest.mark.parametrize("how", ["flip", "short", "429", "html"])
def test_rows_are_read_whole_or_refused_in_one_line(hub, small_dataset, how):
    hub.inject("resolve", how, 99, 2)
    found = []
    message = told(lambda: found.append(open_dataset("org/dataset")))
    if message is None:
        assert found[0]["test"]["title"][:] == open_dataset(str(small_dataset))["test"]["title"][:]
    assert message is None or (message.isprintable() and len(message) < 1400)
    assert how != "flip" or "is not the file that the Hub states" in str(message)
