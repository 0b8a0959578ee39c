"""A run: one folder, one device, one log."""

import logging
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from visrep import __version__, dist, files, results
from visrep.engine import continuing, known_data, lock, logs, parallel
from visrep.engine.known_data import KnownData
from visrep.engine.writers import Console, JsonLines, TensorBoard, Writer
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")


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
        data: what it trains on, see `know_data`.
        changed: they are others than those it was begun on, as `resume_data=changed` allows.
    """

    out: Path
    device: torch.device
    seed: int
    config: dict[str, Any]
    command: str
    log: logging.Logger = field(default=log)
    begun: dict[str, Any] | None = None
    computed: Sequence[str] = ()
    data: KnownData | None = None
    changed: bool = False

    def settle(self, cfg: DictConfig) -> None:
        """State what runs: `cfg`, with the values that nulls stood for, here and in `config.yaml`.

        Raises ConfigError when the run that is gone on with had other values.
        """
        settled = plain_config(cfg)
        if self.begun is not None:
            continuing.require_same(
                self.out,
                self.begun,
                self.config,
                settled,
                but=self.computed if self.changed else (),
                data_known=self.data is not None,
            )
        self.config = settled
        if dist.is_main():
            _write_config(self.out, settled)

    def know_data(self, data: dict[str, Any], *, fixed: str = "", classes: bool = True) -> None:
        """State what the run trains on: a record of `visrep.data.identity`.

        Args:
            fixed: why it can never go on with other data; "" where `resume_data=changed` lets it.
            classes: has the net an output for each class?

        Raises:
            ConfigError: the run that is gone on with was begun on other data.
        """
        word = str(self.config.get("resume_data", "same"))
        self.data = KnownData(data, word=word, fixed=fixed, classes_matter=classes)
        if dist.is_main():
            begun = self.begun is not None
            self.changed = known_data.compare_and_keep(self.out, self.data, begun=begun)
        dist.barrier()

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
        """Append one measured number to `results.jsonl` (main process only), once for all tries."""
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
        path = self.out / "results.jsonl"
        if self.begun is None or not results.holds(path, record):
            results.append(path, record)

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


def open_run(cfg: DictConfig, *, computed: Sequence[str] = (), fixed_shapes: bool = True) -> Run:
    """Make the folder `cfg.out`, set device and threads, start the log.

    A folder that holds something is refused unless `resume=auto|must` or `overwrite=true`, where
    the command knows these keys. `config.yaml`, `env.txt` and `log.txt` are written.

    Args:
        computed: dotted keys whose null stands for a value that the command finds out and states
            with `Run.settle`.
        fixed_shapes: inputs are of one size, for which cuDNN looks for its fastest kernels once;
            it would look anew for every other size.

    Raises:
        ConfigError: the folder is not empty; another command works in it; `resume=must` finds none;
            or the run to be resumed had another configuration (the message names the keys).
        UserError: the folder cannot be written to, or its `config.yaml` not read.
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
        torch.backends.cudnn.benchmark = fixed_shapes
        torch.set_float32_matmul_precision("high")
    begun = _claim(out, plain) if dist.is_main() else None
    if begun is not None:
        unknown_yet = [key for key in computed if OmegaConf.select(cfg, key) is None]
        known = known_data.read(out / known_data.FILE) is not None
        continuing.require_same(out, begun, plain, but=unknown_yet, data_known=known)
    dist.barrier()
    logs.start(out)
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
        computed=computed,
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
    try:
        filled = _holds_something(out)
        if resume == "must" and not (out / "config.yaml").exists():
            raise ConfigError(
                f"resume=must: there is no run in {out}; use resume=auto to start one"
            )
        if filled and config.get("overwrite"):
            _require_run(out)
        elif filled and resume == "auto":
            continuing.require_settings(out)
        elif filled and resume == "never":
            known = " or resume=auto to continue it" if "resume" in config else ""
            raise ConfigError(
                f"{out} is not empty: choose another out=, overwrite=true to replace it{known}"
            )
        lock.hold(out)
        if filled and config.get("overwrite"):
            _clear(out)
            return None
    except OSError as error:
        raise UserError(
            f"out={out}: {error.strerror or error}; choose a folder that can be written to"
        ) from error
    if filled:
        _require_whole(out)
    return continuing.begun(out) if filled else None


def _holds_something(out: Path) -> bool:
    """What a run writes before its first result is no reason to refuse the folder to the next."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file: choose a folder")
    early = ("config.yaml", "env.txt", "log.txt", "encoder.json", known_data.FILE, lock.NAME)
    return out.is_dir() and any(
        entry.name not in early and not files.is_temporary(entry) for entry in out.iterdir()
    )


def _require_whole(out: Path) -> None:
    """What a run that goes on would meet only at its end is told at its beginning."""
    snapshots, kept = out / "snapshots", out / "results.jsonl"
    if snapshots.exists() and not snapshots.is_dir():
        raise UserError(f"{snapshots} is a file, where snapshots should be kept: move it away")
    if kept.exists():
        results.read(kept)


def _require_run(out: Path) -> None:
    """A folder that holds something else than a run of ours is not ours to empty."""
    if not (out / "config.yaml").exists():
        raise ConfigError(
            f"overwrite=true: {out} holds no run of visrep (no config.yaml), so it is left alone; "
            "choose another out="
        )


def _clear(out: Path) -> None:
    """Remove what a run of ours leaves, but for the lock that we hold."""
    import shutil

    for entry in out.iterdir():
        if entry.name != lock.NAME:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


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
