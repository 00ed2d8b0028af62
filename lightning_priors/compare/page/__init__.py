"""The report of a comparison as one page."""
