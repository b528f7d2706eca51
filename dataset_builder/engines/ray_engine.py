"""Units of work on a Ray cluster: an actor per core or GPU, each with one unit at a time, replaced where it is lost."""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from dataset_builder.engines.work import Report, Work
from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown

# Seconds between looks at the cluster for new and lost nodes.
_LOOK = 1.0
_ANSWERS = 5  # seconds in which the address of a cluster must answer
# What a client of gRPC says first (RFC 9113, 3.4), with no settings of its own, and the kind of frame that answers it.
_GREETING, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 4
_AHEAD = 3  # units per actor that may be done before their turn comes
_MOST_LOSSES = 5  # workers that one unit may take with it


class RayEngine:
    """Runs work on a Ray cluster.

    Args:
        address: of the cluster, such as `auto`, `10.0.0.1:6379` or `ray://10.0.0.1:10001`; None for one that runs on
            this machine, or that is started for this command.
        workers: actors; None for as many as the cluster has room for, also when nodes come and go.

    Raises:
        BadInputError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None):
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise BadInputError("--engine ray needs Ray; pip install 'flavour-fusion[ray]'") from error
        self._address, self._workers = address, workers

    def run(self, work: Work, units: Iterable[Any], report: Report | None = None) -> Iterator[Any]:
        """Yield the results of the units in their order, see `work.Engine`."""
        with _connected(self._address):
            actors = _Actors(work, self._workers)
            try:
                yield from actors.run(iter(units), report)
            finally:
                actors.end()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster inside the block, unless this process is connected already.

    Raises:
        BadInputError: no Ray answers.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    _refuse_silence(address)
    # Without these a wrong address is tried for minutes.
    os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", str(_ANSWERS))
    os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", str(_ANSWERS))
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray has no common class for what goes wrong on the way to a cluster
        raise BadInputError(_no_ray(address or "auto")) from error
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_silence(address: str | None) -> None:
    """Raise BadInputError where nothing listens at the address of a cluster, or a server that does not speak gRPC.

    Ray itself would try to reach such a server for minutes.
    """
    if address in (None, "auto", "local"):
        return
    try:
        place = urlsplit(str(address) if "://" in str(address) else f"//{address}")
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=_ANSWERS) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":  # what it says then is encrypted
                return
            connection.sendall(_GREETING)
            answer = b""
            # The head of a frame: three bytes of length, and its kind.
            while len(answer) < 4 and (more := connection.recv(9)):
                answer += more
            if answer[3:4] != bytes([_SETTINGS]):
                raise ConnectionError("no gRPC")
    except (OSError, ValueError, OverflowError) as error:
        raise BadInputError(_no_ray(str(address))) from error


def _no_ray(address: str) -> str:
    return (
        f"no Ray cluster answers at {shown(address)}; start one with `ray start --head`, give its HOST:PORT as "
        "--address, or leave --address out for one on this machine"
    )


class _Worker:
    """What an actor is: it starts the work once, and says where it fails instead of raising.

    Errors come back as values: raised, Ray would wrap them into a text with a traceback.
    """

    def __init__(self, work: Work, number: int):
        self._work, self._number = work, number
        self._do: Callable[[Any, Report], Any] | None = None

    def ready(self) -> None:
        """Answer as soon as the actor has a place."""

    def do(self, unit: Any) -> tuple[Any, int, Exception | None]:
        """Return the result of a unit, what was finished in it, and the error in place of a result."""
        finished: list[int] = []
        try:
            if self._do is None:
                self._do = self._work.start(self._number, 1)
            return self._do(unit, finished.append), sum(finished), None
        except (BadInputError, OSError) as error:
            return None, 0, error


class _Actors:
    """The actors of one run, and the units that they have."""

    def __init__(self, work: Work, most: int | None):
        self._work, self._most = work, most
        self._busy: dict[Any, tuple[Any, int, Any]] = {}  # answer to come -> actor, number and unit
        self._starting: dict[Any, Any] = {}  # answer to come -> actor that waits for a place
        self._idle: list[Any] = []
        self._again: deque[tuple[int, Any]] = deque()  # units of lost actors
        self._losses: dict[int, int] = {}
        self._started = 0

    def run(self, units: Iterator[Any], report: Report | None) -> Iterator[Any]:
        results: dict[int, Any] = {}
        given = following = 0
        more = True
        while True:
            self._fill()
            # Ray gives an actor its next unit when it asks for one; results that wait for their turn are bounded, too.
            while self._idle and (self._again or (more and given - following < _AHEAD * max(1, self._count))):
                if self._again:
                    number, unit = self._again.popleft()
                else:
                    try:
                        number, unit = given, next(units)
                    except StopIteration:
                        more = False
                        continue
                    given += 1
                actor = self._idle.pop()
                self._busy[actor.do.remote(unit)] = (actor, number, unit)
            if not self._busy and not self._again and not more:
                return
            for number, result, finished in self._answers():
                if report is not None and finished:
                    report(finished)
                results[number] = result
            while following in results:
                yield results.pop(following)
                following += 1

    @property
    def _count(self) -> int:
        return len(self._busy) + len(self._starting) + len(self._idle)

    def _fill(self) -> None:
        """Start actors until each core or GPU of the cluster has one."""
        import ray

        room = ray.cluster_resources()
        kind = "GPU" if self._work.uses_gpu and room.get("GPU") else "CPU"
        wanted = int(room.get(kind, 0)) if self._most is None else self._most
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1}
        while self._count < max(1, wanted):
            # Not restarted by Ray but replaced here: a restarted actor waits for a place with its unit in its hands.
            kind_of_actor: Any = ray.remote(_Worker)
            actor = kind_of_actor.options(max_restarts=0, **options).remote(self._work, self._started)
            self._starting[actor.ready.remote()] = actor
            self._started += 1

    def _answers(self) -> Iterator[tuple[int, Any, int]]:
        """Yield number, result and count of the units that were finished; units of lost actors come again."""
        import ray
        from ray.exceptions import RayError

        ready, _ = ray.wait([*self._busy, *self._starting], num_returns=1, timeout=_LOOK)
        for answer in ready:
            if answer in self._starting:
                actor = self._starting.pop(answer)
                try:
                    ray.get(answer)
                except RayError:
                    continue  # its node went before it came; another one follows
                self._idle.append(actor)
                continue
            actor, number, unit = self._busy.pop(answer)
            try:
                result, finished, error = ray.get(answer)
            except RayError as lost:
                self._losses[number] = self._losses.get(number, 0) + 1
                if self._losses[number] >= _MOST_LOSSES:
                    raise OSError(
                        f"{_MOST_LOSSES} workers were lost over one part of the work ({shown(lost)}); "
                        "repeat the command to go on"
                    ) from lost
                self._again.append((number, unit))
                continue
            if error is not None:
                raise error
            self._idle.append(actor)
            yield number, result, finished

    def end(self) -> None:
        """Give back the places of all actors."""
        import ray

        for actor in (*self._idle, *self._starting.values(), *(one for one, _, _ in self._busy.values())):
            ray.kill(actor)
