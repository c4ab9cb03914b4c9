"""What leaves this package: adapters, model cards, GGUF files, and a hub's repository."""
