"""Build objects from settings."""
