"""Which engine runs the work of a command."""

from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError

LOCAL, RAY = ENGINES = ("local", "ray")


def engine_named(name: str, address: str | None = None, processes: int | None = None) -> Engine:
    """Return an engine by its name on the command line.

    Args:
        name: "local" or "ray".
        address: of a Ray cluster; None for one that runs here, or that is started for this command.
        processes: workers; None for as many as suit, which is one per core or GPU with Ray.

    Raises:
        BadInputError: an unknown name, options that do not go together, or no Ray.
    """
    if processes is not None and processes < 1:
        raise BadInputError(f"--processes is {processes}; give a whole number of at least 1")
    if name == RAY:
        from dataset_builder.engines.ray_engine import RayEngine

        return RayEngine(address, processes)
    if name != LOCAL:
        raise BadInputError(f"--engine is {name!r}; allowed are {', '.join(ENGINES)}")
    if address is not None:
        raise BadInputError(f"--address {address} is that of a Ray cluster; give --engine ray too, or leave it out")
    from dataset_builder.engines.local import LocalEngine

    return LocalEngine(processes)
