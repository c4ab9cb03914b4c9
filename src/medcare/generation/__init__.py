"""Batched decoding and option scoring."""

from medcare.generation.greedy import end_of_turn_ids, generate, stream_generate
from medcare.generation.options import score_options, stream_option_scores

__all__ = ["end_of_turn_ids", "generate", "score_options", "stream_generate", "stream_option_scores"]
