"""Errors that tell a person what came, what was expected and what to do. The class sets the exit code.

| code | meaning | retry |
| --- | --- | --- |
| 0 | done | - |
| 1 | unexpected or transient | yes |
| 2 | configuration or usage | no |
| 3 | an input is missing or damaged | no |
| 4 | the verdict is damaged, with `analyze.gate` (no error: the stage is done) | no |
| 130 | interrupted by Ctrl-C | yes, goes on |
| 143 | stopped by SIGTERM with its state saved | yes, resumes |
"""

from __future__ import annotations

from typing import Final

EXIT_INTERRUPTED: Final = 130
"""After Ctrl-C, as shells count it: 128 + SIGINT."""


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


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error asks for; 1 for what the pipeline cannot explain."""
    return error.exit_code if isinstance(error, PipelineError) else PipelineError.exit_code


def error_class(exit_code: int) -> type[PipelineError]:
    """The class of another process's error; an exit code that names none is worth another attempt."""
    classes = {kind.exit_code: kind for kind in (TransientError, ConfigError, InputError, TerminatedError)}
    return classes.get(exit_code, TransientError)
