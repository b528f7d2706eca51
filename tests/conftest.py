"""Settings and fixtures shared by all tests: no network, few threads, the real samples where they are at hand."""

import os
from pathlib import Path

# Set before any library reads them: tests talk to no Hub but the one on loopback, which sets its own endpoint.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
# For processes that tests start, as below for this one: the last bit of a sum depends on the number of threads too.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny models lose far more time to threads that wait for each other than they gain from a second one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real samples; tests that need it skip where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real samples is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of small pretrained backbones; tests that need it skip where it is absent."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip("the folder of pretrained backbones is not beside this checkout")
    return folder


@pytest.fixture
def local_hub(tmp_path):
    """An empty Hub on loopback; the token `hf_writer` may write to `org`."""
    from dataset_builder.local_hub.server import LocalHub

    with LocalHub(tmp_path / "hub", tokens={"hf_writer": "org"}) as hub:
        yield hub


def connect(hub, monkeypatch, cache) -> None:
    """Make a Hub on loopback the Hub of this process: clients write to `org`, and do not pause between attempts."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
    # datasets copies both settings when it is imported.
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", Path(cache) / "datasets")
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(
        "huggingface_hub.hf_api.api.endpoint", hub.url
    )  # of the functions without an HfApi of their own
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it keeps the address that it was first made with
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def connected_hub(local_hub, monkeypatch, tmp_path):
    """The Hub on loopback as the Hub of this process; see `connect`."""
    connect(local_hub, monkeypatch, tmp_path / "cache")
    return local_hub


S3_SECRET = "a-secret-that-no-message-shows"


# Of one process all servers of moto share their content, so that there is one.
@pytest.fixture(scope="session")
def s3():
    """An S3 server with the bucket `sets`; this process and those that it starts use it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    patched = pytest.MonkeyPatch()
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    patched.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    patched.setenv("AWS_ACCESS_KEY_ID", "key")
    patched.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    patched.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patched.setenv("NO_PROXY", "127.0.0.1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("sets")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()
    patched.undo()
