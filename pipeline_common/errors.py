"""Errors that tell a person what came, what was expected and what to do. The class sets the exit code.

| code | meaning | retry |
| --- | --- | --- |
| 0 | done | - |
| 1 | unexpected or transient | yes |
| 2 | configuration or usage | no |
| 3 | an input is missing or damaged | no |
| 143 | stopped by SIGTERM with its state saved | yes, resumes |
"""

from __future__ import annotations


class PipelineError(Exception):
    """Anything the pipeline can explain; shown without a traceback."""

    exit_code = 1


class TransientError(PipelineError):
    """Worth another attempt: a server away, a disk full, memory gone."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration or the command line is wrong; trying again changes nothing."""

    exit_code = 2


class InputError(PipelineError):
    """An input is missing, damaged or unfit; trying again changes nothing."""

    exit_code = 3


class TerminatedError(PipelineError):
    """SIGTERM arrived and the state is saved; the next attempt resumes."""

    exit_code = 143
