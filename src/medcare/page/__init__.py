"""The server's web page: asking, exams, runs as they train, comparisons; its routes and its files."""
