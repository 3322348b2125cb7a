"""Serve a web demo."""
