"""Optional experiment trackers (TensorBoard, Weights & Biases, ...), through those of accelerate. Off by default."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.storage.records import Record


@contextmanager
def tracker(config: Mapping[str, Any], run: str) -> Iterator[Callable[[Record], None]]:
    """Inside the context, get a function that logs a finished record's metrics to the tracker that ``config["tracker"]``
    names."""
    if not config["tracker"]:
        yield lambda record: None
        return
    from accelerate import Accelerator

    try:
        accelerator = Accelerator(log_with=config["tracker"], project_dir=str(Path(config["runs"]) / "tracker"))
        accelerator.init_trackers(run.replace(" ", "_"))
    except (ValueError, ImportError) as error:
        raise UsageError(f"tracker={config['tracker']} cannot be used ({error}); install it or leave tracker out") from None
    logged = 0

    def log(record: Record) -> None:
        nonlocal logged
        if record.result:
            control = f"/{record.identity.control}" if record.identity.control else ""
            values = {
                f"{split}{control}/{name}": value
                for split in ("val", "test")
                for name, value in getattr(record.result, split).items()
            }
            densities = {f"density{control}/{b}": k.kept / k.total for b, k in record.budgets.items()}
            accelerator.log({**values, **densities}, step=logged)
        logged += 1

    try:
        yield log
    finally:
        accelerator.end_training()
