"""The report: one HTML file that needs nothing else, figures and tables as files beside it."""
