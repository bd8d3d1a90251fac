"""Torch modules, and the one safe way to load their weights."""
