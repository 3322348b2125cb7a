"""The configuration: its schema, and classes that it names."""
