"""Why a machine has stopped, told to the one that leads: small notes in the artifact store."""

from __future__ import annotations

import json

from pipeline_common.artifacts import ArtifactStore
from pipeline_common.errors import ConfigError, InputError, exit_code_of
from pipeline_common.logs import get_logger
from pipeline_common.members import Member
from pipeline_common.redaction import environment_secrets, scrub

_log = get_logger(__name__)


class MachineFailures:
    """One machine's view of the notes; with a single machine there are none."""

    def __init__(self, store: ArtifactStore, prefix: str, member: Member) -> None:
        """Name the notes.

        Args:
            store: that all machines share.
            prefix: of the notes' keys.
            member: which machine this is.
        """
        self._store = store
        self._prefix = prefix
        self._member = member

    def tell(self, error: BaseException) -> None:
        """A machine that does not lead: say why it stops."""
        reason = scrub(str(error) or type(error).__name__, environment_secrets())
        note = json.dumps({"exit_code": exit_code_of(error), "reason": reason})
        self._store.put_bytes(self._key(self._member.index), note.encode())

    def forget(self) -> None:
        """Take back what earlier attempts said: the leader everybody's, another machine its own."""
        member = self._member
        for index in range(1, member.nodes) if member.leads else (member.index,):
            self._store.delete(self._key(index))

    def heed(self) -> None:
        """Leader: warn of what another attempt of that machine may mend.

        Raises:
            ConfigError: what none would mend,
            InputError: in the machine's own words.
        """
        for machine in range(1, self._member.nodes):
            content = self._store.get_bytes(self._key(machine))
            if content is None:
                continue
            note = json.loads(content)
            said = f"machine {machine}: {note['reason']}"
            for kind in (ConfigError, InputError):
                if note["exit_code"] == kind.exit_code:
                    raise kind(said)
            _log.warning("%s; waiting for another attempt of it", said)
            self._store.delete(self._key(machine))

    def _key(self, machine: int) -> str:
        return f"{self._prefix}-failed-{machine}"
