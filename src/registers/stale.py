"""Which weights were trained by other code than the code at hand.

Trainings are expensive, so a change of code does not throw their weights away: each checkpoint
records the digest of the code that made it, and this is where the two are compared.
`snakemake --config stale=retrain` trains the stale ones anew.
"""

import json

from registers import artifacts
from registers.digest import training_digest
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings


def training_code(method: str) -> str:
    """Digest of a method's recipe, the loop and all that they import."""
    return training_digest(METHODS[method].factory.partition(":")[0])


def recorded_code(settings: Settings, trained: BackboneId) -> str | None:
    """What a finished training says of the code that made it; None without such a training."""
    card = settings.layout.checkpoint(trained).with_suffix(".json")
    try:
        return json.loads(card.read_text()).get("code", "")
    except (OSError, ValueError):
        return None


def is_stale(settings: Settings, trained: BackboneId) -> bool:
    """Whether a finished training was made by other code than the code at hand."""
    return recorded_code(settings, trained) not in (None, training_code(trained.method))


def weights(settings: Settings) -> list[str]:
    """Ids of the trainings of this run whose weights come from other code than the code at hand.

    None of published models, which no code of ours trained.
    """
    if settings.models:
        return []
    return [str(id) for id in artifacts.trained(settings) if is_stale(settings, id)]


def sentence(settings: Settings) -> str:
    """One line about stale weights for people; "" where there are none."""
    names = weights(settings)
    if not names:
        return ""
    several = len(names) > 1
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"{len(names)} training{'s were' if several else ' was'} made by other code than the code "
        f"at hand ({shown}); to train {'them' if several else 'it'} anew: "
        "snakemake --cores all --config stale=retrain"
    )
