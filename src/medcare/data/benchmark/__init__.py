"""The embedded benchmark: real medical knowledge out of two packages, no download."""

from medcare.data.benchmark.build import Benchmark, build, write

__all__ = ["Benchmark", "build", "write"]
