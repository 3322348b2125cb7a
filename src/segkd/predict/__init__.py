"""Predict images, videos and camera streams."""
