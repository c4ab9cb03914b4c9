"""What pages that are shown in a tab of their own may do."""

SHUT_IN = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)
"""A report has its styles and its script inside, and needs nothing else. The sandbox keeps a report that was
made elsewhere from asking this server for anything in the reader's name."""
