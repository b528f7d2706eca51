"""The plating pipeline: a simulator that draws a plate from its ingredients."""
