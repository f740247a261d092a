"""What a single patch tells of its place: the three numbers of Fig. 5b and Table 5."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalMeasure:
    """One number of a linear probe.

    column: its name in the paper (paper/reference.yaml). question, metric: of our rows.
    scale: from our rows to the paper's unit. digits: after the point.
    """

    column: str
    question: str
    metric: str
    scale: int
    digits: int

    def text(self, value: float) -> str:
        """A value of our rows in the paper's unit."""
        return f"{self.scale * value:.{self.digits}f}"


POSITION = LocalMeasure("position top-1", "position", "top1", 100, 1)
DISTANCE = LocalMeasure("position distance", "position", "distance", 1, 2)
PIXELS = LocalMeasure("reconstruction L2", "reconstruction", "l2", 1, 2)
MEASURES = (POSITION, DISTANCE, PIXELS)
