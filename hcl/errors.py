"""The errors of the hardware compatibility list; it stands alone, so they have a root of their own."""


class HclError(Exception):
    """Something about the list, or a question put to it, is wrong in a way that a person can mend.

    ``str(error)`` is one line for people: ``what (where); remedy``. ``exit_code`` is what a console
    command that ends with this error returns to the shell: 3, bad usage or input.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        """Name what is wrong, where it stands and what mends it."""
        self.what = what
        self.where = where
        self.remedy = remedy
        text = f"{what} ({where})" if where else what
        super().__init__(f"{text}; {remedy}" if remedy else text)


class RegistryError(HclError):
    """A registry file cannot be read, or says something that cannot be; ``where`` is ``file:line``.

    ``rule`` is the linter's name for what is wrong (``hcl.lint.RULES``).
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "", rule: str = "damaged") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.rule = rule


class BadRelease(HclError):
    """A file is no release of the list that this version knows."""


class UnknownKernel(HclError):
    """The registry says nothing about this kernel release."""


class BadIds(HclError):
    """A PCI id or class code is out of its range: ids have 16 bits, class codes 24."""


class BadInventory(HclError):
    """An inventory cannot be read, or holds what cannot be; ``where`` is the file, and the line where there is one."""


class BadEvidence(HclError):
    """A file is no evidence of a certification run."""


class BadKey(HclError):
    """A key cannot be read, or is of another kind."""


class BadSignature(HclError):
    """A document was changed after it was signed, or nobody who is trusted signed it."""


class CannotWrite(HclError):
    """A file cannot be written; what was there before is still there."""

    exit_code = 4


class BadRule(HclError):
    """A rule of ``--exclude`` or ``--override`` says nothing."""


class NoCluster(HclError):
    """There is no Dask, or no cluster that answers."""

    exit_code = 4
