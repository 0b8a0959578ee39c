"""`visrep COMMAND key=value`: one line per mistake, one exit code per kind of end.

Exit codes: 0 ok, 1 failure, 2 wrong command or configuration, 3 a check failed, 4 diverged,
130/143 interrupted (SIGINT, SIGTERM), in training after a saved snapshot.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from visrep import signals
from visrep.errors import ConfigError, UserError
from visrep.paths import config_dir, require_links

# command -> (module with `main(cfg)`, what it does)
COMMANDS = {
    "demo": (
        "visrep.tools.chain.demo",
        "run the whole chain on built-in data, with its report",
    ),
    "pretrain": ("visrep.pretrain.train", "learn an encoder from unlabelled images"),
    "convert": ("visrep.convert", "any checkpoint to visrep, Detectron2, torchvision, timm"),
    "knn": ("visrep.transfer.frozen.knn", "k nearest neighbours on frozen features"),
    "linear": ("visrep.transfer.frozen.linear", "linear classifier on frozen features"),
    "svm": ("visrep.transfer.frozen.svm", "linear SVM on frozen features, single-label or VOC07"),
    "low_shot": (
        "visrep.transfer.frozen.low_shot",
        "1 to 16 examples per class, features frozen",
    ),
    "detect": ("visrep.transfer.detection.detect", "finetune a detector and measure its AP"),
    "finetune": ("visrep.distill.finetune", "finetune on a share of the labels, as SimCLR v2 does"),
    "distill": ("visrep.distill.distil", "distil a finetuned teacher into a smaller net"),
    "export": ("visrep.tools.export", "ONNX, checked against torch, with measured latency"),
    "report": ("visrep.tools.report.report", "one self-contained page of all results"),
    "views": ("visrep.tools.views", "a picture of the augmented views"),
    "splits": ("visrep.tools.splits", "write a class-balanced list of labelled images"),
    "exemplar_curve": (
        "visrep.tools.exemplar_curve",
        "Exemplar-CNN's accuracy over the number of classes and of samples",
    ),
    "rehearse": (
        "visrep.tools.chain.rehearse",
        "every method on built-in data, and what each learns",
    ),
    "benchmark": ("visrep.tools.benchmark", "measure speed on this machine"),
    "lint-d2": ("visrep.tools.lint_d2", "the known mistakes in a Detectron2 config"),
    "doctor": ("visrep.tools.doctor", "what is installed here, and what would not work"),
}


# Commands that read better with plain words: `visrep benchmark step`; the keys these stand for.
PLAIN_WORDS = {"benchmark": ("what",), "lint-d2": ("config", "weights")}
# Commands that take Detectron2's settings as its users type them: SOLVER.GAMMA 0.5.
KEY_VALUE = ("detect",)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: the process' own) and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with signals.raised():
            signals.follow_who_started()
            require_links()
            code = _run(arguments)
    except UserError as error:
        print(f"visrep: {error}", file=sys.stderr)
        code = error.exit_code
    except signals.Interrupted as error:
        print("visrep: interrupted" + (f"; {error.note}" if error.note else ""), file=sys.stderr)
        code = error.code
    except BrokenPipeError:
        code = 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from visrep import __version__

        print(f"visrep {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see visrep --help"
        raise ConfigError(f"unknown command {command}: {hint}")
    if command in KEY_VALUE:
        from visrep.d2.typed import translated

        rest = translated(rest)
    flags = [argument for argument in rest if argument.startswith("-")]
    overrides = [argument for argument in rest if not argument.startswith("-")]
    for place, key in enumerate(PLAIN_WORDS.get(command, ())[: len(overrides)]):
        if "=" in overrides[place]:
            break
        overrides[place] = f"{key}={overrides[place]}"
    unknown = set(flags) - {"-h", "--help", "--dry-run", "-m", "--multirun"}
    if unknown:
        raise ConfigError(
            f"unknown option {sorted(unknown)[0]}: settings are key=value; see visrep {command} "
            "--help"
        )
    for argument in overrides:
        if "=" not in argument and not argument.startswith("~"):
            raise ConfigError(
                f"cannot read {argument!r}: settings are key=value; see visrep {command} --help"
            )
    if {"-h", "--help"} & set(flags):
        print(_help(command, overrides))
        return 0
    return _compose_and_run(command, overrides, flags)


def _compose_and_run(command: str, overrides: list[str], flags: list[str]) -> int:
    # Imported late: `visrep --help` and a mistyped command should not wait for anything.
    from omegaconf import DictConfig, OmegaConf

    from visrep import config
    from visrep.data import workers
    from visrep.engine import lock, memory, parallel, run
    from visrep.overrides import first_of

    name = config_name(command)
    sweep = bool({"-m", "--multirun"} & set(flags))
    if not sweep and any(override.startswith("hydra.") for override in overrides):
        raise ConfigError("settings under hydra. are those of a sweep: use them with -m")
    cfg, _ = config.compose(name, [first_of(o) for o in overrides] if sweep else overrides)
    entry = importlib.import_module(COMMANDS[command][0])
    if "--dry-run" in flags:
        resolve = getattr(entry, "resolve", lambda cfg: cfg)
        whole = True
        try:
            cfg = resolve(cfg)
        except UserError as error:  # they are not here: on another machine, perhaps
            print(f"# What the data decide is as typed: {error}")
            whole = False
        print(OmegaConf.to_yaml(cfg, resolve=True), end="")
        if whole and hasattr(entry, "also_shown"):
            print(entry.also_shown(cfg), end="")
        return 0

    def main(cfg: DictConfig, typed: list[str]) -> None:
        run.set_command_line([command, *typed])
        try:
            entry.main(cfg)
        except MemoryError as error:
            raise memory.explained(error) or error from error
        except RuntimeError as error:  # torch's, of memory and other processes: no bugs
            line = memory.explained(error) or workers.explained(error) or parallel.explained(error)
            if line is None:
                raise
            raise line from error
        finally:
            workers.end()
            parallel.leave()
            lock.release()

    config.sweep(name, overrides, main) if sweep else main(cfg, overrides)
    return 0


def config_name(command: str) -> str:
    """The name of the command's yaml."""
    return command.replace("-", "_")


def _overview() -> str:
    lines = ["usage: visrep COMMAND key=value ...", ""]
    lines += [f"  {name:14} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "visrep COMMAND --help    its settings", "visrep COMMAND --dry-run   resolved"]
    return "\n".join(lines)


def _help(command: str, overrides: list[str]) -> str:
    from visrep import config, groups
    from visrep.overrides import parse

    config.use_strangers(parse(overrides))
    text = (config_dir() / f"{config_name(command)}.yaml").read_text(encoding="utf-8").rstrip()
    lines = [f"visrep {command}: {COMMANDS[command][1]}", "", "Settings and their defaults:", ""]
    lines += [f"  {line}" for line in text.splitlines()]
    for group, names in groups.groups_of(config_name(command)).items():
        lines += ["", f"Choices of {group}=:", f"  {' '.join(names)}"]
    lines += [
        "",
        "Parts of your own: plugins=my_module imports it, config_dir=DIR adds its yaml files to",
        "the choices above (with --help, too).",
        "Options: --dry-run prints the resolved configuration; -m runs a sweep (a=1,2).",
    ]
    return "\n".join(lines)
