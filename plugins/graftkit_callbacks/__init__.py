"""The built-in callbacks: runs told to TensorBoard, Weights & Biases and MLflow. Each follows runs that name it."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_callbacks() -> list[Provider]:
    """Offers what tells programs of experiments about runs."""
    return [
        Provider(
            name="tensorboard",
            target="graftkit_callbacks.tensorboard:TensorBoard",
            config="graftkit_callbacks.config:TensorBoardConfig",
            requires=("tensorboardX",),
            install_hint="Install it: pip install 'graftkit[tensorboard]'",
            summary="a run's figures as TensorBoard's events, in the run's folder",
        ),
        Provider(
            name="wandb",
            target="graftkit_callbacks.wandb_run:WandbRun",
            config="graftkit_callbacks.config:WandbConfig",
            requires=("wandb",),
            install_hint="Install it: pip install 'graftkit[wandb]'",
            summary="a run's recipe and figures as a run of Weights & Biases",
        ),
        Provider(
            name="mlflow",
            target="graftkit_callbacks.mlflow_run:MlflowRun",
            config="graftkit_callbacks.config:MlflowConfig",
            requires=("mlflow",),
            install_hint="Install it: pip install 'graftkit[mlflow]'",
            summary="a run's recipe and figures as a run of MLflow",
        ),
    ]
