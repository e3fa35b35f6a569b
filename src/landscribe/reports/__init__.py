"""A report of a run: pages, figures and contact sheets of chips."""
