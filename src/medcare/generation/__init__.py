"""Batched decoding and option scoring."""

from medcare.generation.ending import answer_ends
from medcare.generation.greedy import generate, stream_generate
from medcare.generation.option_scoring import score_options, stream_option_scores

__all__ = ["answer_ends", "generate", "score_options", "stream_generate", "stream_option_scores"]
