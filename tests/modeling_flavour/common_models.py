"""transformers' own common model tests, fetched from its source distribution when they are first wanted.

The installed package holds no tests, and copies of them are not kept here. `common_model_tests()` downloads the source
distribution of the installed version through pip into pytest's cache, once, and imports the test mixins from there.
"""

import importlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import transformers
import transformers.testing_utils
from filelock import FileLock

CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "transformers_tests" / transformers.__version__
PACKAGE = "transformers_common_tests"

# Mixins of folders that the distribution leaves out. Each is tested by transformers on accelerators or exporters.
ABSENT_MIXINS = {
    "exporters/test_export.py": "class ExportTesterMixin: pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin: pass\n",
}


def common_model_tests() -> ModuleType:
    """The module `test_modeling_common` of the installed version; skips the caller where it cannot be had."""
    CACHE.mkdir(parents=True, exist_ok=True)
    # Test processes that run side by side want it at the same moment.
    with FileLock(CACHE / ".lock"):
        if not (CACHE / PACKAGE).is_dir():
            fetch()
    if str(CACHE) not in sys.path:
        sys.path.insert(0, str(CACHE))
    module = importlib.import_module(f"{PACKAGE}.test_modeling_common")
    set_fields = transformers.testing_utils.set_config_for_less_flaky_test

    def set_fields_of_parts(config):
        # The original sets fields such as `layer_norm_eps` on any config; ours refuse fields they do not have.
        for name in config.sub_configs:
            if getattr(config, name) is not None:
                set_fields(getattr(config, name))

    module.set_config_for_less_flaky_test = set_fields_of_parts
    return module


def pip(*arguments: str) -> None:
    """Run pip in this environment; skip the caller if it fails, with its last line as the reason."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", "--retries", "1"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"transformers' own tests cannot be fetched: {reason}", allow_module_level=True)


def fetch() -> None:
    """Download the distribution and lay its common tests out as a package, with the library they are written with."""
    pip("install", "--no-deps", "--target", str(CACHE), "parameterized")
    with tempfile.TemporaryDirectory() as folder:
        source = f"transformers=={transformers.__version__}"
        pip("download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", folder, source)
        unpacked = Path(folder, PACKAGE)
        unpacked.mkdir()
        with tarfile.open(next(Path(folder).glob("transformers-*.tar.gz"))) as archive:
            for member in archive:
                path = Path(member.name)
                if len(path.parts) == 3 and path.parts[1] == "tests" and path.suffix == ".py":
                    (unpacked / path.name).write_bytes(archive.extractfile(member).read())
        (unpacked / "__init__.py").touch()
        for name, text in ABSENT_MIXINS.items():
            (unpacked / name).parent.mkdir(exist_ok=True)
            (unpacked / name).parent.joinpath("__init__.py").touch()
            (unpacked / name).write_text(text)
        unpacked.rename(CACHE / PACKAGE)
