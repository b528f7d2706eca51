"""A Hub on loopback for tests and demos."""
