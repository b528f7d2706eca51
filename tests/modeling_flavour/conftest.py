"""The markers that transformers' own tests carry."""

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
