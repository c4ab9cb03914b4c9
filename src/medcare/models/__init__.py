"""The base model: loading, what it can do, quantised weights, tensor files."""
