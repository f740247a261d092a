"""paper/claims.yaml: every statement has a claim, and what is wrong in one is one clear line."""

from pathlib import Path

import pandas as pd
import pytest

from registers.claims.loading import SCALES, load
from registers.claims.selectors import select
from registers.measurements import COLUMNS

FILE = Path(__file__).parents[1] / "paper" / "claims.yaml"
HEAD = "id: x, where: here, text: words, unit: images, from: any"


@pytest.mark.parametrize(
    "claim, message",
    [
        (f'{HEAD}, expect: {{evaluate: "1 + 1"}}', "claim x: operation evaluate; must be one of"),
        (f"{HEAD}, expect: {{within: 1}}", "claim x: operation missing; must be one of"),
        (f'{HEAD}, expect: {{compare: [1, "!=", 2]}}', 'claim x: compare "!="; must be one of <'),
        (f"{HEAD}, expect: {{every: [{{evaluate: 1}}]}}", "claim x: operation evaluate"),
        (f"{HEAD}, expect: {{some: [{{evaluate: 1}}]}}", "claim x: operation evaluate"),
        (HEAD, "claim x: must have either expect or untestable"),
        (
            f'{HEAD}, expect: {{compare: [{{}}, ">", 2], times: [1, 2]}}',
            "claim x: times; must stand be",
        ),
        (
            f'{HEAD}, expect: {{compare: [{{}}, ">", {{}}], times: [1, 2], within: 1}}',
            "claim x: times; must stand without within",
        ),
        (HEAD.replace("images", "seeds"), "claim x: unit seeds; must be one of exact, images"),
        (HEAD.replace(", from: any", ""), "claim x: from is missing"),
        (f"{HEAD}, given: {{all: 1}}, untestable: no", "claim x: given all; must be one of any"),
    ],
)
def test_a_claim_that_is_wrong_is_one_clear_line(tmp_path, claim, message):
    path = tmp_path / "claims.yaml"
    path.write_text(f"- {{{claim}}}\n")
    with pytest.raises(ValueError, match=message):
        load(path)


def test_an_unknown_column_is_one_clear_line():
    with pytest.raises(ValueError, match="unknown column colour; must be one of question, metric"):
        select(pd.DataFrame(columns=COLUMNS), {"colour": "red"})


def test_every_statement_has_a_claim_with_its_place():
    claims = {claim["id"]: claim for claim in load(FILE)}
    assert len(claims) == len(load(FILE)) >= 58
    assert all(claim["where"] and claim["text"].endswith((".", "...")) for claim in claims.values())
    assert {claim["from"] for claim in claims.values()} <= set(SCALES)
