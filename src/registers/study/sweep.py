"""The sweep: the hypotheses of the study (sweep.yaml), and the variants that test them, in a file
for each world beside it."""

from pathlib import Path
from typing import Any

from pydantic import Field

from registers.settings.base import Section, build
from registers.settings.errors import nearest, refusal
from registers.settings.load import read_yaml
from registers.study.regime import AnyRegime, regime_of

SWEEP = Path(__file__).resolve().parents[3] / "workflow" / "study" / "sweep.yaml"


class Variant(Section):
    """One row of the sweep: what it changes, why, and what is predicted, written before the run.

    extends: another variant or a base; change: settings that differ from it. registers, seeds:
    those of the study where none are named.
    """

    extends: str
    hypothesis: str
    predicts: str
    change: dict[str, Any] = Field(default_factory=dict)
    registers: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


class Sweep(Section):
    """worlds: files beside the sweep's, without .yaml, that hold more variants. bases: name ->
    settings that variants start from. hypotheses: name -> statement. images: scenes that a finished
    net is examined on. shown: variants of the search's figures. headline: the variant that the page
    opens with; quick: how many of its seeds `make emergence` trains. ordinary: the variant of the
    figure of an ordinary ViT. sink: that of the figure of a head's attention. withdrawal: that of
    the figure of the label's way into bare wall. lookup: two of the figure of registers as a table,
    whose patches may and may not look at them. openclip: that of the figure of OpenCLIP's loss.
    several: that of the figures of [CLS] and several labels.
    ingredients: variants that the ablation figure
    compares with the headline, under the names it prints; controls: those compared with the sink's;
    vectors: of some of these, the variant that changes the same where patches are vectors.
    """

    worlds: tuple[str, ...] = ()
    bases: dict[str, dict[str, Any]]
    hypotheses: dict[str, str]
    variants: dict[str, Variant] = Field(default_factory=dict)
    registers: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    shown: tuple[str, ...] = ()
    headline: str = ""
    quick: int = Field(3, ge=1)
    ordinary: str = ""
    sink: str = ""
    withdrawal: str = ""
    lookup: tuple[str, str] | tuple[()] = ()
    openclip: str = ""
    several: str = ""
    ingredients: dict[str, str] = Field(default_factory=dict)
    controls: dict[str, str] = Field(default_factory=dict)
    vectors: dict[str, str] = Field(default_factory=dict)
    images: int = Field(1024, ge=128)
    log_every: int = Field(100, ge=1)
    save_every: int = Field(500, ge=1)

    def settings(self, variant: str) -> dict[str, Any]:
        """All settings that a variant names, those of what it extends included."""
        chain: list[str] = []
        name = variant
        while name not in self.bases:
            key = f"variants.{chain[-1]}.extends" if chain else "variant"
            if name in chain:
                raise refusal(key, name, "a variant that does not extend this one")
            if name not in self.variants:
                near = nearest(name, (*self.bases, *self.variants))
                raise refusal(key, name, f"a base or a variant of the sweep{near}")
            chain.append(name)
            name = self.variants[name].extends
        settings = dict(self.bases[name])
        for link in reversed(chain):
            settings |= self.variants[link].change
        return settings

    def regime(self, variant: str) -> AnyRegime:
        """The checked regime of a variant. Raises ConfigError."""
        return regime_of(self.settings(variant), f"variants.{variant}")

    def runs(self) -> list[tuple[str, int, int]]:
        """(variant, registers, seed) of every run of the sweep."""
        rows = []
        for name, variant in self.variants.items():
            for registers in variant.registers or self.registers:
                rows += [(name, registers, seed) for seed in variant.seeds or self.seeds]
        return rows

    def names(self, variant: str = "") -> list[str]:
        """Names of the runs, of one variant or of all."""
        return [f"{v}-r{r}-s{s}" for v, r, s in self.runs() if variant in ("", v)]

    def headline_names(self) -> list[str]:
        """Names of the runs that the quick look trains: some seeds of the headline."""
        if not self.headline:
            return []
        seeds = (self.variants[self.headline].seeds or self.seeds)[: self.quick]
        return [f"{v}-r{r}-s{s}" for v, r, s in self.runs() if v == self.headline and s in seeds]


def read_sweep(path: Path = SWEEP) -> Sweep:
    """The sweep and its worlds' variants, checked: every regime can be built and every variant has
    its hypothesis. Raises ConfigError."""
    values = read_yaml(path)
    variants = values.get("variants", {})
    for world in build(Sweep, values, "").worlds:
        more = read_yaml(path.with_name(f"{world}.yaml"))
        for name in more.keys() & variants.keys():
            raise refusal(f"{world}.{name}", name, "a name that no other world has")
        variants = variants | more
    sweep = build(Sweep, values | {"variants": variants}, "")
    for name, variant in sweep.variants.items():
        if variant.hypothesis not in sweep.hypotheses:
            must = f"one of {', '.join(sweep.hypotheses)}"
            raise refusal(f"variants.{name}.hypothesis", variant.hypothesis, must)
        sweep.regime(name)
    named = (*sweep.shown, *sweep.ingredients, *sweep.controls, *sweep.vectors.values())
    single = (sweep.headline, sweep.ordinary, sweep.sink, sweep.withdrawal)
    single += (sweep.openclip, sweep.several)
    for name in (*named, *sweep.lookup, *filter(None, single)):
        sweep.regime(name)
    return sweep
