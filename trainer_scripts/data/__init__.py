"""From a data set to batches: tables, splits, pictures, masks, samples, tokenizers, streaming."""
