"""What MLflow's UI says of a run: its command, its files and where the page shows it."""

import re
from collections.abc import Mapping
from pathlib import Path

from registers import artifacts
from registers.layout import Layout
from registers.questions import QUESTIONS
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError


def command(tags: Mapping[str, str]) -> str:
    """The command that makes a run again, which MLflow shows as its source."""
    rule, subject = tags["rule"], tags["subject"]
    if rule == "report":
        return "registers report"
    if rule == "study":
        return f"python -m registers.study run {subject}"
    verb = rule if rule in ("train", "tokens", "draw") else f"measure {rule}"
    return f"registers {verb}" if subject == "exact" else f"registers {verb} {subject}"


def description(tags: Mapping[str, str]) -> str:
    """What a run is, in Markdown: its command, its files, and where the page shows it."""
    rule, subject, run = tags["rule"], tags["subject"], tags["scale"]
    lines = [f"{_what(rule, subject)} Again: `{command(tags)}`."]
    for about, place in _places(rule, subject, run).items():
        lines.append(f"{about}: `{place}`")
    if shown := _shown_in(rule):
        lines.append(f"On the page (`reports/{run}/paper.html`): {', '.join(shown)}")
    if tags.get("git_commit"):
        lines.append(f"Code at commit `{tags['git_commit']}`.")
    return "  \n".join(lines)


def _what(rule: str, subject: str) -> str:
    """One sentence about a run."""
    if rule == "train":
        return f"The training of {subject}."
    if rule == "tokens":
        return f"The token bank of {subject}: one forward pass over the evaluation images."
    if rule == "report":
        return "The regenerated paper."
    if rule == "draw":
        artifact = artifacts.load().get(subject)
        return f"{_number(subject)}: {artifact.title}." if artifact else f"The picture {subject}."
    if rule in QUESTIONS:
        of = "" if subject == "exact" else f" of {subject}"
        return f"The answer to the question {rule}{of}."
    return f"{rule} {subject}."


def _places(rule: str, subject: str, run: str) -> dict[str, str]:
    """The files behind a run: its code, and what it made."""
    layout = Layout(Path("results") / run)
    id = backbone_of(subject)
    places = {}
    if rule == "train" and id and id.method in METHODS:
        places["Recipe"] = _file(METHODS[id.method].factory.partition(":")[0])
    elif rule == "tokens":
        places |= {"Code": _file("registers.tokens"), "Bank": str(layout.bank(subject))}
    elif rule in QUESTIONS:
        rows = layout.measurement(rule, "" if subject == "exact" else subject)
        places |= {"Code": _file(QUESTIONS[rule].module), "Rows": str(rows)}
    elif rule == "draw" and subject in artifacts.load():
        places["Code"] = artifacts.load()[subject].source
    if id and rule not in ("draw", "study"):
        places["Weights"] = str(layout.checkpoint(id))
    return places


def backbone_of(subject: str) -> BackboneId | None:
    """The backbone that a run is about, or None: exact answers, drawings."""
    try:
        return BackboneId.parse(subject)
    except ConfigError:
        return None


def _file(module: str) -> str:
    return f"src/{module.replace('.', '/')}.py"


def _shown_in(question: str) -> list[str]:
    """The figures and tables that a question's answers appear in: ["Fig. 7", "Table 1"]."""
    return [
        _number(artifact.id)
        for artifact in artifacts.load().values()
        if any(re.split(r"[./]", source)[0] == question for source in artifact.inputs.values())
    ]


def _number(id: str) -> str:
    """ "fig07" as the page's heading has it, "Fig. 7"."""
    kind, number = re.fullmatch(r"([a-z]+)0*(\d+)", id).groups()
    return f"{'Fig.' if kind == 'fig' else 'Table'} {number}"
