"""The app: its models, its pages and its server."""
