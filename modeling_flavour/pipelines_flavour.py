"""Pipelines of the family, for `pipeline(task, model=..., trust_remote_code=True)`."""

CLASSIFICATION_PIPELINE: dict[str, dict] = {}
