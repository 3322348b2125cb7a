"""Run a study: methods over seeds, trained, scored and tabulated."""
