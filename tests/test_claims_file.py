"""paper/claims.yaml: what is wrong in a claim is one clear line."""

import pandas as pd
import pytest

from registers.claims.loading import load
from registers.claims.selectors import select
from registers.measurements import COLUMNS

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
