"""The regenerated paper: one page that needs nothing else.

It holds every artifact, every verdict and the way back to each number.
"""

import base64
import io
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import planted
import planted_arrays
import pytest
from PIL import Image
from safetensors.numpy import save_file

from registers import artifacts, cli, headlines, inputs, measurements, report, stale, tracking
from registers.claims.verdicts import INCONCLUSIVE, NOT_TESTABLE, REPRODUCED, Verdict
from registers.figures.paint import style
from registers.measurements import Measurement
from registers.page import sections
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.tables import typeset

SETTINGS = {"scale": "smoke", "registers": [0, 4]}
STALE = "dinov2-r0-s0"


def rows_of(settings, question, backbone):
    """Rows of one question about one backbone (None: an exact question)."""
    name = str(backbone)
    match question:
        case "cost":
            return planted.cost()
        case "interpolation":
            return planted.interpolation()
        case "norms":
            run = f"{settings.run}/norms/{name}"
            return planted.norms(name, registers=backbone.registers, layers=2, run=run)
        case "by_position":
            return planted.positions(name, side=4)
        case "segmentation" | "depth":
            return planted.dense(name, 0.2, 1.5)[question == "depth"]
        case "discovery":
            return planted.discovery(name, 0.3, 0.4)
        case "token_class":
            return planted.token_class(name, registers=backbone.registers)
        case "position" | "reconstruction":
            return [row for row in planted.local(name) if row.question == question]
        case "neighbours":
            return planted.neighbours(name)
        case "maps":
            shown = dict(token="cls", layer=2, coordinate="image", at=0, n=16)
            return [Measurement("maps", "attention_over_uniform", name, 1.2, **shown)]
        case "linear" | "zeroshot":
            return [planted.accuracy(question, name, 0.5 + backbone.registers / 100)]


def arrays_of(question, backbone):
    segmentation, depth = planted_arrays.predictions(backbone)
    return {
        "maps": planted_arrays.maps(backbone, images=1, side=4),
        "discovery": planted_arrays.lost(backbone, images=1, side=4),
        "segmentation": segmentation,
        "depth": depth,
    }[question]


def plant(settings, source):
    """Write the files behind one input of an artifact."""
    question = source.partition("/")[0].partition(".")[0]
    for file in artifacts.files(settings, source):
        if question == artifacts.WEIGHTS:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            save_file({"cls_token": np.zeros((1, 1, 24), np.float32)}, file)
            continue
        backbone = BackboneId.parse(file.split("/")[-1][:-4]) if "/" in source else None
        if file.endswith(".npz"):
            save(file, arrays_of(question, str(backbone)))
        else:
            measurements.write(file, rows_of(settings, question, backbone))


def save(file, arrays):
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(folder, settings, artifacts, page) of a planted run, drawn and reported by the commands."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REGISTERS_PARAMS", json.dumps(SETTINGS))
        patch.setenv("REGISTERS_TRACEBACK", "1")
        patch.setattr(stale, "weights", lambda settings: [STALE])
        patch.setattr(style, "DPI", 50)  # saves time
        settings = load_settings(SETTINGS)
        built = artifacts.available(settings)
        sources = {source for artifact in built.values() for source in artifact.inputs.values()}
        # rows lie beside arrays of the same question
        sources |= {source.replace(".arrays", "") for source in sources}
        sources |= {"linear/mae"}  # which a claim asks besides
        for source in sources - {artifacts.REFERENCE}:
            plant(settings, source)
        for picture in artifacts.pictures(settings):
            save(picture.arrays(settings), arrays_of(picture.question, picture.backbone))
        for id in [*built, *(picture.id for picture in artifacts.pictures(settings))]:
            assert cli.main(["draw", id]) == 0
        assert cli.main(["report"]) == 0
    return folder, settings, built, (folder / settings.layout.page).read_text()


def section_of(html, id):
    return html.split(f'<section id="{id}"')[1].split("</section>")[0]


def test_it_holds_exactly_what_is_built(page):
    _, settings, built, html = page
    pictures = artifacts.pictures(settings)
    figures = [artifact for artifact in built.values() if artifact.kind == "figures"]
    assert len(pictures) == 6
    assert re.findall(r'<section id="((?:fig|table)\d+)"', html) == list(built)  # paper's order
    shown = len(figures) + len(pictures) + 2  # Fig. 1 and all claims stand on the first screen
    assert html.count('src="data:image/webp;base64,') == shown
    assert html.count('srcset="data:image/webp;base64,') == shown  # for a dark page
    assert all(picture.outputs(settings.layout)[0] in html for picture in pictures)
    assert "100.0 %" in section_of(html, "pictures")  # planted predictions are right everywhere
    contents = re.findall(r'<li><span class="no">[^<]*</span> <a href="#([\w-]+)"', html)
    assert contents == [*built, "pictures", "every-claim"]


def test_the_first_screen_says_what_was_found_and_what_was_trained(page):
    """In this order: two sentences, Fig. 1, what was trained, all claims; the rest after them."""
    folder, _, _, html = page
    places = [
        html.index(part)
        for part in (
            "this run reproduces",
            "has high-norm outliers",
            '<a href="#fig01">Figure 1</a>',
            "<dt>Trained</dt>",
            '<h2 id="claims">',
            'href="claims.pdf"',
            '<h2 id="contents">',
            '<section id="fig01">',
            '<section id="every-claim">',
        )
    ]
    assert places == sorted(places)
    claims = pd.read_csv(folder / "reports/smoke/claims.csv")
    assert len(claims) == len(json.loads((folder / "reports/smoke/claims.json").read_text()))
    for ending in ("png", "dark.png", "pdf"):
        assert (folder / f"reports/smoke/claims.{ending}").stat().st_size > 1000
    assert (folder / "reports/smoke/paper.pdf").read_bytes().startswith(b"%PDF")


def test_a_picture_of_the_page_is_smaller_and_loses_nothing(tmp_path):
    rng = np.random.default_rng(0)
    values = np.kron(rng.integers(0, 255, (8, 8, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    file = tmp_path / "drawn.png"
    Image.fromarray(values).convert("RGBA").save(file)
    texts = [sections.embedded(file) for _ in range(2)]
    assert texts[0] == texts[1] and texts[0].startswith("data:image/webp;base64,")
    packed = base64.b64decode(texts[0].partition(",")[2])
    assert len(packed) < file.stat().st_size
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(packed))), values)


def test_a_caption_says_which_of_several_seeds_is_shown(tmp_path):
    stem = tmp_path / "fig01"
    stem.with_suffix(".txt").write_text("A sentence.\n")
    one = load_settings({"scale": "smoke", "seeds": [3]})
    several = load_settings({"scale": "smoke", "seeds": [3, 0, 1]})
    assert sections.caption(one, stem, 3) == sections.caption(several, stem, None) == "A sentence."
    words = sections.caption(several, stem, 3)
    assert words == "A sentence. It shows seed 3, of seeds 3, 0 and 1."
    by_seed = {id for id, artifact in artifacts.load().items() if artifact.is_of_one_seed}
    exact = {"fig06", "fig11", "fig12"}
    means = {"fig08", *(f"table{number}" for number in range(1, 7))}
    assert set(artifacts.load()) - by_seed == exact | means


class Balance(HTMLParser):
    """Fails where a tag is closed that is not the last one opened."""

    def __init__(self):
        super().__init__()
        self.open_tags = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "link", "br", "source"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


def test_it_is_self_contained_and_well_formed(page):
    html = page[3]
    outside = re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', html)
    assert not [link for link in outside if not link.startswith(f"{tracking.UI}/#/experiments/")]
    assert "<script" not in html and "@import" not in html and "url(" not in html
    parser = Balance()
    parser.feed(html)
    assert parser.open_tags == []


def test_every_relative_link_leads_somewhere(page):
    folder, _, _, html = page
    links = [x for x in re.findall(r'href="([^"#]*)"', html) if x and not x.startswith("http")]
    assert links and all((folder / "reports/smoke" / link).exists() for link in links)


def test_it_names_no_folder_of_this_machine(page):
    folder, _, _, html = page
    assert str(folder) not in html
    assert str(artifacts.PAPER.parent) not in html


def test_captions_are_ours_and_runs_are_linked(page):
    folder, settings, built, html = page
    for artifact in built.values():
        section = section_of(html, artifact.id)
        caption = (folder / f"reports/smoke/{artifact.kind}/{artifact.id}.txt").read_text().strip()
        assert caption.split("(")[0] in unescape(section)
        assert artifact.source in section and sections.RULE_FILE in section
        key = f"{settings.run}/draw/{artifact.id}"
        (address,) = re.findall(rf'href="([^"]*)">{key}<', section)
        assert address.startswith(f"{tracking.UI}/#/experiments/")
        asked = quote(f"tags.key = '{key}'", safe="")
        assert unescape(address).endswith(f"&searchFilter={asked}")
        if any(source.startswith("norms") for source in artifact.inputs.values()):
            assert f"{settings.run}/train/dinov2-r0-s0" in section
            assert f"{settings.run}/norms/dinov2-r0-s0" in section


def test_verdicts_on_the_page_and_in_json_agree(page):
    folder, _, _, html = page
    verdicts = {v["id"]: v for v in json.loads((folder / "reports/smoke/claims.json").read_text())}
    assert {name: v["verdict"] for name, v in verdicts.items()}.items() >= {
        "outliers-are-few": NOT_TESTABLE,
        "linear-not-worse": NOT_TESTABLE,  # planted: +4 points; at scale smoke nothing is learnt
        "flops-of-four": REPRODUCED,
    }.items()
    for name, v in verdicts.items():
        row = html.split(f'<tr id="claim-{name}">')[1].split("</tr>")[0]
        assert f">{v['verdict']}</td>" in row


def test_the_page_says_how_many_verdicts_stand_together(page):
    assert "None of the verdicts here rests on samples." in page[3]  # scale smoke learns nothing
    verdicts = [
        Verdict(str(p), "", "", verdict, "", p=p, together=together)
        for verdict, p, together in (
            (REPRODUCED, 0.001, True),
            (REPRODUCED, 0.04, False),
            (INCONCLUSIVE, 0.5, False),
            (REPRODUCED, None, None),
        )
    ]
    words = report.together(verdicts)
    assert words.startswith("Of 3 claims that rest on samples, 2 are decided")
    assert "1 of them stand at 5 % for all 3 together" in words


def test_metrics_hold_the_main_numbers(page):
    folder = page[0] / "reports/smoke/metrics"
    metrics = {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}
    downstream = {"linear": 0.54, "segmentation": 0.2, "depth": 1.5, "discovery": 0.3}
    assert {name: metrics[name]["dinov2"]["r4"] for name in downstream} == downstream
    assert set(metrics) == {*headlines.COMPARED, "claims"}
    assert metrics["claims"][REPRODUCED] >= 1
    assert sum(len(counts) for name in downstream for counts in metrics[name].values()) <= 25


def test_the_papers_numbers_stand_beside_ours(page):
    html = page[3]
    printed, everything = section_of(html, "table2").split("<details>")[:2]
    rows = re.findall(r"<tr>.*?</tr>", printed)
    row = next(row for row in rows if ">DINOv2+reg<" in row)
    cell = row.split("<td>")[2]
    assert cell.startswith("54.0<") and "[52.0, 56.0]" in cell and "paper 84.8<" in cell
    assert ">planted val<" in everything  # all numbers, on demand
    assert "share above: 2.37 %" in section_of(html, "fig03")


def test_printed_tables_fit_a_page(page):
    """At most seven columns of short cells each; Table 2 was twice as wide as its page once."""
    html = page[3]
    for id in ("table1", "table2", "table3", "table4", "table5", "table6"):
        table = section_of(html, id).split("</table>")[0]
        head, *rows = re.findall(r"<tr>(.*?)</tr>", table)
        assert head.count("<th>") <= 7
        assert all(len(line) <= 24 for row in rows for line in re.findall(r">([^<]+)<", row))


def test_the_page_says_which_code_its_numbers_come_from(page):
    _, settings, _, html = page
    rows = inputs.rows(settings, [])
    assert report.warnings(rows["code"], []) == []
    (commit,) = re.findall(r"<dt>Rows measured at</dt><dd>(\S+) \(\d+ rows\)</dd>", html)
    assert commit == measurements.code_version()
    warnings = re.findall(r'<p class="warning"[^>]*>(.*)</p>', html)
    assert len(warnings) == 1 and warnings[0].endswith(f"at hand: {STALE}.")


def test_rows_of_several_commits_are_a_warning():
    codes = pd.Series(["abc", "abc", "def+", ""])
    (warning,) = report.warnings(codes, [])
    assert "measured at 2 commits" in warning
    assert "abc (2 rows), def+ (1 row)" in warning
    assert report.warnings(pd.Series(["abc", ""]), []) == []
    _, stale = report.warnings(codes, [f"dinov2-r{r}-s0" for r in range(30)])
    assert stale.endswith("dinov2-r3-s0 and 26 more.")


def test_markdown_of_a_table():
    rows = pd.DataFrame({"model": ["a|b", "c"], "ours": [1.23456, None], "note": ["", "not run"]})
    assert typeset.markdown(rows).splitlines() == [
        "| model | ours | note |",
        "| --- | --- | --- |",
        "| a\\|b | 1.235 | – |",
        "| c | – | not run |",
    ]


def test_metrics_leave_out_what_has_no_value(tmp_path):
    row = Measurement("linear", "top1", "dinov2-r0-s0", None, note="not run")
    assert headlines.by_method(table_of(tmp_path, [row]), (0,)) == {}


def test_metrics_keep_several_data_sets_apart(tmp_path):
    rows = [
        planted.discovery("dinov2-r0-s0", value, 0.4, data=data)
        for data, value in (("voc2007", 0.3), ("coco20k", 0.2))
    ]
    corloc = headlines.by_method(table_of(tmp_path, *rows), (0,))["discovery"]["dinov2"]
    assert corloc == {"r0 on voc2007": 0.3, "r0 on coco20k": 0.2}


def table_of(folder, *rows):
    return planted.frame(folder, *rows).to_dict("records")
