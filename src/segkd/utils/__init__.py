"""Files, tables, threads, signals and devices."""
