"""The `registers` command: one verb per rule, and `audit`. A person may call them as well."""

import argparse
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version

from registers import run_lock, verbs
from registers.audit import command as audit
from registers.questions import QUESTIONS
from registers.settings.data import ANNOTATED_ROLES, IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

HELP = {
    "split": "train, val or test",
    "role": ", ".join((*IMAGE_ROLES, *ANNOTATED_ROLES)),
    "name": "cifar10 or voc2007",
    "backbone": "an id such as dinov2-r4-s0; registers check lists those of a run",
    "model": "an id of paper/released.yaml such as dinov2-base-r4-s0",
    "question": ", ".join(QUESTIONS),
    "id": "fig01 to fig21, table1 to table6, or a picture such as depth-dinov2-r0-s0",
}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if getattr(options, "threads", None):  # before torch and numpy read it
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    try:
        if options.verb is audit.run:
            return audit.run(options)
        run_lock.join()
        scale = getattr(options, "scale", None)
        options.verb(load_settings(_params(options.params), scale), options)
    except BrokenPipeError:  # whoever read our output has left
        return 1
    except (ConfigError, ValueError, RuntimeError, OSError) as error:
        if os.environ.get("REGISTERS_TRACEBACK"):
            raise
        print(f"registers: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "registers: stopped; run it again and a training resumes from its last saved step",
            file=sys.stderr,
        )
        return 130
    return 0


def _params(path: str | None) -> dict | str:
    """Settings of this call: --params FILE, else what Snakemake passes on, else params.yaml."""
    passed_on = os.environ.get("REGISTERS_PARAMS")
    if path:
        return path
    if passed_on:
        return json.loads(passed_on)
    if not os.path.exists("params.yaml"):
        raise ConfigError(
            "params.yaml: no such file here; go to a checkout of the project, or name a file of "
            "settings with --params (registers audit needs none)"
        )
    return "params.yaml"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="registers",
        description=__doc__,
        epilog="A failed verb prints one line; REGISTERS_TRACEBACK=1 shows where it came from.",
    )
    parser.add_argument("--params", help="settings file (default: params.yaml)")
    parser.add_argument("--version", action="version", version=f"registers {_version()}")
    choices = parser.add_subparsers(required=True, metavar="verb")

    def add(verb, text: str, name: str = "") -> argparse.ArgumentParser:
        """A verb with its help: the first line in the list, all of it in the verb's own."""
        added = choices.add_parser(
            name or verb.__name__,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(verb=verb)
        return added

    for verb, arguments in (
        (verbs.check, []),
        (verbs.plan, []),
        (verbs.world, ["split"]),
        (verbs.data, ["role"]),
        (verbs.download, ["name"]),
        (verbs.train, ["backbone"]),
        (verbs.fetch, ["model"]),
        (verbs.pin, []),
        (verbs.tokens, ["backbone"]),
        (verbs.measure, ["question", "backbone?"]),
        (verbs.draw, ["id"]),
        (verbs.report, []),
        (verbs.deliver, []),
        (verbs.ui, []),
    ):
        added = add(verb, verb.__doc__)
        for name in arguments:
            optional = dict(nargs="?", default="") if name.endswith("?") else {}
            added.add_argument(name.rstrip("?"), help=HELP[name.rstrip("?")], **optional)
        if verb in (verbs.train, verbs.tokens, verbs.measure):
            added.add_argument("--threads", type=int, help="CPU threads of this job")
        if verb is verbs.plan:
            added.add_argument("--scale", help="another scale than the settings name")
        if verb is verbs.ui:
            added.add_argument("--port", type=int, default=5000)
    audit.add_arguments(add(audit.run, audit.DESCRIPTION, "audit"))
    return parser


def _version() -> str:
    try:
        return version("registers")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
