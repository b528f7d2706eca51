"""From a plan to finished shards: rows, workers, splits, manifest."""
