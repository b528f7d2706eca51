"""One label or several labels per row."""
