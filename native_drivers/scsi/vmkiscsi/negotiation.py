"""What a target answers during a login, key by key (RFC 7143, 13). libiscsi tells it to its log, and to nobody else."""

from __future__ import annotations

#: How much the library logs (its ISCSI_LOG levels): all that it is answered; what befalls a connection.
ANSWERS, TROUBLE = 6, 2
_ANSWER = "TargetLoginReply: "
_GIVEN_UP = "reconnect deferred"
#: What is kept: what holds for a session, what is declared of the target (RFC 7143, 13), and how both sides proved who
#: they are (12).
KEYS = frozenset({
    "AuthMethod", "DataDigest", "DataPDUInOrder", "DataSequenceInOrder", "DefaultTime2Retain", "DefaultTime2Wait",
    "ErrorRecoveryLevel", "FirstBurstLength", "HeaderDigest", "ImmediateData", "InitialR2T", "MaxBurstLength",
    "MaxConnections", "MaxOutstandingR2T", "MaxRecvDataSegmentLength", "TargetAlias", "TargetPortalGroupTag",
})  # fmt: skip


class Negotiation:
    """The answers of one login: ``agreed``, by key. ``given_up``: the library has no use for the connection any more.

    ``proven``: the target proved to know its secret of mutual CHAP.
    """

    def __init__(self, target: str | None) -> None:
        """``target`` is what the library knows as the name of the target; None: none."""
        # What holds where a target says nothing of it, or is not asked.
        self.agreed = dict.fromkeys(("AuthMethod", "HeaderDigest", "DataDigest"), "None")
        self.given_up = False
        self._named = self._responded = False
        # The library puts it behind each message.
        self._behind = f" [{target}]" if target else ""

    def hear(self, message: str) -> None:
        """A line of the library's log."""
        if message.startswith(_GIVEN_UP):
            self.given_up = True
        if not message.startswith(_ANSWER):
            return
        key, _, value = message.removeprefix(_ANSWER).removesuffix(self._behind).partition("=")
        if key in KEYS:
            self.agreed[key] = value
        elif key == "CHAP_N":
            self._named = True
        elif key == "CHAP_R":
            # The library compares it with zeros while it has sent no challenge.
            self._responded = bool(value.removeprefix("0x").strip("0"))

    @property
    def proven(self) -> bool:
        """The library refuses a wrong name or response, but lets a target in that skips this stage and gives neither."""
        return self._named and self._responded
