from tests.scored_run import fresh_run, scored_run

__all__ = ["fresh_run", "scored_run"]
