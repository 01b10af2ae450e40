"""Analysers: small programs of a teacher that judge what a run has left (docs/analysers.md).

What the author of one imports is here, and nothing else is loaded for it:

    from hwsync.analysers import Analysis

    def analyse(run):
        right = run.stdout.strip() == "42"
        return Analysis(passed=right, message="Well done." if right else "It is not 42.")

Who runs them imports ``hwsync.analysers.folder`` and ``hwsync.analysers.engine``.
"""

from hwsync.analysers.run import Analysis, Run

__all__ = ["Analysis", "Run"]
