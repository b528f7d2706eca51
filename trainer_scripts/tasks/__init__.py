"""The tasks: what each learns, how it is trained, and how its answers are judged."""
