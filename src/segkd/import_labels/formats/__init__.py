"""Readers: one export format each, with what it needs beside it."""
