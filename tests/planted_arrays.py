"""Arrays for pictures with a planted truth, as the questions leave them."""

import numpy as np
from planted import DATA

from registers.settings.backbone_id import BackboneId


def maps(backbone, peak=1.0, norm_peak=1.0, images=4, side=8, heads=4, component=2.0, seed=0):
    """Arrays of question "maps" for one backbone.

    Attention and norms are flat, but for patch (1, 2), which has `peak` and `norm_peak` times the
    median. Head h peaks at (1 + h) times `peak`, register r's attention at patch (2, r) (all 2),
    the centre patch's at itself. Component 1 is a step of +-1, with `component` at patch (1, 2).
    """
    registers = BackboneId.parse(backbone).registers
    queries = ["cls", *(f"reg{r}" for r in range(registers)), "patch"]
    flat = np.full((images, side, side), 1 / side**2, np.float32)
    attention = np.repeat(flat[:, None], len(queries), axis=1)
    attention[:, 0, 1, 2] *= peak
    for r in range(registers):
        attention[:, 1 + r, 2, r % side] *= 2
    attention[:, -1, side // 2, side // 2] *= 50
    by_head = np.repeat(flat[:, None], heads, axis=1)
    by_head[:, :, 1, 2] *= peak * (1 + np.arange(heads))
    norms = flat * 640
    norms[:, 1, 2] *= norm_peak
    components = np.ones((images, 3, side, side), np.float32)
    components[:, :, side // 2 :] = -1
    components[:, :, 1, 2] = component
    rng = np.random.default_rng(seed)
    return {
        "rgb": rng.integers(0, 255, (images, 4 * side, 4 * side, 3), dtype=np.uint8),
        "names": np.array([f"val/{i}" for i in range(images)]),
        "queries": np.array(queries),
        "attention": attention,
        "heads": by_head,
        "norms": norms,
        "components": components,
        "prefix_norms": np.ones((images, 1 + registers), np.float32),
        "backbone": np.array(backbone),
    }


def lost(backbone, expansion=1.0, images=2, side=8, across=None, data=DATA):
    """Arrays of question "discovery" for one backbone.

    The object is a quarter of the image, found whole; the facet is keys for DINOv2, else values.
    The expansion of keys is `expansion` in a chequered pattern, of queries and values a smooth
    ramp. Photos have side x across patches of 4 pixels, the last ones half beyond the photo.
    DINO-seg's box is the whole photo, the tuned one the true one.
    """
    across = across or side
    inside = np.zeros((side, across), bool)
    inside[: side // 2, : across // 2] = True
    ramp = np.add.outer(np.arange(side), np.arange(across)).astype(np.float32)
    chequered = np.where(ramp % 2, expansion, -expansion).astype(np.float32)
    truth = np.array([0, 0, 2 * across, 2 * side], np.float32)
    arrays = {
        "names": np.array([f"val/{i}" for i in range(images)]),
        "backbone": np.array(backbone),
        "facets": np.array(["k", "q", "v"]),
        "facet": np.array("k" if backbone.startswith("dinov2") else "v"),
        "patch": np.array(4),
        "data": np.array(data),
    }
    for i in range(images):
        arrays[f"{i}_rgb"] = np.full((4 * side - 2, 4 * across - 2, 3), 128, np.uint8)
        arrays[f"{i}_truths"] = truth[None]
        arrays[f"{i}_tuned_box"] = truth
        arrays[f"{i}_dino_seg_box"] = np.array([0, 0, 4 * across - 2, 4 * side - 2])
        for facet in "kqv":
            steps = {
                "score": -ramp,
                "similarity": ramp,
                "expansion": chequered if facet == "k" else ramp,
                "component": inside,
                "mask": inside,
                "seed": np.array([0, 0]),
                "box": truth.astype(int),
            }
            arrays |= {f"{i}_{facet}_{step}": values for step, values in steps.items()}
    return arrays


def predictions(backbone, images=2, shape=(12, 20), wrong=0, data=DATA):
    """Arrays of questions "segmentation" and "depth".

    Three classes in stripes; the first column is not counted or unknown. All is predicted as it is,
    but for `wrong` columns at the right end, where the class is another and the depth 2 too far.
    """
    stripes = np.broadcast_to(np.arange(shape[1]) % 3, shape)
    arrays = {
        "names": np.array([f"val/{i}" for i in range(images)]),
        "backbone": np.array(backbone),
        "data": np.array(data),
    }
    segmentation = arrays | {"classes": np.array(["red", "green", "blue"])}
    depth = dict(arrays)
    classes = stripes.astype(np.uint8)
    depths = 1 + stripes.astype(np.float32)
    end = slice(shape[1] - wrong, None)
    other_classes = classes.copy()
    other_classes[:, end] = (classes[:, end] + 1) % 3
    other_depths = depths.copy()
    other_depths[:, end] += 2
    classes[:, 0] = 255
    depths[:, 0] = 0
    for i in range(images):
        segmentation[f"{i}_rgb"] = depth[f"{i}_rgb"] = np.full((*shape, 3), 90, np.uint8)
        segmentation[f"{i}_truth"] = classes
        segmentation[f"{i}_predicted"] = other_classes
        depth[f"{i}_truth"] = depths
        depth[f"{i}_predicted"] = other_depths
    return segmentation, depth
