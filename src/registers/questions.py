"""The questions asked of backbones, one row each. The module holds the science.

A new probe is its file and one row here: rules, commands, paths and what it depends on follow.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """Where a question is answered and what it depends on.

    module: has `measure(subject, data, settings) -> Measured`. reads: what the subject is, a "bank"
    (`bank.TokenBank`), a "checkpoint" (`models.backbone.Backbone`) or "nothing" (an exact answer,
    no backbone). settings: the sections and values that it reads, by dotted name. role: the data
    set that it looks at; "" for none beside the bank. arrays: whether it leaves small arrays for
    pictures. gpu: whether it is faster on one. labels: whether it asks for the images' labels.
    """

    module: str
    reads: str
    settings: tuple[str, ...] = ()
    role: str = ""
    arrays: bool = False
    gpu: bool = False
    labels: bool = False


QUESTIONS = {
    # probes: what a token bank holds
    "norms": Question("registers.probes.norms", "bank", ("cutoff",)),
    "by_position": Question("registers.probes.by_position", "bank", ("cutoff",)),
    "token_class": Question(
        "registers.probes.token_class", "bank", ("cutoff", "probes"), labels=True
    ),
    "neighbours": Question("registers.probes.neighbours", "bank", ("cutoff",)),
    "position": Question("registers.probes.position", "bank", ("cutoff",)),
    "reconstruction": Question("registers.probes.reconstruction", "bank", ("cutoff",), role="eval"),
    # evaluations: what a backbone can do
    "linear": Question(
        "registers.evals.linear",
        "checkpoint",
        ("linear", "image_size"),
        role="eval",
        gpu=True,
        labels=True,
    ),
    "zeroshot": Question(
        "registers.evals.zeroshot",
        "checkpoint",
        ("zeroshot", "linear.val_images", "image_size"),
        role="eval",
        gpu=True,
        labels=True,
    ),
    "segmentation": Question(
        "registers.evals.segmentation",
        "checkpoint",
        ("segmentation",),
        role="segmentation",
        arrays=True,
        gpu=True,
    ),
    "depth": Question(
        "registers.evals.depth", "checkpoint", ("depth",), role="depth", arrays=True, gpu=True
    ),
    "discovery": Question(
        "registers.evals.discovery",
        "checkpoint",
        ("discovery",),
        role="discovery",
        arrays=True,
        gpu=True,
    ),
    "maps": Question(
        "registers.evals.maps", "checkpoint", ("maps",), role="eval", arrays=True, gpu=True
    ),
    # exact answers
    "cost": Question(
        "registers.exact.cost", "nothing", ("sizes", "recipes", "image_size", "registers")
    ),
    "interpolation": Question(
        "registers.exact.interpolation", "nothing", ("recipes", "image_size")
    ),
}


def names(reads: str | None = None, arrays: bool | None = None) -> list[str]:
    """Names of the questions that read such a thing, and leave arrays or not."""
    return [
        name
        for name, question in QUESTIONS.items()
        if reads in (None, question.reads) and arrays in (None, question.arrays)
    ]
