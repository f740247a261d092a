"""Which token is what: prefix tokens by name, then patches on a grid. Needs no torch."""

from dataclasses import dataclass

import numpy as np

from registers.audit.errors import AuditError

CLS = "[CLS]"
DISTILLED = "[DIST]"
REGISTER = "register"
ADDED = "test-time register"


@dataclass(frozen=True)
class TokenLayout:
    """The order of a sequence of N = prefix + patches tokens.

    prefix: what the tokens before the patches are: "[CLS]", "[DIST]", "register 1"...,
        "test-time register 1"...
    patches: how many follow. grid: patches down and across; None where it is not known.
    """

    prefix: tuple[str, ...]
    patches: int
    grid: tuple[int, int] | None

    @property
    def tokens(self) -> int:
        return len(self.prefix) + self.patches

    @property
    def cls(self) -> int | None:
        """Index of [CLS]; None where there is none."""
        return self.prefix.index(CLS) if CLS in self.prefix else None

    @property
    def registers(self) -> list[int]:
        """Indices of the registers, trained and added."""
        return [i for i, name in enumerate(self.prefix) if name.startswith((REGISTER, ADDED))]

    @property
    def added(self) -> list[int]:
        """Indices of the registers that were added at test time."""
        return [i for i, name in enumerate(self.prefix) if name.startswith(ADDED)]

    def patch_part(self, tokens):
        """The patches of an array or tensor whose last axis is N."""
        return tokens[..., len(self.prefix) :]

    def indices(self, queries) -> list[int]:
        """Token indices of "cls", "registers", "prefix", "patches", "all", a slice or indices.

        Raises AuditError for kinds that this sequence does not have, and indices out of range.
        """
        groups = {
            "cls": [] if self.cls is None else [self.cls],
            "registers": self.registers,
            "prefix": list(range(len(self.prefix))),
            "patches": list(range(len(self.prefix), self.tokens)),
            "all": list(range(self.tokens)),
        }
        if isinstance(queries, str):
            if queries not in groups:
                raise AuditError(f"queries = {queries}: must be one of {', '.join(groups)}")
            if not groups[queries]:
                raise AuditError(f"queries = {queries}: this model has no such token")
            return groups[queries]
        if isinstance(queries, slice):
            return list(range(self.tokens))[queries]
        wanted = [int(i) for i in np.atleast_1d(np.asarray(queries))]
        if any(not -self.tokens <= i < self.tokens for i in wanted):
            raise AuditError(f"queries = {wanted}: must be below {self.tokens}")
        return [i % self.tokens for i in wanted]

    def border(self) -> np.ndarray | None:
        """(P,) whether a patch touches the image's edge; None without a grid."""
        if self.grid is None:
            return None
        inner = np.zeros(self.grid, bool)
        inner[1:-1, 1:-1] = True
        return ~inner.ravel()
