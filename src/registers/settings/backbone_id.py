"""Names of backbones."""

import dataclasses
import re
from dataclasses import dataclass

from registers.settings.errors import ConfigError

_ID = re.compile(
    r"(?P<method>[a-z0-9]+?)(-(?P<size>[a-z]+))?-r(?P<registers>\d+)-s(?P<seed>\d+)(?P<noaa>-noaa)?(-at(?P<percent>\d{3}))?"
)


@dataclass(frozen=True)
class BackboneId:
    """A trained backbone's name, which is also its path: {method}[-{size}]-r{registers}-s{seed}[-noaa][-at{percent}].

    noaa: position embeddings interpolated without antialiasing in training (Fig. 10). percent: a checkpoint on the way.
    """

    method: str
    registers: int
    seed: int
    size: str = ""
    noaa: bool = False
    percent: int = 100

    @classmethod
    def parse(cls, text: str) -> "BackboneId":
        found = _ID.fullmatch(text)
        if not found:
            raise ConfigError(
                f'backbone = "{text}": allowed are names like dinov2-r4-s0, dinov2-giant-r0-s0, dinov2-r0-s0-at050'
            )
        part = found.groupdict()
        return cls(
            method=part["method"],
            registers=int(part["registers"]),
            seed=int(part["seed"]),
            size=part["size"] or "",
            noaa=bool(part["noaa"]),
            percent=int(part["percent"] or 100),
        )

    def __str__(self) -> str:
        size = f"-{self.size}" if self.size else ""
        at = f"-at{self.percent:03d}" if self.percent != 100 else ""
        return (
            f"{self.method}{size}-r{self.registers}-s{self.seed}{'-noaa' if self.noaa else ''}{at}"
        )

    @property
    def trained(self) -> "BackboneId":
        """The training run that this checkpoint belongs to."""
        return dataclasses.replace(self, percent=100)
