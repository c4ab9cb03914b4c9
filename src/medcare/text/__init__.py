"""Messages to token ids and loss mask, and those to batches."""
