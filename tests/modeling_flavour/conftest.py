"""Settings for the tests of models: one thread, and the markers that transformers' own tests carry."""

import pytest
import torch

# pytest refuses unknown markers here.
MARKERS = (
    "accelerate_tests",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "flash_attn_test",
    "is_pipeline_test",
    "is_staging_test",
    "torch_compile_test",
)


def pytest_configure(config):
    for name in MARKERS:
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads that share tiny tensors mostly wait for each other: two are up to 15 times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
