"""Labels as annotation tools export them, written as a `dataset=folder`."""
