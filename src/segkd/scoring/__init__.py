"""How good a network is on a data set: ways to look at an image, scores that hear each answer, files for a test server."""
