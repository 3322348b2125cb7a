"""Write a report that compares runs."""
