"""The methods, one row each: what the rest of the package knows of one without importing it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodEntry:
    """One way of training a backbone.

    factory: module and class of the recipe, imported when it is trained. role: the data set that it
    is trained on. title: the name as the paper prints it. colour: of its lines and bars. facet:
    what LOST is run on (paper, section 3.3: values for DeiT-III and OpenCLIP, keys for DINOv2; keys
    are LOST's own choice elsewhere). main: one of the paper's three (section 3.1).
    """

    factory: str
    role: str
    title: str
    colour: str
    facet: str = "k"
    main: bool = False


# Colours: Okabe and Ito's palette, told apart by colour-blind readers (Wong, Nature Methods 8,
# 2011).
METHODS = {
    "deit3": MethodEntry(
        "registers.methods.deit3:Deit3", "labels", "DeiT-III", "#D55E00", "v", True
    ),
    "openclip": MethodEntry(
        "registers.methods.openclip:OpenClip", "text", "OpenCLIP", "#009E73", "v", True
    ),
    "dinov2": MethodEntry(
        "registers.methods.dinov2:Dinov2", "images", "DINOv2", "#0072B2", "k", True
    ),
    "dino": MethodEntry("registers.methods.dino:Dino", "images", "DINO", "#CC79A7"),
    "mae": MethodEntry("registers.methods.mae:Mae", "images", "MAE", "#8C6D00"),
}
MAIN_METHODS = tuple(name for name, method in METHODS.items() if method.main)
SUBJECT = (
    "dinov2"  # the paper's main focus (section 2): its figures show this method where one is enough
)


def subject_of(methods) -> str:
    """The method that a figure about one method shows: DINOv2, or else the first there is."""
    methods = list(methods)
    return SUBJECT if SUBJECT in methods else methods[0]
