"""Rigid registration of X-rays to a CT. Frames and conventions: docs/conventions.md."""

__version__ = "0.1.0"
