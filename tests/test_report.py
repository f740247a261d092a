"""The regenerated paper: one page that holds every artifact, every verdict and the way back to each number, and needs nothing else."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import planted
import pytest

from registers import artifacts, claims, cli, measurements, report
from registers.exact import interpolation
from registers.measurements import Measurement
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings

SETTINGS = {"scale": "smoke", "registers": [0, 4]}


def planted_rows(settings, source, backbone):
    """Rows of a stage for one backbone (None: the stage has a single file)."""
    stage = source.partition("/")[0]
    if stage == "cost":
        return planted.cost()
    if stage == "interpolation":
        return list(interpolation.interpolation_rows())
    if stage == "norms":
        return planted.norms(
            str(backbone),
            registers=backbone.registers,
            layers=2,
            run=f"{settings.run}/norms/{backbone}",
        )
    if stage == "positions":
        return planted.positions(str(backbone), side=4)
    if stage in ("segmentation", "depth"):
        return planted.dense(str(backbone), 0.2, 1.5)[stage == "depth"]
    if stage == "discovery":
        return planted.discovery(str(backbone), 0.3, 0.4)
    if stage == "token_class":
        return planted.token_class(str(backbone), registers=backbone.registers)
    if stage in ("local", "neighbours"):
        return getattr(planted, stage)(str(backbone))
    return [planted.accuracy(stage, str(backbone), 0.5 + backbone.registers / 100)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A run with planted measurements, drawn and reported by the command line, in a folder of its own."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REGISTERS_PARAMS", json.dumps(SETTINGS))
        patch.setenv("REGISTERS_TRACEBACK", "1")
        settings = load_settings(SETTINGS)
        built = artifacts.available(settings)
        for artifact in built.values():
            for source in artifact.inputs.values():
                for file in artifacts.files(settings, source) if source != "reference" else []:
                    backbone = (
                        None
                        if file.endswith(("cost.csv", "interpolation.csv"))
                        else BackboneId.parse(file.split("/")[-1][:-4])
                    )
                    if source.startswith("maps/"):
                        (folder / file).parent.mkdir(parents=True, exist_ok=True)
                        np.savez(folder / file, **planted.maps(str(backbone), images=1, side=4))
                    elif source.startswith("lost/"):
                        (folder / file).parent.mkdir(parents=True, exist_ok=True)
                        np.savez(folder / file, **planted.lost(str(backbone), images=1, side=4))
                    else:
                        measurements.write(file, planted_rows(settings, source, backbone))
            assert cli.main(["draw", artifact.id]) == 0
        for picture in artifacts.pictures(settings):
            file = folder / picture.arrays(settings)
            file.parent.mkdir(parents=True, exist_ok=True)
            seg, deep = planted.predictions(picture.backbone)
            np.savez(
                file,
                **{"segmentation": seg, "depth": deep, "discovery": planted.lost(picture.backbone)}[
                    picture.question
                ],
            )
            assert cli.main(["picture", picture.question, picture.backbone]) == 0
        assert cli.main(["report"]) == 0
    return folder, settings, built, (folder / "reports/paper.html").read_text()


def test_it_holds_exactly_what_is_built(page):
    _, _, built, html = page
    assert re.findall(r'<section id="((?:fig|table)\d+)"', html) == list(built)  # the paper's order
    assert (
        html.count('src="data:image/png;base64,')
        == sum(a.kind == "figures" for a in built.values()) + 6
    )
    assert (
        all(p.outputs[0] in html for p in artifacts.pictures(page[1]))
        and "100.0 % of the pixels that count" in html
    )
    assert [
        href for href in re.findall(r'<li><span class="no">[^<]*</span> <a href="#(\w+)"', html)
    ] == [*built, "pictures"]


def test_it_is_self_contained_and_well_formed(page):
    html = page[3]
    outside = re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', html)
    assert not [link for link in outside if not link.startswith(f"{report.UI}/#/experiments/")]
    assert "<script" not in html and "@import" not in html and "url(" not in html

    class Balance(HTMLParser):
        open_tags: list[str] = []

        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "img", "link", "br"):
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

    parser = Balance()
    parser.feed(html)
    assert parser.open_tags == []


def test_every_relative_link_leads_somewhere(page):
    folder, _, _, html = page
    links = [x for x in re.findall(r'href="([^"#]*)"', html) if x and not x.startswith("http")]
    assert links and all((folder / "reports" / link).exists() for link in links)
    assert (
        str(folder) not in html and str(artifacts.PAPER.parent) not in html
    )  # no path of this machine


def test_captions_are_ours_and_runs_are_linked(page):
    folder, settings, built, html = page
    for artifact in built.values():
        assert (folder / f"reports/{artifact.kind}/{artifact.id}.txt").read_text().strip().split(
            "("
        )[0] in unescape(html)
        section = html.split(f'<section id="{artifact.id}"')[1].split("</section>")[0]
        assert artifact.source in section and report.RULE_FILE in section
        assert re.search(
            rf'href="{report.UI}/#/experiments/\d+/runs/\w+">{settings.run}/draw/{artifact.id}<',
            section,
        )  # delivered runs
        if any(s.startswith("norms") for s in artifact.inputs.values()):
            assert (
                f"{settings.run}/train/dinov2-r0-s0" in section
                and f"{settings.run}/norms/dinov2-r0-s0" in section
            )


def test_verdicts_on_the_page_and_in_json_agree(page):
    folder, _, _, html = page
    verdicts = {v["id"]: v for v in json.loads((folder / "reports/claims.json").read_text())}
    assert {name: v["verdict"] for name, v in verdicts.items()}.items() >= {
        "outliers-are-few": claims.NOT_TESTABLE,
        "linear-not-worse": claims.REPRODUCED,
        "flops-of-four": claims.REPRODUCED,
        "zero-shot-unchanged": claims.CONTRADICTED,  # planted: +4 points, intervals of 2
    }.items()
    for name, v in verdicts.items():
        row = html.split(f'<tr id="claim-{name}">')[1].split("</tr>")[0]
        assert f">{v['verdict']}</td>" in row
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    assert (
        metrics["linear"]["top1"]["dinov2-r4-s0"] == 0.54
        and metrics["claims"]["flops-of-four"] == claims.REPRODUCED
    )
    downstream = {
        ("segmentation", "miou"): 0.2,
        ("depth", "rmse"): 1.5,
        ("discovery", "corloc"): 0.3,
        ("discovery", "corloc_tuned"): 0.4,
    }
    assert {key: metrics[key[0]][key[1]]["dinov2-r4-s0"] for key in downstream} == downstream
    assert (
        metrics["outliers"]["second_mode"]["deit3-r0-s0"] == 0
        and "share" not in metrics["outliers"]
    )


def test_the_papers_numbers_stand_beside_ours(page):
    html = page[3]
    table = html.split('<section id="table2"')[1].split("</section>")[0]
    row = next(r for r in re.findall(r"<tr>.*?</tr>", table) if ">DINOv2+reg<" in r)
    assert ">54<" in row and ">84.8<" in row
    assert "share above: 2.37 %" in html.split('<section id="fig03"')[1].split("</section>")[0]


def test_markdown_of_a_table():
    rows = pd.DataFrame({"model": ["a|b", "c"], "ours": [1.23456, None], "note": ["", "not run"]})
    assert (
        report.markdown(rows)
        == "| model | ours | note |\n| --- | --- | --- |\n| a\\|b | 1.235 | – |\n| c | – | not run |\n"
    )


def test_metrics_leave_out_what_has_no_value(tmp_path):
    measured = planted.frame(
        tmp_path, [Measurement("outliers", "share", "dinov2-r0-s0", None, note="no second mode")]
    )
    assert report.metrics(measured, []) == {"claims": {}}


def test_metrics_keep_several_sets_apart(tmp_path):
    found = [
        planted.discovery("dinov2-r0-s0", value, 0.4, data=data)
        for data, value in (("voc2007", 0.3), ("coco20k", 0.2))
    ]
    corloc = report.metrics(planted.frame(tmp_path, *found), [])["discovery"]["corloc"]
    assert corloc == {"dinov2-r0-s0 on voc2007": 0.3, "dinov2-r0-s0 on coco20k": 0.2}
