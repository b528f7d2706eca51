"""What all tasks share: their base class, the Trainer, starting points, graphs for export."""
