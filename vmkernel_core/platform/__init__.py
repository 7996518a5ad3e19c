"""Platforms: where hardware comes from."""
