"""A run in MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say; resumed, it goes on there."""

from __future__ import annotations

from vpt.engine.callbacks.base import Callback, End, Epoch, Start, dotted
from vpt.files import write_text

FILES = ("config.yaml", "plan.json", "splits.json", "metrics.csv", "progress.png", "report.html", "best.safetensors")
STATUS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowRun(Callback):
    needs = "mlflow"

    def on_check(self) -> None:
        import mlflow

        mlflow.search_experiments(max_results=1)

    def on_start(self, start: Start) -> None:
        import mlflow

        own = start.run / "state" / "mlflow_run"
        if own.is_file():
            mlflow.start_run(run_id=own.read_text(encoding="utf-8"), nested=mlflow.active_run() is not None)
            return
        active = mlflow.start_run(run_name=start.run.name, nested=mlflow.active_run() is not None)
        write_text(own, active.info.run_id)
        mlflow.log_params(dotted(start.config))
        mlflow.set_tag("vpt.run", str(start.run.resolve()))

    def on_epoch(self, epoch: Epoch) -> None:
        import mlflow

        mlflow.log_metrics({key: value for key, value in epoch.scores.items() if key != "epoch"}, step=epoch.epoch)
        for name, path in epoch.pictures.items():
            mlflow.log_artifact(str(path), f"previews/{name}")

    def on_end(self, end: End) -> None:
        import mlflow

        if end.outcome == "done":
            for path in (end.run / name for name in FILES):
                if path.is_file():
                    mlflow.log_artifact(str(path))
        mlflow.end_run(STATUS[end.outcome])
