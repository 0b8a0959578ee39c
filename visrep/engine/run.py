"""A run: one folder, one device, one log."""

import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from visrep import __version__, dist, files, renamed, results
from visrep.engine import parallel
from visrep.engine.writers import Console, JsonLines, TensorBoard, Writer
from visrep.errors import ConfigError

log = logging.getLogger("visrep")


# What may differ between a run and its continuation.
VOLATILE = (
    *("resume", "overwrite", "device", "threads", "workers", "log_every", "health"),
    "published",  # what a paper says is no setting
)


@dataclass
class Run:
    """An open run folder.

    Attributes:
        out: the folder.
        device: where tensors live.
        seed: the run's seed.
        config: the resolved configuration, plain types.
        command: the command line, as typed.
        log: the logger; its lines go to the console and `log.txt`.
        begun: the configuration in the folder, when a run is gone on with (main process only).
    """

    out: Path
    device: torch.device
    seed: int
    config: dict[str, Any]
    command: str
    log: logging.Logger = field(default=log)
    begun: dict[str, Any] | None = None

    def settle(self, cfg: DictConfig) -> None:
        """State what runs: `cfg`, with the values that nulls stood for, here and in `config.yaml`.

        Raises ConfigError when the run that is gone on with had other values.
        """
        settled = plain_config(cfg)
        if self.begun is not None:
            _require_same(self.out, self.begun, self.config, settled)
        self.config = settled
        if dist.is_main():
            _write_config(self.out, settled)

    def writers(self, *, total: int, label: str) -> list[Writer]:
        """Console, `metrics.jsonl` and TensorBoard; none on other processes than the first."""
        if not dist.is_main():
            return []
        return [
            Console(total=total, label=label),
            JsonLines(self.out / "metrics.jsonl"),
            TensorBoard(self.out),
        ]

    def record(
        self,
        *,
        task: str,
        dataset: str,
        metric: str,
        value: float,
        weights: str,
        init: str = "pretrained",
        engine: str = "visrep",
        **extra: Any,
    ) -> None:
        """Append one measured number to `results.jsonl` (main process only)."""
        if not dist.is_main():
            return
        record = results.Record(
            task=task,
            dataset=dataset,
            metric=metric,
            value=float(value),
            weights=weights,
            init=init,
            command=self.command,
            config=self.config,
            engine=engine,
            seed=self.seed,
            extra=extra,
        )
        results.append(self.out / "results.jsonl", record)

    def record_all(
        self,
        found: Mapping[str, float],
        *,
        task: str,
        dataset: str,
        of: str,
        note: str = "",
        **about: Any,
    ) -> None:
        """Log and `record` measured percentages, metric -> value; `of` says of what in the log."""
        for metric, value in found.items():
            self.log.info("%s %s of %s on %s%s: %.2f %%", task, metric, of, dataset, note, value)
            self.record(task=task, dataset=dataset, metric=metric, value=value, **about)


def open_run(cfg: DictConfig, *, computed: Sequence[str] = ()) -> Run:
    """Make the folder `cfg.out`, set device and threads, start the log.

    A folder that holds something is refused unless `resume=auto|must` or `overwrite=true`, where
    the command knows these keys. `config.yaml`, `env.txt` and `log.txt` are written.

    Args:
        computed: dotted keys whose null stands for a value that the command finds out and states
            with `Run.settle`.

    Raises:
        ConfigError: the folder is not empty; `resume=must` finds none; or the run to be resumed
            had another configuration (the message names the keys).
    """
    plain = plain_config(cfg)
    out = Path(str(plain["out"]))
    if plain.get("threads"):
        torch.set_num_threads(int(plain["threads"]))
    device = parallel.join(str(plain.get("device", "auto")))
    if plain.get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    begun = _claim(out, plain) if dist.is_main() else None
    if begun is not None:
        unknown_yet = [key for key in computed if OmegaConf.select(cfg, key) is None]
        _require_same(out, begun, plain, but=unknown_yet)
    dist.barrier()
    _start_log(out)
    if dist.is_main():
        _write_config(out, plain)
        files.write_text(out / "env.txt", environment())
        log.info("%s", command_line())
    return Run(
        out=out,
        device=device,
        seed=int(plain.get("seed", 0)),
        config=plain,
        command=command_line(),
        begun=begun,
    )


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` resolved, in plain types."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _write_config(out: Path, config: dict[str, Any]) -> None:
    files.write_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def _claim(out: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Make sure that the folder is ours to fill; the configuration of a run to go on with."""
    resume = config.get("resume", "never")
    if resume not in ("never", "auto", "must"):
        raise ConfigError(f"resume={resume}: choose never, auto or must")
    # What a run writes before its first result is no reason to refuse the folder to the next try.
    filled = out.is_dir() and any(
        entry.name not in ("config.yaml", "env.txt", "log.txt") for entry in out.iterdir()
    )
    if resume == "must" and not (out / "config.yaml").exists():
        raise ConfigError(f"resume=must: there is no run in {out}; use resume=auto to start one")
    if not filled:
        out.mkdir(parents=True, exist_ok=True)
    elif config.get("overwrite"):
        _clear(out)
    elif resume == "never":
        known = " or resume=auto to continue it" if "resume" in config else ""
        raise ConfigError(
            f"{out} is not empty: choose another out=, overwrite=true to replace it{known}"
        )
    elif (out / "config.yaml").exists():
        text = (out / "config.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(
            re.sub(r"(?<=_target_: )\S+", lambda m: renamed.module(m[0]) or m[0], text)
        )
    return None


def _clear(out: Path) -> None:
    """Remove what a run of ours leaves; a folder that holds something else is not ours to empty."""
    import shutil

    if not (out / "config.yaml").exists():
        raise ConfigError(
            f"overwrite=true: {out} holds no run of visrep (no config.yaml), so it is left alone; "
            "choose another out="
        )
    for entry in out.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _require_same(out: Path, begun: object, *configs: object, but: Iterable[str] = ()) -> None:
    """Raise ConfigError unless every setting of `begun` is that of one of `configs`.

    There are two where nulls became values: the run may have been begun before they did.
    """
    differing = [set(_differences(begun, config)) for config in configs]
    changed = set.intersection(*differing).difference(but)
    if changed:
        raise ConfigError(
            f"{out} was begun with another configuration ({', '.join(sorted(changed))}): give the "
            "same values, or choose another out="
        )


def _differences(before: object, now: object, prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings that differ; one that is not there is null or empty."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {*before, *now}:
            if prefix or key not in VOLATILE:
                yield from _differences(before.get(key), now.get(key), f"{prefix}{key}.")
    elif before != now and any(value not in (None, [], {}) for value in (before, now)):
        yield prefix.rstrip(".")


def _start_log(out: Path) -> None:
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    if not dist.is_main():
        out = out / f"log.rank{dist.rank()}.txt"
    else:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
        out = out / "log.txt"
    to_file = logging.FileHandler(out, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(to_file)


_arguments: list[str] = []


def set_command_line(arguments: Sequence[str]) -> None:
    """Remember what the user typed after `visrep`, for records and logs."""
    _arguments[:] = list(arguments)


def command_line() -> str:
    """The command as the user typed it."""
    return shlex.join(["visrep", *_arguments])


def environment() -> str:
    """Versions and hardware, one per line."""
    import torchvision

    lines = [
        f"visrep {__version__}",
        f"python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"torchvision {torchvision.__version__}",
        f"platform {platform.platform()}",
        f"cpu {torch.get_num_threads()} threads of {os.cpu_count()} cores",
        f"processes {dist.world_size()}",
    ]
    if torch.cuda.is_available():
        lines.append(f"gpu {torch.cuda.get_device_name()} cuda {torch.version.cuda}")
    return "\n".join(lines) + "\n"
