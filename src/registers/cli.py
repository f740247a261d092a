"""The `registers` command: the verbs that Snakemake's rules call, and some for people alone."""

import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from registers import run_lock, verbs
from registers.arguments import HELP, IDS, completions, listing
from registers.audit import command as audit
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

TRACEBACK = "REGISTERS_TRACEBACK"
SHELLS = ("bash", "zsh", "fish", "tcsh")
HOW_TO_TRACE = f"(set {TRACEBACK}=1 to see the traceback, of snakemake's jobs as well)"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if getattr(options, "threads", None):  # before torch and numpy read it
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    try:
        if options.verb in (audit.run, completion):  # they need no settings
            return options.verb(options)
        run_lock.join()
        scale = getattr(options, "scale", None)
        options.verb(load_settings(_params(options.params), scale), options)
    except BrokenPipeError:  # whoever read our output has left
        return 1
    except (ConfigError, ValueError, RuntimeError, OSError) as error:
        if os.environ.get(TRACEBACK):
            raise
        if isinstance(error, ConfigError):
            print(f"registers: {error}", file=sys.stderr)
        else:  # perhaps no mistake of the user's
            print(f"registers: {type(error).__name__}: {error}", file=sys.stderr)
            print(HOW_TO_TRACE, file=sys.stderr)
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


def completion(options: argparse.Namespace) -> int:
    """Print a shell's completion script: verbs, ids, figures and questions.

    eval "$(registers completion bash)"        (in ~/.bashrc, say)
    """
    import shtab

    print(shtab.complete(_parser(completed=True), options.shell))
    return 0


class _VerbParser(argparse.ArgumentParser):
    """A parser whose help ends with what may stand in the place of its arguments."""

    lists: Callable[[], list[str]] | None = None

    def format_help(self) -> str:
        return "\n".join([super().format_help(), *(self.lists() if self.lists else [])])


def _lists(arguments: list[str]) -> list[str]:
    try:
        params = _params(None)
    except ConfigError:
        params = None  # outside a project
    return [listing(name.rstrip("?"), params) + "\n" for name in arguments]


def _parser(completed: bool = False) -> argparse.ArgumentParser:
    """All verbs. completed: with the words that a shell completes, which takes longer."""
    parser = argparse.ArgumentParser(
        prog="registers",
        description=__doc__,
        epilog="registers VERB --help says more about a verb, with an example. All verbs but audit "
        "and completion need a project's folder, or --params. A failed one prints one line; "
        f"{TRACEBACK}=1 shows where it came from.",
    )
    parser.add_argument("--params", help="settings file (default: params.yaml)")
    parser.add_argument("--version", action="version", version=f"registers {_version()}")
    choices = parser.add_subparsers(required=True, metavar="verb", parser_class=_VerbParser)

    def add(verb, text: str, name: str = "") -> argparse.ArgumentParser:
        """A verb with its help: the first line in the list, all of it in the verb's own."""
        text = inspect.cleandoc(text)
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
            plain = name.rstrip("?")
            action = added.add_argument(plain, help=HELP[plain], **optional)
            if completed:
                _complete(action, plain)
        added.lists = partial(_lists, arguments) if arguments else None
        if verb is verbs.check:
            added.add_argument("--ids", action="store_true", help="the backbones' ids, one a line")
        if verb in (verbs.train, verbs.tokens, verbs.measure):
            added.add_argument("--threads", type=_from_one, help="CPU threads of this job")
        if verb is verbs.train:
            added.add_argument("--again", action="store_true", help="in place of what is trained")
        if verb is verbs.plan:
            added.add_argument("--scale", help="another scale than the settings name")
        if verb is verbs.ui:
            added.add_argument("--port", type=_port, default=5000, help="(default: 5000)")
    audit.add_arguments(add(audit.run, audit.DESCRIPTION, "audit"))
    add(completion, completion.__doc__).add_argument("shell", choices=SHELLS)
    return parser


def _from_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not allowed; must be at least 1")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not allowed; must be from 1 to 65535")
    return number


_from_one.__name__ = _port.__name__ = "integer"  # "invalid integer value: 'x'"


def _complete(action: argparse.Action, argument: str) -> None:
    import shtab

    words = completions(argument)
    action.complete = shtab.cmd(f"echo {' '.join(words)}" if words else f"{IDS} 2>/dev/null")


def _version() -> str:
    try:
        return version("registers")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
