"""A Hub on loopback: enough of the Hugging Face Hub for the unmodified client libraries to publish to and read from.

It is bound to 127.0.0.1, checks tokens and keeps immutable commits of content-addressed files in a folder, so that a
hub opened again on that folder serves the same repositories. Clients find it through `HF_ENDPOINT`:

    with LocalHub(folder, tokens={"hf_writer": "org"}) as hub:
        print(hub.url)
        print(hub.run_python("from datasets import load_dataset; print(load_dataset('org/flavour-sd'))"))

As a program, until Ctrl-C: `python -m dataset_builder.local_hub.server --folder hub --port 8077 --token hf_writer=org`.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from dataset_builder.local_hub.handler import ROUTES, Handler, Request
from dataset_builder.local_hub.store import Store
from dataset_builder.messages import echo

HOST = "127.0.0.1"
# Fault of a request -> what the client gets.
FAULTS = {
    "error": "the answer 500",
    "refuse": "the answer 401",
    "drop": "a connection that closes before anything is done",
    "lose": "a connection that closes after it is done",
    "short": "half of the content, then a connection that closes",
    "flip": "the right headers, and content with one changed byte",
    "html": "a page of HTML with the status 200, as proxies send",
    "other": "JSON of another form with the status 200",
}
OUR_PACKAGES = ("dataset_builder", "modeling_flavour", "trainer_scripts", "model_cards", "tests")

# Put before the code of `run_python`: an editable install would otherwise make our packages importable everywhere.
HIDE_PACKAGES = """
import sys
class _Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(name + " is hidden from this process", name=name)
sys.meta_path.insert(0, _Hidden())
"""


class LocalHub:
    """A Hub that serves from a folder while its `with` block lasts.

    Args:
        folder: of the repositories.
        tokens: token -> namespace that it may write to; requests without a token may read public repositories.
        port: 0 takes a free one.

    Attributes:
        requests: every request answered so far.
    """

    def __init__(self, folder: str | os.PathLike, tokens: Mapping[str, str], port: int = 0):
        self.folder = Path(folder).resolve()
        self.tokens = dict(tokens)
        self.port = port
        self.upload_key = secrets.token_urlsafe(16)
        self.requests: list[Request] = []
        # Faults of the next requests of each kind, None where one passes.
        self._faults: defaultdict[str, list[str | None]] = defaultdict(list)

    def __enter__(self) -> "LocalHub":
        self.store = Store(self.folder)
        handler = type("BoundHandler", (Handler,), {"hub": self})
        try:
            self._server = ThreadingHTTPServer((HOST, self.port), handler)
        except OSError as error:
            message = (
                f"port {self.port} of {HOST} cannot be served ({error.strerror}); name another one, or 0 for a free one"
            )
            raise OSError(message) from error
        # Connections that clients keep open must not delay the end.
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self.folder / "homes", ignore_errors=True)

    @property
    def url(self) -> str:
        """The address for `HF_ENDPOINT`."""
        return f"http://{HOST}:{self.port}"

    def inject(self, kind: str, how: str, times: int = 1, skip: int = 0) -> None:
        """Let requests of one kind (a name in `ROUTES`) fail.

        Args:
            how: one of `FAULTS`, or a status such as "429" that is answered.
            times: how many requests fail.
            skip: how many pass before the first one fails.
        """
        if not (how in FAULTS or how.isdigit()) or kind not in {route[0] for route in ROUTES}:
            raise ValueError(f"no fault {how!r} of requests {kind!r}")
        self._faults[kind] += [None] * skip + [how] * times

    def mend(self) -> None:
        """Remove all injected faults."""
        self._faults.clear()

    def next_fault(self, kind: str) -> str | None:
        """Return the fault of the present request of this kind, None for no fault."""
        with self.store.lock:
            return self._faults[kind].pop(0) if self._faults[kind] else None

    def environment(self, token: str | None = None, home: str | os.PathLike | None = None) -> dict[str, str]:
        """Return the environment variables of a process that uses this hub.

        Its caches are new and are deleted when the hub is closed, unless `home` names a folder for them.
        """
        (self.folder / "homes").mkdir(exist_ok=True)
        home = home or tempfile.mkdtemp(dir=self.folder / "homes")
        # Tokens and addresses of the real Hub must not reach the process.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        ours = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": HOST,
            "no_proxy": HOST,
        }
        return {**kept, **ours, **({"HF_TOKEN": token} if token else {})}

    def run_python(
        self, code: str, token: str | None = None, home: str | os.PathLike | None = None, **more: str
    ) -> str:
        """Run code in a fresh process, in an empty folder, where our packages cannot be imported.

        Args:
            code: Python source.
            token: sent by the clients; without one they read only.
            home: folder of the clients' caches; a new one by default.
            more: further environment variables.

        Returns:
            Its output on stdout.

        Raises:
            RuntimeError: it failed; the message holds its output on stderr.
        """
        environment = {**self.environment(token, home), **more}
        command = [sys.executable, "-c", HIDE_PACKAGES.format(names=OUR_PACKAGES) + code]
        with tempfile.TemporaryDirectory() as elsewhere:
            done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the process ended with {done.returncode}:\n{done.stderr}")
        return done.stdout


def main() -> None:
    """Serve a folder until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/hub"))
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN=NAMESPACE", help="may be repeated")
    parsed = parser.parse_args()
    tokens = dict(entry.partition("=")[::2] for entry in parsed.token)
    with exit_on_bad_input("local_hub"), LocalHub(parsed.folder, tokens, parsed.port) as hub:
        echo(f"HF_ENDPOINT={hub.url}")
        threading.Event().wait()


if __name__ == "__main__":
    main()
