"""The embedded benchmark: real medical knowledge out of two packages, no download."""

from medcare.benchmark.build import Benchmark, build, write

__all__ = ["Benchmark", "build", "write"]
