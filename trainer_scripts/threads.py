"""What must be settled before torch is imported."""

import os


def let_waiting_threads_sleep() -> None:
    """Let threads that wait for each other sleep rather than spin, unless the environment says otherwise.

    Spinning is faster on an idle machine; beside any other program the spinning thread holds the very core
    that it waits for, and a training step takes many times as long. The OpenMP runtime reads the variable once, when
    torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
