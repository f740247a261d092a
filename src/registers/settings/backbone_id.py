"""Names of backbones."""

import dataclasses
import re
from dataclasses import dataclass

from registers.settings.errors import ConfigError, show

_ID = re.compile(
    r"(?P<method>[a-z0-9]+?)(-(?P<size>[a-z]+))?-r(?P<registers>\d+)-s(?P<seed>\d+)"
    r"(?P<noaa>-noaa)?(?P<test_time>-tt)?(-at(?P<percent>\d{3}))?"
)


@dataclass(frozen=True)
class BackboneId:
    """A backbone's name, which is also its path.

    {method}[-{size}]-r{registers}-s{seed}[-noaa][-tt][-at{percent}]
    noaa: position embeddings interpolated without antialiasing in training (Fig. 10).
    test_time: its registers were added at test time, without training (Jiang et al. 2025).
    percent: how far the training was, for a checkpoint on the way.
    """

    method: str
    registers: int
    seed: int
    size: str = ""
    noaa: bool = False
    test_time: bool = False
    percent: int = 100

    @classmethod
    def parse(cls, text: str) -> "BackboneId":
        """The id of a name; raises `ConfigError` for a text that is no such name."""
        match = _ID.fullmatch(text)
        if not match:
            raise ConfigError(
                f"backbone: {show(text)} is not allowed; must be a name like "
                "dinov2-r4-s0, dinov2-giant-r0-s0, dinov2-r0-s0-at050"
            )
        return cls(
            method=match["method"],
            registers=int(match["registers"]),
            seed=int(match["seed"]),
            size=match["size"] or "",
            noaa=bool(match["noaa"]),
            test_time=bool(match["test_time"]),
            percent=int(match["percent"] or 100),
        )

    def __str__(self) -> str:
        size = f"-{self.size}" if self.size else ""
        noaa = "-noaa" if self.noaa else ""
        test_time = "-tt" if self.test_time else ""
        at = f"-at{self.percent:03d}" if self.percent != 100 else ""
        return f"{self.method}{size}-r{self.registers}-s{self.seed}{noaa}{test_time}{at}"

    @property
    def trained(self) -> "BackboneId":
        """The training that this checkpoint belongs to."""
        return dataclasses.replace(self, percent=100)
