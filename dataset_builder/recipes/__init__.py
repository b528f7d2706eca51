"""From any recipe table to dishes."""
