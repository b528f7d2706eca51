"""Settings and fixtures shared by all tests: no network, few threads, the real samples where they are at hand."""

import os
from pathlib import Path

# Set before any library reads them: tests talk to no Hub but the one on loopback, which sets its own endpoint.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    torch.set_num_threads(min(2, os.cpu_count() or 1))


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
    from tests.local_hub import LocalHub

    with LocalHub(tmp_path / "hub", tokens={"hf_writer": "org"}) as hub:
        yield hub
